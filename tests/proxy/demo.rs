//! `starling demo`: what it shows when a node is killed.

use std::process::{Command, Stdio};

/// A node of three is killed and starts again: its slots are served by their copies, and what was written is there.
#[test]
fn the_demo_shows_copies_and_how_long_slots_waited() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
    command.args(["demo", "--plain", "--seconds", "12", "--script", "kill,restart", "--keys", "2000"]);
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("\nPASS: "), "{text}");
    for expected in [
        "copies: 32768 ready, 0 missing; no failover yet\n",
        "missing; last failover: all slots were served ",
        " s after 127.0.0.1:",
        "keys were acknowledged, ",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}
