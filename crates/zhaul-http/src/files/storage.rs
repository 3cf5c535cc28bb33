//! Who waits for storage: threads for each file system and kind of work, and what is mounted where.
//!
//! A file system that does not answer keeps the threads busy that wait for it. So each has its own, and
//! so has each kind of work on it: what is stuck on a dead mount keeps nobody from a cold file on
//! another one, and a large listing keeps nobody from looking a name up. Work that is not done within
//! the time limit is given up; what has begun cannot be taken back, and keeps its thread.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use zhaul::cold::ColdPool;

use crate::files::mounts::{Device, MountTable, is_local_kind};

/// Threads that may look names up, or read, on one file system at once. More would not make one disk
/// faster; fewer would leave a striped one idle.
const THREADS: usize = 16;
/// Jobs that may wait for such a thread; beyond it their connections wait for room.
const QUEUE: usize = 1024;
/// Threads that may read directories of one file system and render them, which is work for a CPU, too.
const LISTING_THREADS: usize = 2;
const LISTING_QUEUE: usize = 64;
/// The table of mounts.
pub(crate) const MOUNTS: &str = "/proc/self/mountinfo";

/// The threads that wait for one file system.
#[derive(Debug)]
pub(crate) struct FileSystem {
    pub(crate) look_ups: Arc<ColdPool>,
    pub(crate) reads: Arc<ColdPool>,
    pub(crate) listings: Arc<ColdPool>,
    pub(crate) closing: Arc<ColdPool>,
    /// Open files, of all file systems.
    pub(crate) open_files: Arc<AtomicUsize>,
}

impl FileSystem {
    fn new(open_files: &Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self {
            look_ups: ColdPool::new(THREADS, QUEUE),
            reads: ColdPool::new(THREADS, QUEUE),
            listings: ColdPool::new(LISTING_THREADS, LISTING_QUEUE),
            closing: ColdPool::new(1, 1),
            open_files: Arc::clone(open_files),
        })
    }
}

/// It did not come to its end within the time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimedOut;

/// All file systems.
#[derive(Debug)]
pub(crate) struct Storage {
    mounts: ArcSwap<MountTable>,
    /// Mounts that are not in the table, and whether they may keep a caller waiting.
    unlisted: Mutex<HashMap<u64, bool>>,
    file_systems: Mutex<HashMap<Option<Device>, Arc<FileSystem>>>,
    limit: Option<Duration>,
    open_files: Arc<AtomicUsize>,
}

impl Storage {
    /// `limit` is how long work may take; zero means for ever.
    pub(crate) fn new(limit: Duration) -> Arc<Self> {
        let storage = Self {
            mounts: ArcSwap::default(),
            unlisted: Mutex::default(),
            file_systems: Mutex::default(),
            limit: (!limit.is_zero()).then_some(limit),
            open_files: Arc::default(),
        };
        storage.read_mounts();
        if storage.mounts().is_empty() {
            tracing::warn!(
                "cannot read {MOUNTS}: every file system is taken for a local one (mount /proc)"
            );
        }
        Arc::new(storage)
    }

    pub(crate) fn mounts(&self) -> Arc<MountTable> {
        self.mounts.load_full()
    }

    /// What a mount belongs to, and whether a walk to it from the mount `from` may be kept waiting.
    ///
    /// A mount that the table leaves out, like that of the root of a chroot, is asked for by a `file` in
    /// it, once; without one, as on an event loop, it counts as remote until then.
    pub(crate) fn of_mount(
        &self,
        id: u64,
        from: u64,
        file: Option<BorrowedFd<'_>>,
    ) -> (Arc<FileSystem>, bool) {
        let mut mounts = self.mounts.load();
        let is_known = |mounts: &MountTable| mounts.device(id).is_some() || mounts.is_empty();
        if !is_known(&mounts) && !self.unlisted().contains_key(&id) {
            // Mounted just now?
            self.read_mounts();
            mounts = self.mounts.load();
            if let Some(file) = file.filter(|_| !is_known(&mounts)) {
                let kind = rustix::fs::fstatfs(file).map(|stat| stat.f_type as u64);
                let is_local = kind.is_ok_and(is_local_kind);
                self.unlisted().insert(id, !is_local);
            }
        }
        let file_system = self.file_system(mounts.device(id));
        (file_system, self.is_remote(id, from))
    }

    /// Whether a walk to the mount `id` from the mount `from` may be kept waiting, as far as is known.
    pub(crate) fn is_remote(&self, id: u64, from: u64) -> bool {
        let mounts = self.mounts.load();
        if mounts.is_empty() {
            return false;
        }
        match mounts.device(id) {
            Some(_) => mounts.is_remote(id, from),
            None => self.unlisted().get(&id).copied().unwrap_or(true),
        }
    }

    fn unlisted(&self) -> MutexGuard<'_, HashMap<u64, bool>> {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a path seems to lead to, links aside.
    pub(crate) fn of_path(&self, path: &[u8]) -> (Arc<FileSystem>, bool) {
        match self.mounts.load().at(path) {
            Some((device, is_remote)) => (self.file_system(Some(device)), is_remote),
            None => (self.file_system(None), false),
        }
    }

    fn file_system(&self, device: Option<Device>) -> Arc<FileSystem> {
        let mut known = self
            .file_systems
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let file_system = known.entry(device);
        Arc::clone(file_system.or_insert_with(|| FileSystem::new(&self.open_files)))
    }

    /// Has a job done by a pool, within the time limit.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        pool: &ColdPool,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TimedOut> {
        self.within_limit(pool.run(job)).await
    }

    /// Waits for work that a pool does, for as long as the limit says.
    pub(crate) async fn within_limit<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, TimedOut> {
        match self.limit {
            None => Ok(work.await),
            Some(limit) => tokio::time::timeout(limit, work)
                .await
                .map_err(|_| TimedOut),
        }
    }

    /// Counts the files that are open.
    pub(crate) fn open_files(&self) -> &Arc<AtomicUsize> {
        &self.open_files
    }

    /// Takes the table of mounts anew after it has changed.
    pub(crate) fn remount(&self) {
        self.read_mounts();
        // Numbers of mounts are used again.
        self.unlisted().clear();
    }

    pub(crate) fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// Takes the table of mounts as it is now.
    fn read_mounts(&self) {
        let table = std::fs::read(MOUNTS).map(|text| MountTable::parse(&text));
        let table = table.unwrap_or_default();
        let devices: std::collections::HashSet<_> = table.devices().collect();
        // Threads that still wait for what is gone end with it.
        self.file_systems
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|device, _| device.is_none_or(|device| devices.contains(&device)));
        self.mounts.store(Arc::new(table));
    }
}
