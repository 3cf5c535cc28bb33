//! Thousands of connections that behave badly: what is delivered is a prefix of what was sent, whole
//! if both sides closed in order, and nothing is left over.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::sockopt;

use crate::support::process::{cpu_time, descriptors, threads};
use crate::support::{PATIENCE, Proxy, Servers, eventually, pattern};

/// Random numbers that can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// What one side does.
#[derive(Clone, Copy, Debug)]
struct Manner {
    bytes: usize,
    /// Bytes of one write.
    piece: usize,
    /// Pauses before every so many writes; 0 never.
    pause_every: usize,
    /// Resets after so many bytes instead of closing.
    reset_after: Option<usize>,
    /// The size asked for both buffers of the socket; 0 leaves the kernel's.
    buffer: usize,
}

impl Manner {
    fn random(dice: &mut Dice) -> Self {
        let bytes = match dice.roll(10) {
            0 => 0,
            1..=4 => dice.roll(2_000) as usize,
            5..=7 => dice.roll(200_000) as usize,
            _ => dice.roll(1_000_000) as usize,
        };
        let piece = match dice.roll(6) {
            0 if bytes <= 2_000 => 1,
            1 => 100,
            2 => 1448,
            3 => 10_000,
            _ => 1 << 20,
        };
        Self {
            bytes,
            piece,
            pause_every: if dice.roll(4) == 0 { 7 } else { 0 },
            reset_after: (dice.roll(8) == 0).then(|| dice.roll(bytes as u64 + 1) as usize),
            buffer: if dice.roll(4) == 0 { 4096 } else { 0 },
        }
    }
}

/// What one side saw.
#[derive(Debug)]
struct Seen {
    got: Vec<u8>,
    /// The stream of the other side ended in order.
    whole: bool,
}

/// Sends and receives at the same time, in its manner, and says what came.
fn behave(stream: &TcpStream, manner: Manner, seed: u64) -> Seen {
    if manner.buffer > 0 {
        let _ = sockopt::set_socket_send_buffer_size(stream, manner.buffer);
        let _ = sockopt::set_socket_recv_buffer_size(stream, manner.buffer);
    }
    let _ = stream.set_nodelay(true);
    // Small windows are opened by the kernel's timers when the machine is busy.
    stream.set_read_timeout(Some(PATIENCE * 6)).unwrap();
    stream.set_write_timeout(Some(PATIENCE * 6)).unwrap();
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || send(stream, manner, seed));
        let mut seen = receive(stream);
        let sent = sending.join().unwrap();
        // The kernel tells of a reset once; if that was when sending, receiving finds an end. And to
        // who resets a connection its own end looks like the other's.
        seen.whole &= sent && manner.reset_after.is_none();
        seen
    })
}

/// True if it could send all that it wanted to.
fn send(mut stream: &TcpStream, manner: Manner, seed: u64) -> bool {
    let all = pattern(manner.bytes, seed);
    let until = manner.reset_after.unwrap_or(all.len());
    for (n, piece) in all[..until].chunks(manner.piece).enumerate() {
        if manner.pause_every > 0 && n % manner.pause_every == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        match stream.write_all(piece) {
            // To give up quietly would end in order what was to be reset.
            Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("it hangs"),
            Err(_) => return false,
            Ok(()) => {}
        }
    }
    if manner.reset_after.is_some() {
        let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        // A descriptor of its own cannot be closed while the other thread reads; this resets, too.
        let _ = rustix::net::connect_unspec(stream);
    } else {
        let _ = stream.shutdown(Shutdown::Write);
    }
    true
}

fn receive(mut stream: &TcpStream) -> Seen {
    let mut got = Vec::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Seen { got, whole: true },
            Ok(n) => got.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("it hangs"),
            Err(_) => return Seen { got, whole: false },
        }
    }
}

