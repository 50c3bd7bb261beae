//! COMMAND: the command table, as clients and proxies read it.
//!
//! Everything is derived from the rows; the documentation (COMMAND DOCS) is in `super::documentation`.

use super::documentation;
use crate::base::glob;
use crate::commands::context::Control;
use crate::commands::error::CommandError;
use crate::commands::help;
use crate::commands::parse::is;
use crate::commands::spec::{
    Access, Arity::*, Begin, CATEGORY_NAMES, CONNECTION, Categories, CommandResult, CommandSpec, FLAG_NAMES, Find,
    Flags, HIDDEN, KeySpec, LOADING, MAY_REPLICATE, SENTINEL, STALE, control,
};
use crate::commands::table::{self, Command};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;

const BASIC: u64 = LOADING | STALE;
const UNORDERED: &[&str] = &["nondeterministic_output_order"];

pub const COMMANDS: &[CommandSpec] =
    &[control("command", AtLeast(1), BASIC, CONNECTION, every).tips(UNORDERED).subcommands(COMMAND)];

const COMMAND: &[CommandSpec] = &[
    control("count", Exactly(2), BASIC, CONNECTION, count),
    control("docs", AtLeast(2), BASIC, CONNECTION, docs).tips(UNORDERED),
    control("getkeys", AtLeast(4), BASIC, CONNECTION, getkeys),
    control("getkeysandflags", AtLeast(4), BASIC, CONNECTION, getkeysandflags),
    control("help", Exactly(2), BASIC, CONNECTION, command_help),
    control("info", AtLeast(2), BASIC, CONNECTION, info).tips(UNORDERED),
    control("list", AtLeast(2), BASIC, CONNECTION, list).tips(UNORDERED),
];

fn every(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    write_all(reply);
    Ok(())
}

fn write_all(reply: &mut ReplyWriter<'_>) {
    reply.array(table::top_level().count());
    table::top_level().for_each(|command| write_command(command, reply));
}

fn count(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.count(table::top_level().count());
    Ok(())
}

fn info(_: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if arguments.len() == 2 {
        write_all(reply);
        return Ok(());
    }
    reply.array(arguments.len() - 2);
    for name in arguments.from(2) {
        match table::lookup_full(name) {
            Some(command) => write_command(command, reply),
            None => reply.null(),
        }
    }
    Ok(())
}

fn docs(_: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let commands: Vec<&Command> = if arguments.len() == 2 {
        table::top_level().collect()
    } else {
        arguments.from(2).filter_map(table::lookup_full).collect()
    };
    documentation::write(&commands, reply);
    Ok(())
}

/// First key, last key (negative: from the end) and step, where one range covers all keys that have fixed places. Older
/// clients know keys only in this form.
pub fn key_range(keys: &[KeySpec]) -> (i64, i64, i64) {
    let fixed = |spec: &KeySpec| match (spec.begin, spec.find) {
        (Begin::Index(first), Find::Range { last, step, .. }) => {
            let last = if last >= 0 { i64::from(first) + i64::from(last) } else { i64::from(last) };
            Some((i64::from(first), last, i64::from(step)))
        }
        _ => None,
    };
    if let [spec] = keys {
        return fixed(spec).unwrap_or((0, 0, 0));
    }
    let mut joined: Option<(i64, i64, i64)> = None;
    for (first, last, step) in keys.iter().filter_map(fixed) {
        joined = match joined {
            // Ranges are joined while each begins where the one before it ended.
            _ if step != 1 => break,
            None => Some((first, last, step)),
            Some((begin, end, step)) if first == end + 1 => Some((begin, last, step)),
            Some(_) => break,
        };
    }
    joined.unwrap_or((0, 0, 0))
}

fn write_command(command: &Command, reply: &mut ReplyWriter<'_>) {
    let spec = command.spec;
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(spec.arity.number());
    write_words(flags(spec), reply);
    let (first, last, step) = key_range(spec.keys);
    [first, last, step].into_iter().for_each(|number| reply.integer(number));
    write_words(categories(spec), reply);
    reply.set(spec.tips.len());
    spec.tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    reply.set(spec.keys.len());
    spec.keys.iter().for_each(|key| write_key_spec(key, reply));
    // Redis shows no subcommands as an empty set, and some as an array.
    match command.subcommands.len() {
        0 => reply.set(0),
        count => reply.array(count),
    }
    command.subcommands.iter().for_each(|sub| write_command(sub, reply));
}

