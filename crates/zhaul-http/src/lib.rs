//! A static file server on the transfer engine of `zhaul`.
//!
//! [`Config`] says what to serve, [`Server::bind`] checks it and opens the sockets, and
//! [`Server::run`] serves until a [`Handle`] stops it. The way of a request:
//!
//! | step | where |
//! |---|---|
//! | a connection is let in and given to a worker | `accept` |
//! | its bytes are received and parsed, its time limits kept | `worker`, `reactor`, `requests`, `connection`, [`request`] |
//! | the path becomes a file, from the cache or from the file system | [`target`], `lookup`, `cache`, `entry`, `root` |
//! | preconditions, ranges and codings decide what is sent | `answer`, `content`, `failure`, [`conditional`], [`range`], [`encoding`] |
//! | a small answer goes out at once, in one send(2); others get a task and the engine | `answer`, `attend`, `send` |
//!
//! The protocol modules are pure and public, so that fuzzers and other servers can use them.
#![forbid(unsafe_code)]

mod accept;
mod admission;
mod answer;
mod attend;
mod cache;
mod clock;
mod config;
mod connection;
mod content;
mod directory;
mod entry;
mod failure;
mod head;
mod html;
mod linger;
mod loading;
mod lookup;
mod mount;
mod mounts;
mod open_file;
mod pace;
mod reactor;
mod record;
mod remote;
mod requests;
mod root;
mod send;
mod server;
mod site;
mod storage;
mod stream;
mod worker;

pub mod access_log;
pub mod body;
pub mod conditional;
pub mod encoding;
pub mod error_page;
pub mod etag;
pub mod field_lines;
pub mod listing;
pub mod mime;
pub mod multipart;
pub mod range;
pub mod request;
pub mod rules;
pub mod target;
pub mod validators;

pub use config::{AccessLog, Config, Limits, LogFormat, Stability, Symlinks};
pub use mime::Charset;
pub use server::{Handle, ServeError, Server};
pub use site::SiteError;
pub use zhaul_service::{ListenAddr, ListenError};
