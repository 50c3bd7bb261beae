//! Bytes that nobody has written on purpose: files, payloads of DUMP, compressed strings, glob patterns, numbers. Each target
//! makes its input from a seed, and says what must hold of any.
//!
//! `RUNS=1000000` does more of them (`make fuzz`), `FIRST=5000000` others, `SEED=7` does one again: a failure prints its own.

mod files;

use starling::base::{glob, number};
use starling::rdb::{Content, checksum, kind, length, lzf, payload};
use starling::values::Limits;

/// In the default test run; `RUNS` overrides it.
const RUNS: u64 = 3000;
/// Unix milliseconds.
const NOW_MS: u64 = 1_700_000_000_000;

/// SplitMix64: every seed is a good one.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }

    /// Some of these bytes.
    fn word(&mut self, alphabet: &[u8], most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }

    /// A string as clients store it: a number, text that repeats itself, noise.
    fn string(&mut self) -> Vec<u8> {
        match self.below(4) {
            0 => ((self.next() as i64) >> self.below(64)).to_string().into_bytes(),
            1 => self.word(b"abc", 12).repeat(self.below(40)),
            2 => self.bytes(300),
            _ => self.word(b"0123456789-+.e", 12),
        }
    }
}

/// Prints what repeats a run that fails.
struct Run {
    seed: u64,
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again: SEED={} make fuzz", self.seed);
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

fn fuzz(target: impl Fn(&mut Random)) {
    let seeds = match variable("SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = variable("FIRST").unwrap_or(0);
            first..first + variable("RUNS").unwrap_or(RUNS)
        }
    };
    for seed in seeds {
        let _run = Run { seed };
        target(&mut Random(seed));
    }
}

/// A payload with a right footer, of a value in one of the plain forms or of bytes that only look like one.
fn body(random: &mut Random) -> Vec<u8> {
    let mut body = Vec::new();
    let kinds = [kind::STRING, kind::LIST, kind::SET, kind::HASH, kind::SORTED_SET];
    match random.below(8) {
        chosen @ 0..5 => {
            body.push(kinds[chosen]);
            let count = if chosen == 0 { 1 } else { 1 + random.below(20) };
            if chosen > 0 {
                length::write(&mut body, count as u64);
            }
            for _ in 0..count {
                length::write_string(&mut body, &random.string());
                match kinds[chosen] {
                    kind::HASH => length::write_string(&mut body, &random.string()),
                    kind::SORTED_SET => body.extend_from_slice(&(random.next() as i32 as f64).to_le_bytes()),
                    _ => {}
                }
            }
        }
        _ => {
            body.push(random.below(30) as u8);
            body.extend(random.bytes(120));
        }
    }
    // Half of them are damaged.
    for _ in 0..random.below(2) * random.below(4) {
        let at = random.below(body.len());
        match random.below(3) {
            0 => body[at] = random.next() as u8,
            1 => body.truncate(at.max(1)),
            _ => body.insert(at, random.next() as u8),
        }
    }
    body
}

#[test]
fn payloads_are_refused_or_are_values_that_come_back() {
    fuzz(|random| {
        let mut bytes = body(random);
        bytes.extend_from_slice(&payload::VERSION.to_le_bytes());
        bytes.extend_from_slice(&checksum::of(&bytes).to_le_bytes());
        let limits = Limits::default();
        let written = match payload::read(&bytes, &limits, NOW_MS) {
            Err(_) => return,
            Ok(Content::String(string)) => payload::of_string(&string),
            Ok(Content::Collection(value)) => payload::of_value(&value),
        };
        let again = match payload::read(&written, &limits, NOW_MS).expect("what was written here") {
            Content::String(string) => payload::of_string(&string),
            Content::Collection(value) => payload::of_value(&value),
        };
        assert_eq!(again.len(), written.len());
    });
}

#[test]
fn compressed_strings_come_back_and_any_bytes_do_no_harm() {
    fuzz(|random| {
        let string = [random.string(), random.string(), random.string()].concat();
        if let Some(compressed) = lzf::compress(&string) {
            assert!(compressed.len() < string.len());
            assert_eq!(lzf::decompress(&compressed, string.len()).as_deref(), Ok(string.as_slice()));
        }
        let most = random.below(5000);
        if let Ok(out) = lzf::decompress(&random.bytes(100), most) {
            assert_eq!(out.len(), most);
        }
    });
}

/// The definition, in exponential time: for patterns without classes.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => matches(rest, text) || !text.is_empty() && matches(pattern, &text[1..]),
        ([b'?', rest @ ..], [_, behind @ ..]) => matches(rest, behind),
        ([b'\\', literal, rest @ ..], [byte, behind @ ..]) => literal == byte && matches(rest, behind),
        ([literal, rest @ ..], [byte, behind @ ..]) => literal == byte && matches(rest, behind),
        _ => false,
    }
}

#[test]
fn glob_patterns_match_what_they_say() {
    fuzz(|random| {
        let (pattern, text) = (random.word(b"ab*?\\", 9), random.word(b"ab*\\", 9));
        let expected = matches(&pattern, &text);
        assert_eq!(glob::matches(&pattern, &text), expected, "{} {}", pattern.escape_ascii(), text.escape_ascii());
        // With classes, or anything else: it ends, and a literal in any case is one.
        glob::matches(&random.word(b"ab[]^-\\*?", 40), &random.word(b"ab-]", 200));
        glob::matches_any_case(&random.bytes(40), &random.bytes(40));
        let literal = random.word(b"abcXYZ", 20);
        assert!(glob::matches_any_case(&literal.to_ascii_uppercase(), &literal));
    });
}

#[test]
fn numbers_are_read_only_as_they_are_written() {
    fuzz(|random| {
        let integer = (random.next() as i64) >> random.below(64);
        assert_eq!(number::parse_i64(integer.to_string().as_bytes()), Some(integer));
        let double = f64::from_bits(random.next());
        if !double.is_nan() {
            let text = number::format_double(double);
            assert_eq!(number::parse_double(text.as_bytes()), Some(double), "{text}");
        }
        let text = random.word(b"0123456789-+.einf ", 24);
        if let Some(integer) = number::parse_i64(&text) {
            assert_eq!(integer.to_string().as_bytes(), text);
        }
        assert!(number::parse_double(&text).is_none_or(|double| !double.is_nan()));
        number::parse_bound(&text);
        let other = random.word(b"0123456789-.", 20);
        if let Some(sum) = number::add_decimal(&text, &other) {
            assert!(number::is_decimal(sum.as_bytes()), "{sum}");
        }
    });
}
