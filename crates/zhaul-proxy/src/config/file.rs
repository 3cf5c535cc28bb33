//! The configuration file: TOML, checked as a whole.
//!
//! Every mistake is reported with file, line and key, all of them together: unknown keys, wrong
//! values, references to what is not there, duplicates, and values that contradict each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use zhaul_service::ListenAddr;

pub use super::document::{Problem, Problems};

use super::address::is_host_name;
use super::document::{Document, Found, Switch, Table};
use super::overlap::{self, Place};
use super::value::{Bytes, CheckWord, Text, Time};
use super::{
    Balance, Check, CheckKind, Clients, Config, Keepalive, Listener, Log, Passive, Pool, Route,
    Server, Upstream, WhenFull, server_name,
};

/// Reads a configuration; `file` is the name that problems are reported under.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(file: &str, text: &str) -> Result<Config, Problems> {
    let document = Document::new(text);
    let config = document.root().map(|root| config(&document, root));
    let list = document.into_problems();
    match config {
        Some(config) if list.is_empty() => Ok(config),
        _ => Err(Problems {
            file: file.to_owned(),
            list,
        }),
    }
}

/// Enough to tell servers apart by a thousandth, little enough to add up without overflow.
const MAX_WEIGHT: u32 = 1000;

/// Whatever cannot be read has its default: a configuration with a problem is not used.
fn config(document: &Document<'_>, mut root: Table<'_, '_>) -> Config {
    let defaults = Config::default();
    let pools: BTreeMap<_, _> = root
        .named_tables("pools")
        .into_iter()
        .map(|(name, table)| (name, pool(table)))
        .collect();
    let mut places = Vec::new();
    let admin = admin(&mut root, &mut places);
    let metrics = root.take::<Text<ListenAddr>>("metrics").map(|found| {
        places.push((found.at, place(&found.key, &found.value.0, false)));
        found.value.0
    });
    let listeners: BTreeMap<_, _> = root
        .named_tables("listeners")
        .into_iter()
        .map(|(name, table)| (name, listener(table, &pools, &mut places)))
        .collect();
    if listeners.is_empty() {
        root.problem("listeners", "there is none (write [listeners.NAME])");
    }
    // Of two, the later in the file is said to be one too many.
    places.sort_by_key(|(at, _)| *at);
    let (offsets, places): (Vec<_>, Vec<_>) = places.into_iter().unzip();
    for (index, what) in overlap::clashes(&places) {
        document.problem(Some(offsets[index]), &places[index].key, what);
    }
    Config {
        workers: root.value("workers").unwrap_or(defaults.workers),
        max_connections: (root.value("max_connections")).unwrap_or(defaults.max_connections),
        drain: time_or(&mut root, "drain", defaults.drain),
        admin,
        metrics,
        log: root.table("log").and_then(log),
        listeners,
        pools,
    }
}

fn place(key: &str, address: &ListenAddr, reuse_port: bool) -> Place {
    Place {
        key: key.to_owned(),
        address: address.clone(),
        reuse_port,
    }
}

fn admin(root: &mut Table<'_, '_>, places: &mut Vec<(usize, Place)>) -> Option<ListenAddr> {
    let found = root.take::<Text<ListenAddr>>("admin")?;
    places.push((found.at, place(&found.key, &found.value.0, false)));
    match super::admin(found.value.0.clone()) {
        Ok(address) => Some(address),
        Err(what) => {
            found.problem(what);
            None
        }
    }
}

fn log(mut table: Table<'_, '_>) -> Option<Log> {
    let path: Option<String> = table.value("path");
    if path.is_none() {
        table.missing("path", "write a file, or - for standard output");
    }
    let format = table.value("format").map(|Text(format)| format);
    let path = path?;
    Some(Log {
        path: (path != "-").then(|| path.into()),
        format: format.unwrap_or_default(),
    })
}

