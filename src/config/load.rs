//! Where a configuration comes from: a file in redis.conf's syntax, `STARLING_*` variables, the command line. The later
//! one wins.

use super::parameters::{Effect, PARAMETERS, REFUSED, find};
use super::{Config, directives, environment, value};
use crate::base::glob;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Files that include files that include files: more is a circle.
const INCLUDE_DEPTH_MAX: usize = 16;

/// Why the node does not start.
#[derive(Debug)]
pub struct LoadError {
    /// Where the line stands: a file with its line, a variable, the command line.
    place: String,
    line: String,
    reason: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\n*** FATAL CONFIG FILE ERROR (Starling {}) ***\nReading the configuration, at {}\n>>> '{}'\n{}\n",
            env!("CARGO_PKG_VERSION"),
            self.place,
            self.line,
            self.reason
        )
    }
}

impl std::error::Error for LoadError {}

/// A configuration, and what the log should say about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// Directives that were set, and have no effect here. Each once.
    pub without_effect: Vec<String>,
    /// Variables that begin as directives do and name none.
    pub unknown_variables: Vec<String>,
}

/// Collects directives.
struct Loader {
    texts: Vec<String>,
    without_effect: Vec<String>,
    file: Option<String>,
    /// Values that stop the start unless a later directive takes them back, by parameter.
    refused: BTreeMap<usize, LoadError>,
    /// Why a node of a cluster would not start with the rules of `save` that were set last, where there are some.
    rules: Option<LoadError>,
    /// Why an arbiter would not start without `join`, or with `bootstrap-expect`; `None`: it is no arbiter.
    arbiter: Option<LoadError>,
}

const NO_RULES: &str = "Nodes of a cluster load no snapshots, and take none by rules: 'appendonly yes' keeps what they have, \
    and 'save \"\"' takes rules back";

const CREATES_NOTHING: &str = "An arbiter has no slots, so it creates no cluster: say which one it joins ('join'), and not \
    'bootstrap-expect'";

/// Loads the configuration of a node from its command line (without the program's name) and the environment.
pub fn load(arguments: &[String], variables: impl Iterator<Item = (String, String)>) -> Result<Loaded, LoadError> {
    let mut loader = Loader {
        texts: PARAMETERS.iter().map(|parameter| parameter.default.to_owned()).collect(),
        without_effect: Vec::new(),
        file: None,
        refused: BTreeMap::new(),
        rules: None,
        arbiter: None,
    };
    let mut rest = arguments;
    if let Some(file) = rest.first().filter(|argument| !argument.starts_with("--")) {
        if file == "-" {
            let text =
                std::io::read_to_string(std::io::stdin()).map_err(|error| unreadable("standard input", &error))?;
            loader.read_text(&text, "standard input", 0)?;
        } else {
            loader.read_file(Path::new(file), 0)?;
            loader.file = std::fs::canonicalize(file).ok().map(|path| path.display().to_string());
        }
        rest = &rest[1..];
    }
    let mut unknown_variables = Vec::new();
    let is_meant = |(name, text): &(String, String)| {
        name.starts_with(environment::PREFIX) && !environment::is_of_a_service(name, text)
    };
    let mut variables: Vec<(String, String)> = variables.filter(is_meant).collect();
    variables.sort();
    for (name, text) in variables {
        let directive = name[environment::PREFIX.len()..].to_ascii_lowercase().replace('_', "-");
        // What shares the prefix by chance is no reason not to start: the environment is not written for us alone.
        if !is_known(&directive) {
            unknown_variables.push(name);
            continue;
        }
        loader.set(&directive, &split(&text).unwrap_or_else(|| vec![text.clone()]), &name, &text)?;
    }
    loader.read_command_line(rest)?;
    if let Some((_, refused)) = loader.refused.pop_first() {
        return Err(refused);
    }
    let mut config = Config::from_texts(loader.texts.clone(), loader.file.clone());
    if let Some(refused) = loader.arbiter
        && (config.cluster.join.is_empty() || config.cluster.bootstrap_expect > 0)
    {
        return Err(refused);
    }
    if config.cluster_enabled {
        if let Some(rules) = loader.rules {
            return Err(rules);
        }
        // Those that a standalone server has by default.
        find(b"save").and_then(|index| loader.texts.get_mut(index)).into_iter().for_each(String::clear);
        config = Config::from_texts(loader.texts, loader.file);
    }
    Ok(Loaded { config, without_effect: loader.without_effect, unknown_variables })
}

