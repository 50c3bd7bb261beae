//! A segment of our log: whose it is, what is in it, how it ends.

use super::report::Repair;
use super::{Report, moment};
use crate::base::hlc::Stamp;
use crate::engine::Group;
use crate::engine::effect::Effect;
use crate::persistence::manifest::Names;
use crate::persistence::segment::{Blocks, End, HEADER_BYTES, Header};
use std::io::{self, Read};
use std::path::Path;

/// Explains a segment. What the one behind it says of its end counts, where there is one.
pub(super) fn look(path: &Path) -> io::Result<Report> {
    let bytes = std::fs::read(path)?;
    let before = next_header(path).map(|next| next.before);
    let mut report = Report::default();
    let header = match Header::decode(&bytes) {
        Ok(header) => header,
        Err(why) => {
            report.fault(why.to_string());
            return Ok(report);
        }
    };
    report.say(format!("segment {} of a log, {} bytes", header.number, bytes.len()));
    // The first of a log that begins with nothing has no stamp before it.
    if header.stamp > Stamp::default() {
        report.say(format!("begun {}", moment::shown(header.stamp.ms())));
    }
    match (header.owner.cluster, header.owner.node) {
        (0, 0) => report.say("of a server without a cluster"),
        (cluster, node) => report.say(format!("of node {node:032x} of cluster {cluster:032x}")),
    }
    report.say(format!("{} bytes of the segment before belong to the log", header.before));
    let mut blocks = Blocks::new(&bytes, header.number);
    let (mut groups, mut effects, mut count) = (0u64, 0u64, 0u64);
    let (mut first, mut last): (Option<Stamp>, Option<Stamp>) = (None, None);
    let mut cut = None;
    while before.is_none_or(|before| blocks.place() < before) {
        let at = blocks.place();
        let Some(block) = blocks.next() else { break };
        count += 1;
        let mut rest = block.groups;
        while !rest.is_empty() {
            let found = Group::read(&mut rest).and_then(|group| Some((group.stamp, effects_of(group)?)));
            let Some((stamp, found)) = found else {
                report.fault(format!("the block at byte {at} holds something that is no group of effects"));
                cut = Some(at);
                break;
            };
            groups += 1;
            effects += found;
            first.get_or_insert(stamp);
            last = last.max(Some(stamp));
        }
        if cut.is_some() {
            break;
        }
    }
    report.say(format!("{groups} groups of {effects} effects, in {count} blocks"));
    if let (Some(first), Some(last)) = (first, last) {
        report.say(format!("from {} to {}", moment::shown(first.ms()), moment::shown(last.ms())));
    }
    if cut.is_none() {
        let at = blocks.place();
        match before {
            Some(before) if before == at => report.say(format!("ends at byte {at}, as the next segment says")),
            Some(before) => {
                report.fault(format!(
                    "ends at byte {at}, and the next segment says that {before} bytes belong to the log"
                ));
                return Ok(report);
            }
            None => match blocks.end() {
                End::Clean => report.say(format!("ends at byte {at}: nothing was written behind that")),
                End::Torn { bytes } => {
                    report.fault(format!(
                        "torn at byte {at}: a crash has left {bytes} bytes of what nobody was promised"
                    ));
                    cut = Some(at);
                }
                End::Damaged => {
                    report.fault(format!("damaged at byte {at}: what stood there had been kept, and more behind it"));
                    cut = Some(at);
                }
            },
        }
    }
    if let Some(at) = cut.filter(|_| before.is_none()) {
        report.repair = Some(Repair::cut(path.to_owned(), at, bytes.len() as u64));
    }
    Ok(report)
}

/// The header of the segment that comes next, beside it.
fn next_header(path: &Path) -> Option<Header> {
    let name = path.file_name()?.to_str()?;
    let (stem, number) = name.strip_suffix(".segment")?.rsplit_once('.')?;
    let next = number.parse::<u32>().ok()?.checked_add(1)?;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path.with_file_name(Names::new(stem).segment(next))).ok()?;
    file.take(HEADER_BYTES as u64).read_to_end(&mut bytes).ok()?;
    Header::decode(&bytes).ok()
}

/// How many effects it has; `None` where they are none.
pub(super) fn effects_of(group: Group<'_>) -> Option<u64> {
    let mut count = 0;
    for run in group.runs() {
        let run = run?;
        let mut rest = run.effects;
        for _ in 0..run.count {
            Effect::decode(&mut rest)?;
            count += 1;
        }
        if !rest.is_empty() {
            return None;
        }
    }
    Some(count)
}
