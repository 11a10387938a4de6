//! Time as data. Reading a clock is the proxy's business; everybody else is told.

use std::time::Duration;

/// One reading of both clocks, taken when a head was read and after every wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Since the process started; never goes back. For deadlines, limits, durations.
    pub mono: Duration,
    /// Since 1970-01-01T00:00:00Z; may jump. For token expiry and the log.
    pub wall: Duration,
}

impl Now {
    /// Both clocks moved on by `by`.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self { mono: self.mono + by, wall: self.wall + by }
    }
}
