//! What one core has for itself: buffers, free lists, connections to backends, its half of the log.
//!
//! Everything here is used by one thread. What workers share is in [`crate::gateway`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use portcullis_core::exchange::Connection;
use portcullis_core::{Fields, Known};
use portcullis_telemetry::accounting::Sampler;
use portcullis_telemetry::log::WorkerLog;
use portcullis_telemetry::metrics::WorkerMetrics;
use portcullis_telemetry::request_id;
use portcullis_telemetry::trace::{self, Randomness};
use tokio::sync::{mpsc, watch};

use crate::addresses::Seat;
use crate::buffer::Buffers;
use crate::clock::Clock;
use crate::connect::Connector;
use crate::deadline::{Deadlines, SWEEP};
use crate::desk::Desk;
use crate::gateway::{Active, Shared};
use crate::h1::{self, Job};
use crate::h2::{self, StreamJob};
use crate::listener::{self, Place};
use crate::mirror::Mirrors;
use crate::overload::{self, Turn};
use crate::pool::Pool;
use crate::prepare;
use crate::services::fill_random;
use crate::slot::Slot;
use crate::socket::Detached;

/// Free slots and desks a worker keeps.
const FREE_MAX: usize = 256;
/// Turns of the loop that tasks have to end in when the gateway does: each takes a few.
const CUT_TURNS_MAX: usize = 100;
/// Between two looks at idle connections to backends.
const POOL_SWEEP: Duration = Duration::from_secs(1);

/// A listener and the task that accepts on it.
type Accepting = (Rc<Place>, tokio::task::AbortHandle);

/// A connection that another worker accepted.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) socket: Detached,
    pub(crate) peer: SocketAddr,
    pub(crate) listener: Arc<str>,
    pub(crate) seat: Option<Seat>,
}

pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) buffers: Buffers,
    pub(crate) deadlines: Deadlines,
    pub(crate) connector: Connector,
    pub(crate) pool: Pool,
    pub(crate) mirrors: Mirrors,
    pub(crate) metrics: WorkerMetrics,
    log: Option<RefCell<WorkerLog>>,
    /// The time of the last sweep; good enough for deadlines.
    coarse: Cell<Duration>,
    active: RefCell<Rc<Arc<Active>>>,
    /// Whether there is something newer, and what.
    newest: RefCell<watch::Receiver<Arc<Active>>>,
    pub(crate) places: RefCell<HashMap<Arc<str>, Accepting>>,
    slots: RefCell<Vec<Box<Slot>>>,
    desks: RefCell<Vec<Desk<Job>>>,
    stream_desks: RefCell<Vec<Desk<Option<StreamJob>>>>,
    random: Cell<u64>,
    /// The second that was written last, and how.
    date: RefCell<(u64, String)>,
    sampler: RefCell<Sampler>,
    draining: Cell<bool>,
}

