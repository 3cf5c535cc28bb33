//! The served tree: what was configured, the root, and who waits for its storage. One for all workers.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use crate::files::root::Root;
use crate::files::storage::{MOUNTS, Storage};
use crate::host::config::Config;
use crate::host::site::Site;

/// Large files without a stated size that may be in memory at once, 16 MiB each.
const MADE_UP_FILES: usize = 4;
/// How often the root's path is looked at. A change of mounts is seen at once.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: LOOK_EVERY.subsec_nanos() as i64,
};

/// The served directory with everything that was configured about it.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) site: Site,
    pub(crate) root: Root,
    pub(crate) storage: Arc<Storage>,
    /// Files without a stated size whose large bodies are in memory.
    pub(crate) made_up: Arc<Semaphore>,
}

/// Why the root cannot be served.
#[derive(Debug)]
pub(crate) struct RootError {
    pub(crate) path: PathBuf,
    pub(crate) why: io::Error,
    /// What to do about it.
    pub(crate) remedy: &'static str,
}

impl Tree {
    pub(crate) fn new(site: Site) -> Result<Self, RootError> {
        let storage = Storage::new(site.config.limits.storage_timeout);
        let root = open_root(&site.config, &storage)?;
        Ok(Self {
            site,
            root,
            storage,
            made_up: Arc::new(Semaphore::new(MADE_UP_FILES)),
        })
    }
}

fn open_root(config: &Config, storage: &Arc<Storage>) -> Result<Root, RootError> {
    let failed = |why: io::Error| {
        let remedy = match why.kind() {
            io::ErrorKind::NotFound => "create it, or name a directory that exists",
            io::ErrorKind::NotADirectory => "name the directory that the file is in",
            io::ErrorKind::PermissionDenied => "give this user the right to search it",
            _ => "name a directory that this user can read",
        };
        RootError {
            path: config.root.clone(),
            why,
            remedy,
        }
    };
    let root =
        Root::open_root(&config.root, config.symlinks, Arc::clone(storage)).map_err(failed)?;
    root.check_confinement().map_err(|errno| match errno {
        Errno::ACCESS => failed(errno.into()),
        _ => RootError {
            path: config.root.clone(),
            why: errno.into(),
            remedy: "openat2 with RESOLVE_CACHED is needed: Linux 5.12, not filtered by a sandbox",
        },
    })?;
    Ok(root)
}

/// Follows, on a thread of its own, what is mounted and where the root's path leads, until the tree is
/// gone.
pub(crate) fn watch(tree: &Arc<Tree>) -> io::Result<()> {
    let tree = Arc::downgrade(tree);
    std::thread::Builder::new()
        .name("zhaul-mounts".to_owned())
        .spawn(move || watch_while_there(&tree))?;
    Ok(())
}

fn watch_while_there(tree: &Weak<Tree>) {
    let mounts = File::open(Path::new(MOUNTS)).ok();
    let looking = Arc::new(AtomicBool::new(false));
    loop {
        let waited = mounts.as_ref().map(|mounts| {
            let mut asked = [PollFd::new(mounts, PollFlags::PRI)];
            poll(&mut asked, Some(&LOOK))
        });
        let changed = match waited {
            Some(Ok(ready)) => ready > 0,
            // With the limit on open files at nothing, poll(2) refuses even one.
            Some(Err(_)) | None => {
                std::thread::sleep(LOOK_EVERY);
                false
            }
        };
        let Some(tree) = tree.upgrade() else { return };
        if changed {
            tree.storage.remount();
            tree.root.classify();
        }
        if !tree.storage.mounts().has_remote() {
            tree.root.refresh();
            continue;
        }
        // The path may lead to what does not answer, and this thread has more to do.
        if !looking.swap(true, Ordering::Relaxed) {
            let looking = Arc::clone(&looking);
            let pool = Arc::clone(&tree.root.file_system().look_ups);
            pool.detach(move || {
                tree.root.refresh();
                looking.store(false, Ordering::Relaxed);
            });
        }
    }
}
