//! Why a proxy does not start, or takes no other configuration.

use std::io;

use zhaul_service::ListenError;

use crate::config::Log;

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
    /// The log of this configuration cannot be written.
    pub(crate) fn log(log: &Log, why: io::Error) -> Self {
        let path = log.path.as_ref();
        let path = path.map_or("-".to_owned(), |path| path.display().to_string());
        Self::Log { path, why }
    }

    /// All of these as one; there is at least one.
    pub(crate) fn all(mut errors: Vec<Self>) -> Self {
        match errors.len() {
            1 => errors.remove(0),
            _ => Self::Several(errors),
        }
    }
}
