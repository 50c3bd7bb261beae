//! Key events: what happened to which key, in Redis's words (notify-keyspace-events).
//!
//! Every change names its event. Where nobody listens that costs one look that a change takes anyway; else the events of a
//! command are handed on by its commit, before the locks are released, so that those of one key keep their order.

use super::Engine;
use super::effect::Side;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// One class of events, a letter of notify-keyspace-events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(pub char);

impl Class {
    /// Its bit in a set of classes.
    const fn bit(self) -> u32 {
        match self.0 {
            'g' => 1,
            '$' => 1 << 1,
            'l' => 1 << 2,
            's' => 1 << 3,
            'h' => 1 << 4,
            'z' => 1 << 5,
            'x' => 1 << 6,
            'e' => 1 << 7,
            't' => 1 << 8,
            'd' => 1 << 9,
            'm' => 1 << 10,
            'n' => 1 << 11,
            _ => 0,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub class: Class,
    pub name: &'static str,
}

const fn event(class: char, name: &'static str) -> Event {
    Event { class: Class(class), name }
}

pub const SET: Event = event('$', "set");
pub const APPEND: Event = event('$', "append");
pub const SET_RANGE: Event = event('$', "setrange");
pub const HYPERLOGLOG_ADD: Event = event('$', "pfadd");
pub const SET_BIT: Event = event('$', "setbit");
pub const INCREMENT: Event = event('$', "incrby");
pub const INCREMENT_FLOAT: Event = event('$', "incrbyfloat");
pub const DELETE: Event = event('g', "del");
pub const EXPIRE: Event = event('g', "expire");
pub const PERSIST: Event = event('g', "persist");
pub const RENAMED_FROM: Event = event('g', "rename_from");
pub const RENAMED_TO: Event = event('g', "rename_to");
pub const COPIED_TO: Event = event('g', "copy_to");
pub const MOVED_FROM: Event = event('g', "move_from");
pub const MOVED_TO: Event = event('g', "move_to");
pub const RESTORE: Event = event('g', "restore");
pub const LIST_INSERT: Event = event('l', "linsert");
pub const LIST_SET: Event = event('l', "lset");
pub const LIST_REMOVE: Event = event('l', "lrem");
pub const LIST_TRIM: Event = event('l', "ltrim");
pub const SORT_STORE: Event = event('l', "sortstore");
pub const HASH_SET: Event = event('h', "hset");
pub const HASH_INCREMENT: Event = event('h', "hincrby");
pub const HASH_INCREMENT_FLOAT: Event = event('h', "hincrbyfloat");
pub const HASH_REMOVE: Event = event('h', "hdel");
pub const HASH_EXPIRE: Event = event('h', "hexpire");
pub const HASH_EXPIRED: Event = event('h', "hexpired");
pub const HASH_PERSIST: Event = event('h', "hpersist");
pub const SET_ADD: Event = event('s', "sadd");
pub const SET_REMOVE: Event = event('s', "srem");
pub const SET_INTERSECTION_STORE: Event = event('s', "sinterstore");
pub const SET_UNION_STORE: Event = event('s', "sunionstore");
pub const SET_DIFFERENCE_STORE: Event = event('s', "sdiffstore");
pub const SET_POP: Event = event('s', "spop");
pub const SORTED_SET_PUT: Event = event('z', "zadd");
pub const SORTED_SET_INCREMENT: Event = event('z', "zincr");
pub const SORTED_SET_REMOVE: Event = event('z', "zrem");
pub const SORTED_SET_REMOVE_RANKS: Event = event('z', "zremrangebyrank");
pub const SORTED_SET_REMOVE_SCORES: Event = event('z', "zremrangebyscore");
pub const SORTED_SET_REMOVE_MEMBERS: Event = event('z', "zremrangebylex");
pub const SORTED_SET_UNION_STORE: Event = event('z', "zunionstore");
pub const SORTED_SET_INTERSECTION_STORE: Event = event('z', "zinterstore");
pub const SORTED_SET_DIFFERENCE_STORE: Event = event('z', "zdiffstore");
pub const SORTED_SET_RANGE_STORE: Event = event('z', "zrangestore");
pub const EVICTED: Event = event('e', "evicted");
pub const GEO_SEARCH_STORE: Event = event('z', "geosearchstore");
pub const GEO_RADIUS_STORE: Event = event('z', "georadiusstore");
pub const STREAM_ADD: Event = event('t', "xadd");
pub const STREAM_DELETE: Event = event('t', "xdel");
pub const STREAM_TRIM: Event = event('t', "xtrim");
pub const STREAM_SET_ID: Event = event('t', "xsetid");
pub const GROUP_CREATE: Event = event('t', "xgroup-create");
pub const GROUP_SET_ID: Event = event('t', "xgroup-setid");
pub const GROUP_DESTROY: Event = event('t', "xgroup-destroy");
pub const CONSUMER_CREATE: Event = event('t', "xgroup-createconsumer");
pub const CONSUMER_DELETE: Event = event('t', "xgroup-delconsumer");
pub const EXPIRED: Event = event('x', "expired");
pub const NEW: Event = event('n', "new");
/// Nobody hears of it.
pub const SILENT: Event = event(' ', "");
pub const MISSED: Event = event('m', "keymiss");

/// LPUSH, RPUSH.
pub fn list_push(side: Side) -> Event {
    event('l', if side == Side::Front { "lpush" } else { "rpush" })
}

/// LPOP, RPOP.
pub fn list_pop(side: Side) -> Event {
    event('l', if side == Side::Front { "lpop" } else { "rpop" })
}

/// ZPOPMIN, ZPOPMAX.
pub fn sorted_set_pop(side: Side) -> Event {
    event('z', if side == Side::Front { "zpopmin" } else { "zpopmax" })
}

/// Something that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEvent {
    pub database: usize,
    pub key: Box<[u8]>,
    pub event: Event,
}

/// Hears of events, in order. It is called under the locks of shards: it must not ask the engine for anything.
pub type Listener = Box<dyn Fn(&[KeyEvent]) + Send + Sync>;

/// Who listens, and to what.
#[derive(Default)]
pub(super) struct Events {
    classes: AtomicU32,
    listener: OnceLock<Listener>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Events({:#b})", self.classes.load(Ordering::Relaxed))
    }
}

impl Events {
    /// Whether somebody listens to events of this class.
    pub(super) fn wants(&self, class: Class) -> bool {
        self.classes.load(Ordering::Relaxed) & class.bit() != 0
    }

    pub(super) fn tell(&self, events: &[KeyEvent]) {
        if let Some(listener) = self.listener.get() {
            listener(events);
        }
    }
}

impl Engine {
    /// Says who hears of key events; only the first counts.
    pub fn set_listener(self: &Arc<Engine>, listener: Listener) {
        let _ = self.events.listener.set(listener);
    }

    /// Says which classes of events are told, by their letters; `A` stands for all that it stands for in Redis.
    pub fn set_event_classes(&self, letters: &str) {
        let bits = letters.chars().map(|letter| match letter {
            'A' => "g$lshzxetd".chars().map(|letter| Class(letter).bit()).sum(),
            letter => Class(letter).bit(),
        });
        let classes = bits.fold(0, |all, bits| all | bits);
        self.events.classes.store(classes, Ordering::Relaxed);
        self.log.set_listened_to(classes != 0);
    }
}
