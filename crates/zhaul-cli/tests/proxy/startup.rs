//! What a proxy says before it serves: everything that is wrong with what it was told.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

use crate::support::try_configured;
use crate::support::{Servers, ask, binary, configured, is_root, simple};

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = Command::new(binary())
        .arg("proxy")
        .args(arguments)
        .output()
        .unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

fn pool(address: impl std::fmt::Display) -> String {
    format!("[pools.p]\nservers = [{{ address = \"{address}\" }}]\n")
}

#[test]
fn bad_arguments_end_with_2_and_say_what_to_write() {
    for (arguments, expected) in [
        (&[][..], "--listen"),
        (&["--listen", "127.0.0.1:0"], "--to"),
        (
            &["--listen", "127.0.0.1:0", "--to", "nowhere"],
            "has no port",
        ),
        (
            &["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1,127.0.0.1:1"],
            "twice",
        ),
        (
            &[
                "--listen",
                "127.0.0.1:0",
                "--to",
                "127.0.0.1:1",
                "--balance",
                "fair",
            ],
            "round-robin",
        ),
        (
            &[
                "--listen",
                "127.0.0.1:0",
                "--to",
                "127.0.0.1:1",
                "--admin",
                "127.0.0.1:1",
            ],
            "unix:/path",
        ),
        (
            &[
                "--listen",
                "127.0.0.1:0",
                "--to",
                "127.0.0.1:1",
                "--idle-timeout",
                "5",
            ],
            "5s",
        ),
        (
            &["--listen", "127.0.0.1:0", "--to", "host.invalid:1"],
            "host.invalid",
        ),
        (&["--config", "/nowhere/proxy.toml"], "/nowhere/proxy.toml"),
        (&["--config", "/dev/null"], "[listeners.NAME]"),
        (
            &["--config", "/dev/null", "--listen", "127.0.0.1:0"],
            "cannot be used with",
        ),
    ] {
        let (code, stderr) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("zhaul: "), "{stderr}");
    }
}

#[test]
fn a_configuration_can_be_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    let text = format!(
        "[listeners.l]\nlisten = \"127.0.0.1:1\"\nto = \"p\"\n{}",
        pool("192.0.2.1:1")
    );
    std::fs::write(&path, &text).unwrap();
    let path = path.to_str().unwrap();
    let (code, stderr) = run(&["--config", path, "--check"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stderr.contains("1 listeners, 1 pools, 1 servers"),
        "{stderr}"
    );
    std::fs::write(path, text.replace("to = \"p\"", "to = \"q\"\nbackog = 3")).unwrap();
    let (code, stderr) = run(&["--config", path, "--check"]);
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains(&format!("{path}:4: listeners.l.backog: unknown field")),
        "{stderr}"
    );
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for more in ["", "reuse_port = true\n"] {
        let config = format!(
            "[listeners.l]\nlisten = \"{address}\"\nto = \"p\"\n{more}{}",
            pool("192.0.2.1:1")
        );
        let Err(refusal) = try_configured(&config, &[]) else {
            panic!("it started on a port in use");
        };
        assert_eq!(refusal.status.code(), Some(2));
        let stderr = refusal.stderr;
        assert!(stderr.contains(&address.to_string()), "{stderr}");
        assert!(stderr.contains("in use"), "{stderr}");
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let server = Servers::echo();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in");
    let config = format!(
        "[listeners.l]\nlisten = [\"unix:{}\", \"127.0.0.1:0\"]\nto = \"p\"\n{}",
        path.display(),
        pool(server.address)
    );
    let live = UnixListener::bind(&path).unwrap();
    let Err(refusal) = try_configured(&config, &[]) else {
        panic!("it took a socket that somebody listens on");
    };
    assert!(refusal.stderr.contains("in use"), "{}", refusal.stderr);
    drop(live);
    assert!(path.exists());
    let proxy = configured(&config);
    ask(&proxy.connect(), "x").unwrap();
    drop(proxy);
    assert!(!path.exists(), "its socket is left behind");
}

#[test]
fn a_port_that_takes_a_privilege_says_so() {
    if is_root() {
        zhaul_untested::skip(
            "a_port_that_takes_a_privilege_says_so",
            "root may listen on any port",
        );
        return;
    }
    let (code, stderr) = run(&["--listen", "127.0.0.1:1", "--to", "127.0.0.1:2"]);
    // Where the range of privileged ports is smaller, it just listens; that is for others to test.
    let start = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if start.trim().parse::<u16>().unwrap() > 1 {
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("CAP_NET_BIND_SERVICE"), "{stderr}");
    }
}

#[test]
fn help_has_examples_and_fits() {
    for columns in ["80", "40"] {
        let output = Command::new(binary())
            .args(["proxy", "--help"])
            .env("COLUMNS", columns)
            .output()
            .unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Examples:"));
        assert!(help.contains("SIGHUP"));
    }
}

#[test]
fn a_server_by_name_is_found() {
    let server = Servers::named("s");
    let to = format!("localhost:{}", server.address.port());
    let proxy = configured(&format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n{}",
        pool(to)
    ));
    // The name may stand for ::1 as well, where nobody listens; then the next try finds it.
    assert_eq!(ask(&proxy.connect(), "x").unwrap(), "s x");
}

#[test]
fn several_workers_share_the_connections() {
    let server = Servers::named("s");
    for more in [&["--workers", "2"][..], &["--workers", "3"]] {
        let proxy = simple(&[server.address], more);
        for n in 0..50 {
            assert_eq!(
                ask(&proxy.connect(), &n.to_string()).unwrap(),
                format!("s {n}")
            );
        }
    }
}
