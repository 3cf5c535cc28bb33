//! The configuration file: TOML, checked as a whole.
//!
//! Every mistake is reported with file, line and key: unknown keys and wrong types by the parser,
//! then all references, duplicates and values that contradict each other, together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{IntoDeserializer, SeqAccess, Visitor};
use toml::Spanned;
use zhaul_service::ListenAddr;

use super::value::{Bytes, Text, Time};
use super::{
    Balance, Check, CheckKind, Clients, Config, Init, Keepalive, Listener, Log, LogFormat, Passive,
    Pool, ProxyVersion, Route, Server, Source, Upstream, WhenDown, is_host_name,
};

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, counted from 1, where it is known.
    pub line: Option<usize>,
    /// The key, as a path: `pools.db.servers[1].address`.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub what: String,
}

/// Everything that is wrong with a file; at least one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file's name.
    pub file: String,
    /// In the order of the file.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Problem { line, key, what }) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file)?;
            if let Some(line) = line {
                write!(f, ":{line}")?;
            }
            match key.as_str() {
                "" => write!(f, ": {what}")?,
                key => write!(f, ": {key}: {what}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Reads a configuration; `file` is the name that problems are reported under.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(file: &str, text: &str) -> Result<Config, Problems> {
    let mut reader = Reader {
        text,
        problems: Vec::new(),
    };
    let config = reader.read();
    reader.problems.sort_by_key(|problem| problem.line);
    match config {
        Some(config) if reader.problems.is_empty() => Ok(config),
        _ => Err(Problems {
            file: file.to_owned(),
            list: reader.problems,
        }),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    workers: Option<usize>,
    max_connections: Option<usize>,
    drain: Option<Time>,
    admin: Option<Spanned<Text<Upstream>>>,
    metrics: Option<Text<ListenAddr>>,
    log: Option<LogFile>,
    #[serde(default)]
    listeners: BTreeMap<String, ListenerFile>,
    #[serde(default)]
    pools: BTreeMap<String, PoolFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogFile {
    path: PathBuf,
    format: Option<Word<LogFormat>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenerFile {
    listen: Spanned<OneOrMany<Text<ListenAddr>>>,
    backlog: Option<Spanned<u32>>,
    to: Option<Spanned<String>>,
    #[serde(default)]
    routes: Vec<RouteFile>,
    hello_timeout: Option<Time>,
    hello_wait: Option<Time>,
    #[serde(default)]
    allow: Vec<Text<Clients>>,
    #[serde(default)]
    deny: Vec<Text<Clients>>,
    max_connections: Option<usize>,
    max_connections_per_source: Option<usize>,
    accept_rate: Option<u32>,
    bandwidth: Option<Bytes>,
    proxy_from: Option<Spanned<Vec<Text<Clients>>>>,
    keepalive: Option<KeepaliveFile>,
    user_timeout: Option<Time>,
    fast_open: Option<u32>,
    reuse_port: Option<bool>,
    transparent: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteFile {
    sni: Option<Spanned<OneOrMany<String>>>,
    alpn: Option<OneOrMany<String>>,
    to: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolFile {
    balance: Option<Word<Balance>>,
    servers: Spanned<Vec<ServerFile>>,
    retries: Option<u32>,
    queue: Option<usize>,
    queue_timeout: Option<Time>,
    when_down: Option<Word<WhenDown>>,
    connect_timeout: Option<Spanned<Time>>,
    idle_timeout: Option<Time>,
    fin_timeout: Option<Time>,
    session_timeout: Option<Time>,
    send_proxy: Option<Word<ProxyVersion>>,
    source: Option<Word<Source>>,
    keepalive: Option<KeepaliveFile>,
    user_timeout: Option<Time>,
    fast_open: Option<bool>,
    check: Option<CheckFile>,
    passive: Option<PassiveFile>,
    slow_start: Option<Time>,
    resolve_every: Option<Spanned<Time>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerFile {
    name: Option<Spanned<String>>,
    address: Spanned<Text<Upstream>>,
    weight: Option<Spanned<u32>>,
    #[serde(default)]
    backup: bool,
    max_connections: Option<usize>,
    init: Option<Word<Init>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckFile {
    kind: Option<Spanned<CheckWord>>,
    sni: Option<Spanned<String>>,
    interval: Option<Spanned<Time>>,
    timeout: Option<Spanned<Time>>,
    rise: Option<Spanned<u32>>,
    fall: Option<Spanned<u32>>,
    send: Option<Spanned<String>>,
    expect: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum CheckWord {
    Connect,
    Tls,
    Exchange,
}

/// `false` switches it off.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected false, or a table of failures and out_for"
)]
enum PassiveFile {
    Switch(bool),
    Values(PassiveValues),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PassiveValues {
    failures: Option<u32>,
    out_for: Option<Time>,
}

/// `false` switches it off.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected false, or a table of idle, interval and count"
)]
enum KeepaliveFile {
    Switch(bool),
    Values(KeepaliveValues),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeepaliveValues {
    idle: Option<Time>,
    interval: Option<Time>,
    count: Option<u32>,
}

/// A value that may be written alone or in a list.
#[derive(Clone)]
struct OneOrMany<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, or a list of strings")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<OneOrMany<T>, E> {
        T::deserialize(text.into_deserializer()).map(|value| OneOrMany(vec![value]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<OneOrMany<T>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany)
    }
}

/// One of a few words.
struct Word<T>(T);

impl<'de, T: Named> Deserialize<'de> for Word<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        T::named(&word).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!("unknown value {word:?} (use {})", T::NAMES))
        })
    }
}

/// A type whose values have names.
trait Named: Sized {
    const NAMES: &'static str;
    fn named(word: &str) -> Option<Self>;
}

impl Named for LogFormat {
    const NAMES: &'static str = "text or json";
    fn named(word: &str) -> Option<Self> {
        match word {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl Named for Balance {
    const NAMES: &'static str = "round-robin, least-connections, random-of-two or source-hash";
    fn named(word: &str) -> Option<Self> {
        match word {
            "round-robin" => Some(Self::RoundRobin),
            "least-connections" => Some(Self::LeastConnections),
            "random-of-two" => Some(Self::RandomOfTwo),
            "source-hash" => Some(Self::SourceHash),
            _ => None,
        }
    }
}

impl Named for WhenDown {
    const NAMES: &'static str = "close or queue";
    fn named(word: &str) -> Option<Self> {
        match word {
            "close" => Some(Self::Close),
            "queue" => Some(Self::Queue),
            _ => None,
        }
    }
}

impl Named for Init {
    const NAMES: &'static str = "now or later";
    fn named(word: &str) -> Option<Self> {
        match word {
            "now" => Some(Self::Now),
            "later" => Some(Self::Later),
            _ => None,
        }
    }
}

impl Named for ProxyVersion {
    const NAMES: &'static str = "v1 or v2";
    fn named(word: &str) -> Option<Self> {
        match word {
            "v1" => Some(Self::V1),
            "v2" => Some(Self::V2),
            _ => None,
        }
    }
}

impl Named for Source {
    const NAMES: &'static str = "an address of this machine, or client";
    fn named(word: &str) -> Option<Self> {
        match word {
            "client" => Some(Self::Client),
            address => {
                let address = address.parse::<IpAddr>().ok()?;
                Some(Self::Address(address.to_canonical()))
            }
        }
    }
}

macro_rules! word_from_str {
    ($($type:ty),*) => {$(
        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                Self::named(word)
                    .ok_or_else(|| format!("unknown value {word:?} (use {})", Self::NAMES))
            }
        }
    )*};
}

// The command line takes the same words.
word_from_str!(LogFormat, Balance, WhenDown, ProxyVersion, Source);

struct Reader<'a> {
    text: &'a str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn read(&mut self) -> Option<Config> {
        let file = self.deserialize()?;
        let defaults = Config::default();
        let pools: BTreeMap<String, Pool> = file
            .pools
            .into_iter()
            .map(|(name, pool)| {
                let pool = self.pool(&name, pool);
                (name, pool)
            })
            .collect();
        let listeners = file
            .listeners
            .into_iter()
            .map(|(name, listener)| {
                let listener = self.listener(&name, listener, &pools);
                (name, listener)
            })
            .collect::<BTreeMap<_, _>>();
        if listeners.is_empty() {
            self.problem(None, "listeners", "there is none (write [listeners.NAME])");
        }
        Some(Config {
            workers: file.workers.unwrap_or(defaults.workers),
            max_connections: file.max_connections.unwrap_or(defaults.max_connections),
            drain: time_or(file.drain, defaults.drain),
            admin: file.admin.and_then(|admin| self.admin(admin)),
            metrics: file.metrics.map(|Text(address)| address),
            log: file.log.map(|log| Log {
                path: (log.path.as_os_str() != "-").then_some(log.path),
                format: log
                    .format
                    .map_or(LogFormat::default(), |Word(format)| format),
            }),
            listeners,
            pools,
        })
    }

    fn deserialize(&mut self) -> Option<File> {
        let document = match toml::Deserializer::parse(self.text) {
            Ok(document) => document,
            Err(error) => {
                self.parser_problem(String::new(), &error);
                return None;
            }
        };
        match serde_path_to_error::deserialize(document) {
            Ok(file) => Some(file),
            Err(error) => {
                let path = key_of(error.path());
                self.parser_problem(path, error.inner());
                None
            }
        }
    }

    fn parser_problem(&mut self, key: String, error: &toml::de::Error) {
        let line = error.span().map(|span| self.line_of(span.start));
        let what = error.message().trim_end().to_owned();
        self.problems.push(Problem { line, key, what });
    }

    fn line_of(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    fn problem(&mut self, offset: Option<usize>, key: &str, what: impl Into<String>) {
        let line = offset.map(|offset| self.line_of(offset));
        self.problems.push(Problem {
            line,
            key: key.to_owned(),
            what: what.into(),
        });
    }

    fn admin(&mut self, admin: Spanned<Text<Upstream>>) -> Option<PathBuf> {
        let offset = admin.span().start;
        match admin.into_inner().0 {
            Upstream::Unix(path) => Some(path),
            _ => {
                let what = "it takes commands, so it is a UNIX socket (write unix:/path)";
                self.problem(Some(offset), "admin", what);
                None
            }
        }
    }

    fn listener(
        &mut self,
        name: &str,
        file: ListenerFile,
        pools: &BTreeMap<String, Pool>,
    ) -> Listener {
        let defaults = Listener::default();
        let key = |field: &str| format!("listeners.{name}.{field}");
        let listen_at = file.listen.span().start;
        let listen: Vec<_> = file.listen.into_inner().0;
        let listen: Vec<_> = listen.into_iter().map(|Text(address)| address).collect();
        if listen.is_empty() {
            self.problem(Some(listen_at), &key("listen"), "the list is empty");
        }
        let known = |reader: &mut Self, to: &Spanned<String>, key: &str| {
            if !pools.contains_key(to.get_ref()) {
                let what = format!("there is no pool {:?} (write [pools.{0}])", to.get_ref());
                reader.problem(Some(to.span().start), key, what);
            }
        };
        if let Some(to) = &file.to {
            known(self, to, &key("to"));
        } else if file.routes.is_empty() {
            let what = "connections have nowhere to go (write to = \"POOL\", or routes)";
            self.problem(Some(listen_at), &key("to"), what);
        }
        let mut routes = Vec::new();
        for (i, route) in file.routes.into_iter().enumerate() {
            known(self, &route.to, &key(&format!("routes[{i}].to")));
            let sni = self.server_names(route.sni, &key(&format!("routes[{i}].sni")));
            routes.push(Route {
                sni,
                alpn: route.alpn.map_or(Vec::new(), |alpn| alpn.0),
                to: route.to.into_inner(),
            });
        }
        let backlog = file.backlog.map_or(defaults.backlog, |backlog| {
            match i32::try_from(*backlog.get_ref()) {
                Ok(value @ 1..) => value,
                _ => {
                    let what = "it must be from 1 to 2147483647";
                    self.problem(Some(backlog.span().start), &key("backlog"), what);
                    1
                }
            }
        });
        let proxy_from = file.proxy_from.map(|networks| {
            if networks.get_ref().is_empty() {
                let what = "nobody is trusted (list the proxies in front, as networks)";
                self.problem(Some(networks.span().start), &key("proxy_from"), what);
            }
            values(networks.into_inner())
        });
        let hello_timeout = time_or(file.hello_timeout, defaults.hello_timeout);
        Listener {
            listen,
            backlog,
            to: file.to.map(Spanned::into_inner),
            routes,
            hello_timeout,
            hello_wait: time_or(file.hello_wait, hello_timeout),
            allow: values(file.allow),
            deny: values(file.deny),
            max_connections: file.max_connections.unwrap_or(0),
            max_connections_per_source: file.max_connections_per_source.unwrap_or(0),
            accept_rate: file.accept_rate.unwrap_or(0),
            bandwidth: file.bandwidth.map_or(0, |Bytes(bytes)| bytes),
            proxy_from,
            keepalive: keepalive(file.keepalive),
            user_timeout: file.user_timeout.map(|Time(time)| time),
            fast_open: file.fast_open.unwrap_or(0),
            reuse_port: file.reuse_port.unwrap_or(false),
            transparent: file.transparent.unwrap_or(false),
        }
    }

    fn server_names(
        &mut self,
        names: Option<Spanned<OneOrMany<String>>>,
        key: &str,
    ) -> Vec<String> {
        let Some(names) = names else {
            return Vec::new();
        };
        let offset = names.span().start;
        let mut kept = Vec::new();
        for name in names.into_inner().0 {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let below = name.strip_prefix("*.").unwrap_or(&name);
            if below.is_empty() || below.contains('*') {
                let what = format!("{name:?} is no name (write a.example.com or *.example.com)");
                self.problem(Some(offset), key, what);
            }
            kept.push(name);
        }
        kept
    }

    fn pool(&mut self, name: &str, file: PoolFile) -> Pool {
        let defaults = Pool::default();
        let key = |field: &str| format!("pools.{name}.{field}");
        let servers_at = file.servers.span().start;
        let servers = self.servers(name, file.servers.into_inner());
        if servers.is_empty() {
            self.problem(Some(servers_at), &key("servers"), "the list is empty");
        } else if servers.iter().all(|server| server.weight == 0) {
            let what = "every server has weight 0, so none would ever be chosen";
            self.problem(Some(servers_at), &key("servers"), what);
        }
        let mut when_full = defaults.when_full;
        when_full.queue = file.queue.unwrap_or(when_full.queue);
        when_full.timeout = time_or(file.queue_timeout, when_full.timeout);
        let connect_timeout = self.positive(
            file.connect_timeout,
            defaults.connect_timeout,
            &key("connect_timeout"),
        );
        let resolve_every = self.positive(
            file.resolve_every,
            defaults.resolve_every,
            &key("resolve_every"),
        );
        Pool {
            balance: file
                .balance
                .map_or(defaults.balance, |Word(balance)| balance),
            servers,
            retries: file.retries.unwrap_or(defaults.retries),
            when_full,
            when_down: file.when_down.map_or(defaults.when_down, |Word(word)| word),
            connect_timeout,
            idle_timeout: time_or(file.idle_timeout, defaults.idle_timeout),
            fin_timeout: time_or(file.fin_timeout, defaults.fin_timeout),
            session_timeout: time_or(file.session_timeout, defaults.session_timeout),
            send_proxy: file.send_proxy.map(|Word(version)| version),
            source: file.source.map_or(defaults.source, |Word(source)| source),
            keepalive: keepalive(file.keepalive),
            user_timeout: file.user_timeout.map(|Time(time)| time),
            fast_open: file.fast_open.unwrap_or(false),
            check: file.check.map(|check| self.check(check, &key("check"))),
            passive: match file.passive {
                Some(PassiveFile::Switch(false)) => None,
                Some(PassiveFile::Values(values)) => Some(Passive {
                    failures: values.failures.unwrap_or(Passive::default().failures),
                    out_for: time_or(values.out_for, Passive::default().out_for),
                }),
                Some(PassiveFile::Switch(true)) | None => defaults.passive,
            },
            slow_start: time_or(file.slow_start, defaults.slow_start),
            resolve_every,
        }
    }

    fn servers(&mut self, pool: &str, files: Vec<ServerFile>) -> Vec<Server> {
        let mut names = BTreeSet::new();
        let mut servers = Vec::new();
        for (i, file) in files.into_iter().enumerate() {
            let key = |field: &str| format!("pools.{pool}.servers[{i}].{field}");
            let (name, name_at) = match file.name {
                Some(name) => (name.get_ref().clone(), name.span().start),
                None => (
                    file.address.get_ref().0.to_string(),
                    file.address.span().start,
                ),
            };
            if !names.insert(name.clone()) {
                let what = format!("there are two servers called {name:?} (name them apart)");
                self.problem(Some(name_at), &key("name"), what);
            }
            let weight = file.weight.map_or(1, |weight| {
                if *weight.get_ref() > MAX_WEIGHT {
                    let what = format!("it must be from 0 to {MAX_WEIGHT}");
                    self.problem(Some(weight.span().start), &key("weight"), what);
                }
                weight.into_inner()
            });
            servers.push(Server {
                name,
                address: file.address.into_inner().0,
                weight,
                backup: file.backup,
                max_connections: file.max_connections.unwrap_or(0),
                init: file.init.map_or(Init::default(), |Word(init)| init),
            });
        }
        servers
    }

    fn check(&mut self, file: CheckFile, key: &str) -> Check {
        let defaults = Check::default();
        let word = file.kind.as_ref().map(|kind| *kind.get_ref());
        // To say what to send or to expect is to ask for an exchange.
        let exchange = file.send.is_some() || file.expect.is_some();
        let kind = match word {
            None if exchange => CheckWord::Exchange,
            None if file.sni.is_some() => CheckWord::Tls,
            None => CheckWord::Connect,
            Some(word) => word,
        };
        if exchange && kind != CheckWord::Exchange {
            let offset = file.kind.as_ref().map(|kind| kind.span().start);
            let what = "send and expect belong to kind = \"exchange\"";
            self.problem(offset, &format!("{key}.kind"), what);
        }
        let sni = file.sni.map(|sni| {
            let offset = Some(sni.span().start);
            let key = format!("{key}.sni");
            if kind != CheckWord::Tls {
                self.problem(offset, &key, "it belongs to kind = \"tls\"");
            }
            let name = sni.into_inner();
            if !is_host_name(&name) {
                self.problem(offset, &key, format!("{name:?} is not a host name"));
            }
            name
        });
        let kind = match kind {
            CheckWord::Connect => CheckKind::Connect,
            CheckWord::Tls => CheckKind::Tls { sni },
            CheckWord::Exchange => {
                let expect = file.expect.map(|text| text.into_inner().into_bytes());
                if expect.as_ref().is_none_or(Vec::is_empty) {
                    let offset = file.send.as_ref().map(|send| send.span().start);
                    let what = "an exchange needs something to expect (write expect = \"...\")";
                    self.problem(offset, &format!("{key}.expect"), what);
                }
                CheckKind::Exchange {
                    send: file
                        .send
                        .map_or(Vec::new(), |t| t.into_inner().into_bytes()),
                    expect: expect.unwrap_or_default(),
                }
            }
        };
        Check {
            kind,
            interval: self.positive(file.interval, defaults.interval, &format!("{key}.interval")),
            timeout: self.positive(file.timeout, defaults.timeout, &format!("{key}.timeout")),
            rise: self.at_least_one(file.rise, defaults.rise, &format!("{key}.rise")),
            fall: self.at_least_one(file.fall, defaults.fall, &format!("{key}.fall")),
        }
    }

    fn positive(&mut self, time: Option<Spanned<Time>>, default: Duration, key: &str) -> Duration {
        let Some(time) = time else { return default };
        if time.get_ref().0.is_zero() {
            self.problem(
                Some(time.span().start),
                key,
                "it must be longer than nothing",
            );
        }
        time.into_inner().0
    }

    fn at_least_one(&mut self, count: Option<Spanned<u32>>, default: u32, key: &str) -> u32 {
        let Some(count) = count else { return default };
        if *count.get_ref() == 0 {
            self.problem(Some(count.span().start), key, "it must be at least 1");
        }
        count.into_inner()
    }
}

/// The path of a key, without the steps that [`Spanned`] takes.
fn key_of(path: &serde_path_to_error::Path) -> String {
    let mut key = String::new();
    for segment in path {
        let step = segment.to_string();
        if step.starts_with("$__serde_spanned") {
            continue;
        }
        if !key.is_empty() && !step.starts_with('[') {
            key.push('.');
        }
        key.push_str(&step);
    }
    key
}

/// Enough to tell servers apart by a thousandth, little enough to add up without overflow.
const MAX_WEIGHT: u32 = 1000;

fn values<T>(texts: Vec<Text<T>>) -> Vec<T> {
    texts.into_iter().map(|Text(value)| value).collect()
}

fn time_or(time: Option<Time>, default: Duration) -> Duration {
    time.map_or(default, |Time(time)| time)
}

fn keepalive(file: Option<KeepaliveFile>) -> Option<Keepalive> {
    let defaults = Keepalive::default();
    match file {
        Some(KeepaliveFile::Switch(false)) => None,
        Some(KeepaliveFile::Switch(true)) | None => Some(defaults),
        Some(KeepaliveFile::Values(values)) => Some(Keepalive {
            idle: time_or(values.idle, defaults.idle),
            interval: time_or(values.interval, defaults.interval),
            count: values.count.unwrap_or(defaults.count),
        }),
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
