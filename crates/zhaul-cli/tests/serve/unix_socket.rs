//! Listening on a UNIX socket.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Client, Files, Serve, eventually, has_program, pattern, skip};

#[test]
fn a_unix_socket_serves_like_tcp() {
    let large = pattern(5_000_000);
    let files = Files::with(&[("a", b"a"), ("large", &large)]);
    let path = files.outside().join("z.sock");
    for mode in ["immutable", "lease", "copy"] {
        let listen = format!("unix:{}", path.display());
        let mut server = Serve::new(files.root())
            .args(["--stability", mode])
            .listen([&listen])
            .start();
        assert_eq!(server.urls(), [listen]);
        let mut client = Client::unix(&path);
        for _ in 0..3 {
            client.get("/a").assert_status(200).assert_body(b"a");
            client.get("/large").assert_status(200).assert_body(&large);
            client
                .get_with("/large", &[("Range", "bytes=-7")])
                .assert_status(206);
        }
        drop(client);
        server.signal(Signal::TERM);
        assert_eq!(
            server.wait(Duration::from_secs(5)).expect("it ends").code(),
            Some(0)
        );
        assert!(!path.exists(), "the socket was left behind");
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let files = Files::with(&[("a", b"a")]);
    let path = files.outside().join("z.sock");
    let listen = format!("unix:{}", path.display());
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "nobody listens, but the name is there");
    let live = Serve::new(files.root()).listen([&listen]).start();
    Client::unix(&path).get("/a").assert_status(200);

    let refusal = Serve::new(files.root())
        .listen([&listen])
        .try_start()
        .err()
        .expect("it is live");
    assert_eq!(refusal.status.code(), Some(1), "{}", refusal.stderr);
    assert!(refusal.stderr.contains("in use"), "{}", refusal.stderr);
    Client::unix(&path).get("/a").assert_status(200);
    drop(live);
}

#[test]
fn a_file_in_the_place_of_the_socket_is_left_alone() {
    let files = Files::new();
    let path = files.outside().join("precious");
    fs::write(&path, "data").unwrap();
    let listen = format!("unix:{}", path.display());
    let refusal = Serve::new(files.root())
        .listen([listen])
        .try_start()
        .err()
        .expect("it is a file");
    assert_eq!(refusal.status.code(), Some(1), "{}", refusal.stderr);
    assert_eq!(fs::read(&path).unwrap(), b"data");
}

#[test]
fn a_socket_in_a_missing_directory_is_explained() {
    let files = Files::new();
    let listen = format!("unix:{}", files.outside().join("missing/z.sock").display());
    let refusal = Serve::new(files.root())
        .listen([listen])
        .try_start()
        .err()
        .expect("no directory");
    assert!(
        refusal.stderr.contains("create the socket's directory"),
        "{}",
        refusal.stderr
    );
}

#[test]
fn a_socket_taken_over_by_another_is_not_removed() {
    let files = Files::new();
    let path = files.outside().join("z.sock");
    let server = Serve::new(files.root())
        .listen([format!("unix:{}", path.display())])
        .start();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(server);
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
}

#[test]
fn curl_speaks_to_a_unix_socket() {
    if !has_program("curl") {
        skip!("curl_speaks_to_a_unix_socket", "curl is not installed");
    }
    let large = pattern(3_000_000);
    let files = Files::with(&[("large", &large)]);
    let path = files.outside().join("z.sock");
    let _server = Serve::new(files.root())
        .listen([format!("unix:{}", path.display())])
        .start();
    let output = Command::new("curl")
        .args(["-sS", "--fail", "--max-time", "20", "--unix-socket"])
        .args([path.as_os_str(), "http://localhost/large".as_ref()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.stdout == large);
}

#[test]
fn a_socket_has_the_mode_it_is_given_and_an_abstract_one_no_file() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    let files = Files::with(&[("a", b"a")]);
    let path = files.outside().join("z.sock");
    let name = format!("zhaul-test-serve-{}", std::process::id());
    let server = Serve::new(files.root())
        .listen([
            format!("unix:{},mode=622", path.display()),
            format!("unix:@{name}"),
        ])
        .start();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o622);
    assert_eq!(
        server.urls(),
        [format!("unix:{}", path.display()), format!("unix:@{name}")]
    );
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let stream = UnixStream::connect_addr(&address).unwrap();
    let mut client = Client::over_unix(stream);
    client.get("/a").assert_status(200).assert_body(b"a");
    Client::unix(&path).get("/a").assert_status(200);
}

#[test]
fn an_owner_that_is_not_there_is_wrong_usage() {
    let files = Files::new();
    for (more, expected) in [
        ("owner=no-such-user", "no-such-user"),
        ("mode=rw", "octal digits"),
    ] {
        let refusal = Serve::new(files.root())
            .listen([format!("unix:/nowhere/z.sock,{more}")])
            .try_start()
            .err()
            .expect("it is wrong");
        assert_eq!(refusal.status.code(), Some(2), "{}", refusal.stderr);
        assert!(refusal.stderr.contains(expected), "{}", refusal.stderr);
    }
}

#[test]
fn a_client_that_never_reads_does_not_keep_the_server_from_ending() {
    let files = Files::with(&[("large", &pattern(8 << 20)), ("a", b"a")]);
    let path = files.outside().join("z.sock");
    // The one has an answer under way, the other one wholly in the socket's buffer.
    for target in ["/large", "/a"] {
        let mut server = Serve::new(files.root())
            .args(["--drain-timeout", "1", "--workers", "1"])
            .listen([format!("unix:{}", path.display())])
            .start();
        let mut silent = Client::unix(&path);
        silent.ask("GET", target, &[]);
        std::thread::sleep(Duration::from_millis(200));
        server.signal(Signal::TERM);
        let status = server.wait(Duration::from_secs(20));
        assert_eq!(status.expect(target).code(), Some(0), "{target}");
    }
}

#[test]
fn a_client_that_never_reads_is_closed() {
    let files = Files::with(&[("large", &pattern(8 << 20))]);
    let path = files.outside().join("z.sock");
    let _server = Serve::new(files.root())
        .args(["--min-send-rate", "1000", "--send-window", "1"])
        .listen([format!("unix:{}", path.display())])
        .start();
    let mut silent = Client::unix(&path);
    silent.ask("GET", "/large", &[]);
    eventually("an end", || silent.try_send("x").is_err());
}
