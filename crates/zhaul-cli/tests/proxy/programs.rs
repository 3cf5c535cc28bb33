//! Real programs through the proxy: their own clients, their own servers, what they say arrived.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::{
    Proxy, Servers, configured, eventually, has_program, is_root, pattern, simple,
};

/// A program that ends with its test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(quiet.spawn().unwrap())
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether all of these are installed; says so if not.
fn has_all(test: &str, programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| !has_program(program));
    if let Some(program) = missing {
        zhaul_untested::skip(test, format_args!("{program} is not installed"));
    }
    missing.is_none()
}

fn wait_until_it_listens(address: SocketAddr) {
    eventually("a server that listens", || {
        TcpStream::connect(address).is_ok()
    });
}

/// What a program printed; it must have succeeded.
fn said(command: &mut Command) -> Vec<u8> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}: {stderr}");
    stdout
}

#[test]
fn redis_and_its_benchmark_come_through() {
    let programs = ["redis-server", "redis-cli", "redis-benchmark"];
    if !has_all("redis_and_its_benchmark_come_through", &programs) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let address = Servers::nobody();
    let port = address.port().to_string();
    let _server = Running::start(
        Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(dir.path()),
    );
    wait_until_it_listens(address);
    let proxy = simple(&[address], &[]);
    let port = proxy.address().port().to_string();
    let mut sent = pattern(3_000_000, 1);
    let value = dir.path().join("value");
    fs::write(&value, &sent).unwrap();
    let set = Command::new("redis-cli")
        .args(["-p", &port, "-x", "set", "key"])
        .stdin(fs::File::open(&value).unwrap())
        .output()
        .unwrap();
    assert_eq!(set.stdout, b"OK\n");
    sent.push(b'\n');
    let back = said(Command::new("redis-cli").args(["-p", &port, "--raw", "get", "key"]));
    assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    let benchmark = said(Command::new("redis-benchmark").args([
        "-p",
        &port,
        "-n",
        "3000",
        "-c",
        "20",
        "-P",
        "4",
        "-d",
        "512",
        "-t",
        "set,get,lrange_100",
        "--csv",
    ]));
    let benchmark = String::from_utf8_lossy(&benchmark);
    for test in ["\"SET\"", "\"GET\"", "\"LRANGE_100 "] {
        assert!(benchmark.contains(test), "{benchmark}");
    }
    for line in proxy.log(42) {
        assert_eq!(line["lost_up"], 0, "{line}");
        assert_eq!(line["server"], address.to_string(), "{line}");
    }
}

/// A certificate for `name` that only itself vouches for, and its key.
fn certificate(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (cert, key) = (
        dir.join(format!("{name}.pem")),
        dir.join(format!("{name}.key")),
    );
    said(
        Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", &format!("/CN={name}")])
            .args(["-addext", &format!("subjectAltName=DNS:{name}")])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert),
    );
    (cert, key)
}

/// An HTTPS server of the files in a directory of its own.
struct Https {
    server: Running,
    address: SocketAddr,
    cert: PathBuf,
}

impl Https {
    fn start(dir: &Path, name: &str, file: &[u8]) -> Self {
        let (cert, key) = certificate(dir, name);
        let files = dir.join(name);
        fs::create_dir(&files).unwrap();
        fs::write(files.join("file"), file).unwrap();
        let address = Servers::nobody();
        let server = Running::start(
            Command::new("openssl")
                .args(["s_server", "-WWW", "-quiet", "-accept"])
                .arg(address.to_string())
                .arg("-cert")
                .arg(&cert)
                .arg("-key")
                .arg(&key)
                .current_dir(files),
        );
        wait_until_it_listens(address);
        Self {
            server,
            address,
            cert,
        }
    }

    /// Asks for the file through the proxy; the certificate must be this server's.
    fn curl(&self, proxy: &Proxy, name: &str) -> Command {
        let port = proxy.address().port();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--resolve"])
            .arg(format!("{name}:{port}:127.0.0.1"))
            .args(["--max-time", "15", "--cacert"])
            .arg(&self.cert)
            .arg(format!("https://{name}:{port}/file"));
        curl
    }
}

fn by_name(a: &Https, b: &Https) -> Proxy {
    configured(&format!(
        "[listeners.tls]\nlisten = \"127.0.0.1:0\"\n\
         [[listeners.tls.routes]]\nsni = [\"a.example\"]\nto = \"a\"\n\
         [[listeners.tls.routes]]\nsni = [\"*.b.example\"]\nto = \"b\"\n\
         [pools.a]\nservers = [{{ address = \"{}\" }}]\n\
         [pools.b]\nservers = [{{ address = \"{}\" }}]\n",
        a.address, b.address
    ))
}

