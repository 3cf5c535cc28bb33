//! A configuration in force: listeners and pools with everything they refer to.
//!
//! A reload makes a new [`Site`] that takes over what goes on: sockets that listen, gates with their
//! counts, servers with their health. Sessions keep what they began with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::error::ProxyError;
use super::gate::Door;
use super::listener::Listener;
use super::pool::{Carried, Pool};
use super::resolve::resolve_all;
use super::server::Server;
use super::sockets::{Opening, Socket};
use super::tcp_options;
use crate::config::{self, Config};
use crate::pure::departed::Departed;

/// A configuration in force.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) config: Config,
    pub(crate) door: Arc<Door>,
    pub(crate) pools: BTreeMap<String, Arc<Pool>>,
    pub(crate) listeners: BTreeMap<String, Arc<Listener>>,
    pub(crate) sockets: Vec<Socket>,
    /// `config.max_connections`, or what the limit on open files allows.
    pub(crate) max_connections: usize,
    departed: Arc<AllDeparted>,
}

/// What earlier configurations had and this one has not.
#[derive(Debug, Default)]
struct AllDeparted {
    servers: Departed<Server>,
    listeners: Departed<Listener>,
    pools: Departed<Pool>,
}

/// Whether what is asked for can be had at all.
pub(crate) fn sound(config: &Config) -> Result<(), ProxyError> {
    let clashes = config.clashes();
    match clashes.is_empty() {
        true => Ok(()),
        false => Err(ProxyError::Config(clashes)),
    }
}

/// What of a configuration needs a capability that is not there.
pub(crate) fn may_be_transparent(config: &Config) -> Vec<ProxyError> {
    let needs = |pool: &config::Pool| pool.source == config::Source::Client;
    let mut pools = config.pools.iter().filter(|(_, pool)| needs(pool));
    let failed = pools.find_map(|(name, _)| Some((name, tcp_options::may_be_transparent().err()?)));
    let error = failed.map(|(name, errno)| ProxyError::Transparent {
        pool: name.clone(),
        why: errno.into(),
    });
    error.into_iter().collect()
}

impl Site {
    /// The same without listening sockets: when the last that has them is gone, they are closed.
    pub(crate) fn without_sockets(&self) -> Self {
        let mut site = self.clone();
        site.sockets.clear();
        site
    }

    /// Puts a configuration in force. What `previous` has that is still wanted goes on; `inherited`
    /// are sockets that listen already (socket activation).
    ///
    /// # Errors
    /// Everything that a name stands for nothing for or that cannot be listened on; then nothing has
    /// changed.
    pub(crate) fn new(
        config: Config,
        previous: Option<&Self>,
        inherited: &mut Vec<zhaul_service::Listener>,
        workers: usize,
        max_connections: usize,
    ) -> Result<Self, ProxyError> {
        let mut problems = may_be_transparent(&config);
        let pools = new_pools(&config, previous);
        if let Err((server, host, why)) = resolve_all(pools.values()) {
            problems.push(ProxyError::Resolve { server, host, why });
        }
        let listeners: BTreeMap<_, _> = config
            .listeners
            .iter()
            .map(|(name, listener)| {
                let known = previous.and_then(|site| site.listener(name));
                let listener = Listener::new(name, listener, &pools, known.map(Arc::as_ref));
                (name.clone(), Arc::new(listener))
            })
            .collect();
        let kept = previous.map_or(&[][..], |site| &site.sockets);
        let mut opening = Opening::new(&config, kept, inherited, workers);
        for listener in listeners.values() {
            let failed = opening.listen(listener);
            problems.extend(failed.into_iter().map(ProxyError::Listen));
        }
        let sockets = opening.sockets;
        if !problems.is_empty() {
            return Err(ProxyError::all(problems));
        }
        // Only now: a configuration that cannot be put in force changes nothing.
        for pool in pools.values().filter(|pool| pool.config.check.is_none()) {
            for server in &pool.servers {
                if server.health().unchecked() {
                    tracing::warn!(
                        "server {}/{} is up: no checks any more",
                        pool.name,
                        server.name
                    );
                }
            }
        }
        for listener in listeners.values() {
            let has_limit = listener.config.max_connections_per_source > 0;
            listener.gate.count_sources(has_limit);
        }
        for socket in &sockets {
            socket.set_up(kept);
        }
        let departed = previous.map_or_else(AllDeparted::default, |previous| {
            previous.departed_after(&pools, &listeners)
        });
        Ok(Self {
            departed: Arc::new(departed),
            door: previous.map_or_else(Arc::default, |site| Arc::clone(&site.door)),
            config,
            pools,
            listeners,
            sockets,
            max_connections,
        })
    }
}

