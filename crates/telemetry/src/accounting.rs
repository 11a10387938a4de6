//! Which requests have the cost of their policies measured.
//!
//! Reading a clock around every policy would cost more than most policies do. One request in
//! [`Sampler::EVERY`] is measured; a policy that waited is measured always, since its cost is large
//! beside the clock's. What was measured goes to
//! [`PolicySeries::observe`](crate::metrics::PolicySeries::observe).

/// Says for each request of one worker whether it is measured.
#[derive(Clone, Debug)]
pub struct Sampler {
    count: u32,
}

impl Sampler {
    pub const EVERY: u32 = 128;

    /// `seed` shifts the measured ones, so that workers do not all measure the same of a pattern.
    #[must_use]
    pub const fn new(seed: u32) -> Self {
        Self { count: seed }
    }

    /// To be asked once a request.
    #[must_use]
    pub const fn is_due(&mut self) -> bool {
        self.count = self.count.wrapping_add(1);
        self.count.is_multiple_of(Self::EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_128_is_measured() {
        let mut sampler = Sampler::new(u32::MAX - 300);
        assert_eq!((0..1_280).filter(|_| sampler.is_due()).count(), 10);
    }
}
