//! Starting and running.
//!
//! [`Proxy::bind`] does everything that can fail because of what the user asked for; after it,
//! [`Proxy::run`] serves until [`Handle::stop`]. [`Handle::reload`] puts another configuration in
//! force without touching a connection, or leaves everything as it was.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use zhaul::PipePool;
use zhaul::relay::{BufferPool, Resources};
use zhaul_service::{
    Access, Bound, ListenAddr, Listener, LogSender, LogWriter, Mailbox, Options, ServerThread,
    Stop, join_all, raise_open_files, spawn_essential, worker_threads,
};

use crate::config::{self, Config};
use crate::control::{self, Shared};
use crate::descriptors::{most_sessions, pipes_of_a_worker};
use crate::handle::Handle;
use crate::preflight;
use crate::state::error::ProxyError;
use crate::state::site::{Site, sound};
use crate::state::sockets::Socket;
use crate::worker::{Parts, Worker};

/// What a pipe of a bulk stream is asked to hold.
const PIPE_BYTES: usize = 1 << 20;
/// The size of a buffer, held only while a peer does not take what was received: a TLS record of
/// 16 KiB with everything around it, and room by which a receive shows that this was all.
const BUFFER_BYTES: usize = 20 << 10;
/// How long the log may take for its last lines.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);

/// A proxy that listens and does not serve yet.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    log: Option<(LogWriter, LogSender)>,
    admin: Option<Listener>,
    metrics: Vec<Listener>,
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
        let (problems, notes): (Vec<_>, Vec<_>) = preflight::problems(config)
            .into_iter()
            .partition(preflight::is_a_mistake);
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
        let workers = worker_threads(config.workers);
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
        let log = config.log.as_ref().map(open_log).transpose();
        let log = log.unwrap_or_else(|e| {
            problems.push(e);
            None
        });
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
        let sender = log.as_ref().map(|(_, sender)| sender.clone());
        let shared = Shared::new(site, mailboxes, sender, open_files);
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
        let of = |socket: &Socket| {
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
        let served = join_all(threads);
        shared.stop.advance(Stop::Done);
        let controlled = join_all([controlling]);
        if let Some(writer) = writer {
            writer.finish(shared.site.load().config.drain.min(LOG_TIMEOUT));
        }
        Ok(served.and(controlled)?)
    }
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

fn open_log(log: &config::Log) -> Result<(LogWriter, LogSender), ProxyError> {
    LogWriter::start(log.path.clone()).map_err(|why| ProxyError::log(log, why))
}

/// Starts a worker whose end, in whatever way, ends the proxy.
fn start_worker(
    shared: &Arc<Shared>,
    index: usize,
    log: Option<LogSender>,
) -> io::Result<ServerThread> {
    let handle = Handle(Arc::clone(shared));
    let shared = Arc::clone(shared);
    let at_end = move || {
        // While others drain, those who are done are no reason to hurry.
        if handle.0.stop.state() == Stop::No {
            handle.stop();
        }
    };
    spawn_essential(format!("zhaul-{index}"), at_end, move || {
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
    })
}
