//! Active checks: is a server there, and does it say what it should?

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::shared::{Shared, pool_of};
use crate::config::{self, Check, CheckKind, Source, Upstream};
use crate::pure::addresses::Endpoint;
use crate::pure::client_hello;
use crate::pure::health::Change;
use crate::pure::proxy_header::{self, Introduction};
use crate::state::pool::Pool;
use crate::state::server::Server;

/// What is read of a server's answer at most.
const MAX_ANSWER: usize = 64 << 10;

/// Checks a server for as long as there is one. A reload neither interrupts a check nor puts the next
/// one off.
pub(super) async fn keep_checking(shared: Arc<Shared>, server: Arc<Server>) {
    let mut reloads = shared.reloads.subscribe();
    let began = Instant::now();
    let mut last = None;
    while let Some((pool, index)) = pool_of(&shared, &server) {
        let Some(check) = &pool.config.check else {
            // The sender lives as long as `shared`.
            let _ = reloads.changed().await;
            continue;
        };
        // Spread over the interval, so that servers are not all asked at the same moment.
        let first = began + check.interval * index as u32 / pool.servers.len() as u32;
        let due = last.map_or(first, |last| last + check.interval);
        tokio::select! {
            () = sleep_until(due) => {}
            _ = reloads.changed() => continue,
        }
        if !server.is_resolved() {
            // It is down as it is, and up as soon as its name stands for something.
            last = Some(Instant::now());
            continue;
        }
        let result = check_once(&server, &pool.config, check, &shared).await;
        let failed = result.as_ref().err().map(String::as_str);
        // A reload may have said that there are no checks any more, and that it is up.
        let is_wanted = |(pool, _): (Arc<Pool>, _)| pool.config.check.is_some();
        if pool_of(&shared, &server).is_some_and(is_wanted)
            && server.checked(failed, check, shared.now()) == Some(Change::CameUp)
        {
            pool.queue.call_all();
        }
        last = Some(Instant::now());
    }
}

/// A conversation with a server.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// A server is there if one of its addresses is, as for connections.
async fn check_once(
    server: &Server,
    pool: &config::Pool,
    check: &Check,
    shared: &Shared,
) -> Result<(), String> {
    let request = request(server, pool, check);
    let mut result = Err("looking up its name".to_owned());
    for endpoint in server.addresses(check.timeout, shared.now()) {
        let asked = exchange(&endpoint, &request, check, pool.source);
        result = asked.await.map_err(|e| format!("its check ({e})"));
        server.learn(&endpoint, result.is_ok(), shared.now());
        if result.is_ok() {
            break;
        }
    }
    result
}

/// What a check sends at once. A server that wants a PROXY header gets one that introduces nobody.
fn request(server: &Server, pool: &config::Pool, check: &Check) -> Vec<u8> {
    let nobody = Introduction::default();
    let header = pool
        .send_proxy
        .map(|version| proxy_header::write(version, &nobody));
    let mut bytes = header.unwrap_or_default();
    match &check.kind {
        CheckKind::Connect => {}
        CheckKind::Tls { sni } => {
            let host = match &server.address {
                Upstream::Name(host, _) => Some(host),
                Upstream::Ip(_) | Upstream::Unix(_) => None,
            };
            // RFC 6066: without the dot at its end.
            let name = sni.as_ref().or(host).map(|name| name.trim_end_matches('.'));
            bytes.extend(client_hello::write(name));
        }
        CheckKind::Exchange { send, .. } => bytes.extend(send),
    }
    bytes
}

/// One conversation, which takes no longer than the check says.
async fn exchange(
    endpoint: &Endpoint,
    request: &[u8],
    check: &Check,
    source: Source,
) -> io::Result<()> {
    let deadline = Instant::now() + check.timeout;
    let in_time = |_| io::Error::other("no answer in time");
    let connected = timeout_at(deadline, connect(endpoint, source)).await;
    let mut stream = connected.map_err(in_time)??;
    let talk = async {
        stream.write_all(request).await?;
        listen(&mut stream, &check.kind).await
    };
    let result = timeout_at(deadline, talk).await;
    // Whatever came of it; nobody waits for that.
    tokio::task::spawn_local(timeout(check.timeout, close_gracefully(stream)));
    result.map_err(in_time)?
}

async fn connect(endpoint: &Endpoint, source: Source) -> io::Result<Box<dyn Stream>> {
    Ok(match endpoint {
        Endpoint::Unix(addr) => Box::new(UnixStream::connect(addr.to_path()).await?),
        Endpoint::Tcp(address) => {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            if let Source::Address(ip) = source {
                socket.bind((ip, 0).into())?;
            }
            Box::new(socket.connect(*address).await?)
        }
    })
}

/// Waits for the answer that is expected.
async fn listen(mut stream: impl AsyncRead + Unpin, kind: &CheckKind) -> io::Result<()> {
    match kind {
        CheckKind::Connect => Ok(()),
        CheckKind::Tls { .. } => {
            let mut header = [0; 3];
            stream.read_exact(&mut header).await?;
            match header {
                // A handshake message, or an alert that says why there is none: TLS in any case.
                [22 | 21, 3, _] => Ok(()),
                _ => Err(io::Error::other("its answer is not TLS")),
            }
        }
        CheckKind::Exchange { expect, .. } => {
            let mut answer = Vec::new();
            while !contains(&answer, expect) {
                if answer.len() >= MAX_ANSWER {
                    return Err(io::Error::other(
                        "its answer is long and not the expected one",
                    ));
                }
                if stream.read_buf(&mut answer).await? == 0 {
                    return Err(io::Error::other("its answer is not the expected one"));
                }
            }
            Ok(())
        }
    }
}

fn contains(answer: &[u8], expected: &[u8]) -> bool {
    answer
        .windows(expected.len().max(1))
        .any(|window| window == expected)
}

/// Ends a conversation so that the server sees the end of a stream. To close it with something unread,
/// or while the server still speaks, would be a reset, which servers log as an error.
async fn close_gracefully(mut stream: Box<dyn Stream>) {
    if stream.shutdown().await.is_ok() {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_searched() {
        assert!(contains(b"-ERR\r\n+PONG\r\n", b"+PONG"));
        assert!(!contains(b"+PON", b"+PONG"));
        assert!(!contains(b"", b"+PONG"));
    }

    #[test]
    fn the_hello_asks_for_the_name_of_the_server() {
        let named = |address: &str, sni: Option<&str>| {
            let config: config::Server =
                config::Config::simple(Vec::new(), vec![address.parse().unwrap()]).pools
                    [config::DEFAULT_NAME]
                    .servers[0]
                    .clone();
            let kind = CheckKind::Tls {
                sni: sni.map(str::to_owned),
            };
            let check = Check {
                kind,
                ..Check::default()
            };
            let said = request(&Server::new("p", &config), &config::Pool::default(), &check);
            match client_hello::inspect(&said) {
                client_hello::Beginning::Hello(hello) => hello.server_name,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            named("db.example.:443", None).as_deref(),
            Some("db.example")
        );
        assert_eq!(named("192.0.2.1:443", None), None);
        assert_eq!(
            named("192.0.2.1:443", Some("a.example")).as_deref(),
            Some("a.example")
        );
        assert_eq!(
            named("db.example:443", Some("a.example")).as_deref(),
            Some("a.example")
        );
    }
}
