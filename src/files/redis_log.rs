//! Redis's log: what is in it, and where it ends.

use super::report::Repair;
use super::{Report, moment, rdb};
use crate::persistence::redis_log::RedisLog;
use crate::persistence::redis_log::commands::{Commands, Fault, Item, Transaction};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Explains all files that a manifest names.
pub(super) fn look(manifest: &Path) -> io::Result<Report> {
    let mut report = Report::default();
    let log = match RedisLog::open(manifest) {
        Ok(log) => log,
        Err(error) => {
            report.fault(format!("the manifest: {error}"));
            return Ok(report);
        }
    };
    let (bases, increments) = (log.base.iter().count(), log.increments.len());
    report.say(format!("a log of Redis: {bases} base and {increments} files of commands"));
    let last = log.files().last().map(Path::to_owned);
    for file in log.files() {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match look_at_file(file) {
            Ok(mut found) => {
                let repair = found.repair.take();
                report.add(&name, found);
                // What stands behind damage in the middle would be taken for what came next.
                report.repair = repair.filter(|_| Some(file) == last.as_deref());
            }
            Err(error) => report.fault(format!("{name}: {error}")),
        }
    }
    Ok(report)
}

/// Explains one file: commands, a snapshot, or one and then the other.
pub(super) fn look_at_file(path: &Path) -> io::Result<Report> {
    let mut file = File::open(path)?;
    let mut first = Vec::new();
    file.by_ref().take(6).read_to_end(&mut first)?;
    let bytes = file.metadata()?.len();
    if !first.starts_with(b"REDIS") && first != *b"VALKEY" {
        file.seek(SeekFrom::Start(0))?;
        return Ok(look_at_commands(path, file, 0, bytes));
    }
    let (mut report, end) = rdb::look(path)?;
    if let Some(end) = end.filter(|end| *end < bytes) {
        file.seek(SeekFrom::Start(end))?;
        let behind = look_at_commands(path, file, end, bytes);
        report.lines.extend(behind.lines);
        report.faults.extend(behind.faults);
        report.repair = behind.repair;
    }
    Ok(report)
}

fn look_at_commands(path: &Path, input: File, offset: u64, bytes: u64) -> Report {
    let mut report = Report::default();
    let mut commands = Commands::new(input, offset);
    let (mut count, mut transaction) = (0u64, Transaction::default());
    let (mut first, mut last) = (None, None);
    let end = loop {
        match commands.next_item() {
            Ok(None) => break Ok(commands.offset()),
            Err(error) => break Err(error),
            Ok(Some(item)) => {
                if let Some(seconds) = item.time() {
                    first.get_or_insert(seconds);
                    last = last.max(Some(seconds));
                }
                if let Item::Command(words) = &item {
                    count += 1;
                    transaction.note(words, commands.begin());
                }
            }
        }
    };
    report.say(format!("{count} commands, in {} bytes", bytes - offset));
    if let (Some(first), Some(last)) = (first, last) {
        let shown = |seconds: u64| moment::shown(seconds.saturating_mul(1000));
        report.say(format!("from {} to {}", shown(first), shown(last)));
    }
    let mut keeps = None;
    match end {
        Ok(end) => match transaction.open_at {
            None => report.say(format!("ends at byte {end}, behind a whole command")),
            Some(at) => {
                report.fault(format!("it ends in the middle of a transaction, which begins at byte {at}"));
                keeps = Some(at);
            }
        },
        Err(error) => {
            report.fault(error.to_string());
            if !matches!(error.fault, Fault::Io(_)) {
                keeps = Some(transaction.open_at.unwrap_or(error.offset));
            }
        }
    }
    report.repair = keeps.map(|keeps| Repair::cut(path.to_owned(), keeps, bytes));
    report
}
