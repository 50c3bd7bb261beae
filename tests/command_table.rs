//! The command table is Redis's: every row is compared with what redis-server 7.0.15 answers to COMMAND
//! (`tests/fixtures/command.json`, written by `redis-compat-tests/fixtures/capture.py`).

use serde_json::Value;
use starling::commands::control::command::{categories, flags, key_flags, key_range};
use starling::commands::control::documentation;
use starling::commands::spec::{Begin, Find, HIDDEN, KeySpec};
use starling::commands::table::{self, Command};
use std::collections::{BTreeMap, BTreeSet};

/// Commands and subcommands that Redis 7.0 does not have.
const ADDITIONS: &[(&str, &str)] = &[
    ("client|no-touch", "Redis 7.2"),
    ("client|setinfo", "Redis 7.2 has it, and client libraries send it when they connect"),
    ("hexpire", "Redis 7.4"),
    ("hexpireat", "Redis 7.4"),
    ("hexpiretime", "Redis 7.4"),
    ("hpersist", "Redis 7.4"),
    ("hpexpire", "Redis 7.4"),
    ("hpexpireat", "Redis 7.4"),
    ("hpexpiretime", "Redis 7.4"),
    ("hpttl", "Redis 7.4"),
    ("httl", "Redis 7.4"),
    ("hgetdel", "Redis 8.0"),
    ("hgetex", "Redis 8.0"),
    ("hsetex", "Redis 8.0"),
    ("delex", "of Redis 8.4"),
    ("delifeq", "of Valkey 9"),
    ("digest", "of Redis 8.4"),
    ("msetex", "of Redis 8.4"),
    ("hotkeys", "Redis 8.6"),
    ("hotkeys|get", "Redis 8.6"),
    ("hotkeys|help", "Redis 8.6"),
    ("hotkeys|reset", "Redis 8.6"),
    ("hotkeys|start", "Redis 8.6"),
    ("hotkeys|stop", "Redis 8.6"),
    ("waitaof", "Redis 7.2"),
    ("xackdel", "Redis 8.2"),
    ("xdelex", "Redis 8.2"),
    ("clusterscan", "Valkey 9.1"),
];

/// Fields in which a row differs on purpose.
const DIFFERENCES: &[(&str, &str, &str)] =
    &[("zrank", "arity", "WITHSCORE, of Redis 7.2"), ("zrevrank", "arity", "WITHSCORE, of Redis 7.2")];

fn words(value: &Value) -> BTreeSet<String> {
    let words = value.as_array().map(Vec::as_slice).unwrap_or_default();
    words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

fn owned<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    words.into_iter().map(str::to_owned).collect()
}

/// Commands with their subcommands, by full name.
fn enter(commands: &Value, rows: &mut BTreeMap<String, Value>) {
    for (name, row) in commands.as_object().expect("commands by name") {
        rows.insert(name.clone(), row.clone());
        enter(&row["subcommands"], rows);
    }
}

fn fixture() -> BTreeMap<String, Value> {
    let mut rows = BTreeMap::new();
    enter(&serde_json::from_str(include_str!("fixtures/command.json")).expect("JSON"), &mut rows);
    rows
}

/// A key specification in one line. Notes are prose, and need not be the same.
fn key_line(key: &KeySpec) -> String {
    let begin = match key.begin {
        Begin::Index(index) => format!("index {index}"),
        Begin::Keyword(word, from) => format!("keyword {word} {from}"),
        Begin::Function(_) | Begin::Unknown => "unknown".to_owned(),
    };
    let find = match key.find {
        Find::Range { last, step, limit } => format!("range {last} {step} {limit}"),
        Find::Count { count, first, step } => format!("keynum {count} {first} {step}"),
        Find::Unknown => "unknown".to_owned(),
    };
    format!("{:?} from {begin} to {find}", owned(key_flags(key)))
}

