//! What is relayed: every byte, in order, with the ends that it had.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::sockopt;

use crate::support::process::{cpu_time, descriptors};
use crate::support::{Proxy, Servers, ask, configured, connect, eventually, pattern, simple};

/// Sends all of it while receiving what comes back, and returns that.
fn exchange(stream: &TcpStream, bytes: &[u8]) -> Vec<u8> {
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let mut stream = stream;
            stream.write_all(bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        let mut stream = stream;
        stream.read_to_end(&mut back).unwrap();
        sending.join().unwrap();
        back
    })
}

#[test]
fn every_size_comes_through_both_ways() {
    let server = Servers::echo();
    let proxy = simple(&[server.address], &[]);
    for bytes in [0, 1, 100, 4096, 65_537, 1 << 20, 20_000_003] {
        let sent = pattern(bytes, bytes as u64);
        assert!(exchange(&proxy.connect(), &sent) == sent, "{bytes}");
    }
    let lines = proxy.log(7);
    let is_last = |line: &&serde_json::Value| line["bytes_up"] == 20_000_003;
    let last = lines.iter().find(is_last).unwrap();
    assert_eq!(last["bytes_down"], 20_000_003);
    assert_eq!(last["cause"], "closed-by-client");
}

#[test]
fn bulk_is_spliced_and_chatter_is_copied() {
    let server = Servers::echo();
    let proxy = simple(&[server.address], &[]);
    exchange(&proxy.connect(), &pattern(50 << 20, 1));
    let line = &proxy.log(1)[0];
    let spliced = line["spliced_up"].as_u64().unwrap();
    assert!(spliced > 40 << 20, "{line}");
    let stream = proxy.connect();
    for n in 0..100 {
        assert_eq!(ask(&stream, &n.to_string()).unwrap(), n.to_string());
    }
    drop(stream);
    let line = &proxy.log(2)[1];
    assert_eq!(
        (&line["route_up"], &line["spliced_up"]),
        (&"copy".into(), &0.into())
    );
}

#[test]
fn a_client_that_has_ended_its_stream_still_gets_its_answer() {
    let server = Servers::start(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        stream.write_all(&all).unwrap();
    });
    let proxy = simple(&[server.address], &[]);
    let sent = pattern(3_000_000, 3);
    assert!(exchange(&proxy.connect(), &sent) == sent);
}

#[test]
fn a_server_that_has_ended_its_stream_still_gets_everything() {
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let server = Servers::start(move |mut stream| {
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        tell.lock().unwrap().send(all).unwrap();
    });
    let proxy = simple(&[server.address], &[]);
    let mut stream = proxy.connect();
    let mut bye = Vec::new();
    stream.read_to_end(&mut bye).unwrap();
    assert_eq!(bye, b"bye");
    let sent = pattern(5_000_000, 4);
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(told.recv_timeout(crate::support::PATIENCE).unwrap() == sent);
    assert_eq!(proxy.log(1)[0]["cause"], "closed-by-server");
}

fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[test]
fn a_reset_by_the_server_resets_the_client() {
    let server = Servers::start(|mut stream| {
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.write_all(b"some").unwrap();
        reset(stream);
    });
    let proxy = simple(&[server.address], &[]);
    let mut stream = proxy.connect();
    stream.write_all(b"ping").unwrap();
    let mut got = Vec::new();
    let error = stream.read_to_end(&mut got).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(b"some".starts_with(&got[..]));
    assert_eq!(proxy.log(1)[0]["cause"], "reset-by-server");
}

#[test]
fn a_reset_by_the_client_resets_the_server() {
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let server = Servers::start(move |mut stream| {
        let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
        tell.lock().unwrap().send(error.kind()).unwrap();
    });
    let proxy = simple(&[server.address], &[]);
    let mut stream = proxy.connect();
    stream.write_all(b"half a request").unwrap();
    eventually("the server is reached", || server.accepted() == 1);
    std::thread::sleep(Duration::from_millis(100));
    reset(stream);
    let kind = told.recv_timeout(crate::support::PATIENCE).unwrap();
    assert_eq!(kind, ErrorKind::ConnectionReset);
    assert_eq!(proxy.log(1)[0]["cause"], "reset-by-client");
}

#[test]
fn unix_sockets_on_either_side() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            std::thread::spawn(move || {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                stream.write_all(&all).unwrap();
            });
        }
    });
    let proxy = configured(&format!(
        "[listeners.both]\nlisten = [\"127.0.0.1:0\", \"unix:DIR/in\"]\nto = \"p\"\n\
         [pools.p]\nservers = [{{ address = \"unix:{}\" }}]\n",
        path.display()
    ));
    let sent = pattern(2_000_000, 5);
    assert!(exchange(&proxy.connect(), &sent) == sent);
    let stream = UnixStream::connect(proxy.dir().join("in")).unwrap();
    let back = std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        (&stream).read_to_end(&mut back).unwrap();
        back
    });
    assert!(back == sent);
    serving.join().unwrap();
    let clients: Vec<_> = proxy.log(2).iter().map(|l| l["client"].clone()).collect();
    assert!(clients.contains(&"unix:".into()), "{clients:?}");
}