/// Runs `sessions` sessions, `at_once` at a time, and checks every one of them.
fn soak(proxy: &Proxy, listener: &TcpListener, sessions: u64, at_once: usize) {
    let (next, over) = (AtomicU64::new(1), AtomicBool::new(false));
    let at_clients = Mutex::new(HashMap::new());
    let at_servers = Mutex::new(HashMap::new());
    let mut failed = 0;
    std::thread::scope(|scope| {
        // Not one for each client: who resets a connection at once may never get to a server.
        scope.spawn(|| {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let at_servers = &at_servers;
                scope.spawn(move || serve(&stream, at_servers));
            }
        });
        let come = || {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n > sessions {
                    return;
                }
                let client = proxy.connect();
                (&client).write_all(&n.to_le_bytes()).unwrap();
                let seen = behave(&client, manner_of_client(n), n);
                at_clients.lock().unwrap().insert(n, seen);
            }
        };
        let clients: Vec<_> = (0..at_once).map(|_| scope.spawn(come)).collect();
        for client in clients {
            failed += usize::from(client.join().is_err());
        }
        over.store(true, Ordering::Relaxed);
        // Out of accept(2).
        let _ = TcpStream::connect(listener.local_addr().unwrap());
    });
    assert_eq!(failed, 0, "clients failed");
    check(
        &at_clients.into_inner().unwrap(),
        &at_servers.into_inner().unwrap(),
    );
}

/// The server's end of one session; which one, the first eight bytes say.
fn serve(stream: &TcpStream, at_servers: &Mutex<HashMap<u64, Seen>>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut number = [0; 8];
    let mut input = stream;
    if input.read_exact(&mut number).is_err() {
        return;
    }
    let n = u64::from_le_bytes(number);
    let seen = behave(stream, manner_of_server(n), n + 1_000_000);
    at_servers.lock().unwrap().insert(n, seen);
}

fn check(at_clients: &HashMap<u64, Seen>, at_servers: &HashMap<u64, Seen>) {
    let mut clean = 0;
    for (&n, at_client) in at_clients {
        check_client(n, at_client);
        let (of_client, of_server) = (manner_of_client(n), manner_of_server(n));
        if of_client.reset_after.is_none() && of_server.reset_after.is_none() {
            clean += 1;
            let at_server = at_servers.get(&n);
            assert!(
                at_client.whole && at_server.is_some_and(|seen| seen.whole),
                "session {n}: {of_client:?}"
            );
        }
    }
    for (&n, at_server) in at_servers {
        check_server(n, at_server);
    }
    let sessions = at_clients.len();
    // Most of them: the others had a reset.
    assert!(
        clean * 2 >= sessions,
        "{clean} of {sessions} ended in order"
    );
}