fn listener(
    mut table: Table<'_, '_>,
    pools: &BTreeMap<String, Pool>,
    places: &mut Vec<(usize, Place)>,
) -> Listener {
    let defaults = Listener::default();
    let reuse_port = table.value("reuse_port").unwrap_or(defaults.reuse_port);
    let mut listen = Vec::new();
    let mut listen_at = None;
    match table.list::<Text<ListenAddr>>("listen") {
        None => table.missing("listen", "write an address, or a list of them"),
        Some(list) if list.is_empty => list.problem("the list is empty"),
        Some(list) => {
            listen_at = Some(list.at);
            for Found { value, at, key, .. } in list.value {
                places.push((at, place(&key, &value.0, reuse_port)));
                listen.push(value.0);
            }
        }
    }
    let to = table.take::<String>("to").map(|to| known(to, pools));
    let routes = table.tables("routes").map_or(Vec::new(), |list| list.value);
    let routes: Vec<_> = routes.into_iter().map(|one| route(one, pools)).collect();
    // One that cannot be read is there all the same.
    if routes.is_empty() && !table.had("routes") && !table.had("to") {
        let what = "connections have nowhere to go (write to = \"POOL\", or routes)";
        table.problem_at(listen_at, &table.path("to"), what);
    }
    let backlog = table.take::<u32>("backlog").map(|found| {
        let backlog = i32::try_from(found.value).ok().filter(|&n| n > 0);
        if backlog.is_none() {
            found.problem("it must be from 1 to 2147483647");
        }
        backlog.unwrap_or(1)
    });
    let proxy_from = table.list::<Text<Clients>>("proxy_from").map(|list| {
        if list.is_empty {
            list.problem("nobody is trusted (list the proxies in front, as networks)");
        }
        texts(list.value)
    });
    let hello_timeout = time_or(&mut table, "hello_timeout", defaults.hello_timeout);
    Listener {
        listen,
        backlog: backlog.unwrap_or(defaults.backlog),
        to,
        routes,
        hello_timeout,
        hello_wait: time_or(&mut table, "hello_wait", hello_timeout),
        allow: clients(&mut table, "allow"),
        deny: clients(&mut table, "deny"),
        max_connections: table.value("max_connections").unwrap_or(0),
        max_connections_per_source: table.value("max_connections_per_source").unwrap_or(0),
        accept_rate: table.value("accept_rate").unwrap_or(0),
        bandwidth: table.value("bandwidth").map_or(0, |Bytes(bytes)| bytes),
        proxy_from,
        keepalive: keepalive(&mut table),
        user_timeout: table.value("user_timeout").map(|Time(time)| time),
        fast_open: table.value("fast_open").unwrap_or(0),
        reuse_port,
        transparent: table.value("transparent").unwrap_or(false),
    }
}

/// The name of a pool that has to be there.
fn known(to: Found<'_, '_, String>, pools: &BTreeMap<String, Pool>) -> String {
    if !pools.contains_key(&to.value) {
        let what = format!("there is no pool {:?} (write [pools.{0}])", to.value);
        to.problem(what);
    }
    to.value
}

fn route(mut table: Table<'_, '_>, pools: &BTreeMap<String, Pool>) -> Route {
    let to = table.take::<String>("to").map(|to| known(to, pools));
    if to.is_none() {
        table.missing("to", "name a pool");
    }
    let mut sni = Vec::new();
    for found in table.list::<String>("sni").map_or(Vec::new(), |l| l.value) {
        match server_name::parse(&found.value) {
            Ok(name) => sni.push(name),
            Err(what) => found.problem(what),
        }
    }
    let mut alpn = Vec::new();
    for found in table.list::<String>("alpn").map_or(Vec::new(), |l| l.value) {
        if !(1..=255).contains(&found.value.len()) {
            found.problem("the name of a protocol has 1 to 255 bytes");
        }
        alpn.push(found.value);
    }
    Route {
        sni,
        alpn,
        to: to.unwrap_or_default(),
    }
}

