//! Starting, reloading and stopping.
//!
//! [`Proxy::bind`] does everything that can fail because of what the user asked for; after it,
//! [`Proxy::run`] serves until [`Handle::stop`]. [`Handle::reload`] puts another configuration in
//! force without touching a connection, or leaves everything as it was.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use zhaul::PipePool;
use zhaul::relay::{BufferPool, Resources};
use zhaul_service::{
    Access, Bound, ListenAddr, ListenError, Listener, LogSender, LogWriter, Options,
    raise_open_files,
};

use crate::config::{self, Config};
use crate::control;
use crate::mailbox::{Letter, Mailbox};
use crate::site::Site;
use crate::trial;
use crate::worker::{Parts, Worker};

/// Descriptors kept free for everything that is no session.
const SPARE_FILES: usize = 64;
/// A session's sockets: the client's and the server's.
const FILES_PER_SESSION: usize = 2;
/// A pipe's two ends.
const FILES_PER_PIPE: usize = 2;
/// Pipes each worker has at most; when they are out, bytes are copied.
const PIPES: usize = 64;
/// What a pipe of a bulk stream is asked to hold.
const PIPE_BYTES: usize = 1 << 20;
/// Of the open files, the part that may go to pipes.
const PIPES_SHARE: usize = 4;
/// The size of a buffer, held only while a peer does not take what was received: a TLS record of
/// 16 KiB with everything around it, and room by which a receive shows that this was all.
const BUFFER_BYTES: usize = 20 << 10;
/// With fewer sessions than that, somebody forgot to raise the limit on open files.
const FEW_SESSIONS: usize = 1000;
/// How long the log may take for its last lines.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// Why a proxy did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// What was asked for contradicts itself.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    /// A name stands for no address.
    #[error(
        "server {server}: cannot look up {host}: {why} (name a host that exists, or its address)"
    )]
    Resolve {
        /// The server, as `pool/name`.
        server: String,
        /// Its name.
        host: String,
        /// Why.
        why: io::Error,
    },
    /// Connections cannot come from clients' addresses.
    #[error(
        "pool {pool}: connections cannot come from the client's address: {why} (source = \"client\" \
         needs CAP_NET_ADMIN)"
    )]
    Transparent {
        /// The pool.
        pool: String,
        /// What the kernel said.
        why: io::Error,
    },
    /// The log cannot be written.
    #[error(
        "cannot write the log {path}: {why} (name a file in a directory that you can write to)"
    )]
    Log {
        /// The file asked for.
        path: String,
        /// What the kernel said.
        why: io::Error,
    },
    /// Several of these at once.
    #[error("{}", lines(.0))]
    Several(Vec<ProxyError>),
    /// It was told to stop before.
    #[error("the proxy is being stopped (start it again)")]
    Stopping,
    /// Something that only a restart can change.
    #[error("{0} cannot be changed while the proxy runs (restart it)")]
    NeedsRestart(String),
    /// The machine would not give what a proxy needs.
    #[error("cannot start the proxy: {0} (see the limits of this user and machine)")]
    Start(#[from] io::Error),
}

fn lines(errors: &[ProxyError]) -> String {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl ProxyError {
    /// All of these as one; there is at least one.
    pub(crate) fn all(mut errors: Vec<Self>) -> Self {
        match errors.len() {
            1 => errors.remove(0),
            _ => Self::Several(errors),
        }
    }
}

/// A proxy that listens and does not serve yet.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    log: Option<(LogWriter, LogSender)>,
    admin: Option<Listener>,
    metrics: Vec<Listener>,
}

/// What all threads of a proxy know.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) site: ArcSwap<Site>,
    pub(crate) mailboxes: Vec<Mailbox>,
    /// The zero of all times.
    pub(crate) zero: Instant,
    pub(crate) stop: watch::Sender<Stop>,
    /// Counts configurations.
    pub(crate) reloads: watch::Sender<u64>,
    log: Option<LogSender>,
    open_files: usize,
    /// Reloads come one after the other.
    reloading: Mutex<()>,
    /// Held while one site takes the place of another.
    replacing: Mutex<()>,
}

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    No,
    /// No new connections; sessions may end.
    Drain,
    /// At once.
    Now,
    /// The workers have ended.
    Done,
}

