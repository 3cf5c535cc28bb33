//! Starting, running and stopping: sockets, workers, signals' consequences.
//!
//! [`Server::bind`] does everything that can fail because of what the user asked for; after it,
//! [`Server::run`] serves until [`Handle::stop`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;
use zhaul_service::{
    Bound, DescriptorBudget, ListenError, Listener, LogSender, LogWriter, Options, ServerThread,
    Stop, StopSwitch, Wake, join_all, raise_open_files, spawn_essential, worker_threads,
};

use crate::answer::directory::PageBytes;
use crate::files::lookup::Catalog;
use crate::files::tree::{RootError, Tree, watch};
use crate::host::config::Config;
use crate::host::site::{Site, SiteError};
use crate::log::lines::Lines;
use crate::run::accept::{Acceptor, Mailbox, accept_loop};
use crate::run::door::Door;
use crate::run::drain::serve;
use crate::run::worker::Worker;

/// Files that are opened in one look-up, before any is counted as cached: one in each coding. The root
/// is one more.
const FILES_OF_A_LOOK_UP: usize = 4;
/// How long the access log may take for its last lines.
const LOG_PATIENCE: Duration = Duration::from_secs(5);
/// Open files that one worker keeps at most.
const CACHED_FILES: usize = 4096;

/// Why a server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The directory cannot be served.
    #[error("cannot serve {}: {} ({remedy})", path.display(), zhaul_service::reason(why))]
    Root {
        /// The directory asked for.
        path: PathBuf,
        /// What the kernel said.
        why: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The access log cannot be written.
    #[error(
        "cannot write the access log {path}: {} (name a file in a directory that you can write to)",
        zhaul_service::reason(why)
    )]
    AccessLog {
        /// The file asked for.
        path: String,
        /// What the kernel said.
        why: io::Error,
    },
    /// A rule or value of the configuration is wrong.
    #[error(transparent)]
    Config(#[from] SiteError),
    /// The machine would not give what serving needs.
    #[error("cannot start serving: {0} (see the limits of this user and machine)")]
    Start(#[from] io::Error),
}

impl From<RootError> for ServeError {
    fn from(error: RootError) -> Self {
        let RootError { path, why, remedy } = error;
        Self::Root { path, why, remedy }
    }
}

impl ServeError {
    /// Whether the command line is to blame, rather than the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Config(_))
    }
}

/// What a browser would be told to open.
fn url(address: &Bound) -> String {
    match address {
        Bound::Unix(addr) => addr.to_string(),
        Bound::Tcp(addr) if addr.ip().is_unspecified() => {
            format!("http://localhost:{}/ (every interface)", addr.port())
        }
        Bound::Tcp(addr) => format!("http://{addr}/"),
    }
}

/// A server that listens and does not serve yet.
#[derive(Debug)]
pub struct Server {
    tree: Arc<Tree>,
    listeners: Vec<Listener>,
    workers: usize,
    open_files: usize,
    log: Option<(LogWriter, LogSender)>,
    stop: StopSwitch,
    /// One for each worker.
    wakes: Vec<Wake>,
}

/// Stops a running server, from any thread.
#[derive(Clone, Debug)]
pub struct Handle {
    stop: StopSwitch,
    wakes: Vec<Wake>,
    log: Option<LogSender>,
}

impl Handle {
    /// Refuses new connections, lets answers in progress finish within the drain timeout, then
    /// makes [`Server::run`] return.
    pub fn stop(&self) {
        self.stop.advance(Stop::Drain);
        self.wakes.iter().for_each(Wake::wake);
    }

    /// Ends every connection and makes [`Server::run`] return.
    pub fn stop_now(&self) {
        self.stop.advance(Stop::Now);
        self.wakes.iter().for_each(Wake::wake);
    }

    /// Opens the access log by name again, after a rotation.
    pub fn reopen_logs(&self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
    }
}

impl Server {
    /// Opens the root, the log and the listening sockets.
    ///
    /// # Errors
    /// [`ServeError`] names the setting, the reason and the remedy.
    pub fn bind(config: Config) -> Result<Self, ServeError> {
        let open_files = raise_open_files();
        let workers = worker_threads(config.workers);
        let listen = config.listen.clone();
        let access_log = config.access_log.clone();
        let tree = Arc::new(Tree::new(Site::new(config)?)?);
        let listeners = Listener::bind_all(&listen, &listen, Options::default())?;
        let log = match access_log {
            None => None,
            Some(log) => Some(LogWriter::start(log.path.clone()).map_err(|why| {
                let path = log.path.map_or("-".to_owned(), |p| p.display().to_string());
                ServeError::AccessLog { path, why }
            })?),
        };
        let wakes = (0..workers)
            .map(|_| Wake::new())
            .collect::<io::Result<_>>()?;
        Ok(Self {
            tree,
            listeners,
            workers,
            open_files,
            log,
            stop: StopSwitch::default(),
            wakes,
        })
    }

    /// The directory being served, as it was given.
    pub fn root(&self) -> &Path {
        &self.tree.site.config.root
    }

