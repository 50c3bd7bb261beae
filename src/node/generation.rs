//! What a node does when its cluster goes on without most of its voters: it keeps the generation, or says that it was given up.

use crate::cluster::identity_store::{IdentityStore, StoredIdentity};
use crate::cluster::membership::socket::MembershipHandle;
use crate::cluster::topology::raft::RaftTopology;
use crate::cluster::topology::recovery::GivenUp;
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Between lines in the log that say that a living node was given up.
const GIVEN_UP_LINE: Duration = Duration::from_secs(60);

/// Keeps the generation of this node on its disk, and tells gossip, until the node ends. The raft log has it first, and the next start
/// reads it there: a crash between the two does nothing.
pub(super) async fn keep(raft: RaftTopology, store: Arc<Mutex<IdentityStore>>, membership: Arc<MembershipHandle>) {
    let mut generations = raft.generation();
    loop {
        let generation = *generations.borrow_and_update();
        membership.set_generation(generation);
        let store = Arc::clone(&store);
        let saved = tokio::task::spawn_blocking(move || {
            let mut store = store.lock();
            match store.identity() {
                Some(known) if known.generation != generation => store.save(StoredIdentity { generation, ..known }),
                _ => Ok(()),
            }
        });
        match saved.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the generation of the cluster was not kept here: the raft log has it")
            }
            // A panic ends the process.
            Err(_) => return,
        }
        if generations.changed().await.is_err() {
            return;
        }
    }
}

/// Ends when it is known that this node was given up, and has not served in this life: why it must not start. One that has
/// says so in its log, and has no lease.
pub(super) async fn until_given_up(raft: &RaftTopology, directory: &Path) -> io::Error {
    let mut given_up = raft.given_up();
    loop {
        let found = given_up.wait_for(Option::is_some).await.ok().and_then(|found| *found);
        // None: the node ends.
        let Some(GivenUp { generation, was_led }) = found else { return std::future::pending().await };
        let error = io::Error::other(format!(
            "the cluster was recovered without this node (CLUSTER RECOVER, generation {generation}) and has given up what it has: \
             remove {} and start it as a new node, with 'join'",
            directory.display()
        ));
        if !was_led {
            return error;
        }
        tracing::error!(%error, "this node takes no part any more");
        tokio::time::sleep(GIVEN_UP_LINE).await;
    }
}
