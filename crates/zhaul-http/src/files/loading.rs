//! Looking a path up where it may be waited for.
//!
//! On a file system that may not answer, a worker's requests for one path share one look-up, as far as
//! its result is fresh enough for them: what is stuck is then one thread for each path, not for each
//! request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::files::load::{Found, load};
use crate::files::lookup::{Catalog, Load, Loaded, Lookup, write_key};
use crate::files::root::{Miss, Walk};
use crate::files::storage::{FileSystem, TimedOut};
use crate::host::clock::Clock;

/// How long somebody who holds a lease on a file is waited for, in pieces: half a second in all. No
/// thread waits meanwhile.
const LEASE_PAUSES_MS: [u64; 12] = [1, 1, 2, 4, 8, 16, 32, 64, 92, 92, 92, 92];

type Answer = Result<Lookup, Miss>;

/// A look-up under way that others may wait for.
#[derive(Debug)]
struct Loading {
    began_ms: u64,
    /// Whoever waits for it subscribes.
    answer: Rc<watch::Sender<Option<Answer>>>,
}

/// What a thread found out.
enum Outcome {
    /// What was known holds, as of then.
    Holds(u64),
    Found(Found),
}

/// A worker's look-ups on threads that may wait.
#[derive(Debug)]
pub(crate) struct Loader {
    catalog: Rc<Catalog>,
    /// Those under way on file systems that may not answer.
    under_way: RefCell<HashMap<Box<[u8]>, Loading>>,
}

impl Loader {
    pub(crate) fn new(catalog: &Rc<Catalog>) -> Rc<Self> {
        Rc::new(Self {
            catalog: Rc::clone(catalog),
            under_way: RefCell::default(),
        })
    }

    /// Looks a path up on a thread that may wait for its file system, and keeps what is found.
    pub(crate) async fn load(self: &Rc<Self>, asked: Load) -> Loaded {
        let result = self.answer(&asked.path, asked.is_dir).await;
        Loaded { asked, result }
    }

    async fn answer(self: &Rc<Self>, path: &[u8], is_dir: bool) -> Answer {
        let tree = &self.catalog.tree;
        let (file_system, is_remote) = tree.root.file_system_of(path);
        if !is_remote {
            return self.load_from(&file_system, path, is_dir).await;
        }
        let mut key = Vec::with_capacity(path.len() + 1);
        write_key(path, is_dir, &mut key);
        let now_ms = Clock::now_ms();
        let oldest_ms =
            u128::from(now_ms).saturating_sub(tree.site.config.remote_freshness.as_millis());
        let known = self.under_way.borrow().get(&key[..]).and_then(|loading| {
            (u128::from(loading.began_ms) >= oldest_ms).then(|| loading.answer.subscribe())
        });
        let mut answer =
            known.unwrap_or_else(|| self.begin_to_load(file_system, path, is_dir, key));
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(answer)) => answer.clone(),
            // A defect ended the look-up.
            Ok(None) | Err(_) => Err(Miss::TimedOut),
        }
    }

    fn begin_to_load(
        self: &Rc<Self>,
        file_system: Arc<FileSystem>,
        path: &[u8],
        is_dir: bool,
        key: Vec<u8>,
    ) -> watch::Receiver<Option<Answer>> {
        let (sender, answer) = watch::channel(None);
        let sender = Rc::new(sender);
        let loading = Loading {
            began_ms: Clock::now_ms(),
            answer: Rc::clone(&sender),
        };
        self.under_way
            .borrow_mut()
            .insert(key.clone().into(), loading);
        let loader = Rc::clone(self);
        let path = path.to_vec();
        // A task of its own: whoever asked first may leave. When all have left it ends, and with it the
        // job, if that has not begun: there are no more look-ups than connections.
        tokio::task::spawn_local(async move {
            let found = tokio::select! {
                found = loader.load_from(&file_system, &path, is_dir) => Some(found),
                () = sender.closed() => None,
            };
            let mut under_way = loader.under_way.borrow_mut();
            let ours = under_way.get(&key[..]);
            if ours.is_some_and(|ours| Rc::ptr_eq(&ours.answer, &sender)) {
                under_way.remove(&key[..]);
            }
            drop(under_way);
            sender.send_replace(found);
        });
        answer
    }

    async fn load_from(&self, file_system: &Arc<FileSystem>, path: &[u8], is_dir: bool) -> Answer {
        let mut pauses = LEASE_PAUSES_MS.into_iter();
        loop {
            let found = self.load_once(file_system, path, is_dir).await;
            match (found, pauses.next()) {
                (Err(Miss::Leased), Some(pause)) => {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                (found, _) => return found,
            }
        }
    }

    async fn load_once(&self, file_system: &FileSystem, path: &[u8], is_dir: bool) -> Answer {
        let mut key = Vec::with_capacity(path.len() + 1);
        write_key(path, is_dir, &mut key);
        let known = self.catalog.cached(&key);
        let known = known.filter(|slot| slot.value.is_remote());
        let watches = known
            .as_ref()
            .map_or(Vec::new(), |slot| slot.value.watches());
        let tree = Arc::clone(&self.catalog.tree);
        let asked = path.to_vec();
        let job = move || {
            let now_ms = Clock::now_ms();
            let holds = !watches.is_empty()
                && watches
                    .iter()
                    .all(|watch| watch.holds(&tree.root, Walk::Full));
            if holds {
                return Ok(Outcome::Holds(now_ms));
            }
            load(&tree, &asked, is_dir, Walk::Full).map(Outcome::Found)
        };
        let storage = &self.catalog.tree.storage;
        match storage.run(&file_system.look_ups, job).await {
            Err(TimedOut) => Err(Miss::TimedOut),
            Ok(Err(miss)) => Err(miss),
            Ok(Ok(Outcome::Found(found))) => Ok(self.catalog.keep(path, is_dir, found)),
            Ok(Ok(Outcome::Holds(now_ms))) => match known {
                Some(slot) => {
                    slot.value.renew(now_ms);
                    Ok(Lookup::File(slot))
                }
                None => Err(Miss::NotFound),
            },
        }
    }
}