fn redis_key_line(key: &Value) -> String {
    let part = |part: &Value, fields: &[&str]| {
        let mut line = part["type"].as_str().expect("a type").to_owned();
        for value in fields.iter().map(|field| &part["spec"][*field]).filter(|value| !value.is_null()) {
            line.push(' ');
            line.push_str(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        line
    };
    let begin = part(&key["begin_search"], &["index", "keyword", "startfrom"]);
    let find = match key["find_keys"]["type"].as_str() {
        Some("keynum") => part(&key["find_keys"], &["keynumidx", "firstkey", "keystep"]),
        _ => part(&key["find_keys"], &["lastkey", "keystep", "limit"]),
    };
    format!("{:?} from {begin} to {find}", words(&key["flags"]))
}

/// The fields in which a row differs from Redis's: field, ours, Redis's.
fn differences(command: &Command, redis: &Value) -> Vec<(&'static str, String, String)> {
    let spec = command.spec;
    let keys: Vec<String> = spec.keys.iter().map(key_line).collect();
    let redis_keys: Vec<String> = redis["key_specs"].as_array().expect("keys").iter().map(redis_key_line).collect();
    let (first, last, step) = key_range(spec.keys);
    let compared = [
        ("arity", spec.arity.number().to_string(), redis["arity"].to_string()),
        ("flags", format!("{:?}", owned(flags(spec))), format!("{:?}", words(&redis["flags"]))),
        (
            "range",
            format!("{first} {last} {step}"),
            format!("{} {} {}", redis["first_key"], redis["last_key"], redis["step"]),
        ),
        ("categories", format!("{:?}", owned(categories(spec))), format!("{:?}", words(&redis["acl_categories"]))),
        ("tips", format!("{:?}", owned(spec.tips.iter().copied())), format!("{:?}", words(&redis["tips"]))),
        ("keys", format!("{keys:?}"), format!("{redis_keys:?}")),
    ];
    compared.into_iter().filter(|(_, ours, redis)| ours != redis).collect()
}

#[test]
fn rows_are_those_of_redis() {
    let redis = fixture();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for command in table::all().iter().filter(|command| !command.spec.has(HIDDEN)) {
        let name = command.name.as_str();
        let addition = ADDITIONS.iter().any(|(added, _)| *added == name);
        match redis.get(name) {
            None if addition => {}
            None => wrong.push(format!("{name}: Redis has no such command")),
            Some(_) if addition => wrong.push(format!("{name}: Redis has it too")),
            Some(row) => {
                for (field, ours, theirs) in differences(command, row) {
                    if DIFFERENCES.iter().any(|(differing, of, _)| *differing == name && *of == field) {
                        used.insert((name, field));
                    } else {
                        wrong.push(format!("{name}: {field}\n    ours:  {ours}\n    Redis: {theirs}"));
                    }
                }
            }
        }
    }
    for (name, field, _) in DIFFERENCES {
        if !used.contains(&(name, field)) && table::lookup_full(name.as_bytes()).is_some() {
            wrong.push(format!("{name}: {field} is listed as different, and is not"));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// What stands behind the mark in docs/commands.md: every command of the servers in `fixtures/commands.tsv` (written by
/// `redis-compat-tests/fixtures/commands.py`), and the additions that none of them has.
fn page() -> String {
    let mut lines = include_str!("fixtures/commands.tsv").lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let servers = lines.next().expect("a first line").split_off(2);
    let mut groups: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let is_here = |name: &str| table::lookup_full(name.as_bytes()).is_some_and(|it| !it.spec.has(HIDDEN));
    let mut named = BTreeSet::new();
    for columns in lines {
        let name = columns[0];
        let ours = if is_here(name) { "yes" } else { "no" };
        named.insert(name);
        let theirs: String = columns[2..].iter().map(|has| format!(" {has} |").replace("  ", " ")).collect();
        let row = format!("| {} |{theirs} {ours} |", name.to_uppercase().replace('|', " "));
        groups.entry(columns[1].to_owned()).or_default().insert(name.to_owned(), row);
    }
    for (name, of) in ADDITIONS.iter().filter(|(name, _)| !named.contains(name)) {
        let of = of.trim_start_matches("of ");
        let row = format!("| {} |{} yes, of {of} |", name.to_uppercase().replace('|', " "), " |".repeat(servers.len()));
        groups.entry("of later versions".to_owned()).or_default().insert((*name).to_owned(), row);
    }
    let all = groups.values().flat_map(BTreeMap::values);
    let supported = all.clone().filter(|row| !row.ends_with(" no |")).count();
    let mut page = format!("{supported} of {} commands and subcommands.\n", all.count());
    for (group, rows) in groups {
        page += &format!("\n### {group}\n\n| command | {} | Starling |\n|", servers.join(" | "));
        page += &" --- |".repeat(servers.len() + 2);
        rows.into_values().for_each(|row| page += &format!("\n{row}"));
        page.push('\n');
    }
    page
}

#[test]
fn generated_page_of_commands_is_current() {
    const MARK: &str = "<!-- what follows is generated: make docs -->\n\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md");
    let current = std::fs::read_to_string(path).expect("a readable page");
    let (written, generated) = current.split_once(MARK).expect("the mark");
    if std::env::var_os("STARLING_WRITE_DOCS").is_some() {
        std::fs::write(path, [written, MARK, &page()].concat()).expect("a writable page");
        return;
    }
    assert!(generated == page(), "docs/commands.md is not what the table says: run `make docs`");
}

#[test]
fn names_are_in_lower_case_and_found() {
    for command in table::all() {
        assert_eq!(command.name, command.name.to_ascii_lowercase());
        let found = table::lookup_full(command.name.to_ascii_uppercase().as_bytes()).expect("it is in the table");
        assert_eq!(found.index, command.index, "{} is there twice", command.name);
    }
}

#[test]
fn every_command_that_is_shown_has_documentation() {
    let shown = table::all().iter().filter(|command| !command.spec.has(HIDDEN));
    let without: Vec<&str> =
        shown.map(|command| command.name.as_str()).filter(|name| !documentation::is_documented(name)).collect();
    assert!(without.is_empty(), "not in docs.json or docs_later.json: {without:?}");
}
