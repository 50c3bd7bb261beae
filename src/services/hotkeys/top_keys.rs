//! The keys with the greatest sums, of a stream of (key, weight) that has far more keys than are kept.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi: "Efficient computation of frequent and top-k elements in data streams", 2005),
//! with weights. A key that is not kept takes the place of the one with the least sum, and its sum too: that part may be of
//! others, so it is remembered, and what is shown is the rest. With `n` places, a key of more than an n-th of all weights is
//! always kept. HeavyKeeper, which counts what it meets down by chance, is made for weights of one: no chance wears down the
//! microseconds of a single call.

/// The keys of a stream.
#[derive(Debug)]
pub struct TopKeys {
    places_max: usize,
    /// The table hash of each key: one look over them finds a key.
    hashes: Vec<u64>,
    places: Vec<Place>,
    /// All weights.
    total: u64,
}

#[derive(Debug)]
struct Place {
    key: Box<[u8]>,
    sum: u64,
    /// The part of the sum that may be of keys that had the place before.
    of_others: u64,
}

impl TopKeys {
    /// None, with room for so many.
    pub fn new(places_max: usize) -> TopKeys {
        TopKeys { places_max, hashes: Vec::new(), places: Vec::new(), total: 0 }
    }

    /// Adds a weight to a key with this hash.
    pub fn add(&mut self, hash: u64, key: &[u8], weight: u64) {
        self.total = self.total.saturating_add(weight);
        let is_it = |(_, (held, place)): &(usize, (&u64, &Place))| **held == hash && *place.key == *key;
        let found = self.hashes.iter().zip(&self.places).enumerate().find(is_it);
        if let Some((index, _)) = found {
            let place = &mut self.places[index];
            place.sum = place.sum.saturating_add(weight);
            return;
        }
        if self.places.len() < self.places_max {
            self.hashes.push(hash);
            self.places.push(Place { key: key.into(), sum: weight, of_others: 0 });
            return;
        }
        let least = self.places.iter_mut().zip(&mut self.hashes).min_by_key(|(place, _)| place.sum);
        if let Some((place, held)) = least {
            *held = hash;
            *place = Place { key: key.into(), sum: place.sum.saturating_add(weight), of_others: place.sum };
        }
    }

    /// All weights, of whichever keys.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The keys that are kept, and what they have been given for certain; in no order.
    pub fn certain(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.places.iter().map(|place| (&*place.key, place.sum - place.of_others))
    }
}

#[cfg(test)]
mod tests {
    use super::TopKeys;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn fed(places: usize, stream: &[(u8, u64)]) -> TopKeys {
        let mut keys = TopKeys::new(places);
        // A hash that two keys have in common.
        stream.iter().for_each(|(key, weight)| keys.add(u64::from(key / 2), &[*key], *weight));
        keys
    }

    #[test]
    fn a_key_that_comes_late_gets_the_place_of_the_least() {
        let keys = fed(2, &[(1, 10), (2, 5), (1, 10), (3, 100)]);
        let mut certain: Vec<_> = keys.certain().map(|(key, sum)| (key[0], sum)).collect();
        certain.sort_unstable();
        assert_eq!(certain, [(1, 20), (3, 100)]);
        assert_eq!(keys.total(), 125);
    }

    proptest! {
        #[test]
        fn heavy_keys_are_kept_and_no_key_is_shown_more_than_it_has(
            stream in prop::collection::vec((0u8..30, 0u64..1000), 0..300), places in 1usize..12,
        ) {
            let mut sums: HashMap<u8, u64> = HashMap::new();
            stream.iter().for_each(|(key, weight)| *sums.entry(*key).or_default() += weight);
            let (keys, total) = (fed(places, &stream), sums.values().sum::<u64>());
            prop_assert_eq!(keys.total(), total);
            let certain: HashMap<u8, u64> = keys.certain().map(|(key, sum)| (key[0], sum)).collect();
            prop_assert!(certain.len() <= places);
            for (key, sum) in &certain {
                prop_assert!(*sum <= sums[key]);
            }
            for (key, sum) in sums.into_iter().filter(|(_, sum)| sum * places as u64 > total) {
                prop_assert!(certain.contains_key(&key), "{} with {} of {}", key, sum, total);
            }
        }
    }
}
