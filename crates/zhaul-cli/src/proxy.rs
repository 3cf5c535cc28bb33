//! `zhaul proxy`: from the command line, or a file, to a running [`zhaul_proxy::Proxy`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{ArgGroup, Args, ValueHint};
use sd_notify::NotifyState;
use zhaul_proxy::config::{
    self, Balance, Check, Config, DEFAULT_NAME, Log, LogFormat, ProxyVersion, Upstream, file,
};
use zhaul_proxy::{Handle, Proxy, ProxyError};
use zhaul_service::{ListenAddr, Listener};

use crate::{Failure, say, signals};

const EXAMPLES: &str = "\
Examples:
  zhaul proxy --listen :5432 --to 10.0.0.5:5432,10.0.0.6:5432
  zhaul proxy --listen 127.0.0.1:6379 --to unix:/run/redis.sock --session-log -
  zhaul proxy --config /etc/zhaul/proxy.toml --check
  zhaul proxy --config /etc/zhaul/proxy.toml

Signals:
  SIGTERM, SIGINT   stop accepting, let sessions end (a second one stops at once)
  SIGHUP            read the configuration again; connections go on
  SIGUSR1           open the log again, after a rotation

With systemd, sockets may be passed in (socket activation) and readiness is reported (Type=notify).";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("what").required(true).args(["config", "listen"]))]
pub(crate) struct Arguments {
    /// The configuration, in TOML (docs/proxy.md describes every key)
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,

    /// Check the configuration, say what is wrong, and exit
    #[arg(long, requires = "config")]
    check: bool,

    #[command(flatten)]
    simple: Simple,
}

/// What can be said without a file.
#[derive(Args, Debug)]
#[command(next_help_heading = "Without a configuration file")]
struct Simple {
    #[arg(
        help = "Where to listen: host:port, [v6]:port, :port (every interface), unix:/path or \
                unix:@name, as in unix:/run/p.sock,mode=660,owner=USER:GROUP; repeatable",
        short,
        long,
        value_name = "ADDR",
        requires = "to",
        conflicts_with = "config"
    )]
    listen: Vec<ListenAddr>,

    #[arg(
        help = "Servers: host:port, [v6]:port, unix:/path or unix:@name; several with commas",
        short,
        long,
        value_name = "ADDR",
        value_delimiter = ',',
        conflicts_with = "config"
    )]
    to: Vec<Upstream>,

    /// How a server is chosen: round-robin, least-connections, random-of-two or source-hash
    #[arg(
        long,
        value_name = "WAY",
        default_value = "round-robin",
        conflicts_with = "config"
    )]
    balance: Balance,

    /// Introduce clients to servers by a PROXY header: v1 or v2
    #[arg(long, value_name = "VERSION", conflicts_with = "config")]
    send_proxy: Option<ProxyVersion>,

    /// Check servers by connecting, so often
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "config")]
    check_every: Option<Duration>,

    /// End sessions over which nothing moved for so long
    #[arg(
        long,
        value_name = "TIME",
        value_parser = time,
        default_value = "1h",
        conflicts_with = "config"
    )]
    idle_timeout: Duration,

    /// Time that sessions have to end once asked to stop
    #[arg(
        long,
        value_name = "TIME",
        value_parser = time,
        default_value = "30s",
        conflicts_with = "config"
    )]
    drain: Duration,

    /// Worker threads; 0 means one for each core
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "config")]
    workers: usize,

    /// Log sessions to this file, or to standard output with -
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "config")]
    session_log: Option<PathBuf>,

    /// How sessions are logged: text or json
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        conflicts_with = "config"
    )]
    log_format: LogFormat,

    /// Take the administrator's commands at unix:/path, with mode=600 if none is said
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    admin: Option<ListenAddr>,

    /// Answer metrics over HTTP here
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    metrics: Option<ListenAddr>,
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e} (write 500ms, 5s, 1h)"))
}