fn manner_of_client(n: u64) -> Manner {
    Manner::random(&mut Dice(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
}

fn manner_of_server(n: u64) -> Manner {
    Manner::random(&mut Dice(n.wrapping_mul(0x1357_9bdf_2468_ace1) | 1))
}

/// What the server of session `n` got is a prefix of what its client sent.
fn check_server(n: u64, seen: &Seen) {
    let manner = manner_of_client(n);
    let sent = pattern(manner.bytes, n);
    assert!(
        sent.starts_with(&seen.got),
        "session {n}: not what was sent"
    );
    if seen.whole {
        assert!(
            manner.reset_after.is_none(),
            "session {n}: a reset became an end"
        );
        assert_eq!(seen.got.len(), sent.len(), "session {n}: cut short");
    }
}

fn check_client(n: u64, seen: &Seen) {
    let manner = manner_of_server(n);
    let sent = pattern(manner.bytes, n + 1_000_000);
    assert!(
        sent.starts_with(&seen.got),
        "session {n}: not what was sent"
    );
    if seen.whole {
        assert!(
            manner.reset_after.is_none(),
            "session {n}: a reset became an end"
        );
        assert_eq!(seen.got.len(), sent.len(), "session {n}: cut short");
    }
}

fn of_all(proxy: &Proxy) -> (usize, usize, usize) {
    let kinds = descriptors(proxy.pid());
    let count = |kind| kinds.get(kind).copied().unwrap_or(0);
    (count("socket"), count("pipe"), threads(proxy.pid()))
}

fn soaked(wrapper: &[&str], sessions: u64, at_once: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "workers = 2\n[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
         [pools.p]\nservers = [{{ address = \"{}\" }}]\npassive = false\n",
        listener.local_addr().unwrap()
    );
    let proxy = crate::support::try_configured(&config, wrapper);
    let proxy = proxy.unwrap_or_else(|refusal| panic!("{refusal:?}"));
    // Threads that begin with the first work are there before it is counted.
    soak(&proxy, &listener, 4, 4);
    eventually("the first is over", || of_all(&proxy).0 < 10);
    let before = of_all(&proxy);
    soak(&proxy, &listener, sessions, at_once);
    eventually(&format!("everything is given back, as {before:?}"), || {
        let now = of_all(&proxy);
        // Pipes are kept for the next who needs one.
        now.0 == before.0 && now.2 == before.2 && now.1 <= 300
    });
    let began = cpu_time(proxy.pid());
    std::thread::sleep(Duration::from_millis(500));
    let spent = cpu_time(proxy.pid()) - began;
    assert!(
        spent <= Duration::from_millis(50),
        "{spent:?} while nothing moves"
    );
}

#[test]
fn whatever_peers_do_streams_are_prefixes_and_nothing_is_left() {
    soaked(&[], 2000, 64);
}

#[test]
fn with_few_descriptors_too() {
    // Sessions are limited by it.
    soaked(&["prlimit", "--nofile=400:400"], 150, 24);
}

#[test]
fn more_downloads_that_stall_than_there_are_pipes() {
    // More than the sockets on the way to the client hold.
    const BYTES: usize = 8 << 20;
    // One worker's pipes, as docs/proxy.md has it.
    const PIPES: usize = 64;
    let all = Arc::new(pattern(BYTES + 256, 1));
    let theirs = Arc::clone(&all);
    let server = Servers::start(move |mut stream: TcpStream| {
        let mut start = [0];
        if stream.read_exact(&mut start).is_ok() {
            // The client is gone when its test has failed.
            let _ = stream.write_all(&theirs[start[0].into()..][..BYTES]);
        }
    });
    let proxy = crate::support::simple(&[server.address], &["--workers", "1"]);
    let before = of_all(&proxy);
    let mut streams = Vec::new();
    for start in 0..PIPES + 32 {
        let mut stream = proxy.connect();
        stream.write_all(&[start as u8]).unwrap();
        streams.push(stream);
    }
    eventually("all pipes hold something", || {
        of_all(&proxy).1 >= before.1 + 2 * PIPES
    });
    // Whoever comes now is served none the less.
    let mut stream = proxy.connect();
    stream.write_all(&[200]).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert!(received == all[200..][..BYTES]);
    drop(stream);
    std::thread::scope(|scope| {
        for (start, mut stream) in streams.into_iter().enumerate() {
            let all = &all;
            scope.spawn(move || {
                let mut received = Vec::new();
                stream.read_to_end(&mut received).unwrap();
                assert!(received == all[start..][..BYTES], "{start}");
            });
        }
    });
    assert_eq!(
        of_all(&proxy).1,
        before.1 + 2 * PIPES,
        "and no more than these"
    );
    let log = proxy.log(PIPES + 33);
    let copied = log
        .iter()
        .filter(|entry| entry["spliced_down"] == 0)
        .count();
    assert!(copied > 0 && copied < log.len(), "{copied} copied");
}

#[test]
fn many_idle_connections_are_held_and_given_back() {
    let server = Servers::echo();
    let proxy = crate::support::simple(&[server.address], &["--workers", "1"]);
    let before = of_all(&proxy);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let count = (limit.current.unwrap_or(1024) as usize / 4).min(2000);
    let streams: Vec<_> = (0..count).map(|_| proxy.connect()).collect();
    eventually("all are relayed", || {
        of_all(&proxy).0 >= before.0 + 2 * count
    });
    assert_eq!(of_all(&proxy).1, before.1, "pipes for idle connections");
    drop(streams);
    // Its own sockets may have changed since it began to listen.
    eventually("all are given back", || of_all(&proxy).0 < before.0 + 5);
}
