//! The sending side: what of the log goes to copies, and who reads it.

use super::Shared;
use super::copies::Feeds;
use crate::base::identity::{Incarnation, NodeId};
use crate::cluster::topology::Topology;
use crate::engine::Engine;
use crate::engine::export::Exports;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often copies are looked for that do not ask any more.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// What this node sends to copies of its slots.
pub(super) struct Source {
    pub(super) exports: Exports,
    pub(super) feeds: Feeds,
}

impl Source {
    pub(super) fn new(engine: Arc<Engine>) -> Source {
        Source { exports: Exports::new(engine), feeds: Feeds::default() }
    }

    /// Ends what is sent to copies that are none any more. The states of the slots have been set before.
    pub(super) fn follow(&mut self, topology: &Topology, node: NodeId, incarnation: Option<Incarnation>) {
        self.feeds.follow(&mut self.exports, topology, node, incarnation);
    }
}

/// Reads the log whenever there is much of it, so that it need not be kept, and that writers which are faster than the
/// link are made to wait; and not for those who do not ask.
pub(super) async fn follow_log(shared: Arc<Shared>) {
    let bell = shared.engine.log.listen();
    loop {
        tokio::select! {
            () = bell.notified() => {}
            () = tokio::time::sleep(LOOK_PAUSE) => {}
        }
        let mut source = shared.source.lock();
        let Source { exports, feeds } = &mut *source;
        feeds.give_up_silent(exports, Instant::now());
        if !feeds.is_idle()
            && let Err(reason) = exports.follow()
        {
            tracing::warn!(%reason, "copies begin again");
        }
    }
}
