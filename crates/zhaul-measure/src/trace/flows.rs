//! Flows: how many bytes went from one thing to another, by which calls, and how often the CPU copied
//! them on the way.
//!
//! They are kept by object and not by name, since what an object is may turn out later.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use super::memory::Portion;
use super::object::{FileId, Kind, Object};
use super::route::Route;

/// An object as a key: that one and no other.
#[derive(Clone, Debug)]
struct ById(Rc<Object>);

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ById {}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Rc::as_ptr(&self.0).hash(state);
    }
}

/// What flows are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Way {
    source: ById,
    sink: ById,
    route: Route,
}

/// What went along one of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Amount {
    pub(crate) bytes: u64,
    pub(crate) copied: u64,
    /// Portions: the last calls of the way, for an average length.
    pub(crate) portions: u64,
    /// Bytes of which no address says that they belong together.
    pub(crate) inferred: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, more: &Self) {
        self.bytes += more.bytes;
        self.copied += more.copied;
        self.portions += more.portions;
        self.inferred += more.inferred;
    }
}

/// A way with what went along it.
pub(crate) struct Flow<'a> {
    pub(crate) source: &'a Rc<Object>,
    pub(crate) sink: &'a Rc<Object>,
    pub(crate) route: Route,
    pub(crate) amount: &'a Amount,
}

/// All flows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flows {
    by_way: HashMap<Way, Amount>,
}

impl Flows {
    /// A portion arrived at `sink`.
    pub(crate) fn arrive(&mut self, portion: &Portion, sink: &Rc<Object>, inferred: bool) {
        let way = Way {
            source: ById(Rc::clone(&portion.source)),
            sink: ById(Rc::clone(sink)),
            route: portion.route,
        };
        self.by_way.entry(way).or_default().add(&Amount {
            bytes: portion.bytes,
            copied: portion.copied,
            portions: 1,
            inferred: if inferred { portion.bytes } else { 0 },
        });
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Flow<'_>> {
        self.by_way.iter().map(|(way, amount)| Flow {
            source: &way.source.0,
            sink: &way.sink.0,
            route: way.route,
            amount,
        })
    }

    /// Keeps their number bounded, however many connections and files there are: those with ends of
    /// the same name become one, and, if there are too many names, those with fewest bytes lose
    /// theirs. All that happened before `now_ns` is known.
    pub(crate) fn fold(&mut self, now_ns: u64) {
        if self.by_way.len() <= WAYS_AT_MOST {
            return;
        }
        let mut one_of_each = HashMap::new();
        self.replace_ends(|object, _| match object.is_settled(now_ns) {
            true => Rc::clone(
                one_of_each
                    .entry(Identity::of(object))
                    .or_insert_with(|| Rc::clone(object)),
            ),
            false => Rc::clone(object),
        });
        if self.by_way.len() <= WAYS_AT_MOST / 2 {
            return;
        }
        let mut sizes: Vec<u64> = self.by_way.values().map(|amount| amount.bytes).collect();
        let (_, &mut least, _) = sizes.select_nth_unstable_by(NAMED_AT_MOST, |a, b| b.cmp(a));
        let mut nameless: HashMap<Kind, Rc<Object>> = HashMap::new();
        self.replace_ends(|object, amount| {
            if amount.bytes > least || !object.is_settled(now_ns) {
                return Rc::clone(object);
            }
            let kind = object.kind();
            Rc::clone(nameless.entry(kind).or_insert_with(|| Object::of(kind)))
        });
    }

    /// Records were lost: what has not been confirmed up to now will not be.
    pub(crate) fn doubt(&self, now_ns: u64) {
        for way in self.by_way.keys() {
            for object in [&way.source.0, &way.sink.0] {
                object.doubt(now_ns);
            }
        }
    }

    fn replace_ends(&mut self, mut by: impl FnMut(&Rc<Object>, &Amount) -> Rc<Object>) {
        for (way, amount) in std::mem::take(&mut self.by_way) {
            let way = Way {
                source: ById(by(&way.source.0, &amount)),
                sink: ById(by(&way.sink.0, &amount)),
                ..way
            };
            self.by_way.entry(way).or_default().add(&amount);
        }
    }
}

/// What makes two objects the same to a reader.
#[derive(PartialEq, Eq, Hash)]
struct Identity {
    kind: Kind,
    file: Option<FileId>,
    name: Option<String>,
    appends: bool,
}

impl Identity {
    fn of(object: &Object) -> Self {
        Self {
            kind: object.kind(),
            file: object.file(),
            name: object.name(),
            appends: object.appends(),
        }
    }
}

const WAYS_AT_MOST: usize = 8192;
const NAMED_AT_MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::object::Seen;
    use super::*;

    fn file(name: String, looked_ns: u64) -> Rc<Object> {
        let seen = Seen {
            kind: Kind::File,
            name: Some(name),
            looked_ns,
            ..Seen::default()
        };
        Object::looked_at(1, 3, seen)
    }

    #[test]
    fn a_million_connections_and_files_take_no_more_memory_than_a_few() {
        let mut flows = Flows::default();
        let large = file("large".to_owned(), 0);
        for n in 0..100_000_u64 {
            let source = match n % 3 {
                0 => Rc::clone(&large),
                _ => file(format!("small {n}"), 0),
            };
            let portion = Portion {
                source,
                route: Route::of("sendfile"),
                bytes: if n % 3 == 0 { 1000 } else { 1 },
                copied: 0,
            };
            flows.arrive(&portion, &Object::of(Kind::Tcp), false);
            flows.fold(1);
        }
        assert!(flows.by_way.len() <= WAYS_AT_MOST);
        let bytes = |name: Option<&str>| -> u64 {
            let named = flows.iter().filter(|f| f.source.name().as_deref() == name);
            named.map(|flow| flow.amount.bytes).sum()
        };
        assert_eq!(bytes(Some("large")), 33_334_000);
        let all: u64 = flows.iter().map(|flow| flow.amount.bytes).sum();
        assert_eq!(all, 33_334_000 + 66_666);
    }

    #[test]
    fn what_may_still_turn_out_to_be_something_else_keeps_its_name() {
        let mut flows = Flows::default();
        let fresh = file("fresh".to_owned(), 10);
        for _ in 0..=WAYS_AT_MOST {
            let portion = Portion {
                source: Rc::clone(&fresh),
                route: Route::of("sendfile"),
                bytes: 1,
                copied: 0,
            };
            flows.arrive(&portion, &Object::of(Kind::Tcp), false);
        }
        flows.fold(5);
        fresh.closed(1, 3, 7);
        assert!(flows.iter().all(|flow| flow.source.name().is_none()));
    }
}
