//! A network that loses, repeats, delays and reorders, and can be cut in either direction. All by the run's seed.

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// Share of messages lost.
    pub(crate) loss: f64,
    /// Share of messages that come twice.
    pub(crate) duplication: f64,
    /// Share of messages that come seconds late: after others sent later, even after a restart of their sender.
    pub(crate) straggling: f64,
    /// Share of proposals that are agreed long after their proposers gave them up.
    pub(crate) late_proposals: f64,
}

impl Faults {
    pub(crate) const NONE: Faults = Faults { loss: 0.0, duplication: 0.0, straggling: 0.0, late_proposals: 0.0 };
}

/// Which messages arrive, and when.
pub(crate) struct Network {
    pub(crate) faults: Faults,
    /// Pairs (from, to) between which nothing passes.
    cut: BTreeSet<(usize, usize)>,
}

impl Network {
    pub(crate) fn new() -> Network {
        Network { faults: Faults::NONE, cut: BTreeSet::new() }
    }

    /// After how many microseconds each arrival of a message happens: none, one, or two.
    pub(crate) fn arrivals(&self, from: usize, to: usize, random: &mut Xoshiro256PlusPlus) -> Vec<u64> {
        // Draw the same number of times whatever the outcome, so that cutting a link changes as little as possible.
        let lost = random.random_bool(self.faults.loss);
        let twice = random.random_bool(self.faults.duplication);
        let mut delay_us = || {
            let late = random.random_bool(self.faults.straggling);
            let usual_us = random.random_range(100..3_000);
            let late_us = random.random_range(0..8_000_000);
            if late { usual_us + late_us } else { usual_us }
        };
        let (first_us, second_us) = (delay_us(), delay_us());
        match (lost || self.is_cut(from, to), twice) {
            (true, _) => vec![],
            (false, false) => vec![first_us],
            (false, true) => vec![first_us, second_us],
        }
    }

    /// Whether messages cannot pass in this direction. Asked again on arrival: a cut also stops what is underway.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Stops everything from one node to another.
    pub(crate) fn cut_one_way(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Splits the nodes into those in the group and the others.
    pub(crate) fn split(&mut self, group: &[usize], count: usize) {
        for inside in group {
            for outside in (0..count).filter(|node| !group.contains(node)) {
                self.cut_one_way(*inside, outside);
                self.cut_one_way(outside, *inside);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }
}

/// The address at which a node starts for the first time; numbers beyond the nodes' are free addresses.
pub(crate) fn address_of(node: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 10_000 + node as u16))
}
