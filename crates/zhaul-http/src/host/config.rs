//! What a server is told before it starts: where the files are, where to listen, what to promise.
//!
//! A [`Config`] is plain data with usable defaults; [`crate::Server::bind`] checks it against the
//! machine and says what is wrong in words that name the setting.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use zhaul_service::ListenAddr;

use crate::host::mime::Charset;

/// Everything that `zhaul serve` can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory whose files are served.
    pub root: PathBuf,
    /// Addresses to listen on; at least one.
    pub listen: Vec<ListenAddr>,
    /// Worker threads, each with its own event loop; 0 means one for each available core.
    pub workers: usize,
    /// What is promised about files that change while they are sent.
    pub stability: Stability,
    /// Names tried, in this order, when a directory is asked for.
    pub index: Vec<String>,
    /// Whether a directory without an index file is answered by a listing.
    pub listing: bool,
    /// A file, relative to the root, that answers paths which do not exist (single-page apps).
    pub spa: Option<String>,
    /// Files, relative to the root, that are sent as the body of an error status.
    pub error_pages: BTreeMap<u16, String>,
    /// Whether `.br`, `.zst` and `.gz` siblings answer clients that accept these codings.
    pub precompressed: bool,
    /// `Content-Type` by extension, before the built-in table.
    pub mime: Vec<(String, String)>,
    /// What is said about the encoding of text.
    pub charset: Charset,
    /// `Cache-Control` by glob over the path; the first match wins.
    pub cache_control: Vec<(String, String)>,
    /// Header fields added to each successful answer.
    pub headers: Vec<(String, String)>,
    /// Origins that may read answers across origins; `*` stands for all.
    pub cors: Vec<String>,
    /// Request headers that pages of these origins may send beyond those that every reader of
    /// files needs; `*` stands for all.
    pub cors_headers: Vec<String>,
    /// How far symbolic links are followed.
    pub symlinks: Symlinks,
    /// Whether names that begin with a dot are served (`.well-known` always is).
    pub dot_files: bool,
    /// Bytes of small files that are kept in memory, by all workers together.
    pub cache_bytes: usize,
    /// How long what is known of a file on a network file system, or one that a program serves, is
    /// taken to hold. On all others it is looked at for each answer.
    pub remote_freshness: Duration,
    /// Bounds on what one client can take.
    pub limits: Limits,
    /// Where requests are logged; `None` logs nothing.
    pub access_log: Option<AccessLog>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: PathBuf::from("."),
            listen: vec![ListenAddr::Tcp(vec![SocketAddr::from((
                [127, 0, 0, 1],
                8080,
            ))])],
            workers: 0,
            stability: Stability::Immutable,
            index: vec!["index.html".to_owned()],
            listing: true,
            spa: None,
            error_pages: BTreeMap::new(),
            precompressed: true,
            mime: Vec::new(),
            charset: Charset::Detected,
            cache_control: Vec::new(),
            headers: Vec::new(),
            cors: Vec::new(),
            cors_headers: Vec::new(),
            symlinks: Symlinks::Inside,
            dot_files: false,
            cache_bytes: 64 * 1024 * 1024,
            remote_freshness: Duration::from_secs(1),
            limits: Limits::default(),
            access_log: None,
        }
    }
}

/// What the server promises about files that change while they are being sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stability {
    /// Files are replaced by rename, never edited in place. Pages go out by reference; size and
    /// mtime are compared at each chunk and a change closes the connection short of
    /// `Content-Length`. Bytes of an in-place edit can reach a client before it is noticed.
    #[default]
    Immutable,
    /// A read lease is held while pages are in flight: an editor's `open` waits until the client's
    /// kernel has acknowledged them, or the answer is cut short. A peer on the same machine gets a
    /// copy made under the lease, because there an acknowledgement proves nothing.
    Lease,
    /// Bytes are copied out of the page cache before they are queued, and after each read the file
    /// is compared with the version that was announced: slower, and an answer is of one version or
    /// is cut short.
    Copy,
}

impl FromStr for Stability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "immutable" => Ok(Self::Immutable),
            "lease" => Ok(Self::Lease),
            "copy" => Ok(Self::Copy),
            _ => Err(format!(
                "unknown stability {text:?} (use immutable, lease or copy)"
            )),
        }
    }
}

/// How far symbolic links below the root are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Symlinks {
    /// Never: a path with a link in it is 404.
    Never,
    /// As long as the target, too, is below the root.
    #[default]
    Inside,
    /// Wherever they lead. Whoever can write to the root can then publish any readable file.
    Anywhere,
}

impl FromStr for Symlinks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "never" => Ok(Self::Never),
            "inside" => Ok(Self::Inside),
            "anywhere" => Ok(Self::Anywhere),
            _ => Err(format!(
                "unknown symlink policy {text:?} (use never, inside or anywhere)"
            )),
        }
    }
}

/// Bounds on what clients can take. Durations of zero and counts of zero switch a bound off where
/// that is said.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request line with its header fields.
    pub header_bytes: usize,
    /// Header fields in a request.
    pub header_count: usize,
    /// Time from the first byte of a request to the end of its header.
    pub header_timeout: Duration,
    /// Time that a connection may rest between requests.
    pub idle_timeout: Duration,
    /// Bytes a second that a client must acknowledge on average over each
    /// [`send_window`](Self::send_window) in which there is something for it to take; 0 switches it
    /// off.
    pub min_send_rate: u64,
    /// The time over which [`min_send_rate`](Self::min_send_rate) is averaged, and so the longest
    /// pause that every client may make.
    pub send_window: Duration,
    /// Connections open at once; 0 derives it from the limit on open files.
    pub connections: usize,
    /// Connections open at once from one address (an IPv6 /64 counts as one); 0 means no limit.
    pub connections_per_address: usize,
    /// Requests answered on one connection before it is closed; 0 means no limit.
    pub requests_per_connection: u64,
    /// Bytes a second sent on one connection; 0 means no limit.
    pub rate: u64,
    /// Request body bytes that are read off and thrown away before the connection is closed.
    pub discarded_body_bytes: u64,
    /// Time that a file system has for looking a name up, for reading a directory and for each read,
    /// after which the answer is 503 or cut short; 0 means no limit.
    pub storage_timeout: Duration,
    /// Time that answers in progress have to finish once the server was asked to stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 16 * 1024,
            header_count: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            min_send_rate: 256,
            send_window: Duration::from_secs(300),
            connections: 0,
            connections_per_address: 0,
            requests_per_connection: 0,
            rate: 0,
            discarded_body_bytes: 1024 * 1024,
            storage_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// Where and how requests are logged.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// A file to append to, or `None` for standard output.
    pub path: Option<PathBuf>,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the access log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// The combined format of NCSA and Apache.
    #[default]
    Combined,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "combined" => Ok(Self::Combined),
            "json" => Ok(Self::Json),
            _ => Err(format!(
                "unknown log format {text:?} (use combined or json)"
            )),
        }
    }
}