impl Simple {
    fn into_config(self) -> anyhow::Result<Config> {
        let admin = match self.admin {
            None => None,
            Some(address) => {
                let wrong = |what| anyhow!("--admin {address}: {what}");
                Some(config::admin(address.clone()).map_err(wrong)?)
            }
        };
        let mut names = std::collections::BTreeSet::new();
        for server in &self.to {
            if !names.insert(server) {
                return Err(anyhow!("--to names {server} twice (name it once)"));
            }
        }
        let mut config = Config::simple(self.listen, self.to);
        config.workers = self.workers;
        config.drain = self.drain;
        config.admin = admin;
        config.metrics = self.metrics;
        config.log = self.session_log.map(|path| Log {
            path: (path.as_os_str() != "-").then_some(path),
            format: self.log_format,
        });
        if let Some(pool) = config.pools.get_mut(DEFAULT_NAME) {
            pool.balance = self.balance;
            pool.send_proxy = self.send_proxy;
            pool.idle_timeout = self.idle_timeout;
            pool.check = self.check_every.map(|interval| Check {
                interval,
                ..Check::default()
            });
        }
        Ok(config)
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        config: path,
        check,
        simple,
    } = arguments;
    let config = match &path {
        Some(path) => read(path),
        None => simple.into_config(),
    };
    let config = config.map_err(usage)?;
    if check {
        for note in Proxy::check(&config).map_err(|e| usage(e.into()))? {
            say(format_args!("would not start here and now: {note}"));
        }
        say_configuration_is_sound(path.as_deref(), &config);
        return Ok(());
    }
    let proxy = Proxy::bind(config, inherited()?).map_err(|e| usage(e.into()))?;
    let reloading = Reloading {
        handle: proxy.handle(),
        path,
    };
    // Before it is said that the proxy is there: who reacts to that may send a signal.
    signals::watch(reloading)?;
    for (name, address) in proxy.addresses() {
        say(format_args!("listener {name} on {address}"));
    }
    for address in proxy.metrics_addresses() {
        say(format_args!("metrics on http://{address}/metrics"));
    }
    tell_the_manager(&[NotifyState::Ready]);
    Ok(proxy.run()?)
}

/// What is wrong before the proxy serves is the fault of what it was told.
fn usage(why: anyhow::Error) -> Failure {
    Failure { why, exit: 2 }
}

fn read(path: &Path) -> anyhow::Result<Config> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {name}"))?;
    Ok(file::parse(&name, &text)?)
}

fn say_configuration_is_sound(path: Option<&Path>, config: &Config) {
    let servers: usize = config.pools.values().map(|pool| pool.servers.len()).sum();
    say(format_args!(
        "{} is sound: {} listeners, {} pools, {servers} servers",
        path.unwrap_or(Path::new("the configuration")).display(),
        config.listeners.len(),
        config.pools.len(),
    ));
}

/// Sockets that the service manager opened for us.
fn inherited() -> anyhow::Result<Vec<Listener>> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        let tcp = passed.take_tcp_listener(index).ok().flatten();
        let fd = match tcp {
            Some(tcp) => tcp.into(),
            None => match passed.take_unix_listener(index) {
                Ok(Some(unix)) => unix.into(),
                _ => {
                    return Err(anyhow!(
                        "the inherited descriptor {index} does not listen on TCP or UNIX streams \
                         (see the socket unit)"
                    ));
                }
            },
        };
        listeners.push(Listener::adopt(fd)?);
    }
    Ok(listeners)
}

/// Says to systemd how we are; without it nobody listens.
fn tell_the_manager(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::warn!("cannot tell the service manager: {e}");
    }
}

/// A proxy, and the file it was told by.
struct Reloading {
    handle: Handle,
    path: Option<PathBuf>,
}

impl Reloading {
    fn read_again(&self, path: &Path) -> anyhow::Result<()> {
        let config = read(path)?;
        self.handle.reload(config).map_err(|e: ProxyError| e.into())
    }
}

impl signals::Service for Reloading {
    fn stop(&self) {
        tell_the_manager(&[NotifyState::Stopping]);
        self.handle.stop();
    }

    fn stop_now(&self) {
        self.handle.stop_now();
    }

    fn reopen_log(&self) {
        self.handle.reopen_log();
    }

    fn reload(&self) {
        let Some(path) = &self.path else {
            say(format_args!(
                "there is no configuration file to read again (start with --config)"
            ));
            return;
        };
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell_the_manager(&[NotifyState::Reloading, now]),
            Err(e) => tracing::warn!("cannot read the clock: {e}"),
        }
        match self.read_again(path) {
            Ok(()) => say(format_args!("{} is in force", path.display())),
            Err(e) => say(format_args!("{e:#} (the configuration in force stays)")),
        }
        tell_the_manager(&[NotifyState::Ready]);
    }
}
