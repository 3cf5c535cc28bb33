//! What a proxy is told: where to listen, whom to let in, where connections go.
//!
//! A [`Config`] is plain, checked data in which every reference holds. It is made from a file by
//! [`file::parse`], or from the command line by [`Config::simple`].

mod address;
mod document;
pub mod file;
mod overlap;
mod server_name;
mod value;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use zhaul_service::ListenAddr;

pub use address::{Clients, Upstream, admin};

/// Everything that `zhaul proxy` can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Worker threads; 0 means one for each available core.
    pub workers: usize,
    /// Connections from clients at once; 0 derives it from the limit on open files.
    pub max_connections: usize,
    /// Time that sessions have to end once the proxy was asked to stop.
    pub drain: Duration,
    /// Where the administrator's commands are taken: a UNIX socket with a file, whose mode says by
    /// whom.
    pub admin: Option<ListenAddr>,
    /// Where metrics are answered over HTTP.
    pub metrics: Option<ListenAddr>,
    /// Where sessions are logged.
    pub log: Option<Log>,
    /// By name.
    pub listeners: BTreeMap<String, Listener>,
    /// By name.
    pub pools: BTreeMap<String, Pool>,
}

/// Where and how sessions are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A file to append to, or `None` for standard output.
    pub path: Option<PathBuf>,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sockets on which clients arrive, and what holds for those who do.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Addresses; at least one.
    pub listen: Vec<ListenAddr>,
    /// Connections that may wait to be accepted.
    pub backlog: i32,
    /// Where connections go that no route claims.
    pub to: Option<String>,
    /// Looked at in order; the first that matches decides. Not empty means that the beginning of
    /// each connection is looked at before it goes anywhere.
    pub routes: Vec<Route>,
    /// How long a client may take over what has to be seen before a server is chosen: a PROXY
    /// header, a ClientHello.
    pub hello_timeout: Duration,
    /// How long a client may stay silent before it is taken for one that waits for its server to
    /// speak, and goes to `to`; only with routes, and not beyond `hello_timeout`.
    pub hello_wait: Duration,
    /// Who may come; empty means everybody.
    pub allow: Vec<Clients>,
    /// Who may not, even if allowed.
    pub deny: Vec<Clients>,
    /// Connections at once; 0 means no limit.
    pub max_connections: usize,
    /// Connections at once from one address (an IPv6 /64 counts as one); 0 means no limit.
    pub max_connections_per_source: usize,
    /// New connections a second; 0 means no limit. Those beyond wait in the backlog.
    pub accept_rate: u32,
    /// Bytes a second of one connection in each direction; 0 means no limit.
    pub bandwidth: u64,
    /// Expect a PROXY header from these peers and refuse all others; `None` expects none.
    pub proxy_from: Option<Vec<Clients>>,
    /// Keepalive towards clients.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT` towards clients: how long sent data may stay unacknowledged.
    pub user_timeout: Option<Duration>,
    /// `TCP_FASTOPEN` queue length; 0 switches it off.
    pub fast_open: u32,
    /// A socket for each worker (`SO_REUSEPORT`): the kernel spreads connections by a hash. Without
    /// it all workers share one, and whoever is idle accepts.
    pub reuse_port: bool,
    /// Accept connections to any address (TPROXY).
    pub transparent: bool,
}

/// A rule that sends connections by what their ClientHello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Server names; `*.example.com` stands for every name below. Empty matches any, and none.
    pub sni: Vec<String>,
    /// Protocols, one of which the client must offer. Empty matches any.
    pub alpn: Vec<String>,
    /// The pool.
    pub to: String,
}

/// Servers among which connections are shared out.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// How one is chosen.
    pub balance: Balance,
    /// By name, in the order of the file.
    pub servers: Vec<Server>,
    /// Other servers tried when a connection cannot be made.
    pub retries: u32,
    /// What happens when no server can take a connection.
    pub when_full: WhenFull,
    /// What happens when all servers are down.
    pub when_down: WhenDown,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long nothing may move in either direction; zero means for ever.
    pub idle_timeout: Duration,
    /// How long the second half of a half-closed connection may stay silent; zero means for ever.
    pub fin_timeout: Duration,
    /// How long a session may take in all; zero means for ever.
    pub session_timeout: Duration,
    /// Introduce clients to servers by this header.
    pub send_proxy: Option<ProxyVersion>,
    /// The address that connections to servers come from.
    pub source: Source,
    /// Keepalive towards servers.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT` towards servers.
    pub user_timeout: Option<Duration>,
    /// Send the PROXY header with the SYN (`TCP_FASTOPEN_CONNECT`).
    pub fast_open: bool,
    /// How servers are checked.
    pub check: Option<Check>,
    /// When failed connections count a server out.
    pub passive: Option<Passive>,
    /// How long a server that came back gets less than its weight.
    pub slow_start: Duration,
    /// How often names are resolved again.
    pub resolve_every: Duration,
}

