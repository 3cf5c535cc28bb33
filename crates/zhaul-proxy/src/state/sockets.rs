//! The listening sockets of a configuration: taken over, inherited or made.

use std::sync::Arc;

use rustix::io::Errno;
use zhaul_service::{Access, Bound, ListenAddr, ListenError, Options, leaves_v4_alone};

use super::listener::Listener;
use super::tcp_options;
use crate::config::{self, Config};

/// What would have to be closed first.
const RESTART: &str = "it is listened on already, and its backlog, fast_open, reuse_port and \
    transparent, and whether [::] takes IPv4 connections, change with a restart only";

/// A socket that listens.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    pub(crate) listener: Arc<Listener>,
    pub(crate) listening: Arc<zhaul_service::Listener>,
    /// What was asked for, to be found again after a reload.
    pub(crate) asked: Asked,
    /// Who may connect.
    pub(crate) access: Access,
}

/// What a socket was made for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) address: Bound,
    pub(crate) options: Options,
    /// The only worker that accepts on it, if each has its own.
    pub(crate) worker: Option<usize>,
}

/// The sockets of a configuration, opened one by one. When something fails, those that were made are
/// closed, and those that were there before have not been touched.
pub(crate) struct Opening<'a> {
    /// Everything that is to be listened on.
    all: Vec<ListenAddr>,
    before: &'a [Socket],
    /// Those of them that nobody has taken over yet.
    kept: Vec<&'a Socket>,
    inherited: &'a mut Vec<zhaul_service::Listener>,
    workers: usize,
    pub(crate) sockets: Vec<Socket>,
}

impl Socket {
    /// Gives it what the configuration says, also if it listens since before.
    pub(super) fn set_up(&self, kept: &[Self]) {
        let Self {
            listener,
            listening,
            access,
            ..
        } = self;
        let address = &listening.address;
        if matches!(address, Bound::Tcp(_)) {
            tcp_options::set_inherited(&listening.fd, &listener.config)
                .unwrap_or_else(|why| tracing::warn!("{address}: keepalive: {why}"));
        }
        let before = kept
            .iter()
            .find(|old| Arc::ptr_eq(&old.listening, listening));
        if before.is_some_and(|before| before.access != *access) {
            listening
                .grant(*access)
                .unwrap_or_else(|why| tracing::warn!("{address}: mode and owner: {why}"));
        }
    }
}

impl<'a> Opening<'a> {
    pub(crate) fn new(
        config: &Config,
        before: &'a [Socket],
        inherited: &'a mut Vec<zhaul_service::Listener>,
        workers: usize,
    ) -> Self {
        Self {
            all: config.listens_on(),
            before,
            kept: before.iter().collect(),
            inherited,
            workers,
            sockets: Vec::new(),
        }
    }

    /// Opens the sockets of a listener, and says what failed. A host name often stands for addresses
    /// of a family that the machine does without, so one of each name that works is enough.
    pub(crate) fn listen(&mut self, listener: &Arc<Listener>) -> Vec<ListenError> {
        let mut failed = Vec::new();
        for address in &listener.config.listen {
            let before = self.sockets.len();
            let mut errors = Vec::new();
            for asked in asked(&listener.config, address, &self.all, self.workers) {
                match self.open(listener, &asked, address.access()) {
                    Ok(listening) => self.sockets.push(Socket {
                        listener: Arc::clone(listener),
                        listening,
                        asked,
                        access: address.access(),
                    }),
                    Err(e) => errors.push(e),
                }
            }
            if self.sockets.len() == before {
                failed.append(&mut errors);
            }
            for error in errors {
                tracing::warn!("{error}");
            }
        }
        failed
    }

    /// What listens already, or is made to.
    fn open(
        &mut self,
        listener: &Listener,
        asked: &Asked,
        access: Access,
    ) -> Result<Arc<zhaul_service::Listener>, ListenError> {
        if let Some(kept) = self.take_kept(listener, asked) {
            return Ok(kept);
        }
        let Asked {
            address, options, ..
        } = asked;
        if let Some(index) = self.inherited.iter().position(|l| l.address == *address) {
            return Ok(Arc::new(self.inherited.swap_remove(index)));
        }
        let options = Options { access, ..*options };
        if asked.worker == Some(0) {
            // Others could listen there as well without being told; so look first.
            let alone = Options {
                reuse_port: false,
                ..options
            };
            zhaul_service::Listener::check(address, alone).map_err(|e| self.blame(address, e))?;
        }
        let bound = zhaul_service::Listener::bind(address, options);
        Ok(Arc::new(bound.map_err(|e| self.blame(address, e))?))
    }

    /// A socket of the last configuration that was made for the same. Each goes on once: an address
    /// with port 0 may be there more often, and each stands for a port of its listener's own.
    fn take_kept(
        &mut self,
        listener: &Listener,
        asked: &Asked,
    ) -> Option<Arc<zhaul_service::Listener>> {
        let any_port = matches!(asked.address, Bound::Tcp(address) if address.port() == 0);
        let is_its = |old: &&Socket| {
            old.asked == *asked && (!any_port || old.listener.name == listener.name)
        };
        let place = self.kept.iter().position(is_its)?;
        Some(Arc::clone(&self.kept.remove(place).listening))
    }

    /// Says so if it is this proxy itself that has the address.
    fn blame(&self, address: &Bound, mut error: ListenError) -> ListenError {
        let has_it = |bound: &Bound| match (bound, address) {
            (Bound::Tcp(bound), Bound::Tcp(asked)) => bound.port() == asked.port(),
            (bound, asked) => bound == asked,
        };
        let is_in_use = Errno::from_io_error(&error.why) == Some(Errno::ADDRINUSE);
        if is_in_use && self.before.iter().any(|old| has_it(&old.listening.address)) {
            error.remedy = RESTART;
        }
        error
    }
}

/// What to ask for an address: a socket, or one for each worker, for each that a name stands for.
pub(crate) fn asked(
    config: &config::Listener,
    address: &ListenAddr,
    all: &[ListenAddr],
    workers: usize,
) -> Vec<Asked> {
    let each = address.each().into_iter().flat_map(|address| {
        let options = Options {
            backlog: config.backlog,
            reuse_port: config.reuse_port,
            fast_open: config.fast_open,
            transparent: config.transparent,
            v6_only: matches!(address, Bound::Tcp(tcp) if leaves_v4_alone(tcp, all)),
            ..Options::default()
        };
        let own = config.reuse_port && matches!(address, Bound::Tcp(_));
        let places = match own {
            true => (0..workers).map(Some).collect(),
            false => vec![None],
        };
        places.into_iter().map(move |worker| Asked {
            address: address.clone(),
            options,
            worker,
        })
    });
    each.collect()
}
