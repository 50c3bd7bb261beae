//! Glob patterns as Redis matches them: `*`, `?`, `[abc]`, `[^a-z]`, and `\` before a character to mean itself.
//!
//! Goal: the matches of Redis's `stringmatchlen` in bounded time. Method: only the latest `*` can need another try, so
//! on a mismatch the match goes back to it and lets it take one byte more; that is pattern times text at worst, where
//! trying every `*` anew would be exponential.

/// Whether the whole text matches the pattern.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    matches_folded(pattern, text, |byte| byte)
}

/// The same, letters in any case.
pub fn matches_any_case(pattern: &[u8], text: &[u8]) -> bool {
    matches_folded(pattern, text, |byte| byte.to_ascii_lowercase())
}

fn matches_folded(pattern: &[u8], text: &[u8], fold: impl Fn(u8) -> u8 + Copy) -> bool {
    let (mut at, mut position) = (0, 0);
    // Where the pattern goes on behind the latest `*`, and where in the text it was tried last.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if at < pattern.len() && pattern[at] == b'*' {
            while at < pattern.len() && pattern[at] == b'*' {
                at += 1;
            }
            if at == pattern.len() {
                return true;
            }
            star = Some((at, position));
            continue;
        }
        let step = match (pattern.get(at..), text.get(position)) {
            (Some([]) | None, None) => return true,
            (Some(rest @ [_, ..]), Some(&byte)) => match_one(rest, byte, fold),
            _ => None,
        };
        match (step, &mut star) {
            (Some(length), _) => {
                at += length;
                position += 1;
            }
            (None, Some((behind, tried))) if *tried < text.len() => {
                *tried += 1;
                at = *behind;
                position = *tried;
            }
            (None, _) => return false,
        }
    }
}

/// Matches one byte with the front of the pattern, which is not `*`: how long that front is, or `None`.
fn match_one(pattern: &[u8], byte: u8, fold: impl Fn(u8) -> u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (inside, length) = match_class(class, byte, fold);
            inside.then_some(length + 1)
        }
        [b'\\', escaped, ..] => (fold(*escaped) == fold(byte)).then_some(2),
        [literal, ..] => (fold(*literal) == fold(byte)).then_some(1),
        [] => None,
    }
}

/// Whether the byte is in the class, and the length of the class with its `]`. A class that is not closed ends with
/// the pattern.
fn match_class(class: &[u8], byte: u8, fold: impl Fn(u8) -> u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut inside = false;
    loop {
        match class.get(at..).unwrap_or_default() {
            [] => return (inside != negated, at.min(class.len())),
            [b']', ..] => return (inside != negated, at + 1),
            [b'\\', escaped, ..] => {
                inside |= *escaped == byte;
                at += 2;
            }
            [first, b'-', last, ..] => {
                let (low, high) = (fold(*first.min(last)), fold(*first.max(last)));
                inside |= (low..=high).contains(&fold(byte));
                at += 3;
            }
            [literal, ..] => {
                inside |= fold(*literal) == fold(byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, text: &str, expected: bool) {
        assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern:?} on {text:?}");
    }

    #[test]
    fn patterns_match_as_in_redis() {
        check("*", "", true);
        check("", "", true);
        check("", "a", false);
        check("foo*", "foobar", true);
        check("*bar", "foobar", true);
        check("f*o*r", "foobar", true);
        check("f?o", "foo", true);
        check("f?o", "fo", false);
        check("[abc]x", "bx", true);
        check("[^abc]x", "bx", false);
        check("[a-c]", "b", true);
        check("[c-a]", "b", true);
        check("\\*", "*", true);
        check("\\*", "a", false);
        check("[\\]]", "]", true);
        check("a[", "a", false);
        check("h*llo*", "hello world", true);
    }

    #[test]
    fn case_may_be_ignored() {
        assert!(matches_any_case(b"MAX*", b"maxmemory"));
        assert!(!matches(b"MAX*", b"maxmemory"));
    }

    #[test]
    fn many_stars_take_bounded_time() {
        let text = "a".repeat(20_000);
        assert!(!matches(format!("{}b", "a*".repeat(50)).as_bytes(), text.as_bytes()));
    }
}
