#!/usr/bin/env python3
"""Plants mistakes in a copy of the sources, one at a time, and lets the simulation look for each.

A simulation that finds nothing may be one that cannot find anything. Every mistake here takes out a rule that once was
missing, or that keys hang on; some are found by seeds, some by the courses of events in tests/simulation/scripted.rs.

usage: run.py [--runs N]   seeds per mistake, until one finds it
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
COPY = ROOT / "target" / "planted"

# What goes wrong, the test that must see it, the file, and its text before and after.
MISTAKES = [
    (
        "a member that leaves, brought back as one that stays",
        "scripted",
        "src/cluster/topology/leases.rs",
        "        node.support = version;\n",
        "        node.support = version;\n        node.leaving &= node.state == NodeState::Active;\n",
    ),
    (
        "a hand-off that is proposed before the last writes have come",
        "scripted",
        "src/moves/copies/table.rs",
        "copy.is_complete && copy.finished == Some(begun)",
        "copy.is_complete && begun > 0",
    ),
    (
        "what is here of a copy taken for a slot that another copy, or none, was made the primary of",
        "scripted",
        "src/moves/ownership.rs",
        "record.moved.is_some() && copies.number(slot) == record.moved",
        "copies.number(slot).is_some()",
    ),
    (
        "a source that came back with nothing sends it as all there was",
        "scripted",
        "src/moves/copies/feeding.rs",
        "if is_current(topology, node, incarnation) {",
        "if is_current(topology, node, incarnation) || topology.nodes.contains_key(&node) {",
    ),
    (
        "a node that returns drops its keys by a topology that is older than they are",
        "scripted",
        "src/moves/ownership.rs",
        "} else if current {",
        "} else if current || !mine {",
    ),
    (
        "a slot that begins anew in the epoch that it had",
        "scripted",
        "src/cluster/topology/state.rs",
        "self.slot(slot).epoch.0.saturating_add(1)",
        "self.slot(slot).epoch.0.saturating_add(0)",
    ),
    (
        "a copy that leaves before the new primary's log has everything",
        "scripted",
        "src/cluster/topology/copies.rs",
        "matches!(record.phase, Phase::Electing | Phase::Settling { .. })",
        "matches!(record.phase, Phase::Electing)",
    ),
    (
        "keys of another epoch taken for the slot's",
        "scripted",
        "src/moves/ownership.rs",
        "if *held == Some(record.epoch) {",
        "if held.is_some() {",
    ),
    (
        "a source that serves while its slots are handed over",
        "clusters_survive",
        "src/moves/ownership.rs",
        "Phase::HandingOff { .. } => SlotState::Frozen,",
        "Phase::HandingOff { .. } => SlotState::Serving,",
    ),
    (
        "voters that wait half as long as a lease lasts",
        "clusters_survive",
        "src/cluster/lease.rs",
        "pub const WITHDRAW_US: u64 = 660_000;",
        "pub const WITHDRAW_US: u64 = 300_000;",
    ),
    (
        "a node that is fenced by one voter",
        "clusters_survive",
        "src/cluster/topology/leases.rs",
        "votes * 2 > self.votes.len()",
        "votes > 0",
    ),
    (
        "a voter that takes a withdrawal back",
        "clusters_survive",
        "src/cluster/support.rs",
        "        if self.has_withdrawn(beat.node, beat.support) {\n            return BeatAnswer::Withdrawn { support: beat.support };\n        }\n",
        "",
    ),
    (
        "an election that one answer decides, where two are needed",
        "quorum",
        "src/cluster/election.rs",
        "(members + 1).saturating_sub(QUORUM).min(survivors).max(1)",
        "members.min(survivors).clamp(1, QUORUM - 1)",
    ),
    (
        "writes that are acknowledged before a copy has them",
        "quorum",
        "src/engine/log/copied.rs",
        "waits |= have.count() + 1 < QUORUM;",
        "waits |= have.count() + 2 < QUORUM;",
    ),
    (
        "a member that leaves, brought back as one that stays: by seeds alone",
        "clusters_survive",
        "src/cluster/topology/leases.rs",
        "        node.support = version;\n",
        "        node.support = version;\n        node.leaving &= node.state == NodeState::Active;\n",
    ),
]


def look(test: str, runs: int) -> subprocess.CompletedProcess:
    """One look of the simulation at the copy."""
    # Not the checkout's own: what is built there must not have a mistake planted.
    environment = dict(os.environ, RUNS=str(runs), CARGO_TARGET_DIR=str(COPY / "target"), RUST_BACKTRACE="0")
    environment.pop("SEED", None)
    if test == "quorum":
        environment.update(REPLICAS="2", QUORUM="1")
        test = "clusters_survive"
    command = ["cargo", "test", "--locked", "--test", "simulation", test]
    return subprocess.run(command, cwd=COPY / "sources", env=environment, capture_output=True, text=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=60)
    runs = parser.parse_args().runs
    missed = 0
    for name, test, file, before, after in MISTAKES:
        sources = COPY / "sources"
        shutil.rmtree(sources, ignore_errors=True)
        sources.mkdir(parents=True)
        # With their times: dependencies and what is not planted need not be compiled again.
        for part in ("src", "tests", "benches", "Cargo.toml", "Cargo.lock"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            copy(ROOT / part, sources / part)
        text = (sources / file).read_text()
        if text.count(before) != 1:
            sys.exit(f"{file}: the text of '{name}' is there {text.count(before)} times; it must be once")
        (sources / file).write_text(text.replace(before, after))
        looked = look(test, runs)
        output = looked.stdout + looked.stderr
        if "could not compile" in output:
            sys.exit(f"'{name}' does not compile:\n{output[-3000:]}")
        found = re.search(r"See it again: (.+)", output) or re.search(r"test (scripted::\w+) \.\.\. FAILED", output)
        broken = re.search(r"^broken: (.*?):", output, re.MULTILINE)
        if looked.returncode == 0 or not found:
            missed += 1
            print(f"MISSED  {name}: {runs} seeds, or the scripted cases, saw nothing", flush=True)
        else:
            print(f"found   {name}: {found[1]}{', invariant ' + broken[1] if broken else ''}", flush=True)
    print(f"{len(MISTAKES) - missed} of {len(MISTAKES)} planted mistakes found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