fn clients(table: &mut Table<'_, '_>, name: &'static str) -> Vec<Clients> {
    let list = table.list::<Text<Clients>>(name);
    list.map_or(Vec::new(), |list| texts(list.value))
}

fn texts<T>(found: Vec<Found<'_, '_, Text<T>>>) -> Vec<T> {
    found.into_iter().map(|found| found.value.0).collect()
}

fn pool(mut table: Table<'_, '_>) -> Pool {
    let defaults = Pool::default();
    let mut servers = Vec::new();
    match table.tables("servers") {
        None => table.missing("servers", "write servers = [{ address = \"host:port\" }]"),
        Some(list) if list.is_empty => list.problem("the list is empty"),
        Some(list) => {
            let (at, key) = (list.at, list.key.clone());
            servers = self::servers(list.value);
            if !servers.is_empty() && servers.iter().all(|server| server.weight == 0) {
                let what = "every server has weight 0, so none would ever be chosen";
                table.problem_at(Some(at), &key, what);
            }
        }
    }
    Pool {
        balance: table
            .value("balance")
            .map_or(defaults.balance, |Text::<Balance>(balance)| balance),
        servers,
        retries: table.value("retries").unwrap_or(defaults.retries),
        when_full: WhenFull {
            queue: table.value("queue").unwrap_or(defaults.when_full.queue),
            timeout: time_or(&mut table, "queue_timeout", defaults.when_full.timeout),
        },
        when_down: table
            .value("when_down")
            .map_or(defaults.when_down, |Text(word)| word),
        connect_timeout: positive(&mut table, "connect_timeout", defaults.connect_timeout),
        idle_timeout: time_or(&mut table, "idle_timeout", defaults.idle_timeout),
        fin_timeout: time_or(&mut table, "fin_timeout", defaults.fin_timeout),
        session_timeout: time_or(&mut table, "session_timeout", defaults.session_timeout),
        send_proxy: table.value("send_proxy").map(|Text(version)| version),
        source: table
            .value("source")
            .map_or(defaults.source, |Text(source)| source),
        keepalive: keepalive(&mut table),
        user_timeout: table.value("user_timeout").map(|Time(time)| time),
        fast_open: table.value("fast_open").unwrap_or(false),
        check: table.table("check").map(check),
        passive: passive(&mut table),
        slow_start: time_or(&mut table, "slow_start", defaults.slow_start),
        resolve_every: positive(&mut table, "resolve_every", defaults.resolve_every),
    }
}

fn servers(tables: Vec<Table<'_, '_>>) -> Vec<Server> {
    let mut names = BTreeSet::new();
    let mut servers = Vec::new();
    for mut table in tables {
        let address = table.take::<Text<Upstream>>("address");
        if address.is_none() {
            table.missing(
                "address",
                "write host:port, [v6]:port, unix:/path or unix:@name",
            );
        }
        let name = table.take::<String>("name");
        let weight = table.take::<u32>("weight");
        if let Some(weight) = weight.as_ref().filter(|weight| weight.value > MAX_WEIGHT) {
            weight.problem(format!("it must be from 0 to {MAX_WEIGHT}"));
        }
        let (backup, max_connections) = (table.value("backup"), table.value("max_connections"));
        let init = table.value("init").map(|Text(init)| init);
        let Some(address) = address else { continue };
        let (name, name_at) = match name {
            Some(name) => (name.value, name.at),
            None => (address.value.0.to_string(), address.at),
        };
        if !names.insert(name.clone()) {
            let what = format!("there are two servers called {name:?} (name them apart)");
            table.problem_at(Some(name_at), &table.path("name"), what);
        }
        servers.push(Server {
            name,
            address: address.value.0,
            weight: weight.map_or(1, |weight| weight.value),
            backup: backup.unwrap_or(false),
            max_connections: max_connections.unwrap_or(0),
            init: init.unwrap_or_default(),
        });
    }
    servers
}