/// How a server is chosen among those that are up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// In turn, as often as their weights say, evenly spread.
    #[default]
    RoundRobin,
    /// The one with the fewest connections for its weight.
    LeastConnections,
    /// The better of two taken at random.
    RandomOfTwo,
    /// By the client's address, so that a client keeps its server while the others change.
    SourceHash,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Unique in its pool.
    pub name: String,
    /// Where it is.
    pub address: Upstream,
    /// Its share relative to others; 0 takes none.
    pub weight: u32,
    /// Used only while no other server is up.
    pub backup: bool,
    /// Connections at once; 0 means no limit.
    pub max_connections: usize,
    /// When its name has to stand for an address.
    pub init: Init,
}

/// When the name of a server has to stand for an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    /// Before the configuration is put in force.
    #[default]
    Now,
    /// Sometime; the server is down until then.
    Later,
}

/// What happens to a connection when every server that is up has all it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WhenFull {
    /// How many may wait in each pool; 0 closes them at once.
    pub queue: usize,
    /// How long each may wait.
    pub timeout: Duration,
}

/// What happens to a connection when every server is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenDown {
    /// It is closed.
    #[default]
    Close,
    /// It waits in the queue, like one for which all servers are full.
    Queue,
}

/// The version of a PROXY header that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// Text.
    V1,
    /// Binary, with the TLVs that came with the client.
    V2,
}

/// The address that connections to servers come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The kernel chooses.
    #[default]
    Kernel,
    /// This address of this machine.
    Address(IpAddr),
    /// The client's own address (`IP_TRANSPARENT`; needs CAP_NET_ADMIN and routing to match).
    Client,
}

/// `SO_KEEPALIVE` and its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Probes without an answer that end the connection.
    pub count: u32,
}

/// How a server is asked whether it is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is done.
    pub kind: CheckKind,
    /// Time between two checks.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Successes in a row that bring a server up.
    pub rise: u32,
    /// Failures in a row that take it down.
    pub fall: u32,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A connection can be made.
    Connect,
    /// The server answers a ClientHello with a ServerHello or an alert.
    Tls {
        /// The name that is asked for; `None` is the host name of the server's address, if it has one.
        sni: Option<String>,
    },
    /// The server's answer to `send` contains `expect`.
    Exchange {
        /// What is sent; may be empty for servers that speak first.
        send: Vec<u8>,
        /// What the answer must contain.
        expect: Vec<u8>,
    },
}

/// When connections that fail count a server out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passive {
    /// Failures to connect in a row.
    pub failures: u32,
    /// How long it is then out.
    pub out_for: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 0,
            max_connections: 0,
            drain: Duration::from_secs(30),
            admin: None,
            metrics: None,
            log: None,
            listeners: BTreeMap::new(),
            pools: BTreeMap::new(),
        }
    }
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            backlog: 4096,
            to: None,
            routes: Vec::new(),
            hello_timeout: Duration::from_secs(5),
            hello_wait: Duration::from_secs(5),
            allow: Vec::new(),
            deny: Vec::new(),
            max_connections: 0,
            max_connections_per_source: 0,
            accept_rate: 0,
            bandwidth: 0,
            proxy_from: None,
            keepalive: Some(Keepalive::default()),
            user_timeout: None,
            fast_open: 0,
            reuse_port: false,
            transparent: false,
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            balance: Balance::default(),
            servers: Vec::new(),
            retries: 2,
            when_full: WhenFull {
                queue: 1024,
                timeout: Duration::from_secs(5),
            },
            when_down: WhenDown::default(),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(3600),
            fin_timeout: Duration::from_secs(60),
            session_timeout: Duration::ZERO,
            send_proxy: None,
            source: Source::default(),
            keepalive: Some(Keepalive::default()),
            user_timeout: None,
            fast_open: false,
            check: None,
            passive: Some(Passive::default()),
            slow_start: Duration::ZERO,
            resolve_every: Duration::from_secs(30),
        }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(15),
            count: 4,
        }
    }
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            failures: 3,
            out_for: Duration::from_secs(10),
        }
    }
}

impl Default for Check {
    fn default() -> Self {
        Self {
            kind: CheckKind::Connect,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        }
    }
}

impl Config {
    /// Every address that is listened on.
    pub(crate) fn listens_on(&self) -> Vec<ListenAddr> {
        let listeners = self
            .listeners
            .values()
            .flat_map(|listener| &listener.listen);
        listeners
            .chain(&self.metrics)
            .chain(&self.admin)
            .cloned()
            .collect()
    }

    /// One listener and one pool, both called `default`.
    pub fn simple(listen: Vec<ListenAddr>, to: Vec<Upstream>) -> Self {
        let servers = to.into_iter().map(|address| Server {
            name: address.to_string(),
            address,
            weight: 1,
            backup: false,
            max_connections: 0,
            init: Init::default(),
        });
        let pool = Pool {
            servers: servers.collect(),
            ..Pool::default()
        };
        let listener = Listener {
            listen,
            to: Some(DEFAULT_NAME.to_owned()),
            ..Listener::default()
        };
        Self {
            listeners: BTreeMap::from([(DEFAULT_NAME.to_owned(), listener)]),
            pools: BTreeMap::from([(DEFAULT_NAME.to_owned(), pool)]),
            ..Self::default()
        }
    }
}

/// What the one listener and the one pool of [`Config::simple`] are called.
pub const DEFAULT_NAME: &str = "default";
