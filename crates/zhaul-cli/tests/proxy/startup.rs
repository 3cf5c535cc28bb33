//! What a proxy says before it serves: everything that is wrong with what it was told.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

use crate::support::try_configured;
use crate::support::{Servers, ask, binary, configured, connect, is_root, simple};

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
                "127.0.0.1:1",
                "--listen",
                "127.0.0.1:1",
                "--to",
                "127.0.0.1:1",
            ],
            "name it once",
        ),
        (
            &[
                "--listen",
                "127.0.0.1:0",
                "--to",
                "127.0.0.1:1",
                "--admin",
                "unix:@name",
            ],
            "everybody may connect",
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
fn a_check_says_what_a_start_would_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let before = std::fs::read_dir(dir.path()).unwrap().count();
        let said = run(&["--config", path.to_str().unwrap(), "--check"]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), before);
        said
    };
    let in_dir = |name: &str| dir.path().join(name).display().to_string();
    let config = |listen: &str, to: &str| {
        format!(
            "[listeners.l]\nlisten = \"{listen}\"\nto = \"p\"\n{}",
            pool(to)
        )
    };
    // Nothing that could be wrong with these is reported alone.
    let nowhere = format!(
        "log = {{ path = \"{}\" }}\n{}",
        in_dir("none/log"),
        config(&format!("unix:{}", in_dir("none/s")), "host.invalid:1")
    );
    let (code, said) = check(&nowhere);
    assert_eq!(code, Some(2), "{said}");
    for part in ["none/log", "none/s", "host.invalid"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // 192.0.2.1 is nobody's.
    let (code, said) = check(&config("192.0.2.1:8443", "127.0.0.1:1"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("use an address of this machine"), "{said}");
    // What runs already is what would be reloaded.
    let live = UnixListener::bind(in_dir("live")).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    for listen in [
        format!("unix:{}", in_dir("live")),
        taken.local_addr().unwrap().to_string(),
    ] {
        let (code, said) = check(&config(&listen, "127.0.0.1:1"));
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("would not start here and now"), "{said}");
        assert!(
            said.contains("in use") && said.contains("is sound"),
            "{said}"
        );
    }
    drop(live);
    let (code, said) = check(&config(&format!("unix:{}", in_dir("live")), "127.0.0.1:1"));
    assert_eq!((code, said.lines().count()), (Some(0), 1), "{said}");
}

#[test]
fn both_families_may_be_listened_on_with_one_port() {
    if TcpListener::bind("[::1]:0").is_err() {
        return zhaul_untested::skip("both_families_may_be_listened_on_with_one_port", "no IPv6");
    }
    let server = Servers::named("s");
    for listen in [
        ["0.0.0.0:PORT", "[::]:PORT"],
        ["[::]:PORT", "0.0.0.0:PORT"],
        [":PORT", "127.0.0.1:PORT"],
    ] {
        let port = Servers::nobody().port();
        let listen = listen.map(|address| address.replace("PORT", &port.to_string()));
        // In one list, and in two listeners.
        for config in [
            format!("[listeners.a]\nlisten = {listen:?}\nto = \"p\"\n"),
            format!(
                "[listeners.a]\nlisten = {:?}\nto = \"p\"\n[listeners.b]\nlisten = {:?}\nto = \"p\"\n",
                listen[0], listen[1]
            ),
        ] {
            let proxy = configured(&format!("{config}{}", pool(server.address)));
            for host in ["127.0.0.1", "::1"] {
                let address = SocketAddr::new(host.parse().unwrap(), port);
                assert_eq!(ask(&connect(address), "x").unwrap(), "s x");
            }
            // And again, with what is there.
            proxy.reload(&format!("{config}{}", pool(server.address)));
            proxy.wait_for(&["is in force"]);
            let address = SocketAddr::new("::1".parse().unwrap(), port);
            assert_eq!(ask(&connect(address), "x").unwrap(), "s x");
        }
    }
}

#[test]
fn unix_sockets_have_the_mode_they_are_given_and_abstract_ones_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let server = dir.path().join("server");
    let listener = UnixListener::bind(&server).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = std::io::Write::write_all(&mut stream, b"hi\n");
        }
    });
    let name = format!("zhaul-test-proxy-{}", std::process::id());
    // The second goes through the first.
    let config = |mode: &str| {
        format!(
            "[listeners.a]\nlisten = \"unix:@{name}\"\nto = \"p\"\n{}             [listeners.b]\nlisten = [\"unix:DIR/b,mode={mode}\", \"127.0.0.1:0\"]\nto = \"q\"\n             [pools.q]\nservers = [{{ address = \"unix:@{name}\" }}]\n             check = {{ kind = \"exchange\", expect = \"hi\", interval = \"50ms\" }}\n",
            pool(format!("unix:{}", server.display())),
        )
    };
    let proxy = configured(&config("666"));
    assert_eq!(crate::support::read_line(proxy.connect()).unwrap(), "hi");
    let through = std::os::unix::net::UnixStream::connect(proxy.dir().join("b")).unwrap();
    assert_eq!(crate::support::read_line(through).unwrap(), "hi");
    let mode = |name: &str| {
        let meta = std::fs::metadata(proxy.dir().join(name)).unwrap();
        std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777
    };
    assert_eq!((mode("b"), mode("admin")), (0o666, 0o600));
    let admin = std::fs::metadata(proxy.dir().join("admin")).unwrap();
    assert!(std::os::unix::fs::FileTypeExt::is_socket(
        &admin.file_type()
    ));
    proxy.reload(&config("600"));
    proxy.wait_for(&["is in force"]);
    assert_eq!(mode("b"), 0o600);
    assert!(proxy.admin("servers").contains(&format!("unix:@{name}")));
    assert!(!proxy.stderr().contains("is down"), "{}", proxy.stderr());
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
fn a_mode_that_cannot_be_set_without_proc_says_so() {
    const NAME: &str = "a_mode_that_cannot_be_set_without_proc_says_so";
    let without_proc = "mount -t tmpfs none /proc && exec \"$@\"";
    let wrapper = ["unshare", "-m", "sh", "-c", without_proc, "sh"];
    let trial = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg("true")
        .output();
    if !trial.is_ok_and(|output| output.status.success()) {
        return zhaul_untested::skip(NAME, "no mount namespaces here");
    }
    let config = format!(
        "[listeners.l]\nlisten = \"unix:DIR/in,mode=600\"\nto = \"p\"\n{}",
        pool("192.0.2.1:1")
    );
    let Err(refusal) = try_configured(&config, &wrapper) else {
        panic!("it serves with a mode that it could not set");
    };
    let stderr = refusal.stderr;
    assert!(stderr.contains("mount /proc"), "{stderr}");
    assert!(!stderr.contains("takes root"), "{stderr}");
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
