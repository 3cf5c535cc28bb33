//! From a path to a file: what this request needs looked up, the cache, the file system.

use std::rc::Rc;
use std::sync::Arc;

use crate::answer::{Exchange, Next};
use crate::cache::Slot;
use crate::encoding::{Accepted, Coding, negotiate};
use crate::entry::{FileSet, Found, load};
use crate::field_lines::FieldLines;
use crate::open_file::OpenFile;
use crate::record::{Came, Record};
use crate::root::{Miss, Walk};
use crate::worker::Worker;

/// What a path led to, as a worker keeps it.
#[derive(Clone, Debug)]
pub(crate) enum Lookup {
    File(Rc<Slot<FileSet>>),
    Redirect,
    Listing(Arc<OpenFile>),
}

/// A path that is to be looked up in the cold pool.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) path: Vec<u8>,
    pub(crate) is_dir: bool,
    /// When its request was there, if that is logged.
    pub(crate) came: Option<Came>,
}

/// A path that was looked up in the cold pool while its request waits to be parsed again.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) path: Vec<u8>,
    pub(crate) is_dir: bool,
    pub(crate) came: Option<Came>,
    pub(crate) result: Result<Lookup, Miss>,
}

/// Why an inline look-up gave no file: it missed, or it has to be done elsewhere.
pub(crate) enum Missed {
    Miss(Miss),
    Elsewhere(Next),
}

/// What the cache says of a path that it knows.
enum Cached {
    /// It may be sent.
    Holds(Lookup, Coding),
    /// Somebody who may not answer has to be asked.
    MayHold,
}

/// What a path is known by.
pub(crate) fn write_key(path: &[u8], is_dir: bool, key: &mut Vec<u8>) {
    key.clear();
    key.extend_from_slice(path);
    if is_dir {
        key.push(b'/');
    }
}

impl Worker {
    /// Finds what a path leads to and in which of the codings in `accept` it is to be sent.
    pub(crate) fn look_up(
        &self,
        exchange: &Exchange<'_>,
        path: &[u8],
        is_dir: bool,
        accept: FieldLines<'_>,
    ) -> Result<(Lookup, Coding), Missed> {
        if let Some(known) = exchange
            .loaded
            .iter()
            .find(|l| l.path == path && l.is_dir == is_dir)
        {
            let lookup = known.result.clone().map_err(Missed::Miss)?;
            let coding = lookup.coding(accept);
            return Ok((lookup, coding));
        }
        let elsewhere = || {
            Missed::Elsewhere(Next::Load(Load {
                path: path.to_vec(),
                is_dir,
                came: exchange.record.as_ref().map(Record::came),
            }))
        };
        match self.look_up_cached(exchange, path, is_dir, accept) {
            Some(Cached::Holds(lookup, coding)) => return Ok((lookup, coding)),
            Some(Cached::MayHold) => return Err(elsewhere()),
            None => {}
        }
        let mut loaded = load(&self.site, path, is_dir, Walk::Cached);
        if matches!(loaded, Err(Miss::Exhausted(_))) {
            // What the cache keeps open is what this request needs.
            self.cache.borrow_mut().clear();
            loaded = load(&self.site, path, is_dir, Walk::Cached);
        }
        match loaded {
            Ok(found) => {
                let lookup = self.keep(path, is_dir, found);
                let coding = lookup.coding(accept);
                Ok((lookup, coding))
            }
            Err(Miss::NotCached) => Err(elsewhere()),
            Err(miss) => Err(Missed::Miss(miss)),
        }
    }

    /// What the cache knows of a path, if that is still true.
    fn look_up_cached(
        &self,
        exchange: &Exchange<'_>,
        path: &[u8],
        is_dir: bool,
        accept: FieldLines<'_>,
    ) -> Option<Cached> {
        let mut key = self.key.borrow_mut();
        write_key(path, is_dir, &mut key);
        let slot = self
            .cache
            .borrow()
            .get(&key, self.clock.second())
            .map(Rc::clone)?;
        let accepted = Accepted::read(accept);
        let coding = accepted.choose(slot.value.codings());
        if slot.value.is_remote() {
            return Some(if slot.value.is_fresh(self.site.config.remote_freshness) {
                Cached::Holds(Lookup::File(slot), coding)
            } else {
                Cached::MayHold
            });
        }
        let may_be_better = accepted.prefers_another(coding);
        if slot
            .value
            .check(&self.site.root, coding, may_be_better, exchange.batch)
        {
            return Some(Cached::Holds(Lookup::File(slot), coding));
        }
        self.cache.borrow_mut().remove(&key);
        None
    }

    /// Puts what was found into the cache, if it may be kept.
    pub(crate) fn keep(&self, path: &[u8], is_dir: bool, found: Found) -> Lookup {
        let set = match found {
            Found::Redirect => return Lookup::Redirect,
            Found::Listing(dir) => return Lookup::Listing(Arc::new(dir)),
            Found::File(set) => *set,
        };
        if !set.may_be_kept() {
            return Lookup::File(Slot::apart(set));
        }
        let mut key = Vec::with_capacity(path.len() + 1);
        write_key(path, is_dir, &mut key);
        Lookup::File(
            self.cache
                .borrow_mut()
                .insert(&key, set, self.clock.second()),
        )
    }
}

impl Lookup {
    fn coding(&self, accept: FieldLines<'_>) -> Coding {
        match self {
            Self::File(slot) => negotiate(accept, slot.value.codings()),
            Self::Redirect | Self::Listing(_) => Coding::Identity,
        }
    }
}
