//! Invariant 9: equal applied index, equal topology, also after a restart from a raft snapshot and the log behind it.

use super::{Invariant, Observation};
use starling::cluster::topology::Topology;
use std::collections::BTreeMap;
use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_64;

/// Every so many indices are compared: a difference stays.
const SAMPLED: u64 = 4;

#[derive(Default)]
pub(crate) struct EqualIndexEqualTopology {
    digests: BTreeMap<u64, u64>,
}

impl Invariant for EqualIndexEqualTopology {
    fn name(&self) -> &'static str {
        "9, equal applied index, equal topology"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Agreed { index, after, .. } if index.is_multiple_of(SAMPLED) => {
                self.digests.insert(*index, digest(after));
                Ok(())
            }
            Observation::Learned { node, topology } if topology.version.is_multiple_of(SAMPLED) => {
                let index = topology.version;
                if self.digests.get(&index) == Some(&digest(topology)) {
                    return Ok(());
                }
                Err(format!("node {node} has another topology at index {index} than was agreed"))
            }
            _ => Ok(()),
        }
    }
}

/// Of all that is agreed; runs of equal slots are written once.
fn digest(topology: &Topology) -> u64 {
    let mut text = format!(
        "{:?} {} {} {:?} {:?} {:?} ",
        topology.cluster,
        topology.generation,
        topology.version,
        topology.nodes,
        topology.config,
        topology.events.back()
    );
    let records: Vec<_> = topology.slots().iter().collect();
    for run in records.chunk_by(|one, next| one == next) {
        let _ = write!(text, "{} {:?} ", run.len(), run[0]);
    }
    xxh3_64(text.as_bytes())
}
