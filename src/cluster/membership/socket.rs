//! The shell around [`Membership`]: a UDP socket, a clock, and a thread of its own.
//!
//! The thread is not shared with anything, so that no long command or disk write can make this node look dead. One loop
//! matches on everything that can wake it. Timers come before datagrams, or a flood of datagrams would stop the probes;
//! only after a stall (the machine slept, the process was stopped) is the socket read first: it holds the answers that
//! overdue timers would miss, and members would be declared dead that have long answered.
//!
//! What other threads see is a view swapped in whole, a bounded queue of events, and counters.

use super::broadcasts::BroadcastError;
use super::{
    Input, MemberIdentity, MembersView, Membership, MembershipEvent, MembershipOptions, Outputs, check_broadcast,
};
use crate::base::clock::Clock;
use crate::base::identity::NodeId;
use crate::cluster::datagram::{DATAGRAM_BYTES_MAX, Reject};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};

/// Events that wait to be read at most. Later ones are dropped and counted; the view is always whole.
const EVENTS_MAX: usize = 1024;
/// Wishes that wait for the thread at most.
const COMMANDS_MAX: usize = 256;
/// Datagrams read before looking at the timers again.
const DATAGRAMS_PER_TURN: usize = 64;
/// A turn of the loop that starts this late, or takes this long, is warned about: peers suspect a node after seconds.
const SLOW_TURN_US: u64 = 1_000_000;
/// How long to wait after an error of the socket.
const ERROR_PAUSE: Duration = Duration::from_millis(50);
/// What the socket may hold unread, in bytes: bursts of a cluster of a thousand.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// What the shell is started with.
pub struct SocketOptions {
    /// Where to listen. Port 0 takes any free port.
    pub bind: SocketAddr,
    /// The protocol's own options. An identity with port 0 gets the port that was bound.
    pub membership: MembershipOptions,
    pub clock: Arc<dyn Clock>,
}

/// Traffic and drops since the start.
#[derive(Default, Debug)]
pub struct MembershipCounters {
    pub datagrams_in: AtomicU64,
    /// Bytes of UDP payload, without IP and UDP headers (28 bytes each with IPv4).
    pub bytes_in: AtomicU64,
    pub datagrams_out: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Datagrams that the kernel did not take.
    pub send_failures: AtomicU64,
    /// Events that nobody read in time.
    pub events_dropped: AtomicU64,
    /// Turns that started more than a second late or took longer.
    pub slow_turns: AtomicU64,
    /// Datagrams dropped, by [`Reject::kind`].
    pub rejects: [AtomicU64; Reject::KINDS],
}

/// A wish was not taken: 256 others wait, or the thread has ended. Nothing has changed; try again later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotTaken;

impl std::fmt::Display for NotTaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the membership thread is busy or has ended")
    }
}

impl std::error::Error for NotTaken {}

/// A running membership, as other threads use it. Dropping it leaves the cluster without waiting.
pub struct MembershipHandle {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    view: ArcSwap<MembersView>,
    counters: MembershipCounters,
    topology_version: AtomicU64,
    generation: AtomicU32,
    leave: Notify,
}

enum Command {
    Join(Vec<SocketAddr>),
    Learn(Vec<MemberIdentity>),
    Forget(NodeId),
    Broadcast(Vec<u8>),
    /// [`Shared::topology_version`] or [`Shared::generation`] has changed.
    LookAgain,
}

