//! A worker's files: what paths lead to, from its cache or from the file system.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::files::cache::{Cache, Slot};
use crate::files::entry::{FileSet, Representation};
use crate::files::load::{Found, load};
use crate::files::open_file::OpenFile;
use crate::files::root::{Miss, Walk};
use crate::files::tree::Tree;
use crate::host::clock::Clock;
use crate::message::encoding::{Accepted, Coding, negotiate};
use crate::message::field_lines::FieldLines;

/// What a path led to, as a worker keeps it.
#[derive(Clone, Debug)]
pub(crate) enum Lookup {
    File(Rc<Slot<FileSet>>),
    Redirect,
    Listing(Arc<OpenFile>),
}

/// What a path led to, for one request.
#[derive(Clone, Debug)]
pub(crate) enum Looked {
    File(Selected),
    /// A directory that was asked for without its slash.
    Redirect,
    /// A directory without an index file, to be listed.
    Listing(Arc<OpenFile>),
}

/// A file in the coding in which it is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    slot: Rc<Slot<FileSet>>,
    coding: Coding,
}

impl Selected {
    /// The file of `slot` in this coding, or as it is if there is none.
    fn new(slot: Rc<Slot<FileSet>>, coding: Coding) -> Self {
        let coding = match slot.value.get(coding) {
            Some(_) => coding,
            None => Coding::Identity,
        };
        Self { slot, coding }
    }

    /// What is known of the file.
    pub(crate) fn file(&self) -> &Representation {
        self.slot
            .value
            .get(self.coding)
            .expect("identity is always there, and another coding was when it was selected")
    }

    /// Has what is known of the file looked at again before the next answer.
    pub(crate) fn distrust(&self) {
        self.slot.value.renew(0);
    }
}

/// A path that is to be looked up where a disk may be waited for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) path: Vec<u8>,
    pub(crate) is_dir: bool,
}

/// A path that was looked up there while its request waits to be parsed again.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) asked: Load,
    pub(crate) result: Result<Lookup, Miss>,
}

/// Why a look-up gave nothing: it missed, or it has to be done where a disk may be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    Miss(Miss),
    Elsewhere,
}

/// What the cache says of a path that it knows.
enum Cached {
    /// It may be sent.
    Holds(Selected),
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

/// The served tree with one worker's cache of it.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) tree: Arc<Tree>,
    cache: RefCell<Cache<FileSet>>,
    /// Room for the key of a look-up.
    key: RefCell<Vec<u8>>,
}

impl Catalog {
    pub(crate) fn new(tree: Arc<Tree>, cached_files: usize, cached_bytes: usize) -> Self {
        Self {
            tree,
            cache: RefCell::new(Cache::new(cached_files, cached_bytes)),
            key: RefCell::default(),
        }
    }

    /// Finds what a path leads to, and in which of the codings in `accept` it is to be sent, without
    /// waiting for a disk. `batch` is as in [`FileSet::check`].
    pub(crate) fn look_up(
        &self,
        path: &[u8],
        is_dir: bool,
        accept: FieldLines<'_>,
        batch: Option<u64>,
    ) -> Result<Looked, Missed> {
        match self.look_up_cached(path, is_dir, accept, batch) {
            Some(Cached::Holds(selected)) => return Ok(Looked::File(selected)),
            Some(Cached::MayHold) => return Err(Missed::Elsewhere),
            None => {}
        }
        let mut loaded = load(&self.tree, path, is_dir, Walk::Cached);
        if matches!(loaded, Err(Miss::Exhausted(_))) {
            // What the cache keeps open is what this request needs.
            self.clear();
            loaded = load(&self.tree, path, is_dir, Walk::Cached);
        }
        match loaded {
            Ok(found) => Ok(self.keep(path, is_dir, found).select(accept)),
            Err(Miss::NotCached) => Err(Missed::Elsewhere),
            Err(miss) => Err(Missed::Miss(miss)),
        }
    }

    /// What the cache knows of a path, if that is still true.
    fn look_up_cached(
        &self,
        path: &[u8],
        is_dir: bool,
        accept: FieldLines<'_>,
        batch: Option<u64>,
    ) -> Option<Cached> {
        let mut key = self.key.borrow_mut();
        write_key(path, is_dir, &mut key);
        let slot = self
            .cache
            .borrow()
            .get(&key, Clock::now_s())
            .map(Rc::clone)?;
        let accepted = Accepted::read(accept);
        let coding = accepted.choose(slot.value.codings());
        if slot.value.is_remote() {
            let freshness = self.tree.site.config.remote_freshness;
            return Some(if slot.value.is_fresh(freshness) {
                Cached::Holds(Selected::new(slot, coding))
            } else {
                Cached::MayHold
            });
        }
        let may_be_better = accepted.prefers_another(coding);
        if slot
            .value
            .check(&self.tree.root, coding, may_be_better, batch)
        {
            return Some(Cached::Holds(Selected::new(slot, coding)));
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
        Lookup::File(self.cache.borrow_mut().insert(&key, set, Clock::now_s()))
    }

    /// What the cache has by this key, whether it still holds or not.
    pub(crate) fn cached(&self, key: &[u8]) -> Option<Rc<Slot<FileSet>>> {
        self.cache.borrow().get(key, Clock::now_s()).cloned()
    }

    /// Closes all files that no answer needs.
    pub(crate) fn clear(&self) {
        self.cache.borrow_mut().clear();
    }

    /// Closes files that nobody asked for lately; call about once a second.
    pub(crate) fn sweep(&self) {
        self.cache.borrow_mut().sweep(Clock::now_s());
    }
}

impl Lookup {
    /// What is to be sent of it to a client that accepts these codings.
    pub(crate) fn select(self, accept: FieldLines<'_>) -> Looked {
        match self {
            Self::File(slot) => {
                let coding = negotiate(accept, slot.value.codings());
                Looked::File(Selected::new(slot, coding))
            }
            Self::Redirect => Looked::Redirect,
            Self::Listing(dir) => Looked::Listing(dir),
        }
    }
}
