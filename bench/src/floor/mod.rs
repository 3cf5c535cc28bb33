//! The floor: the least that any server could do, as ordinary child processes.
//!
//! | | system calls for a request |
//! |---|---|
//! | [`canned`] | (epoll_wait) recv, send |
//! | [`sendfile`](mod@sendfile) | (epoll_wait) recv, send with MSG_MORE, sendfile |
//!
//! [`relay`] holds the floors of the proxy: recv and send, or splice through a pipe of 1 MiB.
//!
//! Contract: the answers are correct (length, bytes, keep-alive, `Connection: close`, pipelining,
//! requests cut anywhere), because a yardstick that answers wrongly measures nothing. One thread,
//! one file, no path is looked at, nothing is limited: loopback only.

mod canned;
mod epoll;
mod relay;
mod request;
mod sendfile;

use crate::cli::Floor;

/// Serves until it is killed.
pub(crate) fn run(floor: Floor) -> anyhow::Result<()> {
    match floor {
        Floor::Canned(args) => epoll::serve(args.listen, &canned::Canned::load(&args.file)?),
        Floor::Sendfile(args) => epoll::serve(args.listen, &sendfile::Sendfile::open(&args.file)?),
        Floor::Copy(args) => relay::relay::<relay::Copy>(args.listen, args.to),
        Floor::Splice(args) => relay::relay::<relay::Splice>(args.listen, args.to),
    }
}

fn header(length: u64) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nServer: floor\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}
