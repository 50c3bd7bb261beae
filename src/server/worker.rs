//! A worker: one thread with one single-threaded runtime, and the connections that live on it.

use super::ahead::Ahead;
use super::connection::Connection;
use super::forwarding;
use super::output::{Reply, Verdict};
use super::socket::{Incoming, Socket};
use crate::base::clock;
use crate::commands::session::Session;
use crate::commands::table;
use crate::engine::log::gate::{Gate, Needed, Party};
use crate::proxy::Proxy;
use crate::services::Services;
use crate::services::clients::Accepted;
use crate::services::eviction;
use crate::services::memory::HeldHere;
use crate::services::statistics::ThreadCounters;
use crossbeam::utils::CachePadded;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Bytes that one read may take in, as in Redis.
const READ_BYTES: usize = 64 * 1024;
/// What one cycle of active expiry may take, more with more effort: connections wait so long at most.
const EXPIRE_BUDGET_US: u64 = 1000;
/// Between looks at replies that are held back, where nothing is told of.
const HELD_LOOK: Duration = Duration::from_millis(100);
/// While many keys are found expired, cycles follow each other with pauses of this many times their own length: a
/// quarter of the thread's time, as in Redis. Else there are `hz` of them a second.
const EXPIRE_PAUSES: u32 = 3;

/// What the connections of a thread share.
pub struct Worker {
    pub services: Arc<Services>,
    pub counters: Arc<CachePadded<ThreadCounters>>,
    /// Where reads go.
    pub input: RefCell<Box<[u8]>>,
    /// Where replies are built.
    pub output: RefCell<Vec<u8>>,
    /// What is known of the replies in it, while a batch is executed.
    pub replies: RefCell<Vec<Reply>>,
    /// Requests that were decoded and wait for their turn.
    pub ahead: RefCell<Ahead>,
    /// What its connections hold.
    pub held: HeldHere,
    /// Executes on other nodes; a standalone server has none.
    pub proxy: Option<Rc<Proxy>>,
    /// Connections whose replies wait until what they show is kept.
    held_back: RefCell<Vec<(Needed, Waker, Verdict)>>,
    /// There are some, and were none.
    holds: Notify,
    party: Arc<Party>,
    /// The reader of the log is to be asked to keep it.
    ask: Notify,
}

/// A connection as its worker counts it: from its accept on, until this is dropped.
#[derive(Debug)]
pub struct Seat(Arc<CachePadded<ThreadCounters>>);

impl Seat {
    fn take(counters: &Arc<CachePadded<ThreadCounters>>) -> Seat {
        counters.connections.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(counters))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket on its way to a worker.
#[derive(Debug)]
pub struct Arrival {
    pub socket: Incoming,
    pub is_proxied: bool,
    pub seat: Seat,
}

/// A worker as the listener sees it.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    pub arrivals: mpsc::Sender<Arrival>,
    pub counters: Arc<CachePadded<ThreadCounters>>,
}

impl WorkerHandle {
    /// How many connections it has.
    pub fn connections(&self) -> u64 {
        self.counters.connections.load(Ordering::Relaxed)
    }

    /// Counts one more, which is on its way to it.
    pub fn seat(&self) -> Seat {
        Seat::take(&self.counters)
    }
}

/// Starts worker number `index` of `count`. It ends when the handle is dropped.
pub fn start(services: Arc<Services>, index: usize, count: usize) -> std::io::Result<WorkerHandle> {
    // Sockets that were accepted and not taken over yet.
    const ARRIVALS_MAX: usize = 1024;
    let counters = services.statistics.add_thread(table::all().len());
    let (arrivals, receiver) = mpsc::channel(ARRIVALS_MAX);
    let handle = WorkerHandle { arrivals, counters: Arc::clone(&counters) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let worker = Rc::new(Worker {
            proxy: forwarding::proxy(&services),
            held_back: RefCell::default(),
            holds: Notify::new(),
            party: services.engine.log.gates.join(),
            ask: Notify::new(),
            services,
            counters,
            input: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
            output: RefCell::new(Vec::new()),
            replies: RefCell::default(),
            ahead: RefCell::new(Ahead::default()),
            held: HeldHere::default(),
        });
        let tasks = tokio::task::LocalSet::new();
        tasks.block_on(&runtime, serve(worker, receiver, index, count));
    })?;
    Ok(handle)
}

async fn serve(worker: Rc<Worker>, mut arrivals: mpsc::Receiver<Arrival>, index: usize, count: usize) {
    tokio::task::spawn_local(expire(Arc::clone(&worker.services), index, count));
    tokio::task::spawn_local(wake_held_back(Rc::clone(&worker)));
    tokio::task::spawn_local(ask_to_keep(Rc::clone(&worker)));
    while let Some(arrival) = arrivals.recv().await {
        if let Err(error) = worker.accept(arrival) {
            tracing::debug!(%error, "a connection was lost while it was accepted");
        }
    }
}

