//! The contenders, and how each is started as one pinned child process on a loopback port.

mod nginx;
mod program;
mod proxy;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::Pid;
use serde::Serialize;
use tempfile::TempDir;

use crate::affinity::Cores;
use crate::child::Child;
use crate::cpu_clock::CpuClock;
use crate::interrupt;
pub(crate) use program::find as find_program;

/// Who is compared, in the order of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    Canned,
    Sendfile,
    NginxCached,
    Nginx,
    NginxAio,
    FloorSplice,
    FloorCopy,
    Haproxy,
    HaproxyCopy,
    NginxStream,
    Zhaul,
}

impl Contender {
    pub(crate) const ALL: [Self; 11] = [
        Self::Canned,
        Self::Sendfile,
        Self::NginxCached,
        Self::Nginx,
        Self::NginxAio,
        Self::FloorSplice,
        Self::FloorCopy,
        Self::Haproxy,
        Self::HaproxyCopy,
        Self::NginxStream,
        Self::Zhaul,
    ];

    /// As `--servers` and the JSON report spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Canned => "canned",
            Self::Sendfile => "sendfile",
            Self::NginxCached => "nginx-cached",
            Self::Nginx => "nginx",
            Self::NginxAio => "nginx-aio",
            Self::FloorSplice => "floor-splice",
            Self::FloorCopy => "floor-copy",
            Self::Haproxy => "haproxy",
            Self::HaproxyCopy => "haproxy-copy",
            Self::NginxStream => "nginx-stream",
            Self::Zhaul => "zhaul",
        }
    }

    /// As the tables call it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Canned => "floor: send",
            Self::Sendfile => "floor: sendfile",
            Self::NginxCached => "nginx, cache",
            Self::Nginx => "nginx",
            Self::NginxAio => "nginx, aio",
            Self::FloorSplice => "floor: splice",
            Self::FloorCopy => "floor: copy",
            Self::Haproxy => "HAProxy",
            Self::HaproxyCopy => "HAProxy, copy",
            Self::NginxStream => "nginx stream",
            Self::Zhaul => "zhaul",
        }
    }

    fn is_nginx(self) -> bool {
        matches!(self, Self::NginxCached | Self::Nginx | Self::NginxAio)
    }
}

/// What a server shall serve. A floor serves `file` whatever is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) root: &'a Path,
    pub(crate) file: &'a str,
}

/// Starts servers.
#[derive(Debug)]
pub(crate) struct Launcher {
    pub(crate) cores: Cores,
    pub(crate) nginx: Option<PathBuf>,
    pub(crate) haproxy: Option<PathBuf>,
    pub(crate) zhaul: Option<PathBuf>,
    pub(crate) zhaul_args: Vec<String>,
    pub(crate) nofile: u64,
}

impl Launcher {
    pub(crate) fn can_start(&self, contender: Contender) -> bool {
        match contender {
            Contender::Canned
            | Contender::Sendfile
            | Contender::FloorSplice
            | Contender::FloorCopy => true,
            Contender::Haproxy | Contender::HaproxyCopy => self.haproxy.is_some(),
            Contender::Zhaul => self.zhaul.is_some(),
            _ => self.nginx.is_some(),
        }
    }

    /// Starts a server and waits until it accepts connections.
    pub(crate) fn start(&self, contender: Contender, site: Site<'_>) -> anyhow::Result<Server> {
        self.start_with(contender, |address, home| {
            self.command(contender, site, address, home)
        })
    }

    /// Starts a proxy in front of `to` and waits until it accepts connections.
    pub(crate) fn start_proxy(
        &self,
        contender: Contender,
        to: SocketAddrV4,
    ) -> anyhow::Result<Server> {
        self.start_with(contender, |address, home| {
            self.proxy_command(contender, to, address, home)
        })
    }