impl MembershipHandle {
    /// Binds the socket and starts the thread. Events come out of the receiver, in order.
    ///
    /// Fails if the address cannot be bound, or the identity does not say where other nodes reach it.
    pub fn start(options: SocketOptions) -> io::Result<(MembershipHandle, mpsc::Receiver<MembershipEvent>)> {
        let socket = bind(options.bind)?;
        let mut membership = options.membership;
        if membership.identity.address.port() == 0 {
            let bound = socket.local_addr()?;
            membership.identity.address.set_port(bound.port());
        }
        if membership.identity.address.ip().is_unspecified() {
            let message = "the address that is announced to other nodes must be one they can reach";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = {
            let _inside = runtime.enter();
            UdpSocket::from_std(socket)?
        };
        let generation = membership.generation;
        let membership = Membership::new(membership, options.clock.boot_us());
        let shared = Arc::new(Shared {
            view: ArcSwap::from_pointee(membership.view()),
            counters: MembershipCounters::default(),
            topology_version: AtomicU64::new(0),
            generation: AtomicU32::new(generation),
            leave: Notify::new(),
        });
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let turns = Turns {
            membership,
            socket,
            shared: Arc::clone(&shared),
            clock: options.clock,
            events,
            commands,
            generation,
            topology_version: 0,
        };
        let thread = std::thread::Builder::new().name("membership".to_owned()).spawn(move || {
            runtime.block_on(turns.run());
        })?;
        Ok((MembershipHandle { shared, commands: sender, thread: Mutex::new(Some(thread)) }, receiver))
    }

    /// What this node believes of its cluster now.
    pub fn members(&self) -> Arc<MembersView> {
        self.shared.view.load_full()
    }

    /// Traffic and drops since the start.
    pub fn counters(&self) -> &MembershipCounters {
        &self.shared.counters
    }

    /// Looks for the cluster at these addresses, now and whenever this node is alone.
    pub fn join(&self, seeds: Vec<SocketAddr>) -> Result<(), NotTaken> {
        self.wish(Command::Join(seeds))
    }

    /// Tells of members that a trustworthy source named.
    pub fn learn(&self, members: Vec<MemberIdentity>) -> Result<(), NotTaken> {
        self.wish(Command::Learn(members))
    }

    /// Forgets a node that the topology has removed, if it is down.
    pub fn forget(&self, node: NodeId) -> Result<(), NotTaken> {
        self.wish(Command::Forget(node))
    }

    /// Sends a message to all members, without promise: see [`Membership::broadcast`].
    pub fn broadcast(&self, payload: Vec<u8>) -> Result<(), BroadcastError> {
        check_broadcast(&payload)?;
        self.commands.try_send(Command::Broadcast(payload)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => BroadcastError::Busy,
            mpsc::error::TrySendError::Closed(_) => BroadcastError::Left,
        })
    }

    /// Every datagram from now on says that this node knows this version of the topology.
    pub fn set_topology_version(&self, version: u64) {
        self.shared.topology_version.fetch_max(version, Ordering::Relaxed);
        // A full queue wakes the thread just as well.
        let _ = self.commands.try_send(Command::LookAgain);
    }

    /// The cluster has had another forced recovery: only nodes of this generation are heard from now on.
    pub fn set_generation(&self, generation: u32) {
        self.shared.generation.store(generation, Ordering::Relaxed);
        let _ = self.commands.try_send(Command::LookAgain);
    }

    /// Says goodbye to the cluster and waits until that is sent and the thread has ended; milliseconds.
    pub fn leave(&self) {
        self.shared.leave.notify_one();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the membership thread had panicked");
        }
    }

    fn wish(&self, command: Command) -> Result<(), NotTaken> {
        self.commands.try_send(command).map_err(|_| NotTaken)
    }
}

impl Drop for MembershipHandle {
    fn drop(&mut self) {
        self.shared.leave.notify_one();
    }
}

fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // The kernel may grant less; that is no reason not to start.
    if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
        tracing::debug!(%error, "receive buffer of the gossip socket not enlarged");
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Everything that can wake the loop.
enum Wake {
    Timers,
    Readable,
    Command(Command),
    Leave,
}

/// The loop and all that it owns.
struct Turns {
    membership: Membership,
    socket: UdpSocket,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    events: mpsc::Sender<MembershipEvent>,
    commands: mpsc::Receiver<Command>,
    generation: u32,
    topology_version: u64,
}

