//! Routing by what a TLS client asks for, without terminating TLS.

use std::io::{Read, Write};

use crate::support::process::{cpu_time, tasks};
use crate::support::{Proxy, Servers, attempt, configured};

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [
        &kind.to_be_bytes()[..],
        &(body.len() as u16).to_be_bytes(),
        body,
    ]
    .concat()
}

/// A ClientHello in records of `piece` bytes.
fn client_hello(name: &str, alpn: &[&str], padding: usize, piece: usize) -> Vec<u8> {
    let mut protocols = Vec::new();
    for protocol in alpn {
        protocols.push(protocol.len() as u8);
        protocols.extend(protocol.as_bytes());
    }
    let name_length = name.len() as u16;
    let sni = [
        &(name_length + 3).to_be_bytes()[..],
        &[0],
        &name_length.to_be_bytes(),
        name.as_bytes(),
    ]
    .concat();
    let list = [&(protocols.len() as u16).to_be_bytes()[..], &protocols].concat();
    let mut extensions = extension(51, &vec![9; padding]);
    if !alpn.is_empty() {
        extensions.extend(extension(16, &list));
    }
    if !name.is_empty() {
        extensions.extend(extension(0, &sni));
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let message = [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat();
    let mut out = Vec::new();
    for fragment in message.chunks(piece) {
        out.extend([22, 3, 1]);
        out.extend((fragment.len() as u16).to_be_bytes());
        out.extend(fragment);
    }
    out
}

/// A server that says its name first and then echoes.
fn greeter(name: &'static str) -> Servers {
    Servers::start(move |mut stream| {
        let _ = stream.write_all(name.as_bytes());
        crate::support::servers::echo(stream);
    })
}

struct Setup {
    proxy: Proxy,
    _servers: [Servers; 3],
}

fn setup(default: &str) -> Setup {
    let servers = [greeter("A"), greeter("B"), greeter("D")];
    let [a, b, d] = [0, 1, 2].map(|i| servers[i].address);
    let proxy = configured(&format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\n{default}\n\
         routes = [{{ sni = \"a.example\", to = \"a\" }}, {{ sni = \"*.b.example\", alpn = \"h2\", to = \"b\" }}]\n\
         [pools.a]\nservers = [{{ address = \"{a}\" }}]\n\
         [pools.b]\nservers = [{{ address = \"{b}\" }}]\n\
         [pools.d]\nservers = [{{ address = \"{d}\" }}]\n"
    ));
    Setup {
        proxy,
        _servers: servers,
    }
}

fn exchange(proxy: &Proxy, sent: &[u8], piece: usize) -> Vec<u8> {
    // Whoever is refused may learn of it at any of these.
    let Some(mut stream) = attempt(proxy.address()) else {
        return Vec::new();
    };
    let _ = stream.set_nodelay(true);
    for part in sent.chunks(piece) {
        let _ = stream.write_all(part);
        if piece < sent.len() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    back
}

#[test]
fn the_name_decides_and_the_hello_arrives_untouched() {
    let setup = setup("to = \"d\"");
    for (name, alpn, expected) in [
        ("a.example", &[][..], "A"),
        ("A.EXAMPLE", &["http/1.1"], "A"),
        ("x.b.example", &["http/1.1", "h2"], "B"),
        ("x.b.example", &[], "D"),
        ("other.example", &["h2"], "D"),
        ("", &["h2"], "D"),
    ] {
        let hello = client_hello(name, alpn, 100, 1 << 14);
        let back = exchange(&setup.proxy, &hello, hello.len());
        assert_eq!(
            back,
            [expected.as_bytes(), &hello].concat(),
            "{name} {alpn:?}"
        );
    }
    let lines = setup.proxy.log(6);
    assert!(
        lines.iter().any(|line| line["sni"] == "a.example"),
        "{lines:?}"
    );
}

#[test]
fn any_number_of_records_and_segments() {
    let setup = setup("to = \"d\"");
    for (padding, record, segment) in [(0, 5, 1), (1500, 100, 97), (9000, 1 << 14, 1000)] {
        let hello = client_hello("a.example", &["h2"], padding, record);
        let back = exchange(&setup.proxy, &hello, segment);
        assert_eq!(
            back,
            [b"A", &hello[..]].concat(),
            "{padding} {record} {segment}"
        );
    }
}

#[test]
fn what_is_not_tls_goes_to_the_default() {
    let setup = setup("to = \"d\"");
    assert_eq!(
        exchange(&setup.proxy, b"GET / HTTP/1.1\r\n", 100),
        b"DGET / HTTP/1.1\r\n"
    );
}

#[test]
fn without_a_default_others_are_refused() {
    let setup = setup("");
    for sent in [
        &b"GET / HTTP/1.1\r\n"[..],
        &client_hello("other.example", &[], 0, 1 << 14),
    ] {
        assert_eq!(exchange(&setup.proxy, sent, 1 << 16), b"");
    }
    let causes: Vec<_> = setup
        .proxy
        .log(2)
        .iter()
        .map(|l| l["cause"].clone())
        .collect();
    assert_eq!(causes, ["no-route", "no-route"]);
}

#[test]
fn a_malformed_hello_is_refused() {
    let setup = setup("to = \"d\"");
    assert_eq!(
        exchange(&setup.proxy, &[22, 3, 1, 0xff, 0xff, 1, 2, 3], 100),
        b""
    );
    let line = &setup.proxy.log(1)[0];
    assert_eq!(line["cause"], "bad-client-hello");
}

#[test]
fn a_client_that_leaves_before_it_has_said_enough_is_forgotten() {
    let setup = setup("to = \"d\"");
    let mut stream = setup.proxy.connect();
    stream.write_all(&[22, 3, 1]).unwrap();
    drop(stream);
    assert_eq!(setup.proxy.log(1)[0]["cause"], "client-gone");
}

/// How often the proxy's threads have gone to sleep.
fn sleeps(proxy: &Proxy) -> u64 {
    let of_thread = |task: std::path::PathBuf| {
        let status = std::fs::read_to_string(task.join("status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    tasks(proxy.pid()).map(of_thread).sum()
}

#[test]
fn crumbs_are_not_looked_at_one_by_one() {
    let setup = setup("to = \"d\"\nhello_timeout = \"60s\"");
    let hello = client_hello("a.example", &["h2"], 2_000, 1 << 14);
    let mut stream = setup.proxy.connect();
    stream.set_nodelay(true).unwrap();
    let before = sleeps(&setup.proxy);
    for crumb in &hello {
        stream.write_all(&[*crumb]).unwrap();
        // Time to look and to go to sleep again.
        std::thread::sleep(std::time::Duration::from_micros(50));
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert_eq!(back, [b"A", &hello[..]].concat());
    let sleeps = sleeps(&setup.proxy) - before;
    assert!(sleeps < 40, "{sleeps} for a hello of {} bytes", hello.len());
}

/// The kernel reports these again and again to whoever asks it to wait for more: what lies behind an
/// urgent mark is there and cannot be peeked at, and a full buffer is told of however much is wanted.
#[test]
fn a_hello_that_stays_unfinished_costs_nothing() {
    let setup = setup("to = \"d\"\nhello_timeout = \"60s\"");
    let mut urgent = setup.proxy.connect();
    urgent.write_all(&[22, 3, 1, 2, 0, 1, 0]).unwrap();
    rustix::net::send(&urgent, b"!", rustix::net::SendFlags::OOB).unwrap();
    urgent.write_all(&[0; 600]).unwrap();
    let mut full = setup.proxy.connect();
    full.set_nodelay(true).unwrap();
    full.set_write_timeout(Some(std::time::Duration::from_secs(1)))
        .unwrap();
    let hello = client_hello("a.example", &[], 65_000, 1 << 14);
    for piece in hello[..hello.len() - 1].chunks(100) {
        if full.write_all(piece).is_err() {
            break;
        }
    }
    // Until the last of it has come.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let began = cpu_time(setup.proxy.pid());
    std::thread::sleep(std::time::Duration::from_secs(1));
    let spent = cpu_time(setup.proxy.pid()) - began;
    assert!(
        spent <= std::time::Duration::from_millis(100),
        "{spent:?} while nothing came"
    );
    assert!(setup.proxy.admin("sessions").contains("hello"));
}

#[test]
fn a_silent_client_goes_to_the_default_after_the_wait_and_a_slow_one_does_not() {
    for (wait, default, greeting) in [
        ("hello_wait = \"100ms\"", "to = \"d\"", &b"D"[..]),
        // Without one, it is the time for the hello.
        ("hello_timeout = \"100ms\"", "to = \"d\"", b"D"),
        (
            "hello_timeout = \"100ms\"\nhello_wait = \"1h\"",
            "to = \"d\"",
            b"",
        ),
        ("hello_timeout = \"200ms\"\nhello_wait = \"100ms\"", "", b""),
    ] {
        let setup = setup(&format!("{default}\n{wait}"));
        let mut silent = setup.proxy.connect();
        let mut heard = [0; 1];
        let n = silent.read(&mut heard).unwrap_or(0);
        assert_eq!(&heard[..n], greeting, "{wait}");
        if n > 0 {
            silent.write_all(b"now").unwrap();
            silent.shutdown(std::net::Shutdown::Write).unwrap();
            let mut back = Vec::new();
            silent.read_to_end(&mut back).unwrap();
            assert_eq!(back, b"now");
        } else {
            assert_eq!(setup.proxy.log(1)[0]["cause"], "hello-timeout", "{wait}");
        }
    }
    let setup = setup("to = \"d\"\nhello_timeout = \"300ms\"\nhello_wait = \"100ms\"");
    let mut slow = setup.proxy.connect();
    slow.write_all(&[22, 3, 1]).unwrap();
    assert!(!matches!(slow.read(&mut [0]), Ok(1..)));
    assert_eq!(setup.proxy.log(1)[0]["cause"], "hello-timeout");
}
