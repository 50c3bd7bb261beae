//! COMMAND DOCS: what each command is for, since when, with which arguments.
//!
//! `docs.json` is what redis-server answers to COMMAND DOCS (`redis-compat-tests/fixtures/capture.py` writes it); only
//! commands that exist here are shown. `docs_later.json` has those that came after Redis 7.0, in our words. Both are parsed
//! when they are first asked for.

use crate::commands::table::Command;
use crate::resp::reply::ReplyWriter;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The documentation of a command, in the order of Redis's reply.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    summary: Option<String>,
    since: Option<String>,
    group: Option<String>,
    complexity: Option<String>,
    doc_flags: Vec<String>,
    deprecated_since: Option<String>,
    replaced_by: Option<String>,
    history: Vec<(String, String)>,
    arguments: Vec<Argument>,
    /// By full name (`config|get`).
    subcommands: BTreeMap<String, Document>,
}

/// An argument, or a group of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Argument {
    name: Option<String>,
    r#type: Option<String>,
    key_spec_index: Option<i64>,
    token: Option<String>,
    summary: Option<String>,
    since: Option<String>,
    deprecated_since: Option<String>,
    flags: Vec<String>,
    arguments: Vec<Argument>,
}

static DOCUMENTS: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
    let parsed = |text: &str| -> BTreeMap<String, Document> {
        serde_json::from_str(text).expect("a test parses the file that is compiled in")
    };
    let mut documents = parsed(include_str!("../docs.json"));
    for (name, document) in parsed(include_str!("../docs_later.json")) {
        match documents.get_mut(&name) {
            Some(known) => known.subcommands.extend(document.subcommands),
            None => drop(documents.insert(name, document)),
        }
    }
    documents
});

/// Whether COMMAND DOCS says something of this command, or subcommand (`config|get`).
pub fn is_documented(name: &str) -> bool {
    document(name).is_some()
}

/// The documentation of a command or subcommand; `None` where it is not known.
fn document(name: &str) -> Option<&'static Document> {
    match name.split_once('|') {
        None => DOCUMENTS.get(name),
        Some((container, _)) => DOCUMENTS.get(container)?.subcommands.get(name),
    }
}

/// Writes the documentation of these commands as a map by their names.
pub fn write(commands: &[&Command], reply: &mut ReplyWriter<'_>) {
    let known: Vec<_> = commands.iter().filter_map(|command| Some((*command, document(&command.name)?))).collect();
    reply.map(known.len());
    for (command, document) in known {
        reply.bulk(command.name.as_bytes());
        write_document(command, document, reply);
    }
}

fn write_document(command: &Command, document: &Document, reply: &mut ReplyWriter<'_>) {
    let begun = reply.begin();
    let mut fields = 0;
    for (name, text) in [
        ("summary", &document.summary),
        ("since", &document.since),
        ("group", &document.group),
        ("complexity", &document.complexity),
    ] {
        fields += write_text(name, text, reply);
    }
    fields += write_flags("doc_flags", &document.doc_flags, reply);
    fields += write_text("deprecated_since", &document.deprecated_since, reply);
    fields += write_text("replaced_by", &document.replaced_by, reply);
    if !document.history.is_empty() {
        reply.bulk(b"history");
        reply.set(document.history.len());
        for (version, change) in &document.history {
            reply.array(2);
            reply.bulk(version.as_bytes());
            reply.bulk(change.as_bytes());
        }
        fields += 1;
    }
    fields += write_arguments(&document.arguments, reply);
    if !command.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        write(&command.subcommands, reply);
        fields += 1;
    }
    reply.end_map(begun, fields);
}

fn write_arguments(arguments: &[Argument], reply: &mut ReplyWriter<'_>) -> usize {
    if arguments.is_empty() {
        return 0;
    }
    reply.bulk(b"arguments");
    reply.array(arguments.len());
    for argument in arguments {
        let begun = reply.begin();
        let mut fields = write_text("name", &argument.name, reply) + write_text("type", &argument.r#type, reply);
        if let Some(index) = argument.key_spec_index {
            reply.bulk(b"key_spec_index");
            reply.integer(index);
            fields += 1;
        }
        for (name, text) in [
            ("token", &argument.token),
            ("summary", &argument.summary),
            ("since", &argument.since),
            ("deprecated_since", &argument.deprecated_since),
        ] {
            fields += write_text(name, text, reply);
        }
        fields += write_flags("flags", &argument.flags, reply);
        fields += write_arguments(&argument.arguments, reply);
        reply.end_map(begun, fields);
    }
    1
}

/// A field with a text, where there is one. Returns how many fields were written.
fn write_text(name: &str, text: &Option<String>, reply: &mut ReplyWriter<'_>) -> usize {
    let Some(text) = text else { return 0 };
    reply.bulk(name.as_bytes());
    reply.bulk(text.as_bytes());
    1
}

fn write_flags(name: &str, flags: &[String], reply: &mut ReplyWriter<'_>) -> usize {
    if flags.is_empty() {
        return 0;
    }
    reply.bulk(name.as_bytes());
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.simple(flag));
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_parses_and_knows_commands() {
        assert!(DOCUMENTS.len() > 200, "{} commands", DOCUMENTS.len());
        assert_eq!(document("get").and_then(|document| document.group.as_deref()), Some("string"));
        assert!(document("config|get").is_some());
        assert!(document("nosuch|get").is_none());
    }
}
