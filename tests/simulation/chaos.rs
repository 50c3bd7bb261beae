//! What goes wrong next: crashes, restarts, goodbyes, lost disks, cuts in one or both directions, pauses, wrong clocks.

use crate::network::Faults;
use crate::world::{NODES, SEEDS, World};
use rand::RngExt;

/// One fault, or the end of one. Gives how long until the next, in microseconds.
pub(crate) fn strike(world: &mut World) -> u64 {
    let node = world.random.random_range(0..NODES);
    let other = world.random.random_range(0..NODES);
    match world.random.random_range(0..18) {
        0 | 1 => down(world, node),
        2 | 3 => up(world, node),
        4 => {
            world.trace.line(world.now_us, format_args!("nothing passes from node {node} to node {other}"));
            world.network.cut_one_way(node, other);
        }
        5 => split(world),
        6 => {
            world.trace.line(world.now_us, format_args!("network heals"));
            world.network.heal();
        }
        7 => pause(world, node),
        8 => turn_clock(world, node),
        9 | 10 => restart(world, node),
        11 => {
            world.replay();
            world.propose_stale();
        }
        12 => drain(world, node),
        13 => forget(world, node),
        14 => elsewhere(world, node),
        15 => lose(world, node),
        16 => blackout(world),
        _ => weather(world),
    }
    world.random.random_range(200_000..4_000_000)
}

fn down(world: &mut World, node: usize) {
    // Two at most: what remains can still agree on things.
    let down = world.nodes[..NODES].iter().filter(|node| node.process.is_none()).count();
    if down < 2 && world.nodes[node].process.is_some() {
        if world.random.random_bool(0.3) { world.leave(node) } else { world.crash(node) }
    }
}

fn up(world: &mut World, node: usize) {
    // Whoever reads why it does not start does what is said there, sooner or later.
    if world.nodes[node].disk.lacks_raft_log && world.random.random_bool(0.5) {
        world.lose_disk(node);
    }
    if world.nodes[node].process.is_none() {
        world.start_node(node);
    }
}

/// SIGTERM: it gives its slots away and leaves.
fn drain(world: &mut World, node: usize) {
    let down = world.nodes[..NODES].iter().filter(|node| node.process.is_none()).count();
    if down < 2 {
        world.tell_to_stop(node);
    }
}

/// CLUSTER FORGET of a node that is gone.
fn forget(world: &mut World, node: usize) {
    if world.nodes[node].process.is_none() {
        world.to_forget = Some(node);
        world.trace.line(world.now_us, format_args!("the cluster is told to forget node {node}"));
    }
}

/// Down and up again at once: its earlier life is still heard.
fn restart(world: &mut World, node: usize) {
    if world.nodes[node].process.is_some() {
        world.crash(node);
        world.start_node(node);
    }
}

/// Down and up again at another address, as where addresses are given out.
fn elsewhere(world: &mut World, node: usize) {
    if !SEEDS.contains(&node) {
        world.crash(node);
        world.move_away(node);
        world.start_node(node);
    }
}

/// Seldom: the power fails, and all nodes start again.
fn blackout(world: &mut World) {
    if world.random.random_bool(0.3) {
        world.trace.line(world.now_us, format_args!("the power fails"));
        let up: Vec<usize> = (0..NODES).filter(|node| world.nodes[*node].process.is_some()).collect();
        up.iter().for_each(|node| world.crash(*node));
        up.iter().for_each(|node| world.start_node(*node));
    }
}

/// Seldom: the disk is gone, and it starts on an empty one; or the raft log alone is gone, and it does not start.
fn lose(world: &mut World, node: usize) {
    let down = world.nodes[..NODES].iter().filter(|node| node.process.is_none()).count();
    if down >= 2 || !world.may_lose_disk(node) || !world.random.random_bool(0.4) {
        return;
    }
    if world.random.random_bool(0.3) {
        world.lose_raft_log(node);
    } else {
        world.lose_disk(node);
        world.start_node(node);
    }
}

fn split(world: &mut World) {
    let size = world.random.random_range(1..=NODES / 2);
    let first = world.random.random_range(0..NODES);
    let group: Vec<usize> = (0..size).map(|offset| (first + offset) % NODES).collect();
    world.trace.line(world.now_us, format_args!("network splits: {group:?} and the others"));
    world.network.split(&group, NODES);
}

fn pause(world: &mut World, node: usize) {
    let pause_us = world.random.random_range(100_000..15_000_000);
    world.trace.line(world.now_us, format_args!("node {node} stands still for {} ms", pause_us / 1000));
    world.nodes[node].paused_until_us = world.now_us + pause_us;
}

fn turn_clock(world: &mut World, node: usize) {
    let offset_ms = if world.random.random_bool(0.5) {
        world.random.random_range(-300..=300)
    } else {
        world.random.random_range(-10_000..=10_000)
    };
    world.trace.line(world.now_us, format_args!("the clock of node {node} is off by {offset_ms} ms"));
    world.nodes[node].clock_offset_ms = offset_ms;
}

fn weather(world: &mut World) {
    let mut share = |most: f64| world.random.random_range(0.0..most);
    let faults =
        Faults { loss: share(0.3), duplication: share(0.2), straggling: share(0.05), late_proposals: share(0.2) };
    world.trace.line(world.now_us, format_args!("network: {faults:.2?}"));
    world.network.faults = faults;
}