impl Turns {
    async fn run(mut self) {
        loop {
            let wake = self.wait().await;
            let started_us = self.clock.boot_us();
            let late_us = self.membership.next_due_us().map_or(0, |due| started_us.saturating_sub(due));
            self.look_again();
            if late_us > SLOW_TURN_US {
                self.read_datagrams().await;
            }
            self.step(Input::TimersDue);
            match wake {
                Wake::Timers => {}
                Wake::Readable => self.read_datagrams().await,
                Wake::Command(command) => self.obey(command),
                Wake::Leave => {
                    self.step(Input::Leave);
                    return;
                }
            }
            self.watch(late_us, self.clock.boot_us().saturating_sub(started_us));
        }
    }

    async fn wait(&mut self) -> Wake {
        let due_us = self.membership.next_due_us().unwrap_or(u64::MAX);
        let wait_us = due_us.saturating_sub(self.clock.boot_us());
        tokio::select! {
            biased;
            () = self.shared.leave.notified() => Wake::Leave,
            () = tokio::time::sleep(Duration::from_micros(wait_us)) => Wake::Timers,
            command = self.commands.recv() => command.map_or(Wake::Leave, Wake::Command),
            // An error shows again when reading.
            _ = self.socket.readable() => Wake::Readable,
        }
    }

    /// Takes up numbers that other threads have set.
    fn look_again(&mut self) {
        let version = self.shared.topology_version.load(Ordering::Relaxed);
        if version > self.topology_version {
            self.topology_version = version;
            self.step(Input::TopologyVersion(version));
        }
        let generation = self.shared.generation.load(Ordering::Relaxed);
        if generation != self.generation {
            self.generation = generation;
            self.step(Input::Generation(generation));
        }
    }

    async fn read_datagrams(&mut self) {
        // One byte more than any datagram, so that a longer one is seen to be longer.
        let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
        for _ in 0..DATAGRAMS_PER_TURN {
            match self.socket.try_recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let counters = &self.shared.counters;
                    counters.datagrams_in.fetch_add(1, Ordering::Relaxed);
                    counters.bytes_in.fetch_add(length as u64, Ordering::Relaxed);
                    let bytes = buffer.get(..length).unwrap_or_default();
                    self.step(Input::Datagram { from, bytes });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // The socket stays readable, and an error that persists must not keep a core busy.
                    tracing::warn!(%error, "reading the gossip socket");
                    tokio::time::sleep(ERROR_PAUSE).await;
                    return;
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Join(seeds) => self.step(Input::Join { seeds: &seeds }),
            Command::Learn(members) => self.step(Input::Learn { members: &members }),
            Command::Forget(node) => self.step(Input::Forget(node)),
            Command::Broadcast(payload) => match self.membership.broadcast(&payload, self.clock.boot_us()) {
                Ok(outputs) => self.perform(outputs),
                Err(error) => tracing::debug!(%error, "broadcast not sent"),
            },
            Command::LookAgain => {}
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let outputs = self.membership.step(input, self.clock.boot_us());
        self.perform(outputs);
    }

    fn perform(&mut self, outputs: Outputs) {
        let counters = &self.shared.counters;
        for (to, bytes) in &outputs.datagrams {
            // Not sent is lost, which gossip bears better than waiting.
            match self.socket.try_send_to(bytes, *to) {
                Ok(_) => {
                    counters.datagrams_out.fetch_add(1, Ordering::Relaxed);
                    counters.bytes_out.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
                Err(error) => {
                    counters.send_failures.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%to, %error, "gossip datagram not sent");
                }
            }
        }
        for (counter, total) in counters.rejects.iter().zip(self.membership.rejects()) {
            counter.store(total, Ordering::Relaxed);
        }
        if outputs.view_changed {
            self.shared.view.store(Arc::new(self.membership.view()));
        }
        // The view first: who reads an event finds it there.
        for event in outputs.events {
            if self.events.try_send(event).is_err() {
                counters.events_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn watch(&self, late_us: u64, took_us: u64) {
        if late_us > SLOW_TURN_US || took_us > SLOW_TURN_US {
            self.shared.counters.slow_turns.fetch_add(1, Ordering::Relaxed);
            let (late_ms, took_ms) = (late_us / 1000, took_us / 1000);
            tracing::warn!(late_ms, took_ms, "gossip was held up; other nodes may suspect this one");
        }
    }
}

#[cfg(test)]
mod tests;