fn check(mut table: Table<'_, '_>) -> Check {
    let defaults = Check::default();
    let word = table.take::<Text<CheckWord>>("kind");
    let [send, expect, sni] = ["send", "expect", "sni"].map(|name| table.take::<String>(name));
    // To say what to send or to expect is to ask for an exchange.
    let exchange = send.is_some() || expect.is_some();
    let kind = match &word {
        None if exchange => CheckWord::Exchange,
        None if sni.is_some() => CheckWord::Tls,
        None => CheckWord::Connect,
        Some(word) => word.value.0,
    };
    if let Some(word) = word.filter(|_| exchange && kind != CheckWord::Exchange) {
        word.problem("send and expect belong to kind = \"exchange\"");
    }
    if let Some(sni) = &sni {
        if kind != CheckWord::Tls {
            sni.problem("it belongs to kind = \"tls\"");
        }
        if !is_host_name(&sni.value) {
            sni.problem(format!("{:?} is not a host name", sni.value));
        }
    }
    let kind = match kind {
        CheckWord::Connect => CheckKind::Connect,
        CheckWord::Tls => CheckKind::Tls {
            sni: sni.map(|sni| sni.value),
        },
        CheckWord::Exchange => {
            let is_empty = expect.as_ref().is_none_or(|expect| expect.value.is_empty());
            if is_empty && (expect.is_some() || !table.had("expect")) {
                let what = "an exchange needs something to expect (write expect = \"...\")";
                table.problem("expect", what);
            }
            let bytes = |text: Option<Found<'_, '_, String>>| {
                text.map_or(Vec::new(), |text| text.value.into_bytes())
            };
            CheckKind::Exchange {
                send: bytes(send),
                expect: bytes(expect),
            }
        }
    };
    Check {
        kind,
        interval: positive(&mut table, "interval", defaults.interval),
        timeout: positive(&mut table, "timeout", defaults.timeout),
        rise: at_least_one(&mut table, "rise", defaults.rise),
        fall: at_least_one(&mut table, "fall", defaults.fall),
    }
}

fn passive(table: &mut Table<'_, '_>) -> Option<Passive> {
    let defaults = Passive::default();
    match table.table_or_switch("passive") {
        Some(Switch::Off) => None,
        Some(Switch::On) | None => Some(defaults),
        Some(Switch::Values(mut values)) => Some(Passive {
            failures: values.value("failures").unwrap_or(defaults.failures),
            out_for: time_or(&mut values, "out_for", defaults.out_for),
        }),
    }
}

fn keepalive(table: &mut Table<'_, '_>) -> Option<Keepalive> {
    let defaults = Keepalive::default();
    match table.table_or_switch("keepalive") {
        Some(Switch::Off) => None,
        Some(Switch::On) | None => Some(defaults),
        Some(Switch::Values(mut values)) => Some(Keepalive {
            idle: time_or(&mut values, "idle", defaults.idle),
            interval: time_or(&mut values, "interval", defaults.interval),
            count: values.value("count").unwrap_or(defaults.count),
        }),
    }
}

fn time_or(table: &mut Table<'_, '_>, name: &'static str, default: Duration) -> Duration {
    table.value(name).map_or(default, |Time(time)| time)
}

fn positive(table: &mut Table<'_, '_>, name: &'static str, default: Duration) -> Duration {
    let Some(found) = table.take::<Time>(name) else {
        return default;
    };
    if found.value.0.is_zero() {
        found.problem("it must be longer than nothing");
    }
    found.value.0
}

fn at_least_one(table: &mut Table<'_, '_>, name: &'static str, default: u32) -> u32 {
    let Some(found) = table.take::<u32>(name) else {
        return default;
    };
    if found.value == 0 {
        found.problem("it must be at least 1");
    }
    found.value
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