/// The flags of a command that COMMAND shows. Redis keeps two to itself.
pub fn flags(spec: &CommandSpec) -> impl Iterator<Item = &'static str> + Clone {
    const UNSHOWN: Flags = SENTINEL | MAY_REPLICATE;
    FLAG_NAMES.iter().filter(|(flag, _)| spec.has(*flag & !UNSHOWN)).map(|(_, name)| *name)
}

/// The ACL categories of a command.
pub fn categories(spec: &CommandSpec) -> impl Iterator<Item = &'static str> + Clone {
    CATEGORY_NAMES.iter().filter(|(category, _)| spec.categories & *category != 0).map(|(_, name)| *name)
}

/// A set of status words.
fn write_words<'a>(words: impl Iterator<Item = &'a str> + Clone, reply: &mut ReplyWriter<'_>) {
    reply.set(words.clone().count());
    words.for_each(|word| reply.simple(word));
}

/// What a specification says of its keys, in Redis's words.
pub fn key_flags(key: &KeySpec) -> impl Iterator<Item = &'static str> + Clone {
    let access = match key.access {
        Access::ReadOnly => "RO",
        Access::ReadWrite => "RW",
        Access::Overwrite => "OW",
        Access::Remove => "RM",
    };
    std::iter::once(access).chain(key.effects.split_ascii_whitespace())
}

fn write_key_spec(key: &KeySpec, reply: &mut ReplyWriter<'_>) {
    reply.map(if key.notes.is_empty() { 3 } else { 4 });
    if !key.notes.is_empty() {
        reply.bulk(b"notes");
        reply.bulk(key.notes.as_bytes());
    }
    reply.bulk(b"flags");
    write_words(key_flags(key), reply);
    reply.bulk(b"begin_search");
    match key.begin {
        Begin::Index(index) => write_search("index", &[("index", index.into())], reply),
        Begin::Keyword(word, from) => {
            reply.map(2);
            reply.bulk(b"type");
            reply.bulk(b"keyword");
            reply.bulk(b"spec");
            reply.map(2);
            reply.bulk(b"keyword");
            reply.bulk(word.as_bytes());
            reply.bulk(b"startfrom");
            reply.integer(from.into());
        }
        Begin::Function(_) | Begin::Unknown => write_search("unknown", &[], reply),
    }
    reply.bulk(b"find_keys");
    match key.find {
        Find::Range { last, step, limit } => {
            write_search("range", &[("lastkey", last.into()), ("keystep", step.into()), ("limit", limit.into())], reply)
        }
        Find::Count { count, first, step } => write_search(
            "keynum",
            &[("keynumidx", count.into()), ("firstkey", first.into()), ("keystep", step.into())],
            reply,
        ),
        Find::Unknown => write_search("unknown", &[], reply),
    }
}

fn write_search(kind: &str, numbers: &[(&str, i64)], reply: &mut ReplyWriter<'_>) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(numbers.len());
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(*number);
    }
}

/// Which commands LIST shows.
enum Filter<'a> {
    /// There are no modules, so no command is of one.
    Module,
    Category(Categories),
    Pattern(&'a [u8]),
}

impl Filter<'_> {
    fn parse(arguments: Arguments<'_>) -> Result<Option<Filter<'_>>, CommandError> {
        if arguments.len() == 2 {
            return Ok(None);
        }
        if arguments.len() != 5 || !is(arguments.at(2), "filterby") {
            return Err(CommandError::Syntax);
        }
        let (kind, value) = (arguments.at(3), arguments.at(4));
        match kind {
            _ if is(kind, "module") => Ok(Some(Filter::Module)),
            _ if is(kind, "pattern") => Ok(Some(Filter::Pattern(value))),
            _ if is(kind, "aclcat") => {
                // An unknown category is one that has no commands.
                let named = CATEGORY_NAMES.iter().find(|(_, name)| is(value, &name[1..]));
                Ok(Some(Filter::Category(named.map_or(0, |(category, _)| *category))))
            }
            _ => Err(CommandError::Syntax),
        }
    }

    fn admits(&self, command: &Command) -> bool {
        match self {
            Filter::Module => false,
            Filter::Category(category) => command.spec.categories & category != 0,
            Filter::Pattern(pattern) => glob::matches_any_case(pattern, command.name.as_bytes()),
        }
    }
}