    /// Where the server can be reached, in the form that a person would type.
    pub fn urls(&self) -> Vec<String> {
        self.listeners.iter().map(|l| url(&l.address)).collect()
    }

    /// Stops this server from elsewhere.
    pub fn handle(&self) -> Handle {
        let log = self.log.as_ref().map(|(_, sender)| sender.clone());
        Handle {
            stop: self.stop.clone(),
            wakes: self.wakes.clone(),
            log,
        }
    }

    /// Serves until [`Handle::stop`], and returns when the last connection is closed.
    ///
    /// # Errors
    /// If a thread or an event loop cannot be created, or if a worker ends by a defect: the others
    /// then finish their answers, and the caller should start anew.
    pub fn run(mut self) -> Result<(), ServeError> {
        let cached_files = (self.open_files / 4 / self.workers).clamp(1, CACHED_FILES);
        let door = Door::new(
            &self.tree.site.config.limits,
            self.most_open(cached_files),
            self.workers,
            self.tree.storage.open_files(),
            (cached_files + FILES_OF_A_LOOK_UP) * self.workers + 1,
        );
        let sockets: Vec<_> = self
            .listeners
            .iter_mut()
            .filter_map(|l| l.path.take())
            .collect();
        watch(&self.tree)?;
        let (writer, log) = self.log.take().unzip();
        let drain_timeout = self.tree.site.config.limits.drain_timeout;
        let handle = Handle {
            stop: self.stop.clone(),
            wakes: self.wakes.clone(),
            log: None,
        };
        let threads = self.start(cached_files, &door, log.as_ref(), &handle)?;
        let served = join_all(threads);
        drop(sockets);
        if let Some(writer) = writer {
            writer.finish(drain_timeout.min(LOG_PATIENCE));
        }
        Ok(served?)
    }

    /// Connections that may be open at once.
    fn most_open(&self, cached_files: usize) -> usize {
        let budget = DescriptorBudget {
            open_files: self.open_files,
            reserved: cached_files * self.workers,
            per_connection: 1,
        };
        budget.connections(self.tree.site.config.limits.connections)
    }

    fn start(
        self,
        cached_files: usize,
        door: &Arc<Door>,
        log: Option<&LogSender>,
        handle: &Handle,
    ) -> io::Result<Vec<ServerThread>> {
        let mut acceptors: Vec<_> = self
            .listeners
            .into_iter()
            .map(|l| Acceptor::new(l.fd, Arc::clone(door)))
            .collect();
        // The only worker accepts by itself.
        let alone = self.workers == 1;
        let mut own = if alone {
            std::mem::take(&mut acceptors)
        } else {
            Vec::new()
        };
        let cached_bytes = self.tree.site.config.cache_bytes / self.workers;
        let format = self
            .tree
            .site
            .config
            .access_log
            .as_ref()
            .map(|log| log.format);
        let pages = PageBytes::default();
        let mut threads = Vec::new();
        let mut mailboxes = Vec::new();
        for (index, wake) in self.wakes.into_iter().enumerate() {
            let inbox = (!alone).then(|| {
                let (accepted, inbox) = mpsc::unbounded_channel();
                mailboxes.push(Mailbox {
                    accepted,
                    wake: wake.clone(),
                });
                inbox
            });
            let tree = Arc::clone(&self.tree);
            let log = log.cloned().zip(format);
            let door = Arc::clone(door);
            let stop = self.stop.subscribe();
            let acceptors = std::mem::take(&mut own);
            let pages = pages.clone();
            threads.push(spawn(format!("zhaul-{index}"), handle, move || {
                event_loop()?.block_on(async move {
                    let files = Catalog::new(tree, cached_files, cached_bytes);
                    let worker = Worker::new(files, Lines::new(log), pages, door, &wake)?;
                    serve(worker, inbox, acceptors, stop).await
                })
            })?);
        }
        if !acceptors.is_empty() {
            let stop = self.stop;
            threads.push(spawn("zhaul-accept".to_owned(), handle, move || {
                event_loop()?.block_on(accept_all(acceptors, mailboxes, &stop))
            })?);
        }
        Ok(threads)
    }
}

/// Starts a thread whose end, in whatever way, ends the server.
fn spawn(
    name: String,
    handle: &Handle,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<ServerThread> {
    let handle = handle.clone();
    spawn_essential(name, move || handle.stop(), body)
}

fn event_loop() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
}

/// Accepts on all listening sockets until the server is told to stop.
async fn accept_all(
    acceptors: Vec<Acceptor>,
    mailboxes: Vec<Mailbox>,
    stop: &StopSwitch,
) -> io::Result<()> {
    let mut loops = tokio::task::JoinSet::new();
    for acceptor in acceptors {
        loops.spawn_local(accept_loop(acceptor, mailboxes.clone(), stop.subscribe()));
    }
    let mut result = Ok(());
    while let Some(ended) = loops.join_next().await {
        result = result.and(ended.map_err(io::Error::other).and_then(|ended| ended));
    }
    result
}
