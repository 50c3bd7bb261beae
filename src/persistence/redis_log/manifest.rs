//! The manifest of Redis's log: which files it is made of.

use std::fmt;

/// What a manifest names. Files of the past (type `h`), which Redis is about to remove, do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    pub base: Option<String>,
    pub increments: Vec<String>,
}

/// Which line makes no sense, counted from 1; and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongLine {
    pub line: usize,
    pub why: &'static str,
}

impl fmt::Display for WrongLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl Manifest {
    /// Reads lines of `file NAME seq NUMBER type b|h|i`, in any order of the three.
    ///
    /// # Errors
    /// Where Redis would not start with it: an unknown type, a second base, numbers that do not ascend, a name with a path.
    pub fn parse(text: &[u8]) -> Result<Manifest, WrongLine> {
        let mut manifest = Manifest::default();
        let mut last = 0;
        let mut line = 0;
        let mut has_any = false;
        for bytes in text.split(|byte| *byte == b'\n') {
            line += 1;
            let wrong = |why| Err(WrongLine { line, why });
            let bytes = bytes.trim_ascii();
            if bytes.is_empty() || bytes.starts_with(b"#") {
                continue;
            }
            has_any = true;
            let Some((file, sequence, kind)) = entry_of(bytes) else { return wrong("it is no entry of a manifest") };
            if file.is_empty() || file.contains('/') || file == "." || file == ".." {
                return wrong("its file is not beside the manifest");
            }
            match kind.as_str() {
                "b" if manifest.base.is_some() => return wrong("there is a second base"),
                "b" => manifest.base = Some(file),
                "i" if sequence <= last => return wrong("its number is not greater than the one before"),
                "i" => {
                    last = sequence;
                    manifest.increments.push(file);
                }
                "h" => {}
                _ => return wrong("its type is none of b, h and i"),
            }
        }
        if has_any { Ok(manifest) } else { Err(WrongLine { line, why: "it names no file" }) }
    }
}

/// File, number and type of a line.
fn entry_of(line: &[u8]) -> Option<(String, u64, String)> {
    let words = words_of(line)?;
    let value = |name: &str| {
        let place = words.chunks(2).position(|pair| pair[0].eq_ignore_ascii_case(name))?;
        words.get(2 * place + 1).cloned()
    };
    Some((value("file")?, value("seq")?.parse().ok()?, value("type")?))
}

/// The words of a line. One with blanks or other than plain characters stands in quotes, as Redis's `sdscatrepr` writes it.
fn words_of(line: &[u8]) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        let Some(first) = rest.first() else { return Some(words) };
        let mut word = Vec::new();
        if *first != b'"' {
            let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
            word.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
        } else {
            let mut at = 1;
            loop {
                match *rest.get(at)? {
                    b'"' => break,
                    b'\\' => {
                        let escaped = *rest.get(at + 1)?;
                        at += 1;
                        word.push(match escaped {
                            b'x' => {
                                let digits = std::str::from_utf8(rest.get(at + 1..at + 3)?).ok()?;
                                at += 2;
                                u8::from_str_radix(digits, 16).ok()?
                            }
                            b'n' => b'\n',
                            b'r' => b'\r',
                            b't' => b'\t',
                            b'a' => 7,
                            b'b' => 8,
                            other => other,
                        });
                    }
                    byte => word.push(byte),
                }
                at += 1;
            }
            rest = &rest[at + 1..];
        }
        words.push(String::from_utf8(word).ok()?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_redis_is_read() {
        let text = b"# a comment\nfile appendonly.aof.2.base.rdb seq 2 type b\n\
                     file appendonly.aof.1.incr.aof seq 1 type h\nfile \"my \\x61of\\\".3.incr.aof\" seq 3 type i startoffset 7\n";
        let expected =
            Manifest { base: Some("appendonly.aof.2.base.rdb".into()), increments: vec!["my aof\".3.incr.aof".into()] };
        assert_eq!(Manifest::parse(text), Ok(expected));
    }

    #[test]
    fn what_redis_would_not_start_with_is_refused() {
        let check = |text: &[u8], line, why| {
            assert_eq!(Manifest::parse(text), Err(WrongLine { line, why }), "{}", text.escape_ascii());
        };
        check(b"", 1, "it names no file");
        check(b"file a seq 1 type b\nfile b seq 2 type b\n", 2, "there is a second base");
        check(b"file a seq 2 type i\nfile b seq 2 type i\n", 2, "its number is not greater than the one before");
        check(b"file a seq 2 type x\n", 1, "its type is none of b, h and i");
        check(b"file ../a seq 2 type i\n", 1, "its file is not beside the manifest");
        for text in
            [&b"file a seq 2"[..], b"file a seq x type i", b"file \"a seq 1 type i", b"\xff", b"file \"\\x", b"file"]
        {
            check(text, 1, "it is no entry of a manifest");
        }
    }
}