fn list(_: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let filter = Filter::parse(arguments)?;
    let shown: Vec<&Command> = table::all()
        .iter()
        .copied()
        .filter(|command| !command.spec.has(HIDDEN))
        .filter(|command| filter.as_ref().is_none_or(|filter| filter.admits(command)))
        .collect();
    reply.array(shown.len());
    shown.iter().for_each(|command| reply.bulk(command.name.as_bytes()));
    Ok(())
}

/// The request inside COMMAND GETKEYS, and its places that are keys.
struct Request<'a> {
    command: &'static Command,
    arguments: Arguments<'a>,
    keys: Vec<(usize, &'static KeySpec)>,
}

fn keys_of(arguments: Arguments<'_>) -> Result<Request<'_>, CommandError> {
    let inner = arguments.skip(2);
    let mut command = table::lookup(inner.at(0));
    if let Some(container) = command
        && inner.len() > 1
        && !container.subcommands.is_empty()
    {
        command = container.subcommand(inner.at(1));
    }
    let command: &'static Command = command.ok_or(CommandError::text("ERR Invalid command specified"))?;
    if command.spec.keys.is_empty() {
        return Err(CommandError::text("ERR The command has no key arguments"));
    }
    if !command.spec.arity.accepts(inner.len()) {
        return Err(CommandError::text("ERR Invalid number of arguments specified for command"));
    }
    let mut keys = Vec::new();
    let specs = command.spec.keys;
    let valid = command.spec.visit_keys(inner, |index, spec| {
        if !spec.effects.contains("not_key") {
            let spec = specs.iter().find(|candidate| std::ptr::eq(*candidate, spec)).unwrap_or(&specs[0]);
            keys.push((index, spec));
        }
    });
    if !valid || keys.is_empty() {
        return Err(CommandError::text("ERR Invalid arguments specified for command"));
    }
    Ok(Request { command, arguments: inner, keys })
}

fn getkeys(_: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let Request { arguments, keys, .. } = keys_of(arguments)?;
    reply.array(keys.len());
    keys.iter().for_each(|(index, _)| reply.bulk(arguments.at(*index)));
    Ok(())
}

fn getkeysandflags(_: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let Request { command, arguments, keys } = keys_of(arguments)?;
    // SET without GET does not look at the old value: the one specification whose flags depend on the request.
    let overwrites = command.name == "set" && !arguments.from(3).any(|word| is(word, "get"));
    reply.array(keys.len());
    for (index, spec) in keys {
        reply.array(2);
        reply.bulk(arguments.at(index));
        if overwrites {
            write_words(["OW", "update"].into_iter(), reply);
        } else {
            write_words(key_flags(spec).filter(|flag| *flag != "variable_flags"), reply);
        }
    }
    Ok(())
}

fn command_help(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    help::write(
        reply,
        "COMMAND",
        &[
            "(no subcommand)",
            "    Describe every command.",
            "COUNT",
            "    Return the number of commands.",
            "LIST [FILTERBY MODULE|ACLCAT|PATTERN <filter>]",
            "    Return the names of the commands.",
            "INFO [<command-name> ...]",
            "    Describe these commands, or all.",
            "DOCS [<command-name> ...]",
            "    Return the documentation of these commands, or of all.",
            "GETKEYS <full-command>",
            "    Return the keys of a request.",
            "GETKEYSANDFLAGS <full-command>",
            "    Return the keys of a request, and what it does to each.",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::spec::keys;

    #[test]
    fn ranges_of_adjoining_keys_are_one_range() {
        assert_eq!(key_range(&[]), (0, 0, 0));
        assert_eq!(key_range(keys::READ), (1, 1, 1));
        assert_eq!(key_range(&[keys::one(1, Access::ReadOnly, ""), keys::one(2, Access::Overwrite, "")]), (1, 2, 1));
        let apart = [keys::one(1, Access::ReadOnly, ""), keys::one(3, Access::Overwrite, "")];
        assert_eq!(key_range(&apart), (1, 1, 1));
        assert_eq!(key_range(&[keys::all(Access::ReadOnly, "")]), (1, -1, 1));
    }
}
