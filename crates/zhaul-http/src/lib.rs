//! A static file server on the transfer engine of `zhaul`.
//!
//! [`Config`] says what to serve, [`Server::bind`] checks it and opens the sockets, and
//! [`Server::run`] serves until a [`Handle`] stops it. Each module imports only from those above it:
//!
//! | module | holds | knows nothing of |
//! |---|---|---|
//! | `message` | requests, field lines, ranges, preconditions, codings, validators | descriptors, tokio, files |
//! | `host` | the configuration and what follows from it, the clock | sockets |
//! | `log` | the access log | workers |
//! | `files` | the root, what paths lead to, the cache, who waits for storage | requests, workers |
//! | `answer` | `decide`: from a request and what is known of files to a response | sockets, tasks, workers |
//! | `wire` | a connection's socket, and HTTP/1.1 as it is written to it | how a response was decided |
//! | `run` | accepting, connections, the event loop, sending, start and stop | – |
//!
//! The way of a request: `run::rounds` receives it, `run::requests` parses it, `answer::decide` says
//! what the response is, `wire::h1` writes it. What is in memory goes out at once, in one send(2);
//! what has to wait gets a task (`run::attend`, `run::send`).
//!
//! The protocol modules are pure and public, so that fuzzers and other servers can use them.
#![forbid(unsafe_code)]

mod answer;
mod files;
mod host;
mod log;
mod message;
mod run;
mod wire;

pub use answer::{error_page, listing};
pub use host::config::{AccessLog, Config, Limits, LogFormat, Stability, Symlinks};
pub use host::mime::Charset;
pub use host::site::SiteError;
pub use host::{mime, rules};
pub use log::access_log;
pub use message::{
    body, conditional, encoding, etag, field_lines, multipart, range, request, target, validators,
};
pub use run::server::{Handle, ServeError, Server};
pub use zhaul_service::{ListenAddr, ListenError};
