//! What is known of a command: a row of data, with the function that executes it.
//!
//! Each family's file begins with its rows. The rows are what COMMAND shows, what the dispatcher checks, and how the
//! cluster finds a command's keys; a test compares them with what redis-server answers to COMMAND.

use super::context::Control;
use super::error::CommandError;
use crate::engine::Keyspace;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use std::ops::Range;

/// A handler wrote its reply, or answers with this error; after an error nothing it wrote is sent.
pub type CommandResult = Result<(), CommandError>;

/// Sees keys only: runs unchanged in MULTI, behind a proxy, on a copy and in a test.
pub type DataHandler = fn(&mut Keyspace<'_>, Arguments<'_>, &mut ReplyWriter<'_>) -> CommandResult;

/// Sees the session and the node's services.
pub type ControlHandler = fn(&mut Control<'_>, Arguments<'_>, &mut ReplyWriter<'_>) -> CommandResult;

/// What is wrong with a request whatever its keys hold.
pub type Check = fn(Arguments<'_>) -> CommandResult;

/// The function that executes a command.
#[derive(Clone, Copy)]
pub enum Handler {
    Data(DataHandler),
    Control(ControlHandler),
    /// Only its subcommands can be executed.
    Container,
}

/// A set of [`Flag`]s.
pub type Flags = u64;

/// Redis's command flags, by the names COMMAND shows.
pub const FLAG_NAMES: &[(Flags, &str)] = &[
    (WRITE, "write"),
    (READONLY, "readonly"),
    (DENYOOM, "denyoom"),
    (ADMIN, "admin"),
    (PUBSUB, "pubsub"),
    (NOSCRIPT, "noscript"),
    (BLOCKING, "blocking"),
    (LOADING, "loading"),
    (STALE, "stale"),
    (SKIP_MONITOR, "skip_monitor"),
    (SKIP_SLOWLOG, "skip_slowlog"),
    (ASKING, "asking"),
    (FAST, "fast"),
    (NO_AUTH, "no_auth"),
    (MAY_REPLICATE, "may_replicate"),
    (NO_ASYNC_LOADING, "no_async_loading"),
    (NO_MULTI, "no_multi"),
    (MOVABLE_KEYS, "movablekeys"),
    (ALLOW_BUSY, "allow_busy"),
    (SENTINEL, "sentinel"),
];
pub const WRITE: Flags = 1;
pub const READONLY: Flags = 1 << 1;
pub const DENYOOM: Flags = 1 << 2;
pub const ADMIN: Flags = 1 << 3;
pub const PUBSUB: Flags = 1 << 4;
pub const NOSCRIPT: Flags = 1 << 5;
pub const BLOCKING: Flags = 1 << 6;
pub const LOADING: Flags = 1 << 7;
pub const STALE: Flags = 1 << 8;
pub const SKIP_MONITOR: Flags = 1 << 9;
pub const SKIP_SLOWLOG: Flags = 1 << 10;
pub const ASKING: Flags = 1 << 11;
pub const FAST: Flags = 1 << 12;
pub const NO_AUTH: Flags = 1 << 13;
pub const MAY_REPLICATE: Flags = 1 << 14;
pub const NO_ASYNC_LOADING: Flags = 1 << 15;
pub const NO_MULTI: Flags = 1 << 16;
pub const MOVABLE_KEYS: Flags = 1 << 17;
pub const ALLOW_BUSY: Flags = 1 << 18;
pub const SENTINEL: Flags = 1 << 19;
/// Our own flags, which COMMAND does not show.
/// Executed at once inside MULTI (EXEC, DISCARD, WATCH, RESET, QUIT, MULTI itself).
pub const NOT_QUEUED: Flags = 1 << 32;
/// May touch any key of the selected database: takes every lock.
pub const ALL_KEYS: Flags = 1 << 33;
/// Beside `ALL_KEYS`: only those of the slot whose number is its second argument. Alone it takes that lock and no other.
pub const ONE_SLOT: Flags = 1 << 41;
/// Allowed to a RESP2 connection that has subscribed.
pub const WHILE_SUBSCRIBED: Flags = 1 << 34;
/// The proxy listener spreads it over the cluster.
pub const SPREAD: Flags = 1 << 35;
/// Ends a transaction even where it is refused: its error says so (EXEC).
pub const ENDS_TRANSACTION: Flags = 1 << 38;
/// Answers with messages, which CLIENT REPLY does not silence (SUBSCRIBE and its relatives).
pub const PUSHES: Flags = 1 << 39;
/// Needs a cluster: a standalone server refuses it.
pub const IN_CLUSTER: Flags = 1 << 40;
/// Answers with what is wrong where writes are refused, though it writes nothing (PING).
pub const TELLS_CONDITION: Flags = 1 << 44;
/// Known, but shown by no COMMAND.
pub const HIDDEN: Flags = 1 << 37;
/// Not delayed by CLIENT PAUSE, whatever its other flags.
pub const NOT_PAUSED: Flags = 1 << 36;

/// Its connection waits for something outside of the node: the proxy gives it a link of its own, as to what blocks.
pub const WAITS: Flags = 1 << 42;

/// A set of ACL categories.
pub type Categories = u32;

/// ACL categories, by the names COMMAND shows.
pub const CATEGORY_NAMES: &[(Categories, &str)] = &[
    (KEYSPACE, "@keyspace"),
    (READ, "@read"),
    (WRITES, "@write"),
    (SET, "@set"),
    (SORTED_SET, "@sortedset"),
    (LIST, "@list"),
    (HASH, "@hash"),
    (STRING, "@string"),
    (BITMAP, "@bitmap"),
    (HYPERLOGLOG, "@hyperloglog"),
    (GEO, "@geo"),
    (STREAM, "@stream"),
    (PUBSUBS, "@pubsub"),
    (ADMINS, "@admin"),
    (FASTS, "@fast"),
    (SLOW, "@slow"),
    (BLOCKS, "@blocking"),
    (DANGEROUS, "@dangerous"),
    (CONNECTION, "@connection"),
    (TRANSACTION, "@transaction"),
    (SCRIPTING, "@scripting"),
];
pub const KEYSPACE: Categories = 1;
pub const READ: Categories = 1 << 1;
pub const WRITES: Categories = 1 << 2;
pub const SET: Categories = 1 << 3;
pub const SORTED_SET: Categories = 1 << 4;
pub const LIST: Categories = 1 << 5;
pub const HASH: Categories = 1 << 6;
pub const STRING: Categories = 1 << 7;
pub const BITMAP: Categories = 1 << 8;
pub const HYPERLOGLOG: Categories = 1 << 9;
pub const GEO: Categories = 1 << 10;
pub const STREAM: Categories = 1 << 11;
pub const PUBSUBS: Categories = 1 << 12;
pub const ADMINS: Categories = 1 << 13;
pub const FASTS: Categories = 1 << 14;
pub const SLOW: Categories = 1 << 15;
pub const BLOCKS: Categories = 1 << 16;
pub const DANGEROUS: Categories = 1 << 17;
pub const CONNECTION: Categories = 1 << 18;
pub const TRANSACTION: Categories = 1 << 19;
pub const SCRIPTING: Categories = 1 << 20;

/// How many arguments a command takes, its name (and its container's name) among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    Exactly(u8),
    AtLeast(u8),
}

impl Arity {
    /// Whether a request with this many arguments fits.
    #[inline]
    pub fn accepts(self, count: usize) -> bool {
        match self {
            Arity::Exactly(wanted) => count == wanted as usize,
            Arity::AtLeast(wanted) => count >= wanted as usize,
        }
    }

    /// As COMMAND shows it: negative for "at least".
    pub fn number(self) -> i64 {
        match self {
            Arity::Exactly(wanted) => i64::from(wanted),
            Arity::AtLeast(wanted) => -i64::from(wanted),
        }
    }
}

/// A row of the command table.
pub struct CommandSpec {
    /// Lower case; of a subcommand without its container (`get` of `config|get`).
    pub name: &'static str,
    pub arity: Arity,
    pub flags: Flags,
    pub categories: Categories,
    pub keys: &'static [KeySpec],
    /// Hints for proxies and client libraries, as COMMAND shows them.
    pub tips: &'static [&'static str],
    pub subcommands: &'static [CommandSpec],
    pub handler: Handler,
    /// Of a command whose keys may be on several nodes: asked by the proxy before it looks for them, so that a malformed
    /// request is answered alike wherever they are. The handler asks it too.
    pub check: Option<Check>,
    /// Of a command that touches keys which its request does not name (SORT BY, GET): whether a request does. In a cluster
    /// they must be in the slot of those that it names; elsewhere it takes every lock.
    pub spans: Option<fn(Arguments<'_>) -> bool>,
    /// Where the keys are that follow each other, where the specifications cannot say it (MIGRATE).
    pub finds_keys: Option<fn(Arguments<'_>) -> Range<usize>>,
    /// Whether the one key is the first argument: the common case, decided when the row is compiled.
    pub(crate) first_key_only: bool,
}

/// Where a command has keys, and what it does to them (COMMAND's key specifications).
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    pub access: Access,
    /// COMMAND's words for what happens to the key: `access`, `update`, `insert`, `delete`; space separated, with
    /// `incomplete`, `variable_flags`, `not_key` where they apply.
    pub effects: &'static str,
    pub begin: Begin,
    pub find: Find,
    pub notes: &'static str,
}

/// What a command does to the bytes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
    Overwrite,
    Remove,
}

/// Where the keys of a specification begin.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    Index(u8),
    /// Behind this word, looked for from this argument on (backwards from the end where it is negative).
    Keyword(&'static str, i8),
    /// One key, where this says. COMMAND shows it as unknown.
    Function(fn(Arguments<'_>) -> Option<usize>),
    Unknown,
}

/// How the keys go on from where they begin.
#[derive(Clone, Copy, Debug)]
pub enum Find {
    /// To `last`, relative to the first (negative: from the end of the request), every `step`th; `limit` as in Redis:
    /// with `last` -1, 2 stands for the first half of what is left, and so on.
    Range {
        last: i8,
        step: u8,
        limit: u8,
    },
    /// A number of keys is given at `count`, the keys begin at `first`, both relative to the beginning.
    Count {
        count: u8,
        first: u8,
        step: u8,
    },
    Unknown,
}

/// A row of a data command.
pub const fn data(
    name: &'static str,
    arity: Arity,
    flags: Flags,
    categories: Categories,
    keys: &'static [KeySpec],
    handler: DataHandler,
) -> CommandSpec {
    row(name, arity, flags, categories, keys, Handler::Data(handler))
}

/// A row of a control command.
pub const fn control(
    name: &'static str,
    arity: Arity,
    flags: Flags,
    categories: Categories,
    handler: ControlHandler,
) -> CommandSpec {
    row(name, arity, flags, categories, &[], Handler::Control(handler))
}

/// A row of a command that consists of subcommands.
pub const fn container(
    name: &'static str,
    flags: Flags,
    categories: Categories,
    subcommands: &'static [CommandSpec],
) -> CommandSpec {
    let mut row = row(name, Arity::AtLeast(2), flags, categories, &[], Handler::Container);
    row.subcommands = subcommands;
    row
}

const fn row(
    name: &'static str,
    arity: Arity,
    flags: Flags,
    categories: Categories,
    keys: &'static [KeySpec],
    handler: Handler,
) -> CommandSpec {
    // Redis derives these categories from the flags too.
    let mut categories = categories;
    if flags & WRITE != 0 {
        categories |= WRITES;
    }
    if flags & READONLY != 0 && categories & SCRIPTING == 0 {
        categories |= READ;
    }
    if flags & ADMIN != 0 {
        categories |= ADMINS | DANGEROUS;
    }
    if flags & PUBSUB != 0 {
        categories |= PUBSUBS;
    }
    if flags & BLOCKING != 0 {
        categories |= BLOCKS;
    }
    categories |= if flags & FAST != 0 { FASTS } else { SLOW };
    let first_key_only = flags & ALL_KEYS == 0
        && matches!(keys, [KeySpec { begin: Begin::Index(1), find: Find::Range { last: 0, .. }, .. }]);
    CommandSpec {
        name,
        arity,
        flags,
        categories,
        keys,
        tips: &[],
        subcommands: &[],
        handler,
        check: None,
        spans: None,
        finds_keys: None,
        first_key_only,
    }
}

impl CommandSpec {
    /// The row with these tips.
    pub const fn tips(mut self, tips: &'static [&'static str]) -> CommandSpec {
        self.tips = tips;
        self
    }

    /// The row with key specifications: for control commands that name keys.
    pub const fn keys(mut self, keys: &'static [KeySpec]) -> CommandSpec {
        self.keys = keys;
        self
    }

    /// The row with subcommands: for commands that can also be executed by themselves (COMMAND).
    pub const fn subcommands(mut self, subcommands: &'static [CommandSpec]) -> CommandSpec {
        self.subcommands = subcommands;
        self
    }

    /// The row with a check of the request itself.
    pub const fn check(mut self, check: Check) -> CommandSpec {
        self.check = Some(check);
        self
    }

    /// The row of a command that touches keys which its request does not name, where this says so.
    pub const fn spanning(mut self, spans: fn(Arguments<'_>) -> bool) -> CommandSpec {
        self.spans = Some(spans);
        self
    }

    /// The row of a command whose keys this finds, which follow each other: the first specification says what they are.
    pub const fn keys_found_by(mut self, find: fn(Arguments<'_>) -> Range<usize>) -> CommandSpec {
        self.finds_keys = Some(find);
        self
    }

    /// Whether a request touches keys that it does not name, wherever they are.
    #[inline]
    pub fn spans(&self, arguments: Arguments<'_>) -> bool {
        self.spans.is_some_and(|spans| spans(arguments))
    }

    #[inline]
    pub fn has(&self, flags: Flags) -> bool {
        self.flags & flags != 0
    }

    /// Calls `visit` with the index of each key of a request, in the order of the specifications. False where the
    /// request does not say what its keys are (a count of keys that is no number, or too large).
    pub fn visit_keys(&self, arguments: Arguments<'_>, mut visit: impl FnMut(usize, &KeySpec)) -> bool {
        if self.first_key_only {
            if arguments.len() > 1 {
                visit(1, &self.keys[0]);
            }
            return true;
        }
        if let (Some(find), [spec, ..]) = (self.finds_keys, self.keys) {
            find(arguments).for_each(|index| visit(index, spec));
            return true;
        }
        let mut valid = true;
        for spec in self.keys {
            let Some(begin) = spec.begin.locate(arguments) else { continue };
            if let Begin::Function(_) = spec.begin {
                visit(begin, spec);
                continue;
            }
            match spec.find.range(begin, arguments) {
                Some((first, last, step)) => {
                    let mut index = first;
                    while index <= last {
                        visit(index, spec);
                        index += step;
                    }
                }
                None => valid = false,
            }
        }
        valid
    }
}

impl Begin {
    /// The argument where the keys begin; `None` where the request has no such keys.
    fn locate(self, arguments: Arguments<'_>) -> Option<usize> {
        match self {
            Begin::Index(index) => ((index as usize) < arguments.len()).then_some(index as usize),
            Begin::Keyword(word, from) => {
                let matches = |index: &usize| arguments.at(*index).eq_ignore_ascii_case(word.as_bytes());
                let found = if from > 0 {
                    (from as usize..arguments.len()).find(matches)
                } else {
                    let start = (arguments.len() as i64 + i64::from(from)).max(0) as usize;
                    (1..=start.min(arguments.len().saturating_sub(1))).rev().find(matches)
                };
                found.map(|index| index + 1).filter(|index| *index < arguments.len())
            }
            Begin::Function(locate) => locate(arguments),
            Begin::Unknown => None,
        }
    }
}

impl Find {
    /// First and last key and the step between; `None` where the request contradicts itself.
    fn range(self, begin: usize, arguments: Arguments<'_>) -> Option<(usize, usize, usize)> {
        let length = arguments.len();
        match self {
            Find::Range { last, step, limit } => {
                let last = if last >= 0 {
                    begin + last as usize
                } else if limit == 0 {
                    length.checked_sub(last.unsigned_abs() as usize)?
                } else {
                    begin + (length - begin) / limit as usize - last.unsigned_abs() as usize
                };
                (last < length).then_some((begin, last, step.max(1) as usize))
            }
            Find::Count { count, first, step } => {
                let text = arguments.get(begin + count as usize)?;
                let count = usize::try_from(crate::base::number::parse_i64(text)?).ok()?;
                let first = begin + first as usize;
                let step = step.max(1) as usize;
                let last = first.checked_add(count.checked_mul(step)?)?.checked_sub(step)?;
                (count == 0 || last < length).then_some((first, last, step))
            }
            Find::Unknown => Some((1, 0, 1)),
        }
    }
}

/// The key specifications that many rows share.
pub mod keys {
    use super::{Access, Begin, Find, KeySpec};

    const ONE: Find = Find::Range { last: 0, step: 1, limit: 0 };
    const ALL: Find = Find::Range { last: -1, step: 1, limit: 0 };

    /// Keys from the argument `index` on.
    pub const fn at(index: u8, find: Find, access: Access, effects: &'static str) -> KeySpec {
        KeySpec { access, effects, begin: Begin::Index(index), find, notes: "" }
    }

    /// One key, at `index`.
    pub const fn one(index: u8, access: Access, effects: &'static str) -> KeySpec {
        at(index, ONE, access, effects)
    }

    /// Every argument from the first on.
    pub const fn all(access: Access, effects: &'static str) -> KeySpec {
        at(1, ALL, access, effects)
    }

    /// A read of its content.
    pub const READ: &[KeySpec] = &[one(1, Access::ReadOnly, "access")];
    /// A look at what is not its content: existence, length, type, deadline.
    pub const LOOK: &[KeySpec] = &[one(1, Access::ReadOnly, "")];
    pub const UPDATE: &[KeySpec] = &[one(1, Access::ReadWrite, "update")];
    pub const INSERT: &[KeySpec] = &[one(1, Access::ReadWrite, "insert")];
    pub const DELETE: &[KeySpec] = &[one(1, Access::ReadWrite, "delete")];
    pub const READ_UPDATE: &[KeySpec] = &[one(1, Access::ReadWrite, "access update")];
    pub const READ_DELETE: &[KeySpec] = &[one(1, Access::ReadWrite, "access delete")];
    pub const OVERWRITE: &[KeySpec] = &[one(1, Access::Overwrite, "update")];
}