impl Site {
    /// What is departed once these are in force in place of this configuration's.
    fn departed_after(
        &self,
        pools: &BTreeMap<String, Arc<Pool>>,
        listeners: &BTreeMap<String, Arc<Listener>>,
    ) -> AllDeparted {
        let now = Instant::now();
        let present: Vec<_> = pools.values().flat_map(|pool| &pool.servers).collect();
        let servers = self.departed.servers.after(
            self.pools.values().flat_map(|pool| &pool.servers),
            |server| present.iter().any(|one| Arc::ptr_eq(one, server)),
            |server| server.connections() > 0,
            now,
        );
        let left = |server: &&Arc<Server>| !present.iter().any(|one| Arc::ptr_eq(one, server));
        let before = self.pools.values().flat_map(|pool| &pool.servers);
        before.filter(left).for_each(|server| server.depart());
        AllDeparted {
            servers,
            listeners: self.departed.listeners.after(
                self.listeners.values(),
                |listener| listeners.contains_key(&listener.name),
                |listener| listener.gate.open() > 0,
                now,
            ),
            pools: self.departed.pools.after(
                self.pools.values(),
                |pool| pools.contains_key(&pool.name),
                |pool| pool.queue.is_occupied(),
                now,
            ),
        }
    }

    /// The server of this pool, name and address, if it is known.
    fn server(&self, pool: &str, config: &config::Server) -> Option<&Arc<Server>> {
        let is_it = |server: &Server| {
            server.pool == pool && server.name == config.name && server.address == config.address
        };
        let servers = self.pools.get(pool).map_or(&[][..], |pool| &pool.servers);
        let present = servers.iter().find(|server| is_it(server));
        present.or_else(|| self.departed.servers.find(is_it))
    }

    fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        let departed = || self.departed.listeners.find(|gone| gone.name == name);
        self.listeners.get(name).or_else(departed)
    }

    fn pool(&self, name: &str) -> Option<&Arc<Pool>> {
        let departed = || self.departed.pools.find(|gone| gone.name == name);
        self.pools.get(name).or_else(departed)
    }
}

/// The pools of a configuration; servers that were there before, or not long ago, go on.
pub(crate) fn new_pools(config: &Config, previous: Option<&Site>) -> BTreeMap<String, Arc<Pool>> {
    let pools = config.pools.iter();
    pools
        .map(|(name, pool)| (name.clone(), Arc::new(new_pool(name, pool, previous))))
        .collect()
}

