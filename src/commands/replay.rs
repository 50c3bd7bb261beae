//! Executes commands that stand in a file: no client sent them, nobody reads their replies, and nothing is refused.
//!
//! Time stands still in 1970: what had expired when the file was written was removed by a command in it, so nothing else is.
//! Transactions count as a whole: what is queued when the file ends was never executed.

use super::error::CommandError;
use super::execution;
use super::parse;
use super::spec::{ALL_KEYS, Handler};
use super::table::{self, Command};
use crate::engine::Engine;
use crate::resp::arguments::OwnedArguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use std::fmt;

/// See the module.
#[derive(Debug)]
pub struct Replay<'a> {
    engine: &'a Engine,
    database: usize,
    /// Between MULTI and EXEC.
    queue: Option<Vec<(&'static Command, OwnedArguments)>>,
    replies: Vec<u8>,
    /// Commands that were executed.
    pub executed: u64,
    /// How many of them answered with an error, and the first of those answers.
    pub failed: u64,
    pub first_failure: Option<String>,
}

/// Why a command cannot be executed. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotExecuted {
    /// Nobody here knows it, or it is none that changes keys.
    Unknown(String),
    /// It has too few words, or too many.
    WrongArity(String),
    /// It selects a database that this server has not.
    Database(String),
    /// MULTI inside of MULTI, or EXEC outside.
    Transaction,
}

impl fmt::Display for NotExecuted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotExecuted::Unknown(name) => write!(f, "the command '{name}' cannot be executed here"),
            NotExecuted::WrongArity(name) => write!(f, "the command '{name}' has the wrong number of arguments"),
            NotExecuted::Database(number) => write!(f, "there is no database {number} here"),
            NotExecuted::Transaction => f.write_str("MULTI and EXEC do not match"),
        }
    }
}

impl std::error::Error for NotExecuted {}

