//! Commands as lines of text, which `redis-cli < file` executes.

use std::io::{self, Write};

/// Writes one command on one line.
pub fn write_line<'a>(out: &mut impl Write, words: impl IntoIterator<Item = &'a [u8]>) -> io::Result<()> {
    let mut line = Vec::new();
    for word in words {
        if !line.is_empty() {
            line.push(b' ');
        }
        quote(&mut line, word);
    }
    line.push(b'\n');
    out.write_all(&line)
}

/// Appends a word: as it is where it is plain, or else in quotes.
pub fn quote(line: &mut Vec<u8>, word: &[u8]) {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-+.:,/@{}()[]<>=*!?$%&|~^".contains(byte);
    if !word.is_empty() && word.iter().all(is_plain) {
        return line.extend_from_slice(word);
    }
    line.push(b'"');
    for &byte in word {
        match byte {
            b'\\' | b'"' => line.extend_from_slice(&[b'\\', byte]),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            b' '..=b'~' => line.push(byte),
            _ => line.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    line.push(b'"');
}

/// A word as it is shown to people, in quotes where it needs them.
pub fn shown(word: &[u8]) -> String {
    let mut line = Vec::new();
    quote(&mut line, word);
    String::from_utf8_lossy(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn words_are_quoted_where_they_need_it() {
        for (word, expected) in [
            (&b"plain:{tag}"[..], "plain:{tag}"),
            (b"", "\"\""),
            (b"two words", "\"two words\""),
            (b"a\"b\\c'", "\"a\\\"b\\\\c'\""),
            (b"\r\n\t\0\xff", "\"\\r\\n\\t\\x00\\xff\""),
            (b"#TS", "\"#TS\""),
        ] {
            assert_eq!(shown(word), expected);
        }
    }
}
