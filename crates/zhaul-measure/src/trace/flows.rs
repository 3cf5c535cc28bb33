//! Flows: how many bytes went from one kind of thing to another, by which calls, and how often the
//! CPU copied them on the way.

use std::collections::BTreeMap;

use super::memory::Portion;
use super::object::{Kind, Object};
use super::route::Route;

/// What flows are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) source: Kind,
    pub(crate) sink: Kind,
    pub(crate) route: Route,
}

impl Key {
    fn has_guess(&self) -> bool {
        self.source == Kind::Opened || self.sink == Kind::Opened
    }

    fn taken_for_files(self) -> Self {
        let taken = |kind| match kind {
            Kind::Opened => Kind::File,
            kind => kind,
        };
        Self {
            source: taken(self.source),
            sink: taken(self.sink),
            ..self
        }
    }
}

/// What went along one of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    pub(crate) bytes: u64,
    pub(crate) copied: u64,
    /// Portions: the last calls of the way, for an average length.
    pub(crate) portions: u64,
    /// Bytes of or to a path that was not looked at in time, and that is taken for a file because
    /// others that went the same way are.
    pub(crate) guessed: u64,
    /// Bytes of which no address says that they belong together.
    pub(crate) inferred: u64,
    pub(crate) sources: Names,
    pub(crate) sinks: Names,
}

impl Flow {
    fn join(&mut self, guess: Self) {
        self.bytes += guess.bytes;
        self.copied += guess.copied;
        self.portions += guess.portions;
        self.inferred += guess.inferred;
        self.guessed += guess.bytes;
        for (names, more) in [
            (&mut self.sources, guess.sources),
            (&mut self.sinks, guess.sinks),
        ] {
            for name in &more.first {
                names.add(Some(name));
            }
            names.more |= more.more;
        }
    }
}

/// A few names as examples.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) first: Vec<String>,
    pub(crate) more: bool,
}

impl Names {
    fn add(&mut self, name: Option<&String>) {
        let Some(name) = name else { return };
        if self.first.contains(name) {
            return;
        }
        if self.first.len() < NAMES_AT_MOST {
            self.first.push(name.clone());
        } else {
            self.more = true;
        }
    }
}

const NAMES_AT_MOST: usize = 3;

/// All flows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flows {
    pub(crate) by_key: BTreeMap<Key, Flow>,
}

impl Flows {
    /// Paths that were not looked at in time go with the files, if there are files that went the
    /// same way.
    pub(crate) fn join_guesses(&mut self) {
        let guesses = self.by_key.keys().filter(|key| key.has_guess());
        for key in guesses.copied().collect::<Vec<Key>>() {
            let file = key.taken_for_files();
            if !self.by_key.contains_key(&file) {
                continue;
            }
            if let (Some(guess), Some(flow)) =
                (self.by_key.remove(&key), self.by_key.get_mut(&file))
            {
                flow.join(guess);
            }
        }
    }

    /// A portion arrived at `sink`.
    pub(crate) fn arrive(&mut self, portion: &Portion, sink: &Object, inferred: bool) {
        let key = Key {
            source: portion.source.kind(),
            sink: sink.kind(),
            route: portion.route,
        };
        let flow = self.by_key.entry(key).or_default();
        flow.bytes += portion.bytes;
        flow.copied += portion.copied;
        flow.portions += 1;
        if inferred {
            flow.inferred += portion.bytes;
        }
        flow.sources.add(portion.source.name.as_ref());
        flow.sinks.add(sink.name.as_ref());
    }
}
