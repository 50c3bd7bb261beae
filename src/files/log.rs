//! Our log as a whole: its manifest, the snapshot that it begins with, its chain of segments.

use super::report::Repair;
use super::{Report, rdb, segment};
use crate::persistence::disk::{Directory, Disk};
use crate::persistence::manifest::{Manifest, Names};
use crate::persistence::recovery::{self, Broken};
use crate::persistence::segment::{HEADER_BYTES, Header, Owner};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What a server holds while it keeps its log there.
const LOCK: &str = "lock";

/// Explains a log.
pub(super) fn look(directory: &Path, stem: &str) -> io::Result<Report> {
    let (disk, names) = (Directory::open(directory)?, Names::new(stem));
    let mut report = Report::default();
    let is_used = File::open(directory.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_err());
    if is_used {
        report.say("a server keeps its log here now: its end may look torn, and nothing can be repaired");
    }
    let manifest = match Manifest::read(&disk, &names) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => {
            report.fault(format!("{} is missing", names.manifest()));
            return Ok(report);
        }
        Err(error) => {
            report.fault(error.to_string());
            return Ok(report);
        }
    };
    match manifest.base {
        0 => report.say(format!("a log without a snapshot, from segment {} on", manifest.first)),
        base => report.say(format!("a log of snapshot {base} and the segments from {} on", manifest.first)),
    }
    if manifest.base > 0 {
        let name = names.base(manifest.base);
        match rdb::look(&directory.join(&name)) {
            Ok((found, _)) => report.add(&name, found),
            Err(error) => report.fault(format!("{name}: {error}")),
        }
    }
    let mut numbers: Vec<u32> = disk.names()?.iter().filter_map(|name| names.segment_number(name)).collect();
    numbers.sort_unstable();
    for number in numbers.iter().filter(|number| **number >= manifest.first) {
        let name = names.segment(*number);
        match segment::look(&directory.join(&name)) {
            // What is wrong is said below, by those who decide on it.
            Ok(found) => report.add(&name, Report { faults: Vec::new(), ..found }),
            Err(error) => report.fault(format!("{name}: {error}")),
        }
    }
    let last = numbers.last().map(|number| names.segment(*number)).unwrap_or_default();
    let owner = owner_of(&directory.join(names.segment(manifest.first))).unwrap_or_default();
    let decoded = |group: crate::engine::Group<'_>, _: &str, _| match segment::effects_of(group) {
        Some(_) => Ok(()),
        None => Err("it holds something that is no effect".to_owned()),
    };
    let mut cut = None;
    match recovery::read(&disk, &names, owner, manifest.first, decoded) {
        Ok(found) => {
            report.say(format!(
                "{} groups in all; the log goes on in segment {}, behind byte {}",
                found.groups, found.place.segment, found.place.bytes
            ));
            if let Some(torn) = found.torn {
                report.fault(Broken::Torn(torn.clone()).to_string());
                report.say("a server with aof-load-truncated cuts that off by itself");
                cut = Some((torn.file, torn.at));
            }
        }
        Err(error) => {
            report.fault(error.to_string());
            cut = match error {
                Broken::Damaged { file, at } | Broken::Group { file, at, .. } => Some((file, at)),
                _ => None,
            };
        }
    }
    if let Some((file, at)) = cut.filter(|(file, _)| *file == last && !is_used) {
        let path = directory.join(&file);
        let bytes = path.metadata()?.len();
        report.repair = Some(Repair::cut(path, at, bytes));
    }
    Ok(report)
}

/// Whose log it is, as its first segment says.
pub(super) fn owner_of(segment: &Path) -> Option<Owner> {
    let mut bytes = Vec::new();
    File::open(segment).ok()?.take(HEADER_BYTES as u64).read_to_end(&mut bytes).ok()?;
    Header::decode(&bytes).ok().map(|header| header.owner)
}