/// Whether a directive is one of Redis's, Valkey's or our own.
fn is_known(directive: &str) -> bool {
    find(directives::canonical(directive).as_bytes()).is_some() || directives::is_without_effect(directive)
}

fn unreadable(place: &str, error: &std::io::Error) -> LoadError {
    LoadError { place: place.to_owned(), line: String::new(), reason: format!("cannot be read: {error}") }
}

/// The files that `include` means. The last part of the path may be a pattern, which may match nothing.
fn included(pattern: &str) -> Vec<PathBuf> {
    let path = Path::new(pattern);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return vec![path.to_owned()];
    };
    if !name.contains(['*', '?', '[']) {
        return vec![path.to_owned()];
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_meant = |path: &PathBuf| {
        let found = path.file_name().and_then(|found| found.to_str()).unwrap_or_default();
        !found.starts_with('.') && glob::matches(name.as_bytes(), found.as_bytes())
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_meant).collect();
    paths.sort();
    paths
}

/// The words of a line, quotes and escapes resolved as in the inline protocol; `None` where quotes do not close.
fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => words.extend(word.take()),
            b'"' | b'\'' if word.is_none() => {
                words.push(quoted(&mut bytes, byte)?);
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words.into_iter().map(|word| String::from_utf8_lossy(&word).into_owned()).collect())
}

/// The bytes up to the closing quote.
fn quoted(bytes: &mut impl Iterator<Item = u8>, quote: u8) -> Option<Vec<u8>> {
    let mut word = Vec::new();
    loop {
        match bytes.next()? {
            byte if byte == quote => return Some(word),
            b'\\' if quote == b'"' => match bytes.next()? {
                b'n' => word.push(b'\n'),
                b'r' => word.push(b'\r'),
                b't' => word.push(b'\t'),
                b'x' => {
                    let digits = [bytes.next()?, bytes.next()?];
                    word.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                }
                other => word.push(other),
            },
            byte => word.push(byte),
        }
    }
}