    fn start_with(
        &self,
        contender: Contender,
        command: impl Fn(SocketAddrV4, &Path) -> anyhow::Result<Command>,
    ) -> anyhow::Result<Server> {
        // The port was free a moment ago; somebody else may take it, so a failure is tried again.
        let mut last = None;
        for _ in 0..START_ATTEMPTS {
            interrupt::check()?;
            match self.try_start(contender, &command) {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        let error = last.unwrap_or_else(|| anyhow::anyhow!("not tried"));
        Err(error.context(format!("{} does not start", contender.name())))
    }

    fn try_start(
        &self,
        contender: Contender,
        command: impl Fn(SocketAddrV4, &Path) -> anyhow::Result<Command>,
    ) -> anyhow::Result<Server> {
        let home = tempfile::Builder::new()
            .prefix("zhaul-bench-server-")
            .tempdir()?;
        let address = free_address()?;
        let log = home.path().join("stderr");
        let mut command = command(address, home.path())?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let mut child = Child::spawn(command, self.cores.server)?;
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect_timeout(&address.into(), START_LIMIT).is_err() {
            interrupt::check()?;
            let said = || fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = child.ended()? {
                bail!("ended with {status}: {}", said().trim());
            }
            if Instant::now() >= deadline {
                bail!(
                    "accepts no connection on {address} within {START_LIMIT:?}: {}",
                    said().trim()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let cpu = CpuClock::of(child.pid())?;
        Ok(Server {
            contender,
            address,
            cpu,
            child,
            _home: home,
        })
    }

    fn command(
        &self,
        contender: Contender,
        site: Site<'_>,
        address: SocketAddrV4,
        home: &Path,
    ) -> anyhow::Result<Command> {
        let missing = || format!("{} is not installed", contender.name());
        if contender.is_nginx() {
            let program = self.nginx.as_ref().with_context(missing)?;
            let config = nginx::Config {
                contender,
                root: site.root,
                address,
                nofile: self.nofile,
            };
            return Ok(config.command(program, home)?);
        }
        if contender == Contender::Zhaul {
            let mut command = Command::new(self.zhaul.as_ref().with_context(missing)?);
            command
                .arg("serve")
                .arg(site.root)
                .args(["--listen", &address.to_string()]);
            command
                .args(["--workers", "1", "--stability", "immutable"])
                .args(&self.zhaul_args);
            return Ok(command);
        }
        // Not current_exe(): a rebuild during the run replaces the file of that name.
        let mut command = Command::new("/proc/self/exe");
        command.args(["floor", contender.name(), "--listen", &address.to_string()]);
        command.arg(site.root.join(site.file));
        Ok(command)
    }
}

/// A server that is running; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) contender: Contender,
    pub(crate) address: SocketAddrV4,
    cpu: CpuClock,
    child: Child,
    /// Configuration and logs; removed after the child, as fields are dropped in order.
    _home: TempDir,
}

impl Server {
    pub(crate) fn pid(&self) -> Pid {
        self.child.pid()
    }

    /// CPU time spent since the start.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let name = self.contender.name();
        self.cpu.read().with_context(|| format!("{name} is gone"))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

fn free_address() -> anyhow::Result<SocketAddrV4> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    match listener.local_addr()? {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => bail!("asked for IPv4, got {address}"),
    }
}

const START_ATTEMPTS: u32 = 3;
const START_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_what_json_says() {
        for contender in Contender::ALL {
            let json = serde_json::to_string(&contender).unwrap();
            assert_eq!(json, format!("\"{}\"", contender.name()));
        }
    }

    #[test]
    fn server_that_cannot_start_is_an_error_with_its_words() {
        let launcher = Launcher {
            cores: Cores {
                server: None,
                client: None,
            },
            nginx: None,
            haproxy: None,
            zhaul: Some("/bin/ls".into()),
            zhaul_args: Vec::new(),
            nofile: 1024,
        };
        let site = Site {
            root: Path::new("/nonexistent"),
            file: "x",
        };
        let error = format!("{:#}", launcher.start(Contender::Zhaul, site).unwrap_err());
        assert!(error.contains("zhaul does not start"), "{error}");
        assert!(error.contains("ls:"), "{error}");
        assert!(launcher.start(Contender::Nginx, site).is_err());
    }
}
