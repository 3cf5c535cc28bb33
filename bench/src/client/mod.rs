//! The bench's own clients: what wrk cannot do.
//!
//! | file | what it does |
//! |---|---|
//! | [`head`] | reads a response head |
//! | [`exchange`] | one blocking connection, one request after the other |
//! | [`verify`] | compares an answer with the file, byte by byte |
//! | [`fan`] | many connections at once, bodies thrown away inside the kernel |
//! | [`reconnect`] | a connection for every request |
//! | [`peer`] | both ends of a proxied connection: a backend thread and its client |
//! | [`hot`] | one client, one small file, every latency kept |

pub(crate) mod exchange;
pub(crate) mod fan;
pub(crate) mod head;
pub(crate) mod hot;
pub(crate) mod peer;
pub(crate) mod reconnect;
pub(crate) mod verify;

/// A request as all these clients send it.
fn request(method: &str, path: &str, host: std::net::SocketAddrV4, extra: &str) -> Vec<u8> {
    format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n").into_bytes()
}
