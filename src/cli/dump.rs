//! `starling dump`: what is in a file that a server has left, as commands.

use crate::files::{Kind, print};
use clap::Parser;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Prints a snapshot (RDB) or a log of Redis as commands, one a line, that redis-cli executes (redis-cli < printed); a log of
/// ours as what happened to which key, when, and at which position of its slot.
#[derive(Parser)]
#[command(name = "starling dump")]
struct Options {
    /// A file, or the directory of a log.
    file: PathBuf,
}

/// Runs `starling dump`. Fails where the file is damaged: what could be read is printed.
pub(super) fn run(arguments: &[String]) -> ExitCode {
    let words = std::iter::once("starling dump").chain(arguments.iter().map(String::as_str));
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => return super::usage(&error),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = Kind::of(&options.file).and_then(|kind| match kind {
        Some(kind) => print::print(&options.file, &kind, &mut out),
        None => Err(io::Error::other("no file of a snapshot or a log, or a directory of one")),
    });
    match printed.and(out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = out.flush();
            eprintln!("{}: {error}", options.file.display());
            ExitCode::FAILURE
        }
    }
}
