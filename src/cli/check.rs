//! `starling check`: explains files that a server has left, and repairs what can be; or reads a configuration.

use crate::config::load;
use crate::files::{Kind, Report, check};
use clap::Parser;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Explains snapshots (RDB), logs and their directories: what is in them, and whether they are whole.
#[derive(Parser)]
#[command(name = "starling check")]
struct Options {
    /// Files, or directories of logs.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Cut off what makes a log unusable; the file is kept beside it as NAME.before-fix.
    #[arg(long)]
    fix: bool,
    /// Repair without asking.
    #[arg(long)]
    yes: bool,
}

/// Runs `starling check`: of files where the first one is a file of data, of a configuration otherwise.
pub(super) fn run(arguments: &[String]) -> ExitCode {
    let named: Vec<&String> = arguments.iter().filter(|word| !word.starts_with("--")).collect();
    let is_option = |word: &String| matches!(word.as_str(), "--fix" | "--yes");
    let is_data = named.first().is_some_and(|name| is_data(Path::new(name)));
    if !is_data && !arguments.iter().any(is_option) {
        return super::configured(arguments, check_configuration);
    }
    let words = std::iter::once("starling check").chain(arguments.iter().map(String::as_str));
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => return super::usage(&error),
    };
    let mut are_whole = true;
    for file in &options.files {
        are_whole &= check_file(file, &options);
    }
    if are_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether it is something that a server has left, and no configuration. A directory cannot be one.
fn is_data(path: &Path) -> bool {
    path.is_dir() || Kind::of(path).is_ok_and(|kind| kind.is_some())
}

/// Whether it is whole, or has become so.
fn check_file(path: &Path, options: &Options) -> bool {
    println!("{}", path.display());
    let kind = match Kind::of(path) {
        Ok(Some(kind)) => kind,
        Ok(None) => {
            println!("  no file of a snapshot or a log, or a directory of one");
            return false;
        }
        Err(error) => {
            println!("  it cannot be read: {error}");
            return false;
        }
    };
    let report = match look(path, &kind) {
        Some(report) => report,
        None => return false,
    };
    let Some(repair) = &report.repair else {
        if options.fix && !report.is_whole() {
            println!("  nothing of that can be repaired here");
        }
        return report.is_whole();
    };
    println!(
        "  --fix keeps the first {} bytes of {}: lost are {}",
        repair.keeps_bytes,
        repair.file.display(),
        repair.loses
    );
    if !options.fix || !(options.yes || is_confirmed()) {
        return false;
    }
    if let Err(error) = repair.apply() {
        println!("  not repaired: {error}");
        return false;
    }
    println!("  repaired; the file as it was is {}", repair.original().display());
    look(path, &kind).is_some_and(|report| report.is_whole())
}

/// Explains it.
fn look(path: &Path, kind: &Kind) -> Option<Report> {
    match check::look(path, kind) {
        Ok(report) => {
            report.lines.iter().for_each(|line| println!("  {line}"));
            report.faults.iter().for_each(|fault| println!("  WRONG: {fault}"));
            println!("  {}", if report.is_whole() { "whole" } else { "not whole" });
            Some(report)
        }
        Err(error) => {
            println!("  it cannot be read: {error}");
            None
        }
    }
}

fn is_confirmed() -> bool {
    print!("  repair it? (y/N) ");
    let mut answer = String::new();
    let asked = io::stdout().flush().and_then(|()| io::stdin().lock().read_line(&mut answer));
    asked.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Reads the configuration as a start would, says what is wrong with it or has no effect, and starts nothing.
fn check_configuration(arguments: &[String]) -> ExitCode {
    match load::load(arguments, std::env::vars()) {
        Ok(loaded) => {
            for name in &loaded.unknown_variables {
                println!("{name}: names no directive, ignored");
            }
            for name in &loaded.without_effect {
                println!("{name}: accepted, has no effect here");
            }
            println!("the configuration is good: port {}, dir {}", loaded.config.port, loaded.config.dir);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
