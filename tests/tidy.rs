//! The rules of the repository, held by tests: who imports whom, how long files are, which words stay out, which pages
//! are generated.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What a layer may import besides itself, in layer order. The reason stands behind each row.
const LAYERS: &[(&str, &[&str], &str)] = &[
    ("base", &[], "small vocabulary: no state, no I/O"),
    ("resp", &["base"], "the protocol knows no command and no engine"),
    ("values", &["base"], "data structures know no keys, no time, no RESP"),
    ("rdb", &["base", "values"], "bytes to values and back: no engine, and a file is bytes"),
    ("config", &["base"], "parameters are data"),
    ("engine", &["base", "values"], "the engine knows no RESP, no cluster, no files, no sockets"),
    (
        "persistence",
        &["base", "config", "values", "rdb", "engine"],
        "files know no connection, no command and no cluster",
    ),
    (
        "files",
        &["base", "values", "rdb", "engine", "persistence"],
        "files are looked at without a server, its configuration or a connection",
    ),
    ("transport", &["base"], "links carry what upper layers mean without knowing it"),
    ("cluster", &["base", "transport"], "protocols of the cluster know no command and no connection"),
    ("moves", &["base", "values", "engine", "transport", "cluster"], "slots move below commands and connections"),
    ("proxy", &["base", "resp", "config", "cluster"], "forwards bytes to other nodes, knows no command"),
    (
        "services",
        &["base", "resp", "values", "config", "engine", "persistence", "transport", "cluster"],
        "shared by connections, knows no command",
    ),
    (
        "commands",
        &["base", "resp", "values", "rdb", "config", "engine", "persistence", "transport", "cluster", "services"],
        "commands know no socket",
    ),
    (
        "server",
        &["base", "resp", "values", "config", "engine", "cluster", "proxy", "services", "commands"],
        "the server does not know who composes it",
    ),
    (
        "node",
        &[
            "base",
            "resp",
            "values",
            "config",
            "engine",
            "persistence",
            "transport",
            "cluster",
            "moves",
            "proxy",
            "services",
            "commands",
            "server",
        ],
        "the composition root knows everything but the command line",
    ),
    (
        "cli",
        &["base", "config", "persistence", "files", "node", "commands"],
        "the command line starts nodes, and talks to them as a client",
    ),
];

/// What `commands/data` may import: a data handler runs unchanged in MULTI, behind a proxy, on a copy, in a test.
const DATA_HANDLERS: &[&str] = &["base", "resp", "values", "rdb", "engine", "commands"];

/// Lines a file may have before its first lines must say why it is one thing.
const LINES_MAX: usize = 620;

/// Words that lead nowhere, or should not be committed.
const BANNED: &[&str] = &["todo!", "unimplemented!", "dbg!", "FIXME", "XXX", "TODO"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() && !path.ends_with("target") && !path.ends_with(".work") && !path.ends_with(".git") {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&root().join("src"), "rs", &mut found);
    assert!(found.len() > 50, "the sources are found");
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root().join("src")).expect("below src").display().to_string();
            (name, fs::read_to_string(path).expect("a readable source"))
        })
        .collect()
}

/// The layers that a source imports by `crate::`.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        for behind in line.split("crate::").skip(1) {
            let layer: String = behind.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !layer.is_empty() {
                found.push((number + 1, layer));
            }
        }
    }
    found
}

#[test]
fn imports_point_up_the_layers() {
    let allowed: BTreeMap<&str, (&[&str], &str)> = LAYERS.iter().map(|(l, a, why)| (*l, (*a, *why))).collect();
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let layer = name.split(['/', '.']).next().expect("a name").to_owned();
        if layer == "lib" || layer == "main" {
            continue;
        }
        let Some((may, why)) = allowed.get(layer.as_str()) else {
            wrong.push(format!("{name}: the layer '{layer}' is not in the table of tests/tidy.rs"));
            continue;
        };
        let may = if name.starts_with("commands/data/") { DATA_HANDLERS } else { may };
        for (line, imported) in imports(&text) {
            if imported != layer && !may.contains(&imported.as_str()) {
                wrong.push(format!("src/{name}:{line} imports {imported}: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn data_handlers_know_no_session() {
    for (name, text) in sources().iter().filter(|(name, _)| name.starts_with("commands/data/")) {
        for word in ["session", "Session", "services", "tokio", "context::"] {
            assert!(!text.contains(&format!("::{word}")), "src/{name} imports {word}: data handlers see keys only");
        }
    }
}

#[test]
fn files_have_a_purpose_and_an_end() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        if !text.starts_with("//!") && !name.ends_with("tests.rs") {
            wrong.push(format!("src/{name} does not say at its top what it is for"));
        }
        let explained = text.lines().take(20).any(|line| line.contains("long because"));
        if lines > LINES_MAX && !explained && !name.ends_with("tests.rs") {
            wrong.push(format!("src/{name} has {lines} lines: split it, or say at its top why it is long because ..."));
        }
        for stem in ["util", "common", "helpers", "manager", "misc", "types"] {
            if name.split(['/', '.']).any(|part| part == stem) {
                wrong.push(format!("src/{name}: '{stem}' names nothing"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn some_words_stay_out() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            for word in BANNED.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("src/{name}:{}: {word}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_in_few_files() {
    const ALLOWED: &[&str] = &["engine/entry.rs", "engine/prefetch.rs", "main.rs"];
    for (name, text) in sources() {
        if text.contains("allow(unsafe_code)") {
            assert!(ALLOWED.contains(&name.as_str()), "src/{name} may not use unsafe code");
        }
    }
}

#[test]
fn generated_pages_are_current() {
    let pages = [("docs/configuration.md", starling::config::documentation())];
    for (name, text) in pages {
        let path = root().join(name);
        if std::env::var_os("STARLING_WRITE_DOCS").is_some() {
            fs::write(&path, &text).expect("a writable page");
        }
        let current = fs::read_to_string(&path).unwrap_or_default();
        assert!(current == text, "{name} is not what the code says: run `make docs`");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut pages = Vec::new();
    files(&root(), "md", &mut pages);
    let mut wrong = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).expect("a readable page");
        for target in text.split("](").skip(1).filter_map(|behind| behind.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            if !page.parent().expect("a folder").join(file).exists() {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