#[test]
fn time_limits_end_sessions_with_their_names() {
    for (key, cause, half_close) in [
        ("idle_timeout", "idle-timeout", false),
        ("fin_timeout", "fin-timeout", true),
        ("session_timeout", "session-timeout", false),
    ] {
        let server = Servers::start(|mut stream| {
            // Never ends by itself.
            while stream.read(&mut [0; 100]).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let proxy = configured(&format!(
            "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
             [pools.p]\nservers = [{{ address = \"{}\" }}]\n{key} = \"300ms\"\n",
            server.address
        ));
        let mut stream = proxy.connect();
        stream.write_all(b"x").unwrap();
        if half_close {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let ended = stream.read(&mut [0; 1]);
        assert!(!matches!(ended, Ok(1..)), "{key}: {ended:?}");
        assert_eq!(proxy.log(1)[0]["cause"], cause);
    }
}

#[test]
fn a_bandwidth_limit_holds() {
    let server = Servers::echo();
    let proxy = configured(&format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\nbandwidth = \"2MB/s\"\n\
         [pools.p]\nservers = [{{ address = \"{}\" }}]\n",
        server.address
    ));
    let sent = pattern(4_000_000, 6);
    assert!(exchange(&proxy.connect(), &sent) == sent);
    // A floor, and a low one: at most a second's worth may go through at once.
    let ms = proxy.log(1)[0]["total_ms"].as_f64().unwrap();
    assert!(ms > 800.0, "4 MB at 2 MB/s took {ms} ms");
}

fn sockets_and_pipes(proxy: &Proxy) -> (usize, usize) {
    let kinds = descriptors(proxy.pid());
    let count = |kind| kinds.get(kind).copied().unwrap_or(0);
    (count("socket"), count("pipe"))
}

#[test]
fn idle_connections_hold_no_pipes_and_cost_no_time() {
    let server = Servers::echo();
    let proxy = simple(&[server.address], &["--workers", "1"]);
    let before = sockets_and_pipes(&proxy);
    let streams: Vec<_> = (0..200).map(|_| proxy.connect()).collect();
    for stream in &streams {
        ask(stream, "hello").unwrap();
    }
    // Its own sockets may have changed since it began to listen.
    let (sockets, pipes) = sockets_and_pipes(&proxy);
    assert!(
        (before.0 + 400..before.0 + 405).contains(&sockets),
        "{sockets}"
    );
    assert_eq!(pipes, before.1);
    let began = cpu_time(proxy.pid());
    std::thread::sleep(Duration::from_secs(1));
    let spent = cpu_time(proxy.pid()) - began;
    assert!(
        spent <= Duration::from_millis(50),
        "{spent:?} while nothing moves"
    );
    drop(streams);
    eventually("everything is given back", || {
        sockets_and_pipes(&proxy).0 <= sockets - 400
    });
}

#[test]
fn a_receiver_that_stops_does_not_keep_the_proxy_busy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = simple(&[listener.local_addr().unwrap()], &["--workers", "1"]);
    let mut stream = proxy.connect();
    let (held, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let chunk = vec![7; 1 << 16];
    let mut full = 0;
    while full < 20 {
        match stream.write(&chunk) {
            Ok(_) => full = 0,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                full += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(e) => panic!("{e}"),
        }
    }
    let began = cpu_time(proxy.pid());
    std::thread::sleep(Duration::from_secs(1));
    let spent = cpu_time(proxy.pid()) - began;
    assert!(
        spent <= Duration::from_millis(50),
        "{spent:?} while nothing moves"
    );
    drop(held);
}

#[test]
fn urgent_data_does_not_stop_the_stream() {
    let server = Servers::echo();
    let proxy = simple(&[server.address], &["--workers", "1"]);
    let stream = proxy.connect();
    ask(&stream, "before").unwrap();
    rustix::net::send(&stream, b"!", rustix::net::SendFlags::OOB).unwrap();
    for n in 0..10 {
        assert!(
            ask(&stream, &format!("after {n}"))
                .unwrap()
                .ends_with(&format!("after {n}"))
        );
    }
    let began = cpu_time(proxy.pid());
    std::thread::sleep(Duration::from_millis(500));
    let spent = cpu_time(proxy.pid()) - began;
    assert!(
        spent <= Duration::from_millis(50),
        "{spent:?} while nothing moves"
    );
}

#[test]
fn connections_that_are_only_opened_and_closed_leave_nothing() {
    let server = Servers::echo();
    let proxy = simple(&[server.address], &[]);
    let before = sockets_and_pipes(&proxy);
    for n in 0..300 {
        let stream = connect(proxy.address());
        if n % 2 == 0 {
            reset(stream);
        }
    }
    eventually("everything is given back", || {
        sockets_and_pipes(&proxy).0 < before.0 + 5
    });
    assert_eq!(proxy.log(300).len(), 300);
}

/// The proxy is stopped while they come and go, so that it learns of both ends at the same moment.
#[test]
fn a_reset_by_a_client_that_is_not_connected_yet_is_no_end_of_stream() {
    use rustix::process::Signal;
    let ends = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&ends);
    let server = Servers::start(move |mut stream| {
        // The header that introduces the client, if there is one, and no end behind it.
        if stream.read_to_end(&mut Vec::new()).is_ok() {
            theirs.fetch_add(1, Ordering::Relaxed);
        }
    });
    for send_proxy in ["", "send_proxy = \"v1\""] {
        let proxy = configured(&format!(
            "workers = 1\n[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
             [pools.p]\nservers = [{{ address = \"{}\" }}]\n{send_proxy}\n",
            server.address
        ));
        let address = proxy.address();
        for words in [&b""[..], b"some words"] {
            proxy.signal(Signal::STOP);
            for _ in 0..10 {
                let mut client = connect(address);
                client.write_all(words).unwrap();
                reset(client);
            }
            proxy.signal(Signal::CONT);
        }
        for line in proxy.log(20) {
            let cause = line["cause"].as_str().unwrap();
            assert!(
                ["client-gone", "reset-by-client"].contains(&cause),
                "{line}"
            );
        }
        drop(proxy);
        assert_eq!(ends.load(Ordering::Relaxed), 0, "{send_proxy}");
    }
}
