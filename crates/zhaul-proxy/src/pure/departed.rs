//! What a reload took out of the configuration, for as long as it can still matter.
//!
//! A server or a listener that is taken out goes on with the connections it has. If it comes back
//! before these have ended, they count against its limits, and what was known of it a moment ago
//! still holds: that connections to it fail, how many a source has. Otherwise a configuration that is
//! written by a program, and loses an entry for one reload, would be a way around every limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long something without connections is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Things that are in no configuration, and when they left it.
#[derive(Debug)]
pub(crate) struct Departed<T>(Vec<(Arc<T>, Instant)>);

impl<T> Default for Departed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Departed<T> {
    /// The one that `is_it` says so of.
    pub(crate) fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<&Arc<T>> {
        let mut known = self.0.iter().map(|(thing, _)| thing);
        known.find(|thing| is_it(thing))
    }

    /// What is departed once another configuration is in force: `before` were in the last one,
    /// `is_present` says what is in the new one, and `in_use` whether there are connections left.
    pub(crate) fn after<'a>(
        &self,
        before: impl Iterator<Item = &'a Arc<T>>,
        is_present: impl Fn(&Arc<T>) -> bool,
        in_use: impl Fn(&T) -> bool,
        now: Instant,
    ) -> Self
    where
        T: 'a,
    {
        let long_gone = self.0.iter().cloned();
        let all = long_gone.chain(before.map(|thing| (Arc::clone(thing), now)));
        let matters = |(thing, since): &(Arc<T>, Instant)| {
            !is_present(thing) && (in_use(thing) || now.duration_since(*since) < REMEMBERED)
        };
        Self(all.filter(matters).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_remembered_and_the_rest_for_a_while() {
        let [used, unused, kept] = [1, 2, 3].map(Arc::new);
        let in_use = |thing: &i32| *thing == 1;
        let now = Instant::now();
        let before = [&used, &unused, &kept].into_iter();
        let is_kept = |thing: &Arc<i32>| Arc::ptr_eq(thing, &kept);
        let departed = Departed::default().after(before, is_kept, in_use, now);
        let known = |departed: &Departed<i32>| {
            [1, 2, 3].map(|n| departed.find(|thing| *thing == n).is_some())
        };
        assert_eq!(known(&departed), [true, true, false]);
        let later = now + REMEMBERED;
        let departed = departed.after([].into_iter(), |_| false, in_use, later);
        assert_eq!(known(&departed), [true, false, false]);
        let came_back = |thing: &Arc<i32>| Arc::ptr_eq(thing, &used);
        let departed = departed.after([].into_iter(), came_back, in_use, later);
        assert_eq!(known(&departed), [false; 3]);
    }
}