/// Reaches a running proxy, from any thread.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

impl Shared {
    pub(crate) fn now(&self) -> Duration {
        self.zero.elapsed()
    }

    fn replacing(&self) -> MutexGuard<'_, ()> {
        self.replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_all(&self, letter: impl Fn() -> Letter) {
        for mailbox in &self.mailboxes {
            mailbox.send(letter());
        }
    }
}

impl Handle {
    /// Refuses new connections, lets sessions end within the time to drain, then makes
    /// [`Proxy::run`] return.
    pub fn stop(&self) {
        if advance(&self.0.stop, Stop::Drain) {
            // Not after a reload, which may be looking up names for a long time.
            let _alone = self.0.replacing();
            let site = Arc::new(self.0.site.load().without_sockets());
            self.0.site.store(Arc::clone(&site));
            self.0.tell_all(|| Letter::Drain(Arc::clone(&site)));
            // Whoever looks after the servers lets go of the sockets, too.
            self.0.reloads.send_modify(|count| *count += 1);
        }
    }

    /// Ends every session and makes [`Proxy::run`] return.
    pub fn stop_now(&self) {
        self.stop();
        if advance(&self.0.stop, Stop::Now) {
            self.0.tell_all(|| Letter::Stop);
        }
    }

    /// Opens the log by name again, after a rotation.
    pub fn reopen_log(&self) {
        if let Some(log) = &self.0.log {
            log.reopen();
        }
    }

    /// Puts another configuration in force. Sessions go on as they began; sockets, servers and
    /// counts that both configurations have go on, too.
    ///
    /// # Errors
    /// If an address cannot be listened on, or something changed that needs a restart; nothing has
    /// changed then.
    pub fn reload(&self, config: Config) -> Result<(), ProxyError> {
        let shared = &self.0;
        let _one_at_a_time = shared
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *shared.stop.borrow() != Stop::No {
            return Err(ProxyError::Stopping);
        }
        sound(&config)?;
        let old = shared.site.load_full();
        let changed: Vec<_> = [
            (old.config.workers == config.workers, "workers"),
            (old.config.admin == config.admin, "admin"),
            (old.config.metrics == config.metrics, "metrics"),
            (old.config.log == config.log, "log"),
        ]
        .into_iter()
        .filter_map(|(same, what)| (!same).then_some(what))
        .collect();
        if !changed.is_empty() {
            return Err(ProxyError::NeedsRestart(changed.join(", ")));
        }
        let workers = shared.mailboxes.len();
        let most = most_sessions(&config, shared.open_files, workers);
        let site = Site::new(config, Some(&old), &mut Vec::new(), workers, most)?;
        let site = Arc::new(site);
        let alone = shared.replacing();
        if *shared.stop.borrow() != Stop::No {
            return Err(ProxyError::Stopping);
        }
        shared.site.store(Arc::clone(&site));
        shared.tell_all(|| Letter::Site(Arc::clone(&site)));
        drop(alone);
        // Whoever waits may find a place at a server that is new, or may have more connections now.
        for pool in old.pools.values() {
            pool.call_all();
        }
        shared.reloads.send_modify(|count| *count += 1);
        Ok(())
    }
}

/// Whether what is asked for can be had at all.
pub(crate) fn sound(config: &Config) -> Result<(), ProxyError> {
    let clashes = config.clashes();
    match clashes.is_empty() {
        true => Ok(()),
        false => Err(ProxyError::Config(clashes)),
    }
}

/// Moves on to a later state; false if it was reached before.
fn advance(stop: &watch::Sender<Stop>, to: Stop) -> bool {
    stop.send_if_modified(|state| {
        let moves = *state < to;
        if moves {
            *state = to;
        }
        moves
    })
}

