//! The proxy: executes on other nodes what a client has sent to this one.
//!
//! ```text
//!  a client's requests -> Lane (their order) -> forward: one slot    \
//!                                               spread: every node    > Link -> the owner's client port
//!                                               scan, transaction    /
//!                         reply <-- MOVED: asked again elsewhere, at most HOPS_MAX times
//! ```
//!
//! Everything here belongs to one worker thread. Replies are passed on as the bytes that came; only those that have to
//! be put together from several are taken apart. What the proxy has to know about its node it asks through [`Home`]; it
//! knows no command.

pub mod encoding;
pub mod forward;
pub mod lane;
pub mod link;
pub mod links;
pub mod reply;
pub mod scan;
pub mod spread;
pub mod transaction;

use crate::base::slot::Slot;
use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

/// How often one request is sent at most.
pub const HOPS_MAX: u32 = 5;

/// The client address of another node.
pub type Peer = SocketAddr;

/// Where the keys of a slot are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Here,
    At(Peer),
    /// Somewhere as soon as the view is newer: a hand-off is being committed.
    Soon,
    /// Nobody serves it: the error that says so, without the leading `-`.
    Nowhere(&'static str),
}

/// What links say of themselves when they connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Empty: the default user.
    pub user: String,
    /// Empty: none is needed.
    pub password: String,
}

/// The node that the proxy is in.
pub trait Home {
    /// Of the newest view.
    fn version(&self) -> u64;

    /// Where a slot is, for a request that writes or does not.
    fn place(&self, slot: Slot, writes: bool) -> Place;

    /// The last slot of the run of slots that begins at `slot` and has one owner.
    fn run_end(&self, slot: Slot) -> Slot;

    /// Why a request that concerns all slots cannot be executed, as an error without the leading `-`; `None`: every slot
    /// is served.
    fn unserved(&self, writes: bool) -> Option<&'static str>;

    /// Every other node that owns slots.
    fn peers(&self) -> Vec<Peer>;

    /// The client address of this node itself.
    fn own_address(&self) -> Option<Peer>;

    /// The node that a -MOVED names so.
    fn peer_named(&self, endpoint: &str) -> Option<Peer>;

    /// Ends when there is another view than the one of this version, or after a while.
    fn until_newer(&self, version: u64, at_most: Duration) -> Pin<Box<dyn Future<Output = ()>>>;

    /// Executes a request on keys that are here; `None`: they are not, or not now, and nothing was executed.
    fn execute(&self, request: Arguments<'_>, protocol: Protocol) -> Option<Vec<u8>>;

    /// How links identify themselves to other nodes.
    fn credentials(&self) -> Rc<Credentials>;

    /// How long a node may take to answer.
    fn patience(&self) -> Duration;
}

/// The proxy of one worker thread.
pub struct Proxy {
    pub home: Rc<dyn Home>,
    pub links: links::Links,
}

impl Proxy {
    pub fn new(home: Rc<dyn Home>) -> Rc<Proxy> {
        Rc::new(Proxy { home, links: links::Links::default() })
    }

    /// By which links requests go now.
    pub fn way(&self, protocol: Protocol) -> lane::Way {
        lane::Way { version: self.home.version(), protocol, links: self.links.replaced() }
    }
}

/// An error reply.
pub(crate) fn error(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    ReplyWriter::new(&mut bytes, Protocol::Resp2).error(text);
    bytes
}
