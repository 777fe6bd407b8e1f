//! What planning knows of the view, and what entries made of it since.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Values under keys: looked up in the view, or changed by entries. Those that are not in the view yet are kept; the
/// others are a cache, and are forgotten when there are too many.
#[derive(Debug)]
pub(super) struct Known<K, V> {
    values: HashMap<K, Value<V>>,
    /// Values kept before any is forgotten.
    kept: usize,
    /// With so many it is looked for those that can be forgotten.
    full: usize,
    /// Or when all up to this entry is in the view, as those are then that could not be forgotten.
    waits_for: u64,
}

#[derive(Debug)]
struct Value<V> {
    value: V,
    /// The entry that changed it last; 0: it is as in the view.
    changed: u64,
}

impl<K, V> Known<K, V> {
    /// Nothing yet; so many values are kept before any is forgotten.
    pub(super) fn new(kept: usize) -> Self {
        Self {
            values: HashMap::new(),
            kept,
            full: kept,
            waits_for: u64::MAX,
        }
    }
}

impl<K: Hash + Eq, V: Copy> Known<K, V> {
    /// The value under a key, if it is known.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.values.get(key).map(|known| known.value)
    }

    /// The value under a key; where it is not known, it is looked up.
    pub(super) fn look_up<E>(
        &mut self,
        key: K,
        look_up: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        if let Some(known) = self.get(&key) {
            return Ok(known);
        }
        let value = look_up()?;
        self.values.insert(key, Value { value, changed: 0 });
        Ok(value)
    }

    /// An entry makes this the value.
    pub(super) fn change(&mut self, key: K, value: V, offset: u64) {
        let changed = offset;
        self.values.insert(key, Value { value, changed });
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Forgets all but some.
    pub(super) fn retain(&mut self, keep: impl Fn(V) -> bool) {
        self.values.retain(|_, known| keep(known.value));
        self.values.shrink_to_fit();
    }

    /// Forgets values that are in the view, which has all up to an entry, when there are too many.
    pub(super) fn forget(&mut self, sealed: u64) {
        if self.values.len() < self.full && sealed < self.waits_for {
            return;
        }
        let mut newest = 0;
        self.values.retain(|_, known| {
            newest = newest.max(known.changed);
            known.changed > sealed
        });
        // What remains is looked through again only when there is as much again, or none of it need remain, so that
        // this costs little.
        self.full = self.kept.max(2 * self.values.len());
        let all = self.values.len() < self.kept;
        self.waits_for = if all { u64::MAX } else { newest };
        self.values.shrink_to(self.full);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const KEPT: usize = 1000;

    #[test]
    fn what_is_not_in_the_view_yet_is_never_forgotten() {
        let mut known: Known<usize, u32> = Known::new(KEPT);
        let in_view = |_| Ok::<_, Infallible>(7);
        for key in 0..KEPT {
            assert_eq!(known.look_up(key, || in_view(key)), Ok(7));
        }
        known.change(1, 8, 20);
        known.change(2, 9, 21);
        assert_eq!(known.get(&3), Some(7));
        known.forget(20);
        assert_eq!((known.get(&1), known.get(&2)), (None, Some(9)));
        assert_eq!(known.get(&3), None);
        // It is looked up again, and as long as there are few nothing is forgotten.
        assert_eq!(known.look_up(1, || Ok::<_, Infallible>(8)), Ok(8));
        known.forget(21);
        assert_eq!((known.get(&1), known.get(&2)), (Some(8), Some(9)));
    }

    #[test]
    fn what_could_not_be_forgotten_is_once_it_is_in_the_view() {
        let mut known: Known<usize, usize> = Known::new(KEPT);
        let many = 10 * KEPT;
        for key in 0..many {
            known.change(key, key, 7);
        }
        known.forget(6);
        assert_eq!(known.len(), many);
        known.change(many, 0, 8);
        known.forget(6);
        assert_eq!(known.len(), many + 1);
        known.forget(7);
        assert_eq!(known.len(), 1, "that of the last entry");
        known.forget(9);
        assert_eq!(known.len(), 1, "there are few");
    }
}