impl Worker {
    /// Runs a worker on this thread until the gateway stops.
    pub(crate) fn run(
        index: usize,
        shared: Arc<Shared>,
        metrics: WorkerMetrics,
        handed: mpsc::Receiver<Handed>,
        mut stop: watch::Receiver<bool>,
    ) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(16)
            .build_local(tokio::runtime::LocalOptions::default())?;
        runtime.block_on(async move {
            let active = shared.active.subscribe();
            let worker = Rc::new(Self::new(index, shared, metrics, active.clone()));
            worker.adopt();
            tokio::task::spawn_local(adopt_each(Rc::clone(&worker), active));
            tokio::task::spawn_local(take_each(Rc::clone(&worker), handed));
            tokio::task::spawn_local(sweep(Rc::clone(&worker)));
            tokio::task::spawn_local(drain(Rc::clone(&worker)));
            if index == 0 {
                tokio::task::spawn_local(crate::probe::run(Rc::clone(&worker)));
                tokio::task::spawn_local(crate::judge::run(Rc::clone(&worker)));
                tokio::task::spawn_local(crate::analysis::run(Rc::clone(&worker)));
            }
            // An error means that the gateway is gone, which is reason enough to stop.
            let _stopped = stop.wait_for(|stop| *stop).await.is_ok();
            worker.cut().await;
            // Desks hold the worker and the worker holds them: without this it would outlive its
            // thread, and so would its end of the access log, which has lines until it is dropped.
            worker.desks.borrow_mut().clear();
            worker.stream_desks.borrow_mut().clear();
        });
        Ok(())
    }

    fn new(
        index: usize,
        shared: Arc<Shared>,
        metrics: WorkerMetrics,
        mut newest: watch::Receiver<Arc<Active>>,
    ) -> Self {
        let active = Arc::clone(&newest.borrow_and_update());
        let mut seed = [0; 8];
        fill_random(&mut seed);
        let now = shared.world.clock().mono();
        let log = shared.log().as_ref().map(|log| RefCell::new(log.worker()));
        let connector = Connector::new(shared.world.clock().clone());
        Self {
            index,
            log,
            shared,
            metrics,
            buffers: Buffers::default(),
            deadlines: Deadlines::default(),
            connector,
            pool: Pool::default(),
            mirrors: Mirrors::default(),
            coarse: Cell::new(now),
            active: RefCell::new(Rc::new(active)),
            newest: RefCell::new(newest),
            places: RefCell::default(),
            slots: RefCell::default(),
            desks: RefCell::default(),
            stream_desks: RefCell::default(),
            random: Cell::new(u64::from_le_bytes(seed)),
            date: RefCell::default(),
            sampler: RefCell::new(Sampler::new(u32::from(seed[0]))),
            draining: Cell::new(false),
        }
    }

    /// The time of the last sweep, at most [`SWEEP`] ago.
    pub(crate) fn coarse_now(&self) -> Duration {
        self.coarse.get()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// The configuration that serves now.
    pub(crate) fn active(&self) -> Rc<Arc<Active>> {
        Rc::clone(&self.active.borrow())
    }

    pub(crate) fn log(&self) -> Option<&RefCell<WorkerLog>> {
        self.log.as_ref()
    }

    /// Whether the cost of policies is measured for the request that begins.
    pub(crate) fn is_measured(&self) -> bool {
        self.sampler.borrow_mut().is_due()
    }

    /// Tells the metrics what the pool holds; requests under way are everybody's, and told by one.
    fn count_pool(&self, active: &Active) {
        for (backend, series) in active.snapshot.backends.iter().zip(&active.backends) {
            let set = backend.endpoints.load();
            let endpoints = || set.balancer.members().iter().map(|member| &member.endpoint);
            let idle: usize = endpoints().map(|endpoint| self.pool.idle(endpoint)).sum();
            let flying: u32 = endpoints().map(|endpoint| endpoint.in_flight()).sum();
            let flying = if self.index == 0 { u64::from(flying) } else { 0 };
            series.set_pool(self.metrics.id(), idle as u64, flying);
        }
    }

    /// Uniform over `u64`; not for secrets (SplitMix64).
    pub(crate) fn random(&self) -> u64 {
        let next = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn lease_slot(&self, facts: &Rc<Connection>) -> Box<Slot> {
        let mut slot = self.slots.borrow_mut().pop().unwrap_or_default();
        slot.exchange.connection = Rc::clone(facts);
        slot
    }

    pub(crate) fn give_slot(&self, mut slot: Box<Slot>) {
        let mut free = self.slots.borrow_mut();
        if free.len() < FREE_MAX {
            slot.clear();
            free.push(slot);
        }
    }

    pub(crate) fn lease_desk(self: &Rc<Self>) -> Desk<Job> {
        if let Some(desk) = self.desks.borrow_mut().pop() {
            return desk;
        }
        let worker = Rc::clone(self);
        Desk::new(move |tray| async move {
            loop {
                let mut job = tray.next().await;
                h1::exchange(&worker, &mut job).await;
                tray.done(job);
            }
        })
    }

    pub(crate) fn give_desk(&self, desk: Desk<Job>) {
        let mut free = self.desks.borrow_mut();
        if free.len() < FREE_MAX {
            free.push(desk);
        }
    }

    /// A desk for the exchanges of HTTP/2, which leave nothing behind.
    pub(crate) fn lease_stream_desk(self: &Rc<Self>) -> Desk<Option<StreamJob>> {
        if let Some(desk) = self.stream_desks.borrow_mut().pop() {
            return desk;
        }
        let worker = Rc::clone(self);
        Desk::new(move |tray| async move {
            loop {
                if let Some(job) = tray.next().await {
                    h2::exchange(&worker, job).await;
                }
                tray.done(None);
            }
        })
    }

    pub(crate) fn give_stream_desk(&self, desk: Desk<Option<StreamJob>>) {
        let mut free = self.stream_desks.borrow_mut();
        if free.len() < FREE_MAX {
            free.push(desk);
        }
    }

    /// Adds the field that an answer has to have; the text is made once a second.
    pub(crate) fn append_date(&self, fields: &mut Fields, wall: Duration) {
        let mut date = self.date.borrow_mut();
        if date.0 != wall.as_secs() || date.1.is_empty() {
            *date = (wall.as_secs(), Clock::http_date(wall));
        }
        fields.append_known(Known::Date, date.1.as_bytes());
    }

    /// The head is here: an exchange begins.
    pub(crate) fn begin(&self, slot: &mut Slot, place: &Place) {
        let Slot { exchange, trip, .. } = slot;
        exchange.now = self.shared.world.clock().now();
        trip.begun = exchange.now.mono;
        exchange.random = self.random();
        let listener = place.listener();
        let peer = exchange.connection.peer.ip().to_canonical();
        let trusted = listener.trusts(peer);
        exchange.client_ip = match trusted {
            true => prepare::client_ip(&exchange.request, peer, |ip| listener.trusts(ip)),
            false => peer,
        };
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        let fields = &exchange.request.fields;
        let id = wide(self.random(), self.random());
        exchange.request_id = request_id::choose(fields, trusted, id);
        let trace_id = wide(self.random(), self.random());
        let randomness = Randomness { trace_id, span_id: self.random() };
        exchange.trace = trace::receive(fields, randomness, true);
    }

    /// Ends what is still under way as if it had taken too long: what was sent of an answer does
    /// not look complete, and there is a line in the log.
    async fn cut(&self) {
        self.draining.set(true);
        for _ in 0..CUT_TURNS_MAX {
            if self.shared.loads[self.index].load(Relaxed) == 0 {
                return;
            }
            self.deadlines.expire_all();
            tokio::task::yield_now().await;
        }
    }

    /// Takes over what serves by now, if it is something else than a moment ago. All workers are
    /// told at once, and each would hear of it when it next has nothing to do: meanwhile a client
    /// could be answered by the new configuration, and then by another worker's old one. So
    /// each request looks first.
    pub(crate) fn catch_up(self: &Rc<Self>) {
        // An error says that the gateway is about to end.
        if !self.newest.borrow().has_changed().unwrap_or(false) {
            return;
        }
        let newest = Arc::clone(&self.newest.borrow_mut().borrow_and_update());
        *self.active.borrow_mut() = Rc::new(newest);
        self.adopt();
    }

    /// Opens and closes listeners as the configuration that serves has them.
    fn adopt(self: &Rc<Self>) {
        let active = self.active();
        let snapshot = &active.snapshot;
        let mut places = self.places.borrow_mut();
        let mut gone = false;
        places.retain(|name, (place, accepting)| {
            let stays = snapshot.listeners.iter().any(|new| new.name == *name && place.is_at(new));
            if !stays {
                accepting.abort();
                place.close();
                gone = true;
            }
            stays
        });
        if gone {
            self.deadlines.wake_all();
        }
        for listener in &snapshot.listeners {
            if let Some((place, _)) = places.get(&listener.name) {
                place.update(listener);
                continue;
            }
            let Some(socket) = active.sockets.get(&listener.name) else { continue };
            let series = self.shared.registry.listener(&listener.name);
            let place = Rc::new(Place::new(listener, series));
            match listener::accept(self, &place, socket) {
                Ok(accepting) => {
                    places.insert(Arc::clone(&listener.name), (place, accepting));
                }
                Err(error) => tracing::error!(listener = &*listener.name, %error, "cannot accept"),
            }
        }
    }
}

async fn adopt_each(worker: Rc<Worker>, mut active: watch::Receiver<Arc<Active>>) {
    while active.changed().await.is_ok() {
        worker.catch_up();
    }
}

async fn take_each(worker: Rc<Worker>, mut handed: mpsc::Receiver<Handed>) {
    while let Some(Handed { socket, peer, listener, seat }) = handed.recv().await {
        let place = worker.places.borrow().get(&listener).map(|(place, _)| Rc::clone(place));
        match (place, socket.attach()) {
            (Some(place), Ok(socket)) => listener::start(&worker, &place, socket, peer, seat),
            // The listener went while the connection was on its way.
            _ => drop(worker.shared.loads[worker.index].fetch_sub(1, Relaxed)),
        }
    }
}

async fn sweep(worker: Rc<Worker>) {
    let clock = worker.shared.world.clock().clone();
    let mut pool_due = Duration::ZERO;
    loop {
        let (since, busy) = (clock.mono(), clock.busy());
        clock.sleep(SWEEP).await;
        let now = clock.mono();
        let turn = Turn {
            delay: clock.lateness(since, SWEEP),
            busy: clock.busy().saturating_sub(busy),
            since: now.saturating_sub(since),
        };
        overload::look(&worker, turn);
        worker.coarse.set(now);
        worker.deadlines.sweep(now, |wait| worker.metrics.deadline(wait.kind()));
        worker.pool.wake_all();
        if let Some(log) = &worker.log {
            log.borrow_mut().tick(now);
        }
        if now >= pool_due {
            pool_due = now + POOL_SWEEP;
            let active = worker.active();
            worker.pool.sweep(now, |endpoint| active.idle_timeout(endpoint));
            worker.count_pool(&active);
            if worker.index == 0 {
                worker.shared.expire_overrides(now);
            }
        }
    }
}

async fn drain(worker: Rc<Worker>) {
    let mut drain = worker.shared.drain.subscribe();
    if drain.wait_for(|drain| *drain).await.is_err() {
        return;
    }
    worker.draining.set(true);
    for (_, accepting) in worker.places.borrow().values() {
        accepting.abort();
    }
    worker.deadlines.wake_all();
}