impl<'a> Replay<'a> {
    /// Begins with database 0. Nobody else may change anything meanwhile.
    pub fn new(engine: &'a Engine) -> Replay<'a> {
        let (queue, replies) = (None, Vec::new());
        Replay { engine, database: 0, queue, replies, executed: 0, failed: 0, first_failure: None }
    }

    /// Whether a transaction is open.
    pub fn is_in_transaction(&self) -> bool {
        self.queue.is_some()
    }

    /// A file begins: with database 0, and outside of a transaction.
    pub fn begin_file(&mut self) {
        (self.database, self.queue) = (0, None);
    }

    /// Takes the next command. `words` are not empty.
    ///
    /// # Errors
    /// Where it cannot be executed by anybody here. What a command answers is no error.
    pub fn execute(&mut self, words: &[Vec<u8>]) -> Result<(), NotExecuted> {
        let name = words.first().map(Vec::as_slice).unwrap_or_default();
        if name.eq_ignore_ascii_case(b"multi") {
            return match self.queue.replace(Vec::new()) {
                None => Ok(()),
                Some(_) => Err(NotExecuted::Transaction),
            };
        }
        if name.eq_ignore_ascii_case(b"exec") {
            let queue = self.queue.take().ok_or(NotExecuted::Transaction)?;
            return queue.into_iter().try_for_each(|(command, arguments)| self.run(command, &arguments));
        }
        let command = find(words)?;
        let arguments: OwnedArguments = words.iter().map(Vec::as_slice).collect();
        match &mut self.queue {
            Some(queue) => queue.push((command, arguments)),
            None => self.run(command, &arguments)?,
        }
        Ok(())
    }

    fn run(&mut self, command: &'static Command, arguments: &OwnedArguments) -> Result<(), NotExecuted> {
        let arguments = arguments.borrow();
        let Handler::Data(_) = command.spec.handler else {
            // Of what is no data command, [`find`] lets only SELECT through.
            let number = arguments.at(1);
            let database = parse::integer(number).ok().and_then(|number| usize::try_from(number).ok());
            let database = database.filter(|number| *number < self.engine.database_count());
            self.database = database.ok_or_else(|| NotExecuted::Database(number.escape_ascii().to_string()))?;
            return Ok(());
        };
        let slots = execution::slots_of(command, arguments).unwrap_or_default();
        let spans = command.spec.spans(arguments);
        let mut keyspace = if spans || command.spec.has(ALL_KEYS) {
            self.engine.lock_all(self.database, 0)
        } else {
            self.engine.lock_slots(slots.iter().copied(), self.database, 0)
        };
        if spans {
            keyspace.span_slots();
        }
        self.replies.clear();
        let mut reply = ReplyWriter::new(&mut self.replies, Protocol::Resp2);
        let result: Result<(), CommandError> = execution::run_data(command, arguments, &mut keyspace, &mut reply);
        // What would wait has found nothing, and has changed nothing.
        keyspace.take_wanted();
        self.executed += 1;
        if let Err(error) = result {
            self.failed += 1;
            self.first_failure.get_or_insert_with(|| format!("{}: {error}", command.name));
        }
        Ok(())
    }
}

/// The command that these words name: one that changes keys, or SELECT.
fn find(words: &[Vec<u8>]) -> Result<&'static Command, NotExecuted> {
    let shown = |words: &[Vec<u8>]| words[0].escape_ascii().take(64).map(char::from).collect::<String>();
    let unknown = || NotExecuted::Unknown(shown(words));
    let mut command = table::lookup(&words[0]).ok_or_else(unknown)?;
    if words.len() > 1 && !command.subcommands.is_empty() {
        command = command.subcommand(&words[1]).ok_or_else(unknown)?;
    }
    let is_select = command.spec.name == "select";
    match command.spec.handler {
        _ if !command.spec.arity.accepts(words.len()) => Err(NotExecuted::WrongArity(shown(words))),
        Handler::Data(_) => Ok(command),
        Handler::Control(_) if is_select => Ok(command),
        Handler::Control(_) | Handler::Container => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slot::Slot;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    /// Executes lines; gives the keys of both databases that exist then.
    fn check(lines: &[&str], keys: &[(usize, &str)], end: Result<(), NotExecuted>) {
        let engine = Engine::new(2);
        let mut replay = Replay::new(&engine);
        assert_eq!(lines.iter().try_for_each(|line| replay.execute(&words(line))), end);
        for database in 0..2 {
            for key in ["a", "b", "c"] {
                let mut keyspace = engine.lock_slots([Slot::of_key(key.as_bytes())].into_iter(), database, 0);
                assert_eq!(keyspace.exists(key.as_bytes()), keys.contains(&(database, key)), "{key} in {database}");
            }
        }
    }

    #[test]
    fn commands_are_executed_in_their_databases() {
        check(&["SET a 1", "SELECT 1", "rpush b x", "INCR b", "COPY b c"], &[(0, "a"), (1, "b"), (1, "c")], Ok(()));
        check(&["SET a 1", "SET b 1", "FLUSHALL", "SET c 1"], &[(0, "c")], Ok(()));
        check(&["SET a 1", "SWAPDB 0 1"], &[(1, "a")], Ok(()));
        // Nothing expires that no command removes.
        check(&["SET a 1 PXAT 1000", "PEXPIREAT a 2000"], &[(0, "a")], Ok(()));
    }

    #[test]
    fn transactions_count_as_a_whole() {
        check(&["MULTI", "SET a 1", "SELECT 1", "SET b 1", "EXEC", "SET c 1"], &[(0, "a"), (1, "b"), (1, "c")], Ok(()));
        check(&["SET c 1", "MULTI", "SET a 1"], &[(0, "c")], Ok(()));
        check(&["MULTI", "MULTI"], &[], Err(NotExecuted::Transaction));
        check(&["EXEC"], &[], Err(NotExecuted::Transaction));
    }

    #[test]
    fn what_cannot_be_executed_is_named() {
        for line in ["NOSUCH a", "CONFIG SET a b", "SHUTDOWN", "EVAL x 0"] {
            let name = line.split(' ').next().expect("a name").to_owned();
            check(&["SET a 1", line], &[(0, "a")], Err(NotExecuted::Unknown(name)));
        }
        check(&["SET a"], &[], Err(NotExecuted::WrongArity("SET".into())));
        check(&["SELECT 2"], &[], Err(NotExecuted::Database("2".into())));
    }
}