impl Worker {
    fn accept(self: &Rc<Worker>, arrival: Arrival) -> std::io::Result<()> {
        let Arrival { socket, is_proxied, seat } = arrival;
        let (address, local_address) = socket.addresses()?;
        let now_ms = clock::unix_us() / 1000;
        let accepted = Accepted { address, local_address, descriptor: socket.descriptor(), now_ms };
        let stream = Socket::settle(socket)?;
        let client = self.services.clients.enter(accepted);
        let is_authenticated = self.services.settings.load().requirepass.is_empty();
        let mut session = Session::new(client, is_authenticated);
        session.is_proxied = is_proxied;
        tokio::task::spawn_local(Connection::new(stream, Rc::clone(self), session, seat).run());
        Ok(())
    }

    /// Whether this node may answer now for what it has executed under that support.
    pub fn may_answer(&self, support: u64) -> bool {
        self.services.cluster.as_ref().is_none_or(|cluster| cluster.lease().allows(support, clock::boot_us()))
    }

    /// Whether replies that need this may leave. Where they may not yet the task is woken when that is decided, and finds it in
    /// `asked`: what is known of copies may be less by then, and what a quorum had once is acknowledged.
    pub fn look(&self, needed: Needed, asked: &mut Option<Verdict>, context: &mut Context<'_>) -> Gate {
        if let Some(verdict) = asked {
            return verdict.gate();
        }
        let log = &self.services.engine.log;
        let before = log.look(needed);
        if before != Gate::Closed {
            return before;
        }
        let verdict = asked.insert(Verdict::default()).clone();
        let mut held_back = self.held_back.borrow_mut();
        if held_back.is_empty() {
            self.holds.notify_one();
        }
        held_back.push((needed, context.waker().clone(), verdict.clone()));
        self.party.wait();
        self.ask.notify_one();
        // It may have been opened before the flag was up.
        let gate = log.look(needed);
        verdict.decide(gate.clone());
        gate
    }
}

/// Wakes the connections whose replies may leave: one word from whoever keeps the log is for all of them.
async fn wake_held_back(worker: Rc<Worker>) {
    loop {
        let is_idle = worker.held_back.borrow().is_empty();
        tokio::select! {
            () = worker.party.until_told() => {}
            () = worker.holds.notified() => {}
            // Copies have only so much time, which nobody tells of.
            () = tokio::time::sleep(HELD_LOOK), if !is_idle => {}
        }
        let log = &worker.services.engine.log;
        let mut held_back = worker.held_back.borrow_mut();
        held_back.retain(|(needed, waker, verdict)| match log.look(*needed) {
            Gate::Closed => true,
            gate => {
                verdict.decide(gate);
                waker.wake_by_ref();
                false
            }
        });
        if !held_back.is_empty() {
            worker.party.wait();
        }
    }
}

/// Asks the reader of the log to keep it, after the connections that are ready in this turn: it takes then what all of
/// them have written.
async fn ask_to_keep(worker: Rc<Worker>) {
    loop {
        worker.ask.notified().await;
        tokio::task::yield_now().await;
        worker.services.engine.log.ask();
    }
}

/// Removes expired keys of this thread's share of the shards, the more often the more of them are found.
async fn expire(services: Arc<Services>, index: usize, count: usize) {
    let mut turn = 0;
    let mut pause = Duration::ZERO;
    loop {
        tokio::time::sleep(pause).await;
        let config = services.settings.load_full();
        pause = Duration::from_millis(1000 / config.hz.clamp(1, 500));
        let now_ms = clock::unix_us() / 1000;
        services.engine.wind_access_clock(now_ms);
        if services.conditions.is_loading() {
            // What is read back from a log may not be changed by anything else.
            continue;
        }
        // Also where nobody asks for anything: the limit may have been lowered.
        eviction::is_out_of_memory(&services);
        if services.settings.is_active_expire_on() {
            let started = clock::boot_us();
            let budget_us = EXPIRE_BUDGET_US * config.active_expire_effort;
            let cycle = services.engine.expire_cycle(index, count, &mut turn, now_ms, budget_us);
            let took = Duration::from_micros(clock::boot_us() - started);
            services.latency.observe("expire-cycle", now_ms / 1000, took.as_millis() as u64);
            if cycle.is_behind {
                pause = pause.min(took * EXPIRE_PAUSES);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::statistics::Statistics;

    #[test]
    fn a_connection_that_never_begins_is_not_counted() {
        let (arrivals, receiver) = mpsc::channel(1);
        let worker = WorkerHandle { arrivals, counters: Statistics::default().add_thread(0) };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("an address");
        let socket = Incoming::Tcp(std::net::TcpStream::connect(address).expect("a connection"));
        let arrival = Arrival { socket, is_proxied: false, seat: worker.seat() };
        assert_eq!(worker.connections(), 1);
        worker.arrivals.try_send(arrival).expect("room for one");
        drop(receiver);
        assert_eq!(worker.connections(), 0, "its worker has ended");
    }
}