impl Proxy {
    /// Whether a proxy could be started with this configuration, as far as that can be told without
    /// starting one. What depends on who starts it and when is no mistake of the configuration and is
    /// handed back: an address that is in use (it may be so by the proxy that is to be reloaded), a
    /// privilege that whoever asks has not.
    ///
    /// # Errors
    /// Everything because of which it would not start.
    pub fn check(config: &Config) -> Result<Vec<String>, ProxyError> {
        let (problems, notes): (Vec<_>, Vec<_>) = trial::problems(config)
            .into_iter()
            .partition(trial::is_a_mistake);
        match problems.is_empty() {
            true => Ok(notes.iter().map(ToString::to_string).collect()),
            false => Err(ProxyError::all(problems)),
        }
    }

    /// Opens the log and every listening socket. `inherited` are sockets that listen already (socket
    /// activation): where the configuration names their address, they are used.
    ///
    /// # Errors
    /// [`ProxyError`] names what, why and what to do.
    pub fn bind(config: Config, mut inherited: Vec<Listener>) -> Result<Self, ProxyError> {
        sound(&config)?;
        let open_files = raise_open_files();
        let workers = match config.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let most = most_sessions(&config, open_files, workers);
        let mut problems = Vec::new();
        let admin = config.admin.as_ref().map(admin_socket).transpose();
        let admin = admin.unwrap_or_else(|e| {
            problems.push(e);
            None
        });
        let metrics = config.metrics.as_slice();
        let metrics = Listener::bind_all(metrics, &config.listens_on(), Options::default());
        let metrics = metrics.unwrap_or_else(|e| {
            problems.push(e.into());
            Vec::new()
        });
        let log = match &config.log {
            None => None,
            Some(log) => match LogWriter::start(log.path.clone()) {
                Ok(started) => Some(started),
                Err(why) => {
                    problems.push(log_error(log, why));
                    None
                }
            },
        };
        let site = match Site::new(config, None, &mut inherited, workers, most) {
            Ok(site) if problems.is_empty() => site,
            Ok(_) => return Err(ProxyError::all(problems)),
            Err(ProxyError::Several(more)) => {
                problems.extend(more);
                return Err(ProxyError::Several(problems));
            }
            Err(one) => {
                problems.push(one);
                return Err(ProxyError::all(problems));
            }
        };
        for unused in inherited {
            tracing::warn!(
                "the inherited socket {} is in no listener's list and is closed",
                unused.address
            );
        }
        let mailboxes = (0..workers)
            .map(|_| Mailbox::new())
            .collect::<io::Result<_>>()?;
        let shared = Shared {
            site: ArcSwap::from_pointee(site),
            mailboxes,
            zero: Instant::now(),
            stop: watch::channel(Stop::No).0,
            reloads: watch::channel(0).0,
            log: log.as_ref().map(|(_, sender)| sender.clone()),
            open_files,
            reloading: Mutex::default(),
            replacing: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            log,
            admin,
            metrics,
        })
    }

    /// Where clients can connect: names of listeners and their addresses.
    pub fn addresses(&self) -> Vec<(String, String)> {
        let site = self.shared.site.load();
        let of = |socket: &crate::site::Socket| {
            (
                socket.listener.name.clone(),
                socket.listening.address.to_string(),
            )
        };
        let mut addresses: Vec<_> = site.sockets.iter().map(of).collect();
        addresses.dedup();
        addresses
    }

    /// Where metrics are answered.
    pub fn metrics_addresses(&self) -> Vec<String> {
        self.metrics.iter().map(|l| l.address.to_string()).collect()
    }

    /// Reaches this proxy from elsewhere.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Serves until [`Handle::stop`], and returns when the last session has ended.
    ///
    /// # Errors
    /// If a thread or an event loop cannot be created, or if a worker ends by a defect.
    pub fn run(self) -> Result<(), ProxyError> {
        let Self {
            shared,
            log,
            admin,
            metrics,
        } = self;
        let (writer, sender) = log.unzip();
        let mut threads = Vec::new();
        for index in 0..shared.mailboxes.len() {
            threads.push(start_worker(&shared, index, sender.clone())?);
        }
        let controlling = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("zhaul-control".to_owned())
                .spawn(move || control::run(&shared, admin.as_ref(), &metrics))?
        };
        let mut result = Ok(());
        for thread in threads {
            let ended = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            result = result.and(ended);
        }
        advance(&shared.stop, Stop::Done);
        let control = controlling
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the control thread panicked")));
        result = result.and(control);
        if let Some(writer) = writer {
            writer.finish(shared.site.load().config.drain.min(LOG_PATIENCE));
        }
        Ok(result?)
    }
}