#[test]
fn curl_reaches_https_servers_by_name() {
    if !has_all("curl_reaches_https_servers_by_name", &["curl", "openssl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (of_a, of_b) = (pattern(4_000_000, 1), pattern(1_000, 2));
    let a = Https::start(dir.path(), "a.example", &of_a);
    let b = Https::start(dir.path(), "www.b.example", &of_b);
    let proxy = by_name(&a, &b);
    assert!(said(&mut a.curl(&proxy, "a.example")) == of_a);
    assert!(said(&mut b.curl(&proxy, "www.b.example")) == of_b);
    // Nobody has this name.
    let refused = b.curl(&proxy, "b.example").output().unwrap();
    assert!(!refused.status.success());
    let mut causes: Vec<_> = proxy
        .log(3)
        .iter()
        .map(|line| (line["sni"].clone(), line["pool"].clone()))
        .collect();
    causes.sort_by_key(|(name, _)| name.to_string());
    let expected = [
        ("a.example", Some("a")),
        ("b.example", None),
        ("www.b.example", Some("b")),
    ];
    for ((name, pool), expected) in causes.iter().zip(expected) {
        assert_eq!((name.as_str().unwrap(), pool.as_str()), expected);
    }
}

#[test]
fn a_server_that_is_killed_under_a_download_ends_it_and_others_go_on() {
    let test = "a_server_that_is_killed_under_a_download_ends_it_and_others_go_on";
    if !has_all(test, &["curl", "openssl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = pattern(40_000_000, 3);
    let mut a = Https::start(dir.path(), "a.example", &file);
    let b = Https::start(dir.path(), "www.b.example", b"the other");
    let proxy = by_name(&a, &b);
    let got = dir.path().join("got");
    let mut download = a.curl(&proxy, "a.example");
    download.args(["--limit-rate", "20M", "--output"]).arg(&got);
    let mut download = download.stderr(Stdio::null()).spawn().unwrap();
    eventually("a part of the file", || {
        fs::metadata(&got).is_ok_and(|file| file.len() > 500_000)
    });
    a.server.kill();
    // Without a length and an end in order, curl may or may not find something wrong.
    download.wait().unwrap();
    let got = fs::read(&got).unwrap();
    assert!(got.len() < file.len() && file.starts_with(&got));
    assert_eq!(said(&mut b.curl(&proxy, "www.b.example")), b"the other");
    let refused = a.curl(&proxy, "a.example").output().unwrap();
    assert!(!refused.status.success());
    let causes: Vec<_> = proxy.log(3).iter().map(|l| l["cause"].clone()).collect();
    assert!(causes.contains(&"no-server".into()), "{causes:?}");
}

#[test]
fn iperf3_runs_parallel_streams_both_ways() {
    if !has_all("iperf3_runs_parallel_streams_both_ways", &["iperf3"]) {
        return;
    }
    // One connection for control, and the streams.
    for (direction, connections) in [(&[][..], 5), (&["--reverse"], 5), (&["--bidir"], 9)] {
        // A server for each, because it is busy for a while after a test.
        let (_server, address) = iperf3_server();
        let proxy = simple(&[address], &[]);
        let port = proxy.address().port().to_string();
        let report = said(
            Command::new("iperf3")
                .args(["--client", "127.0.0.1", "--port", &port, "--json"])
                .args(["--parallel", "4", "--time", "1"])
                .args(direction),
        );
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        assert!(report.get("error").is_none(), "{}", report["error"]);
        let received = &report["end"]["sum_received"]["bytes"];
        assert!(received.as_u64().unwrap() > 1 << 20, "{received}");
        let lines = proxy.log(connections);
        let spliced = |line: &serde_json::Value| {
            let of = |key: &str| line[key].as_u64().unwrap();
            of("spliced_up") + of("spliced_down")
        };
        assert!(lines.iter().map(spliced).sum::<u64>() > 1 << 20);
    }
}

fn iperf3_server() -> (Running, SocketAddr) {
    let address = Servers::nobody();
    let server = Running::start(
        Command::new("iperf3")
            .args(["--server", "--one-off", "--bind", "127.0.0.1", "--port"])
            .arg(address.port().to_string()),
    );
    // It takes a connection that says nothing for a client, and then refuses others; so it is asked
    // whether somebody listens without connecting.
    eventually("a server that listens", || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        table.contains(&format!("0100007F:{:04X} 00000000:0000 0A", address.port()))
    });
    (server, address)
}

/// PostgreSQL's programs do not run as root.
fn as_an_ordinary_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(program);
    command
}

fn postgresql() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut bins = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    bins.find(|bin| bin.join("initdb").is_file() && bin.join("postgres").is_file())
}

#[test]
fn postgresql_and_its_client_come_through() {
    let test = "postgresql_and_its_client_come_through";
    let programs = if is_root() {
        &["psql", "setpriv"][..]
    } else {
        &["psql"]
    };
    if !has_all(test, programs) {
        return;
    }
    let Some(bin) = postgresql() else {
        zhaul_untested::skip(test, "the server is not installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    if is_root() {
        std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    }
    let data = dir.path().join("data");
    said(
        as_an_ordinary_user(&bin.join("initdb"))
            .args(["--auth", "trust", "--username", "zhaul", "--no-sync"])
            .args(["--encoding", "UTF8", "--locale", "C", "--pgdata"])
            .arg(&data)
            .current_dir(dir.path()),
    );
    let address = Servers::nobody();
    let sockets = format!("unix_socket_directories={}", dir.path().display());
    let mut server = as_an_ordinary_user(&bin.join("postgres"));
    server
        .arg("-D")
        .arg(&data)
        .args(["-p", &address.port().to_string(), "-c", &sockets])
        .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
        .current_dir(dir.path());
    let _server = Running::start(&mut server);
    wait_until_it_listens(address);
    let proxy = simple(&[address], &[]);
    let psql = || {
        let mut psql = Command::new("psql");
        psql.args(["--no-psqlrc", "--quiet", "--host", "127.0.0.1", "--port"])
            .arg(proxy.address().port().to_string())
            .args(["--username", "zhaul", "--dbname", "postgres"])
            .args(["--set", "ON_ERROR_STOP=1", "--command"]);
        psql
    };
    eventually("a server that has started", || {
        psql().arg("SELECT 1").output().unwrap().status.success()
    });
    said(psql().arg("CREATE TABLE t (n int, v text)"));
    let rows: String = (0..50_000)
        .map(|n| format!("{n}\tvalue {}\n", n * 7))
        .collect();
    let mut load = psql()
        .arg("COPY t FROM STDIN")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    load.stdin
        .take()
        .unwrap()
        .write_all(rows.as_bytes())
        .unwrap();
    assert!(load.wait().unwrap().success());
    let back = said(psql().arg("COPY (SELECT * FROM t ORDER BY n) TO STDOUT"));
    assert!(
        back == rows.as_bytes(),
        "{} of {} bytes",
        back.len(),
        rows.len()
    );
    let wrong = psql().arg("SELECT no_such_column").output().unwrap();
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("no_such_column"));
}

/// HAProxy behind and in front: what either says of a client, the other takes.
#[test]
fn haproxy_understands_the_headers_and_is_understood() {
    const NAME: &str = "haproxy_understands_the_headers_and_is_understood";
    if !has_all(NAME, &["haproxy"]) {
        return;
    }
    let server = Servers::echo();
    let (behind, front) = (Servers::nobody(), Servers::nobody());
    for version in ["v1", "v2"] {
        let proxy = configured(&format!(
            "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
             [listeners.u]\nlisten = \"unix:DIR/in\"\nto = \"p\"\n\
             [listeners.front]\nlisten = \"unix:DIR/front\"\nto = \"p\"\nproxy_from = [\"unix\"]\n\
             [pools.p]\nservers = [{{ name = \"s\", address = \"{behind}\" }}]\nsend_proxy = \"{version}\"\n\
             check = {{ interval = \"50ms\", timeout = \"10s\", fall = 1, send = \"x\", expect = \"x\" }}\n",
        ));
        let send = if version == "v1" {
            "send-proxy"
        } else {
            "send-proxy-v2"
        };
        let config = proxy.dir().join("haproxy.cfg");
        fs::write(
            &config,
            format!(
                "global\n maxconn 100\ndefaults\n mode tcp\n timeout connect 10s\n timeout client 20s\n \
                 timeout server 20s\nlisten behind\n bind {behind} accept-proxy\n server s {}\n\
                 listen front\n bind {front}\n server z unix@{} {send} check check-{send} inter 50\n",
                server.address,
                proxy.dir().join("front").display(),
            )
            .replace("check-send-proxy-v2", "check-send-proxy"),
        )
        .unwrap();
        let _haproxy = Running::start(Command::new("haproxy").arg("-f").arg(&config));
        eventually("checks pass", || proxy.admin("servers").contains("p/s up "));
        let through = |mut stream: Box<dyn ReadWrite>| {
            stream.write_all(b"words").ok()?;
            let mut back = [0; 5];
            stream.read_exact(&mut back).ok().map(|()| back)
        };
        eventually("TCP through HAProxy", || {
            TcpStream::connect(proxy.address()).is_ok_and(|s| through(Box::new(s)).is_some())
        });
        // A client without an address.
        let unix = UnixStream::connect(proxy.dir().join("in")).unwrap();
        assert_eq!(
            through(Box::new(unix)).as_ref(),
            Some(b"words"),
            "{version}"
        );
        // One that HAProxy introduces.
        let client = TcpStream::connect(front).unwrap();
        let own = client.local_addr().unwrap().to_string();
        assert_eq!(
            through(Box::new(client)).as_ref(),
            Some(b"words"),
            "{version}"
        );
        eventually("the client in the log", || {
            proxy.log(1).iter().any(|line| line["client"] == *own)
        });
        assert!(
            !proxy.stderr().contains("bad PROXY header"),
            "{}",
            proxy.stderr()
        );
    }
}

trait ReadWrite: std::io::Read + Write {}
impl<T: std::io::Read + Write> ReadWrite for T {}
