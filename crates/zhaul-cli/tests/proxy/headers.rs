//! PROXY headers, in and out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use crate::support::{Proxy, Servers, attempt, configured, eventually, pattern, read_line};

/// A server that says what its first line was, and then echoes.
fn line_teller() -> Servers {
    Servers::start(|mut stream| {
        if let Ok(line) = read_line(&stream) {
            let _ = stream.write_all(format!("<{}>\n", line.trim_end()).as_bytes());
            crate::support::servers::echo(stream);
        }
    })
}

fn proxy(server: &Servers, listener: &str, pool: &str) -> Proxy {
    configured(&format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n{listener}\n\
         [pools.p]\nservers = [{{ address = \"{}\" }}]\n{pool}\n",
        server.address
    ))
}

fn rest(mut stream: &TcpStream) -> Vec<u8> {
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    rest
}

#[test]
fn servers_learn_who_the_client_is() {
    let server = line_teller();
    let proxy = proxy(&server, "", "send_proxy = \"v1\"");
    let stream = proxy.connect();
    let (client, here) = (stream.local_addr().unwrap(), proxy.address());
    let told = read_line(&stream).unwrap();
    let expected = format!(
        "<PROXY TCP4 127.0.0.1 127.0.0.1 {} {}>",
        client.port(),
        here.port()
    );
    assert_eq!(told, expected);
    (&stream).write_all(b"payload").unwrap();
    assert_eq!(rest(&stream), b"payload");
}

#[test]
fn the_binary_header_comes_before_everything() {
    let server = Servers::echo();
    let proxy = proxy(&server, "", "send_proxy = \"v2\"");
    let stream = proxy.connect();
    let sent = pattern(300_000, 1);
    let back = std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&sent).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        (&stream).read_to_end(&mut back).unwrap();
        back
    });
    assert_eq!(&back[..16], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    assert_eq!(&back[16..20], [127, 0, 0, 1]);
    let port = stream.local_addr().unwrap().port();
    assert_eq!(back[24..26], port.to_be_bytes());
    assert!(back[28..] == sent);
}

#[test]
fn a_trusted_proxy_says_who_the_client_is_in_any_number_of_pieces() {
    let server = Servers::echo();
    let proxy = proxy(&server, "proxy_from = [\"127.0.0.0/8\"]", "");
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.8 7777 443\r\npayload";
    for piece in [1, 5, header.len()] {
        let mut stream = proxy.connect();
        stream.set_nodelay(true).unwrap();
        for part in header.chunks(piece) {
            stream.write_all(part).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert_eq!(rest(&stream), b"payload", "{piece}");
    }
    for line in proxy.log(3) {
        assert_eq!(line["client"], "192.0.2.7:7777");
    }
}

#[test]
fn tlvs_go_through() {
    let server = Servers::echo();
    let proxy = proxy(
        &server,
        "proxy_from = [\"127.0.0.1\"]",
        "send_proxy = \"v2\"",
    );
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12".to_vec();
    header.extend([192, 0, 2, 7, 192, 0, 2, 8, 0x1e, 0x61, 1, 0xbb]);
    header.extend([0xea, 0, 3, b'v', b'p', b'c']);
    let mut stream = proxy.connect();
    stream
        .write_all(&[&header[..], b"payload"].concat())
        .unwrap();
    assert_eq!(rest(&stream), [&header[..], b"payload"].concat());
}

#[test]
fn strangers_and_mistakes_are_refused() {
    let server = Servers::echo();
    for (from, sent, why) in [
        (
            "10.0.0.0/8",
            &b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\nx"[..],
            "is not among those",
        ),
        (
            "127.0.0.1",
            b"GET / HTTP/1.1\r\n\r\n",
            "does not begin like",
        ),
        (
            "127.0.0.1",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 99999\r\nx",
            "port",
        ),
    ] {
        let proxy = proxy(&server, &format!("proxy_from = [\"{from}\"]"), "");
        if let Some(mut stream) = attempt(proxy.address()) {
            let _ = stream.write_all(sent);
            assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
        }
        let line = &proxy.log(1)[0];
        assert_eq!(line["cause"], "bad-proxy-header");
        assert!(line["detail"].as_str().unwrap().contains(why), "{line}");
        proxy.wait_for(&["listener l", "bad PROXY header", why]);
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn a_client_that_says_nothing_is_not_waited_for_for_ever() {
    let server = Servers::echo();
    let proxy = proxy(
        &server,
        "proxy_from = [\"127.0.0.1\"]\nhello_timeout = \"200ms\"",
        "",
    );
    let mut stream = proxy.connect();
    stream.write_all(b"PROXY ").unwrap();
    assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
    assert_eq!(proxy.log(1)[0]["cause"], "hello-timeout");
}

/// A header of version 2.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u16).to_be_bytes();
    [
        b"\r\n\r\n\0\r\nQUIT\n",
        &[command, family][..],
        &length,
        block,
    ]
    .concat()
}

#[test]
fn headers_that_introduce_nobody_are_taken_whatever_they_hold() {
    let server = Servers::echo();
    let proxy = proxy(&server, "proxy_from = [\"::ffff:127.0.0.0/104\"]", "");
    let headers = [
        v2(0x20, 0x11, b""),
        v2(0x20, 0x11, b"12bytes.....\x02\xff\xff"),
        v2(0x20, 0xf0, b"abcd"),
        v2(0x20, 0, &[7; 65_535]),
        v2(0x21, 0, b"12bytes....."),
        b"PROXY UNKNOWN \xff\xfe\r\n".to_vec(),
    ];
    for header in &headers {
        let mut stream = proxy.connect();
        let own = stream.local_addr().unwrap();
        // The end of it comes alone, when what there is has been looked at.
        let (all, last) = header.split_at(header.len() - 1);
        stream.write_all(all).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        stream.write_all(&[last, b"payload"].concat()).unwrap();
        assert_eq!(
            rest(&stream),
            b"payload",
            "{:?}",
            &header[..header.len().min(40)]
        );
        let told = |line: &serde_json::Value| line["client"] == own.to_string();
        eventually("it is in the log", || proxy.log(1).iter().any(told));
    }
}

#[test]
fn clients_without_an_address_are_local_or_unknown() {
    for (version, expected) in [
        ("v1", b"PROXY UNKNOWN\r\n".to_vec()),
        ("v2", v2(0x20, 0, b"")),
    ] {
        let server = Servers::echo();
        let proxy = configured(&format!(
            "[listeners.l]\nlisten = [\"127.0.0.1:0\", \"unix:DIR/in\"]\nto = \"p\"\n\
             [listeners.behind]\nlisten = \"unix:DIR/behind\"\nto = \"p\"\nproxy_from = [\"unix\"]\n\
             [pools.p]\nservers = [{{ address = \"{}\" }}]\nsend_proxy = \"{version}\"\n",
            server.address
        ));
        for (socket, said) in [
            ("in", Vec::new()),
            ("behind", v2(0x20, 0x11, b"x")),
            ("behind", v2(0x21, 0x31, &[0; 216])),
            ("behind", b"PROXY UNKNOWN x\r\n".to_vec()),
        ] {
            let mut client = UnixStream::connect(proxy.dir().join(socket)).unwrap();
            client.write_all(&[&said[..], b"payload"].concat()).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut back = Vec::new();
            client.read_to_end(&mut back).unwrap();
            assert_eq!(
                back,
                [&expected[..], b"payload"].concat(),
                "{version} {socket}"
            );
        }
    }
}
