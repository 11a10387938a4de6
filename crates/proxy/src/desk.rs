//! Futures that are leased, not made: a desk does one job after another and keeps its memory.
//!
//! The future of an exchange is some kilobytes. An idle connection must not hold it, and making
//! one for each request would cost an allocation; so a worker keeps a few that wait for work.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

/// Where a job is laid down and picked up again.
pub(crate) struct Tray<J> {
    inbox: Cell<Option<J>>,
    outbox: Cell<Option<J>>,
}

impl<J> Tray<J> {
    /// The next job, for the future behind the desk.
    pub(crate) async fn next(&self) -> J {
        poll_fn(|_| match self.inbox.take() {
            Some(job) => Poll::Ready(job),
            // Whoever lays down a job polls the future afterwards: nobody needs to be woken.
            None => Poll::Pending,
        })
        .await
    }

    pub(crate) fn done(&self, job: J) {
        self.outbox.set(Some(job));
    }
}

/// A future that does jobs `J`, one after another.
pub(crate) struct Desk<J> {
    tray: Rc<Tray<J>>,
    work: Pin<Box<dyn Future<Output = Infallible>>>,
}

impl<J> Desk<J> {
    /// `work` is an endless loop over [`Tray::next`] and [`Tray::done`].
    pub(crate) fn new<F>(work: impl FnOnce(Rc<Tray<J>>) -> F) -> Self
    where
        F: Future<Output = Infallible> + 'static,
    {
        let tray = Rc::new(Tray { inbox: Cell::new(None), outbox: Cell::new(None) });
        let work = Box::pin(work(Rc::clone(&tray)));
        Self { tray, work }
    }

    /// Does one job. A desk whose run was abandoned holds half a job and must not be used again;
    /// dropping it drops the job.
    pub(crate) async fn run(&mut self, job: J) -> J {
        self.tray.inbox.set(Some(job));
        poll_fn(|cx| match self.work.as_mut().poll(cx) {
            Poll::Ready(never) => match never {},
            Poll::Pending => self.tray.outbox.take().map_or(Poll::Pending, Poll::Ready),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_future_does_many_jobs() {
        let mut desk = Desk::new(|tray: Rc<Tray<u32>>| async move {
            loop {
                let job = tray.next().await;
                tokio::task::yield_now().await;
                tray.done(job + 1);
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let seen = runtime.block_on(async { (desk.run(1).await, desk.run(10).await) });
        assert_eq!(seen, (2, 11));
    }
}