impl Loader {
    fn read_file(&mut self, path: &Path, depth: usize) -> Result<(), LoadError> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(&place, &error))?;
        self.read_text(&text, &place, depth)
    }

    fn read_text(&mut self, text: &str, place: &str, depth: usize) -> Result<(), LoadError> {
        for (number, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let place = format!("{place}, line {}", number + 1);
            let fail =
                |reason: &str| LoadError { place: place.clone(), line: trimmed.to_owned(), reason: reason.to_owned() };
            let words = split(trimmed).ok_or_else(|| fail("Unbalanced quotes in configuration line"))?;
            let Some((directive, values)) = words.split_first() else { continue };
            if directive.eq_ignore_ascii_case("include") {
                if depth >= INCLUDE_DEPTH_MAX {
                    return Err(fail("Files include each other too deeply"));
                }
                for pattern in values {
                    for path in included(pattern) {
                        self.read_file(&path, depth + 1)?;
                    }
                }
                continue;
            }
            self.set(directive, values, &place, trimmed)?;
        }
        Ok(())
    }

    /// `--directive value...`; `--cluster` stands for `cluster-enabled yes`, `--arbiter` for `arbiter yes`.
    fn read_command_line(&mut self, arguments: &[String]) -> Result<(), LoadError> {
        let mut index = 0;
        while index < arguments.len() {
            let argument = &arguments[index];
            let place = "the command line";
            let Some(directive) = argument.strip_prefix("--") else {
                return Err(LoadError {
                    place: place.to_owned(),
                    line: argument.clone(),
                    reason: "A directive begins with --".to_owned(),
                });
            };
            let following = arguments[index + 1..].iter().take_while(|word| !word.starts_with("--"));
            let values: Vec<String> = following.cloned().collect();
            index += 1 + values.len();
            let line = format!("{argument} {}", values.join(" "));
            let flag = match directive {
                "cluster" => Some("cluster-enabled"),
                "arbiter" => Some("arbiter"),
                _ => None,
            };
            if let Some(flag) = flag.filter(|_| values.is_empty()) {
                self.set(flag, &["yes".to_owned()], place, &line)?;
                continue;
            }
            // One argument may hold several words, as in `--save "60 1"`.
            let values = match &values[..] {
                [one] => split(one).filter(|words| words.len() > 1).unwrap_or_else(|| vec![one.clone()]),
                _ => values,
            };
            self.set(directive, &values, place, &line)?;
        }
        Ok(())
    }

    fn set(&mut self, directive: &str, values: &[String], place: &str, line: &str) -> Result<(), LoadError> {
        let fail = |reason: String| LoadError { place: place.to_owned(), line: line.to_owned(), reason };
        if directives::is_without_effect(directive) {
            self.name_once(&directive.to_ascii_lowercase());
            return Ok(());
        }
        let directive = directives::canonical(directive);
        let index =
            find(directive.as_bytes()).ok_or_else(|| fail("Bad directive or wrong number of arguments".to_owned()))?;
        let parameter = &PARAMETERS[index];
        let mut values = values.to_vec();
        // Redis adds up `save` lines; an empty one takes them all back.
        if parameter.name == "save" && values.len() > 1 && self.texts[index] != parameter.default {
            values.insert(0, self.texts[index].clone());
        }
        let text = value::check(parameter.kind, &values, &self.texts[index]).map_err(fail)?;
        match REFUSED.iter().find(|(name, refused, _)| (*name, *refused) == (parameter.name, text.as_str())) {
            Some((_, _, reason)) => drop(self.refused.insert(index, fail((*reason).to_owned()))),
            None => drop(self.refused.remove(&index)),
        }
        if parameter.name == "save" {
            self.rules = (!text.is_empty()).then(|| fail(NO_RULES.to_owned()));
        }
        if parameter.name == "arbiter" {
            self.arbiter = (text == "yes").then(|| fail(CREATES_NOTHING.to_owned()));
        }
        let is_other = parameter.effect == Effect::Acts || text == parameter.default;
        if !is_other || (parameter.name == "log-format" && text == "logfmt") {
            self.name_once(parameter.name);
        }
        self.texts[index] = text;
        Ok(())
    }

    fn name_once(&mut self, directive: &str) {
        if !self.without_effect.iter().any(|named| named == directive) {
            self.without_effect.push(directive.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Loaded, LoadError> {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        load(&arguments, variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())))
    }

    #[test]
    fn the_command_line_wins_over_variables() {
        let variables = [("STARLING_PORT", "7000"), ("STARLING_MAXMEMORY", "1gb")];
        let config = loaded(&["--port", "7001", "--cluster"], &variables).expect("a configuration").config;
        assert_eq!((config.port, config.maxmemory, config.cluster_enabled), (7001, 1 << 30, true));
    }

    #[test]
    fn a_file_is_read_line_by_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("redis.conf");
        let text = "# comment\nport 7002\nrequirepass \"a b\\x41\"\nappendonly yes\nrename-command FLUSHALL \"\"\n";
        std::fs::write(&path, text).expect("a file");
        let loaded = loaded(&[&path.display().to_string()], &[]).expect("a configuration");
        assert_eq!(loaded.config.port, 7002);
        assert_eq!(loaded.config.requirepass, b"a bA");
        assert!(loaded.config.appendonly);
        assert_eq!(loaded.without_effect, ["rename-command"]);
    }

    #[test]
    fn an_unknown_name_stops_the_start() {
        let error = loaded(&["--nonsense", "1"], &[]).expect_err("an unknown directive").to_string();
        assert!(error.contains("Bad directive"), "{error}");
        assert!(error.contains("--nonsense 1"), "{error}");
        assert!(loaded(&["--port", "abc"], &[]).is_err());
        assert!(loaded(&[], &[("STARLING_PORT", "abc")]).is_err());
    }

    #[test]
    fn variables_of_services_and_unknown_ones_do_not_stop_the_start() {
        let variables = [
            ("STARLING_PORT", "tcp://10.0.0.1:6379"),
            ("STARLING_PORT_6379_TCP_ADDR", "10.0.0.1"),
            ("STARLING_SERVICE_HOST", "10.0.0.1"),
            ("STARLING_NONSENSE", "1"),
            ("STARLING_HIDE_USER_DATA_FROM_LOG", "yes"),
        ];
        let service = loaded(&[], &variables).expect("a configuration");
        assert_eq!(service.config.port, 6379);
        assert_eq!(service.unknown_variables, ["STARLING_NONSENSE"]);
        assert_eq!(service.without_effect, ["hide-user-data-from-log"]);
        assert_eq!(loaded(&[], &[("STARLING_PORT", "7000")]).expect("a configuration").config.port, 7000);
    }

    #[test]
    fn a_node_of_a_cluster_has_no_rules_for_snapshots() {
        let rules = |arguments: &[&str]| loaded(arguments, &[]).map(|loaded| loaded.config.save.len());
        assert_eq!(rules(&[]).expect("a configuration"), 3);
        for arguments in
            [&["--cluster"][..], &["--cluster", "--save", ""], &["--cluster", "--save", "60 1", "--save", ""]]
        {
            assert_eq!(rules(arguments).expect("a configuration"), 0, "{arguments:?}");
        }
        for arguments in [["--cluster", "--save", "60 1"], ["--save", "3600 1 300 100 60 10000", "--cluster"]] {
            let error = rules(&arguments).expect_err("rules without effect").to_string();
            assert!(error.contains(NO_RULES), "{error}");
        }
    }

    #[test]
    fn an_arbiter_joins_and_creates_nothing() {
        let is_arbiter = |arguments: &[&str]| loaded(arguments, &[]).map(|loaded| loaded.config.cluster.arbiter);
        for arguments in [&["--arbiter", "--join", "a:1"][..], &["--join", "a:1", "--arbiter", "yes"]] {
            assert!(is_arbiter(arguments).expect("a configuration"), "{arguments:?}");
        }
        assert!(!is_arbiter(&["--arbiter", "--cluster", "--arbiter", "no"]).expect("a configuration"));
        for arguments in [
            &["--arbiter"][..],
            &["--arbiter", "--cluster"],
            &["--arbiter", "--join", "a:1", "--bootstrap-expect", "3"],
        ] {
            let error = is_arbiter(arguments).expect_err("it would create a cluster").to_string();
            assert!(error.contains(CREATES_NOTHING), "{error}");
        }
    }

    #[test]
    fn second_names_mean_the_same_parameter() {
        let loaded = loaded(&["--commandlog-slow-execution-max-len", "7"], &[]).expect("a configuration");
        assert_eq!(loaded.config.slowlog_max_len, 7);
    }

    #[test]
    fn another_servers_format_of_the_log_does_not_stop_the_start() {
        let loaded = loaded(&["--log-format", "logfmt"], &[]).expect("a configuration");
        assert_eq!(loaded.without_effect, ["log-format"]);
        assert!(!loaded.config.log_json);
    }

    #[test]
    fn what_would_hang_an_init_script_stops_the_start_unless_it_is_taken_back() {
        for (name, value) in [("daemonize", "yes"), ("supervised", "upstart")] {
            let directive = format!("--{name}");
            let error = loaded(&[&directive, value], &[]).expect_err("refused").to_string();
            assert!(error.contains(&format!(">>> '--{name} {value}'")), "{error}");
            assert!(error.contains("This server"), "{error}");
            assert!(loaded(&[&directive, value, &directive, "no"], &[]).is_ok());
        }
        assert!(loaded(&["--supervised", "auto"], &[]).expect("a configuration").without_effect.is_empty());
    }

    #[test]
    fn include_takes_a_pattern_that_may_match_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path.display().to_string()
        };
        write("b.conf", "port 7004\n");
        write("a.conf", "port 7003\nmaxmemory 1gb\n");
        let folder = directory.path().display();
        let main = write("main", &format!("include {folder}/*.conf\ninclude {folder}/none-*.conf\n"));
        let config = loaded(&[&main], &[]).expect("a configuration").config;
        assert_eq!((config.port, config.maxmemory), (7004, 1 << 30));
        let main = write("main", &format!("include {folder}/missing.conf\n"));
        assert!(loaded(&[&main], &[]).is_err());
    }
}