fn new_pool(name: &str, config: &config::Pool, previous: Option<&Site>) -> Pool {
    let servers = config.servers.iter().map(|server| {
        let known = previous.and_then(|site| site.server(name, server));
        known.map_or_else(|| Arc::new(Server::new(name, server)), Arc::clone)
    });
    // Who waits goes on waiting, for the servers of the new configuration.
    let known = previous.and_then(|site| site.pool(name));
    let carried = known.map_or_else(Carried::default, |pool| pool.carried());
    Pool::new(name, config.clone(), servers.collect(), carried)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::client_hello::ClientHello;

    fn hello(name: &str, alpn: &[&str]) -> ClientHello {
        ClientHello {
            server_name: (!name.is_empty()).then(|| name.to_owned()),
            alpn: alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
        }
    }

    fn site(text: &str, previous: Option<&Site>) -> Result<Site, ProxyError> {
        let config = config::file::parse("test", text).unwrap();
        Site::new(config, previous, &mut Vec::new(), 2, 10)
    }

    const TEXT: &str = r#"
[listeners.tls]
listen = "127.0.0.1:0"
to = "other"
routes = [
  { sni = "a.example", to = "a" },
  { sni = "*.b.example", alpn = ["h2", "x"], to = "b" },
  { alpn = "acme", to = "a" },
]
[pools.a]
servers = [{ address = "192.0.2.1:1" }]
[pools.b]
servers = [{ address = "192.0.2.2:1" }]
[pools.other]
servers = [{ address = "192.0.2.3:1" }]
"#;

    #[test]
    fn the_first_route_that_matches_decides() {
        let site = site(TEXT, None).unwrap();
        let listener = &site.listeners["tls"];
        for (name, alpn, expected) in [
            ("a.example", &[][..], "a"),
            ("x.a.example", &[], "other"),
            ("x.b.example", &["x"], "b"),
            ("x.y.b.example", &["h2"], "b"),
            ("x.b.example", &["http/1.1"], "other"),
            ("b.example", &["h2"], "other"),
            ("", &["acme"], "a"),
            ("", &[], "other"),
        ] {
            let pool = listener.pool_for(&hello(name, alpn)).unwrap();
            assert_eq!(pool.name, expected, "{name} {alpn:?}");
        }
    }

    #[test]
    fn a_reload_keeps_sockets_gates_and_servers() {
        let old = site(TEXT, None).unwrap();
        assert!(old.pools["a"].servers[0].enter(0));
        let text = TEXT.replace("192.0.2.2:1", "192.0.2.9:1");
        let new = site(&text, Some(&old)).unwrap();
        let same = |a: &Site, b: &Site, pool: &str| {
            Arc::ptr_eq(&a.pools[pool].servers[0], &b.pools[pool].servers[0])
        };
        assert!(same(&old, &new, "a"));
        assert!(!same(&old, &new, "b"));
        assert_eq!(new.pools["a"].servers[0].connections(), 1);
        assert!(Arc::ptr_eq(
            &old.sockets[0].listening,
            &new.sockets[0].listening
        ));
        assert!(Arc::ptr_eq(
            &old.listeners["tls"].gate,
            &new.listeners["tls"].gate
        ));
    }

    #[test]
    fn what_comes_back_has_the_connections_it_still_has() {
        let first = site(TEXT, None).unwrap();
        let gate = &first.listeners["tls"].gate;
        let admission = gate.enter(&first.door, 0, &first.listeners["tls"].config);
        assert!(first.pools["a"].servers[0].enter(0));
        first.pools["a"].servers[0].set_weight(Some(7));
        let without = TEXT
            .replace("[listeners.tls]", "[listeners.other]")
            .replace("192.0.2.1:1", "192.0.2.9:1");
        let second = site(&without, Some(&first)).unwrap();
        assert_eq!(second.pools["a"].servers[0].connections(), 0);
        assert_eq!(second.listeners["other"].gate.open(), 0);
        // Not only the last configuration is remembered.
        let third = site(&without, Some(&second)).unwrap();
        let back = site(TEXT, Some(&third)).unwrap();
        let server = &back.pools["a"].servers[0];
        assert!(Arc::ptr_eq(server, &first.pools["a"].servers[0]));
        assert_eq!(server.connections(), 1);
        assert_eq!(server.weight(&back.config.pools["a"].servers[0]), 1);
        assert_eq!(back.listeners["tls"].gate.open(), 1);
        drop(admission);
        assert_eq!(back.listeners["tls"].gate.open(), 0);
    }

    #[test]
    fn each_worker_gets_its_socket_if_asked_for() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap().to_string();
        drop(port);
        let text = TEXT
            .replace("127.0.0.1:0", &address)
            .replace("to = \"other\"", "to = \"other\"\nreuse_port = true");
        let site = site(&text, None).unwrap();
        let workers: Vec<_> = site.sockets.iter().map(|s| s.asked.worker).collect();
        assert_eq!(workers, [Some(0), Some(1)]);
    }

    #[test]
    fn each_port_that_the_kernel_chose_goes_on_once() {
        let text = TEXT.replace(
            "listen = \"127.0.0.1:0\"",
            "listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]",
        );
        let more = format!("[listeners.a]\nlisten = \"127.0.0.1:0\"\nto = \"a\"\n{text}");
        let old = site(&text, None).unwrap();
        let new = site(&more, Some(&old)).unwrap();
        let newer = site(&more, Some(&new)).unwrap();
        let ports = |site: &Site| {
            let of = |socket: &Socket| {
                let name = socket.listener.name.clone();
                (name, socket.listening.address.to_string())
            };
            site.sockets.iter().map(of).collect::<Vec<_>>()
        };
        let of_tls = |site: &Site| {
            let mut ports = ports(site);
            ports.retain(|(name, _)| name == "tls");
            ports.sort();
            ports
        };
        assert_eq!(of_tls(&old), of_tls(&new));
        assert_eq!(ports(&new), ports(&newer));
        let all: std::collections::BTreeSet<_> =
            ports(&newer).into_iter().map(|(_, port)| port).collect();
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn everything_that_cannot_be_listened_on_is_told() {
        let taken = ["127.0.0.1:0"; 2].map(|a| std::net::TcpListener::bind(a).unwrap());
        let [a, b] = taken.each_ref().map(|l| l.local_addr().unwrap());
        let text = TEXT.replace(
            "listen = \"127.0.0.1:0\"",
            &format!("listen = [\"{a}\", \"unix:/nowhere/s\", \"{b}\"]"),
        );
        let old = site(TEXT, None).unwrap();
        for previous in [None, Some(&old)] {
            let said = site(&text, previous).unwrap_err().to_string();
            assert_eq!(said.lines().count(), 3, "{said}");
            for part in [a.to_string(), b.to_string(), "/nowhere".to_owned()] {
                assert!(said.contains(&part), "{said}");
            }
        }
    }

    #[test]
    fn what_needs_a_restart_says_so() {
        let old = site(TEXT, None).unwrap();
        let port = old.sockets[0].listening.address.to_string();
        let text = TEXT.replace("127.0.0.1:0", &port);
        // The port is one that the kernel chose, so it was not asked for.
        let said = site(&text, Some(&old)).unwrap_err().to_string();
        assert!(said.contains("restart"), "{said}");
    }
}
