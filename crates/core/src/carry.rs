//! What outlives a reload: key sets, remembered tokens, session tickets, health.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

type Kept = Arc<dyn Any + Send + Sync>;

/// State handed from one snapshot to the next, keyed by kind, name and the settings that matter.
///
/// A new snapshot's compile takes what it asks for; what nobody asked for goes when the
/// generation ends. A compile that fails ends nothing: use a [`Clone`] for each attempt.
#[derive(Clone, Default)]
pub struct Carry {
    before: HashMap<(&'static str, String, u64), Kept>,
    now: HashMap<(&'static str, String, u64), Kept>,
}

impl Carry {
    /// The state under this key, from this compile or the one before, else a new one.
    ///
    /// `settings` is whatever makes old state meaningless when it changes.
    pub fn keep<T: Send + Sync + 'static>(
        &mut self,
        kind: &'static str,
        name: &str,
        settings: &impl Hash,
        new: impl FnOnce() -> T,
    ) -> Arc<T> {
        let mut hasher = DefaultHasher::new();
        settings.hash(&mut hasher);
        let key = (kind, name.to_owned(), hasher.finish());
        let old = self.now.get(&key).or_else(|| self.before.get(&key)).cloned();
        let kept =
            old.and_then(|kept| kept.downcast::<T>().ok()).unwrap_or_else(|| Arc::new(new()));
        self.now.insert(key, Arc::clone(&kept) as Kept);
        kept
    }

    /// Called when the compiled snapshot is the one that serves.
    #[must_use]
    pub fn next_generation(self) -> Self {
        Self { before: self.now, now: HashMap::new() }
    }
}

impl fmt::Debug for Carry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carry({} before, {} now)", self.before.len(), self.now.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_lives_as_long_as_its_settings() {
        let mut carry = Carry::default();
        let first = carry.keep("keys", "idp", &"https://a", || 1);
        let mut carry = carry.next_generation();
        let same = carry.keep("keys", "idp", &"https://a", || 2);
        let other = carry.keep("keys", "idp", &"https://b", || 3);
        assert_eq!((*first, *same, *other), (1, 1, 3));
        let mut carry = carry.next_generation().next_generation();
        assert_eq!(*carry.keep("keys", "idp", &"https://a", || 4), 4);
    }
}
