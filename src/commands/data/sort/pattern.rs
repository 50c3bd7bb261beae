//! Patterns of BY and GET: the names of keys, and of fields, that belong to elements.

use crate::base::slot::Slot;
use crate::engine::Keyspace;

/// `weight_*`, `user_*->name`, or `#` for the element itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pattern<'a> {
    /// What stands before the first `*`, and behind it; where there is none, no key is named.
    around: Option<(&'a [u8], &'a [u8])>,
    /// The field of a hash.
    field: Option<&'a [u8]>,
    is_element: bool,
}

impl<'a> Pattern<'a> {
    pub(super) fn new(text: &'a [u8]) -> Pattern<'a> {
        let place = text.iter().position(|byte| *byte == b'*');
        let mut pattern = Pattern { around: None, field: None, is_element: text == b"#" };
        let Some(place) = place else { return pattern };
        let (before, mut behind) = (&text[..place], &text[place + 1..]);
        if let Some(arrow) = behind.windows(2).position(|two| two == b"->")
            && arrow + 2 < behind.len()
        {
            pattern.field = Some(&behind[arrow + 2..]);
            behind = &behind[..arrow];
        }
        pattern.around = Some((before, behind));
        pattern
    }

    /// Whether it names keys: there is a place for the element.
    pub(super) fn names_keys(&self) -> bool {
        self.around.is_some()
    }

    /// The slot of all keys that it names, whatever the elements: where a hash tag stands before the element's place.
    pub(super) fn slot(&self) -> Option<Slot> {
        let (before, _) = self.around?;
        let open = before.iter().position(|byte| *byte == b'{')?;
        let length = before[open + 1..].iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| Slot::of_key(before))
    }

    /// What belongs to an element: a string, or a field of a hash.
    pub(super) fn value(&self, keyspace: &mut Keyspace<'_>, element: &[u8]) -> Option<Vec<u8>> {
        if self.is_element {
            return Some(element.to_vec());
        }
        let (before, behind) = self.around?;
        let key = [before, element, behind].concat();
        match self.field {
            Some(field) => {
                let hash = keyspace.read_hash(&key).ok()??;
                hash.get(field).map(|value| value.to_vec())
            }
            None => keyspace.read_string(&key).ok()?.map(|string| string.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_behind_the_element() {
        let of = |text: &'static str| {
            let pattern = Pattern::new(text.as_bytes());
            (pattern.around.map(|(before, behind)| [before, b"|", behind].concat()), pattern.field)
        };
        assert_eq!(of("w_*"), (Some(b"w_|".to_vec()), None));
        assert_eq!(of("a*b->c"), (Some(b"a|b".to_vec()), Some(b"c".as_slice())));
        assert_eq!(of("a->*b->"), (Some(b"a->|b->".to_vec()), None));
        assert_eq!(of("a*b*->c->d"), (Some(b"a|b*".to_vec()), Some(b"c->d".as_slice())));
        assert_eq!(of("nosort"), (None, None));
        assert_eq!(of("#"), (None, None));
    }

    #[test]
    fn a_hash_tag_before_the_element_says_the_slot() {
        let slot = |text: &'static str| Pattern::new(text.as_bytes()).slot();
        assert_eq!(slot("{a}w_*"), Some(Slot::of_key(b"a")));
        for text in ["w_*", "{*}", "{}*", "w_*{a}", "{a*}", "{a}"] {
            assert_eq!(slot(text), None, "{text}");
        }
    }
}
