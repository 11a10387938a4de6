//! Waiting to the microsecond: the runtime's own timers are of whole milliseconds.

use std::fs::File;
use std::io;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

/// More than the eight bytes that a timer gives, so that each read is a short one and the runtime
/// knows without another that nothing is left.
const READ_BYTES: usize = 16;

/// A timer of the kernel (`timerfd_create(2)`), which is waited for and read as a pipe is.
pub(crate) struct Timer(Receiver);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        Receiver::from_file_unchecked(File::from(timer)).map(Self)
    }

    /// Returns at once if that is over.
    pub(crate) async fn until(&mut self, due: Instant) -> io::Result<()> {
        let wait = due.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let it_value = Timespec::try_from(wait).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        self.0.read(&mut [0; READ_BYTES]).await.map(drop)
    }
}
