//! All commands, by name.

use super::spec::{CommandSpec, HIDDEN};
use super::{control, data};
use hashbrown::HashTable;
use std::sync::LazyLock;

/// A command or subcommand as the table holds it.
#[derive(Debug)]
pub struct Command {
    pub spec: &'static CommandSpec,
    /// Its place among all: the index of its counters.
    pub index: u16,
    /// `get`, or `config|get`.
    pub name: String,
    pub subcommands: Vec<&'static Command>,
}

impl std::fmt::Debug for CommandSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The rows of the families.
const FAMILIES: &[&[CommandSpec]] = &[
    data::string::COMMANDS,
    data::string::condition::COMMANDS,
    data::bitmap::COMMANDS,
    data::bitmap::field::COMMANDS,
    data::dump::COMMANDS,
    data::sort::COMMANDS,
    data::generic::COMMANDS,
    data::expiry::COMMANDS,
    data::keyspace::COMMANDS,
    data::list::COMMANDS,
    data::hash::COMMANDS,
    data::hash::combined::COMMANDS,
    data::hash::expiry::COMMANDS,
    data::hyperloglog::COMMANDS,
    data::set::COMMANDS,
    data::set::algebra::COMMANDS,
    data::sorted_set::COMMANDS,
    data::sorted_set::algebra::COMMANDS,
    data::sorted_set::popping::COMMANDS,
    data::sorted_set::range::COMMANDS,
    data::sorted_set::sampling::COMMANDS,
    data::geo::COMMANDS,
    data::geo::search::COMMANDS,
    data::stream::COMMANDS,
    data::cluster_scan::COMMANDS,
    control::cluster::COMMANDS,
    control::config::COMMANDS,
    control::connection::COMMANDS,
    control::transaction::COMMANDS,
    control::pubsub::COMMANDS,
    control::command::COMMANDS,
    control::debug::COMMANDS,
    control::hotkeys::COMMANDS,
    control::info::COMMANDS,
    control::latency::COMMANDS,
    control::migrate::COMMANDS,
    control::memory::COMMANDS,
    control::persistence::COMMANDS,
    control::server::COMMANDS,
    control::slowlog::COMMANDS,
];

/// The longest name; longer ones are unknown without being looked up.
const NAME_BYTES_MAX: usize = 32;

struct Table {
    commands: Vec<&'static Command>,
    by_name: HashTable<&'static Command>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { commands: Vec::new(), by_name: HashTable::new() };
    for spec in FAMILIES.iter().copied().flatten() {
        let command = table.enter(spec, spec.name.to_owned());
        table.by_name.insert_unique(hash(spec.name.as_bytes()), command, |c| hash(c.name.as_bytes()));
    }
    table
});

impl Table {
    /// Rows live as long as the process: there is one table.
    fn enter(&mut self, spec: &'static CommandSpec, name: String) -> &'static Command {
        let mut subcommands = Vec::new();
        for sub in spec.subcommands {
            subcommands.push(self.enter(sub, format!("{name}|{}", sub.name)));
        }
        let index = self.commands.len() as u16;
        let command: &'static Command = Box::leak(Box::new(Command { spec, index, name, subcommands }));
        self.commands.push(command);
        command
    }
}

/// The command with this name, in any case.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    TABLE.by_name.find(hash(name), |command| command.name.as_bytes().eq_ignore_ascii_case(name)).copied()
}

impl Command {
    /// The subcommand with this name, in any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Command> {
        self.subcommands.iter().copied().find(|sub| sub.spec.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// The command or subcommand with a full name (`config|get`).
pub fn lookup_full(name: &[u8]) -> Option<&'static Command> {
    match name.iter().position(|&byte| byte == b'|') {
        Some(bar) => lookup(&name[..bar])?.subcommand(&name[bar + 1..]),
        None => lookup(name),
    }
}

/// Every command and subcommand, by index.
pub fn all() -> &'static [&'static Command] {
    &TABLE.commands
}

/// Every command that is no subcommand, as COMMAND shows them.
pub fn top_level() -> impl Iterator<Item = &'static Command> {
    let is_shown = |command: &&'static Command| !command.name.contains('|') && !command.spec.has(HIDDEN);
    TABLE.commands.iter().copied().filter(is_shown)
}

/// FNV-1a of the name in lower case, its bits spread over the word for the table.
#[inline]
fn hash(name: &[u8]) -> u64 {
    let folded = name.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0000_0100_0000_01b3)
    });
    folded ^ folded.rotate_left(32)
}
