//! Deadlines by a coarse sweep: a cell per task instead of a timer per wait.
//!
//! A task says until when it is willing to wait and for what. The worker's sweep, ten times a
//! second, wakes those whose time has come; the task finds out at its next [`Deadline::check`].

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use portcullis_telemetry::metrics::DeadlineKind;

/// How often deadlines are looked at; a deadline is kept within this.
pub(crate) const SWEEP: Duration = Duration::from_millis(100);

/// What a task is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Handshake,
    Head,
    Idle,
    RequestBody,
    /// For one's turn at a bulkhead.
    Queue,
    Connect,
    ResponseHead,
    /// For the head of the answer to one of several tries.
    Try,
    ResponseBody,
    /// For the end of the whole exchange.
    Total,
    /// For the backend's word on `Expect: 100-continue`.
    Continue,
    /// For either side of an upgraded connection.
    Tunnel,
    /// For the end that an upgraded connection has in any case.
    TunnelLife,
    /// For a mirror's answer.
    Mirror,
    Linger,
    /// For the end of the gateway.
    Shutdown,
}

impl Wait {
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Head => "head",
            Self::Idle => "idle",
            Self::RequestBody => "request body",
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::ResponseHead => "response head",
            Self::Try => "try",
            Self::ResponseBody => "response body",
            Self::Total => "total",
            Self::Continue => "continue",
            Self::Tunnel => "upgrade idle",
            Self::TunnelLife => "upgrade lifetime",
            Self::Mirror => "mirror",
            Self::Linger => "linger",
            Self::Shutdown => "shutdown",
        }
    }

    pub(crate) const fn kind(self) -> DeadlineKind {
        match self {
            Self::Handshake => DeadlineKind::Handshake,
            Self::Head => DeadlineKind::Head,
            Self::Idle => DeadlineKind::KeepAlive,
            Self::RequestBody => DeadlineKind::Body,
            Self::Queue => DeadlineKind::Queue,
            Self::Connect => DeadlineKind::Connect,
            Self::ResponseHead | Self::Try => DeadlineKind::Response,
            Self::ResponseBody => DeadlineKind::StreamIdle,
            Self::Continue => DeadlineKind::Continue,
            Self::Tunnel => DeadlineKind::UpgradeIdle,
            Self::TunnelLife => DeadlineKind::UpgradeLifetime,
            Self::Total => DeadlineKind::Total,
            Self::Mirror => DeadlineKind::Mirror,
            // The end of the gateway is nobody's fault and is not counted.
            Self::Linger | Self::Shutdown => DeadlineKind::Linger,
        }
    }
}

/// The deadline of one task. `Duration` is that of the clock's monotonic half.
#[derive(Debug)]
pub(crate) struct Deadline {
    at: Cell<Duration>,
    /// No wait goes on beyond this: the end of the whole exchange.
    ceiling: Cell<Duration>,
    /// What the ceiling is the end of.
    ceiling_wait: Cell<Wait>,
    wait: Cell<Wait>,
    expired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The time is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expired(pub(crate) Wait);

impl Deadline {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            at: Cell::new(Duration::MAX),
            ceiling: Cell::new(Duration::MAX),
            ceiling_wait: Cell::new(Wait::Total),
            wait: Cell::new(Wait::Head),
            expired: Cell::new(false),
            waker: RefCell::new(None),
        })
    }

    pub(crate) fn set(&self, wait: Wait, at: Duration) {
        let ceiling = self.ceiling.get();
        self.at.set(at.min(ceiling));
        self.wait.set(if at > ceiling { self.ceiling_wait.get() } else { wait });
        self.expired.set(false);
    }

    /// Bounds every wait from now on, until it is lifted. Where it cuts one short it counts as
    /// `wait`.
    pub(crate) fn set_ceiling(&self, wait: Wait, ceiling: Duration) {
        self.ceiling.set(ceiling);
        self.ceiling_wait.set(wait);
    }

    /// The end of the whole exchange.
    pub(crate) fn ceiling(&self) -> Duration {
        self.ceiling.get()
    }

    pub(crate) fn lift_ceiling(&self) {
        self.ceiling.set(Duration::MAX);
    }

    pub(crate) fn waits_for(&self) -> Wait {
        self.wait.get()
    }

    /// To be called in every poll that may return pending, before it does.
    pub(crate) fn check(&self, cx: &Context<'_>) -> Result<(), Expired> {
        if self.expired.get() {
            return Err(Expired(self.wait.get()));
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Ok(())
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// All deadlines of a worker.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    list: RefCell<Vec<Weak<Deadline>>>,
}

impl Deadlines {
    pub(crate) fn add(&self) -> Rc<Deadline> {
        let deadline = Deadline::new();
        self.list.borrow_mut().push(Rc::downgrade(&deadline));
        deadline
    }

    /// Wakes the tasks whose time is over and forgets those that have ended.
    pub(crate) fn sweep(&self, now: Duration, mut expired: impl FnMut(Wait)) {
        self.list.borrow_mut().retain(|weak| {
            let Some(deadline) = weak.upgrade() else { return false };
            if deadline.at.get() <= now && !deadline.expired.replace(true) {
                expired(deadline.wait.get());
                deadline.wake();
            }
            true
        });
    }

    /// The time of everybody is over, since that of the gateway is.
    pub(crate) fn expire_all(&self) {
        for deadline in self.list.borrow().iter().filter_map(Weak::upgrade) {
            deadline.wait.set(Wait::Shutdown);
            deadline.expired.set(true);
            deadline.wake();
        }
    }

    /// Wakes everybody, so that idle connections notice a drain.
    pub(crate) fn wake_all(&self) {
        for deadline in self.list.borrow().iter().filter_map(Weak::upgrade) {
            deadline.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_goes_beyond_the_ceiling() {
        let deadlines = Deadlines::default();
        let deadline = deadlines.add();
        let expired = |s| {
            let mut seen = 0;
            deadlines.sweep(Duration::from_secs(s), |_| seen += 1);
            seen
        };
        deadline.set_ceiling(Wait::Total, Duration::from_secs(5));
        deadline.set(Wait::ResponseBody, Duration::from_secs(9));
        assert_eq!((expired(4), expired(5)), (0, 1));
        assert_eq!(deadline.waits_for(), Wait::Total);
        deadline.lift_ceiling();
        deadline.set(Wait::Idle, Duration::from_secs(9));
        assert_eq!((expired(8), expired(9)), (0, 1));
    }

    #[test]
    fn a_deadline_expires_once_and_can_be_set_again() {
        let deadlines = Deadlines::default();
        let deadline = deadlines.add();
        let cx = Context::from_waker(Waker::noop());
        deadline.set(Wait::Head, Duration::from_secs(3));
        let sweep = |s| {
            let mut seen = Vec::new();
            deadlines.sweep(Duration::from_secs(s), |wait| seen.push(wait));
            seen
        };
        assert_eq!(sweep(2), []);
        assert!(deadline.check(&cx).is_ok());
        assert_eq!(sweep(3), [Wait::Head]);
        assert_eq!(sweep(4), []);
        assert!(matches!(deadline.check(&cx), Err(Expired(Wait::Head))));
        deadline.set(Wait::Idle, Duration::from_secs(9));
        assert!(deadline.check(&cx).is_ok());
    }
}
