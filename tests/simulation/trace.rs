//! What happened in a run: a digest to compare two runs, and the last lines for whoever must find a failure.

use std::collections::VecDeque;
use std::fmt::Arguments;
use xxhash_rust::xxh3::Xxh3;

const LINES_KEPT: usize = 60;

pub(crate) struct Trace {
    digest: Xxh3,
    lines: VecDeque<String>,
    /// How many lines were written in all.
    pub(crate) length: u64,
}

impl Trace {
    pub(crate) fn new() -> Trace {
        Trace { digest: Xxh3::new(), lines: VecDeque::new(), length: 0 }
    }

    pub(crate) fn line(&mut self, now_us: u64, text: Arguments<'_>) {
        let line = format!("{:>10.3} ms  {text}", now_us as f64 / 1000.0);
        self.digest.update(line.as_bytes());
        if std::env::var_os("TRACE").is_some() {
            println!("{line}");
        }
        if self.lines.len() == LINES_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        self.length += 1;
    }

    /// Equal runs have equal digests.
    pub(crate) fn digest(&self) -> u64 {
        self.digest.digest()
    }

    pub(crate) fn last_lines(&self) -> String {
        self.lines.iter().map(|line| format!("  {line}\n")).collect()
    }
}
