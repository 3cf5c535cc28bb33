//! How many connections each source has: an address, or a user of this machine.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts connections by their source. A source without one takes no memory.
#[derive(Debug)]
pub struct Sources<K>(Mutex<HashMap<K, usize>>);

impl<K> Default for Sources<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Sources<K> {
    /// Counts one more connection of this source, if `judge` lets it in, which is told how many there
    /// are already. Nobody else is counted between its look and the counting.
    ///
    /// # Errors
    /// What `judge` says; then nothing is counted.
    pub fn enter<T, E>(
        &self,
        source: K,
        judge: impl FnOnce(usize) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut counts = self.lock();
        let judged = judge(counts.get(&source).copied().unwrap_or(0))?;
        *counts.entry(source).or_insert(0) += 1;
        Ok(judged)
    }

    /// A connection that was counted has ended.
    pub fn leave(&self, source: &K) {
        let mut counts = self.lock();
        if let Some(count) = counts.get_mut(source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(source);
            }
        }
    }

    /// Whether nobody is counted.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_refused_or_has_left_takes_no_memory() {
        let sources = Sources::default();
        let below = |max| move |count| if count < max { Ok(count) } else { Err(count) };
        assert_eq!(sources.enter("a", below(0)), Err(0));
        assert!(sources.is_empty());
        assert_eq!(sources.enter("a", below(2)), Ok(0));
        assert_eq!(sources.enter("a", below(2)), Ok(1));
        assert_eq!(sources.enter("a", below(2)), Err(2));
        assert_eq!(sources.enter("b", below(2)), Ok(0));
        for source in ["a", "b", "a"] {
            assert!(!sources.is_empty());
            sources.leave(&source);
        }
        assert!(sources.is_empty());
    }
}
