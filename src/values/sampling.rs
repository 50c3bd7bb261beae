//! Fair choices among the elements of a collection.
//!
//! Random numbers are drawn from a function that the caller passes; nothing here has state.

use std::collections::HashSet;

use super::hashing::below;
use super::segments::Segments;

/// Draws below one in this many elements of a table go by chance and repeat what was seen; more are chosen
/// while walking all of it.
const SPARSE: usize = 4;

/// Visits `count` of `len` items (or all), each choice with the same probability, in their order: each item is
/// taken with the chance of what is still wanted among what is still to come (Knuth's algorithm S).
pub(crate) fn choose<I: Iterator>(
    items: I,
    len: usize,
    count: usize,
    random: &mut impl FnMut() -> u64,
    mut visit: impl FnMut(I::Item),
) {
    let mut wanted = count.min(len);
    for (passed, item) in items.take(len).enumerate() {
        if wanted == 0 {
            break;
        }
        let left = len - passed;
        if wanted == left || below(random(), left) < wanted {
            wanted -= 1;
            visit(item);
        }
    }
}

/// Visits `count` different elements of a table (or all), each choice with the same probability.
pub(crate) fn choose_from_table<T>(
    table: &Segments<T>,
    count: usize,
    random: &mut impl FnMut() -> u64,
    mut visit: impl FnMut(&T),
) {
    if count >= table.len() / SPARSE {
        return choose(table.iter(), table.len(), count, random, visit);
    }
    let mut seen = HashSet::with_capacity(count);
    while seen.len() < count {
        match table.random(random()) {
            Some(element) if seen.insert(std::ptr::from_ref(element)) => visit(element),
            Some(_) => {}
            None => break,
        }
    }
}

/// Visits `count` of `items`, each drawn from all of them.
pub(crate) fn repeat<T: Copy>(items: &[T], count: usize, random: &mut impl FnMut() -> u64, mut visit: impl FnMut(T)) {
    if !items.is_empty() {
        (0..count).for_each(|_| visit(items[below(random(), items.len())]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::hashing::mix;

    #[test]
    fn every_choice_is_equally_likely() {
        let mut seed = 0;
        let mut random = || {
            seed += 1;
            mix(seed)
        };
        let mut drawn = [0u32; 10];
        for _ in 0..10_000 {
            let mut picked = Vec::new();
            choose(0..10usize, 10, 3, &mut random, |item| picked.push(item));
            assert_eq!(picked.len(), 3);
            picked.iter().for_each(|item| drawn[*item] += 1);
        }
        // 3,000 expected each, standard deviation 46.
        assert!(drawn.iter().all(|count| (2_750..3_250).contains(count)), "{drawn:?}");
    }

    #[test]
    fn no_more_than_all_are_chosen() {
        let mut picked = Vec::new();
        choose(0..5, 5, 50, &mut || 7, |item| picked.push(item));
        assert_eq!(picked, [0, 1, 2, 3, 4]);
    }
}
