//! The endpoints that one request has tried already.

use crate::balancer::EndpointIndex;

/// Attempts one request may make, the first included.
pub const ATTEMPTS_MAX: usize = 8;

/// Endpoints that [`crate::Balancer::pick`] must not give again to the same request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    list: [u16; ATTEMPTS_MAX],
    len: u8,
}

impl Tried {
    pub const NONE: Self = Self { list: [0; ATTEMPTS_MAX], len: 0 };

    /// Remembers an endpoint. `false` when no more can be remembered: the request must give up,
    /// since a further pick might repeat this one.
    #[must_use]
    pub fn insert(&mut self, index: EndpointIndex) -> bool {
        if self.contains(index) {
            return true;
        }
        let Some(free) = self.list.get_mut(usize::from(self.len)) else { return false };
        *free = index.0;
        self.len += 1;
        true
    }

    #[must_use]
    pub fn contains(&self, index: EndpointIndex) -> bool {
        self.list[..usize::from(self.len)].contains(&index.0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = EndpointIndex> + '_ {
        self.list[..usize::from(self.len)].iter().map(|index| EndpointIndex(*index))
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}