pub(crate) fn log_error(log: &config::Log, why: io::Error) -> ProxyError {
    let path = log.path.as_ref();
    let path = path.map_or("-".to_owned(), |path| path.display().to_string());
    ProxyError::Log { path, why }
}

/// The administrator's socket takes commands, so it is its owner's alone.
fn admin_socket(address: &ListenAddr) -> Result<Listener, ProxyError> {
    let ListenAddr::Unix(addr, access) = address else {
        return Err(io::Error::other("the administrator's socket has no file").into());
    };
    let options = Options {
        access: Access {
            mode: access.mode.or(Some(0o600)),
            ..*access
        },
        ..Options::default()
    };
    Ok(Listener::bind(&Bound::Unix(addr.clone()), options)?)
}

/// Sessions that may be open at once.
fn most_sessions(config: &Config, open_files: usize, workers: usize) -> usize {
    let pipes = pipes_of_a_worker(open_files, workers) * FILES_PER_PIPE * workers;
    let sockets = |listener: &config::Listener| match listener.reuse_port {
        true => listener.listen.len() * workers,
        false => listener.listen.len(),
    };
    let sockets: usize = config.listeners.values().map(sockets).sum();
    let left = open_files.saturating_sub(SPARE_FILES + pipes + sockets);
    let most = (left / FILES_PER_SESSION).max(1);
    match config.max_connections {
        0 => {
            if most < FEW_SESSIONS {
                tracing::warn!(
                    "{open_files} open files allow {most} connections at once (raise the limit on \
                     open files)"
                );
            }
            most
        }
        asked => {
            if asked > most {
                tracing::warn!(
                    "{asked} connections were asked for, but {open_files} open files allow {most} \
                     (raise the limit on open files)"
                );
            }
            asked.min(most)
        }
    }
}

/// Pipes that each worker may have: not so many that nothing is left for sessions.
fn pipes_of_a_worker(open_files: usize, workers: usize) -> usize {
    let share = open_files / PIPES_SHARE / FILES_PER_PIPE / workers.max(1);
    PIPES.min(share).max(1)
}

/// Starts a worker whose end, in whatever way, ends the proxy: a listening socket that nobody accepts
/// on would look healthy and serve nobody.
fn start_worker(
    shared: &Arc<Shared>,
    index: usize,
    log: Option<LogSender>,
) -> io::Result<thread::JoinHandle<io::Result<()>>> {
    let shared = Arc::clone(shared);
    let serve = move || {
        let _ends = EndsOnDrop(Arc::clone(&shared));
        let pipes = pipes_of_a_worker(shared.open_files, shared.mailboxes.len());
        // A session has two files and at most two buffers. So nobody's stalled peer is another's
        // delay; and only those that are held take memory.
        let buffers = shared.open_files;
        let worker = Worker::new(Parts {
            index,
            mailbox: shared.mailboxes[index].clone(),
            site: shared.site.load_full(),
            resources: Resources {
                pipes: PipePool::new(pipes, PIPE_BYTES),
                buffers: BufferPool::new(buffers, BUFFER_BYTES),
            },
            zero: shared.zero,
            log,
        })?;
        worker.run()
    };
    thread::Builder::new()
        .name(format!("zhaul-{index}"))
        .spawn(serve)
}

struct EndsOnDrop(Arc<Shared>);

impl Drop for EndsOnDrop {
    fn drop(&mut self) {
        // While others drain, those who are done are no reason to hurry.
        if *self.0.stop.borrow() == Stop::No {
            Handle(Arc::clone(&self.0)).stop();
        }
    }
}
