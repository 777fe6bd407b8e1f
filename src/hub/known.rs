//! What planning knows of the view, and what entries made of it since.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Values under keys: looked up in the view, or changed by entries. Those that are not in the view yet are kept; the
/// others are a cache, and are forgotten when there are too many.
#[derive(Debug)]
pub(super) struct Known<K, V> {
    values: HashMap<K, Value<V>>,
    /// With so many it is looked for those that can be forgotten.
    full: usize,
}

#[derive(Debug)]
struct Value<V> {
    value: V,
    /// The entry that changed it last; 0: it is as in the view.
    changed: u64,
}

/// Values kept before any is forgotten.
const KEPT: usize = 100_000;

impl<K: Hash + Eq, V> Default for Known<K, V> {
    fn default() -> Self {
        Self {
            values: HashMap::new(),
            full: KEPT,
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
        if self.values.len() < self.full {
            return;
        }
        self.values.retain(|_, known| known.changed > sealed);
        // What remains is looked through again only when there is as much again, so that this costs little.
        self.full = KEPT.max(2 * self.values.len());
        self.values.shrink_to(self.full);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn what_is_not_in_the_view_yet_is_never_forgotten() {
        let mut known: Known<usize, u32> = Known::default();
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
}
