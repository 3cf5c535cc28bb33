//! Active checks: is a server there, and does it say what it should?

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};
use tokio::task::JoinSet;

use crate::config::{Check, CheckKind, Source};
use crate::health::Change;
use crate::pool::Pool;
use crate::proxy::Shared;
use crate::server::{Endpoint, MOST_ADDRESSES, Server};

/// What is read of a server's answer at most.
const MAX_ANSWER: usize = 64 << 10;

/// Starts checking every server of a pool, if it says so.
pub(super) fn start(tasks: &mut JoinSet<()>, shared: &Arc<Shared>, pool: &Arc<Pool>) {
    let Some(check) = &pool.config.check else {
        return;
    };
    let servers = pool.servers.len() as u32;
    for index in 0..pool.servers.len() {
        // Spread over the interval, so that servers are not all asked at the same moment.
        let delay = check.interval * index as u32 / servers;
        let check = check.clone();
        tasks.spawn_local(keep_checking(
            Arc::clone(shared),
            Arc::clone(pool),
            index,
            check,
            delay,
        ));
    }
}

async fn keep_checking(
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    index: usize,
    check: Check,
    delay: Duration,
) {
    tokio::time::sleep(delay).await;
    let server = &pool.servers[index];
    loop {
        let result = check_once(server, &check, pool.config.source).await;
        let failed = result.as_ref().err().map(String::as_str);
        if server.checked(failed, &check, shared.now()) == Some(Change::CameUp) {
            pool.call_all();
        }
        tokio::time::sleep(check.interval).await;
    }
}

/// A server is there if one of its addresses is, as for connections.
async fn check_once(server: &Server, check: &Check, source: Source) -> Result<(), String> {
    let turn = server.turn();
    let mut result = Err("looking up its name".to_owned());
    for attempt in 0..server.endpoints().len().min(MOST_ADDRESSES) {
        let Some(endpoint) = server.endpoint(turn.wrapping_add(attempt)) else {
            break;
        };
        let asked = ask(&endpoint, &check.kind, source);
        result = match tokio::time::timeout(check.timeout, asked).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(e)) => Err(format!("its check ({e})")),
            Err(_) => Err("its check (no answer in time)".to_owned()),
        };
    }
    result
}

async fn ask(endpoint: &Endpoint, kind: &CheckKind, source: Source) -> io::Result<()> {
    match endpoint {
        Endpoint::Unix(path) => talk(UnixStream::connect(path).await?, kind).await,
        Endpoint::Tcp(address) => {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            // A check leaves no connection in TIME_WAIT.
            socket.set_zero_linger()?;
            if let Source::Address(ip) = source {
                socket.bind((ip, 0).into())?;
            }
            talk(socket.connect(*address).await?, kind).await
        }
    }
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, kind: &CheckKind) -> io::Result<()> {
    match kind {
        CheckKind::Connect => Ok(()),
        CheckKind::Tls => {
            stream.write_all(CLIENT_HELLO).await?;
            let mut header = [0; 3];
            stream.read_exact(&mut header).await?;
            match header {
                // A handshake message, or an alert that says why there is none: TLS in any case.
                [22 | 21, 3, _] => Ok(()),
                _ => Err(io::Error::other("its answer is not TLS")),
            }
        }
        CheckKind::Exchange { send, expect } => {
            stream.write_all(send).await?;
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

/// A ClientHello for TLS 1.2 and 1.3 that any server answers, with an alert at least: three cipher
/// suites, one group (x25519, without a share of it, so TLS 1.3 begins with a HelloRetryRequest).
const CLIENT_HELLO: &[u8] = &[
    // Record: handshake, 3.1, 88 bytes.
    22, 3, 1, 0, 88, //
    // ClientHello of 84 bytes, version 3.3.
    1, 0, 0, 84, 3, 3, //
    // Random.
    0x7a, 0x68, 0x61, 0x75, 0x6c, 0x20, 0x63, 0x68, 0x65, 0x63, 0x6b, 0, 0, 0, 0, 0, //
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
    // No session.
    0, //
    // TLS_AES_128_GCM_SHA256, ECDHE with AES-128-GCM for ECDSA and RSA.
    0, 6, 0x13, 0x01, 0xc0, 0x2b, 0xc0, 0x2f, //
    // No compression.
    1, 0, //
    // 37 bytes of extensions: supported_versions 1.3 and 1.2,
    0, 37, 0, 43, 0, 5, 4, 3, 4, 3, 3, //
    // supported_groups x25519 and secp256r1,
    0, 10, 0, 6, 0, 4, 0, 29, 0, 23, //
    // signature_algorithms ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256, rsa_pkcs1_sha256,
    0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1, //
    // key_share without a share.
    0, 51, 0, 2, 0, 0,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_hello::{Beginning, inspect};

    #[test]
    fn the_hello_of_the_check_is_one() {
        assert!(matches!(inspect(CLIENT_HELLO), Beginning::Hello(_)));
        let record = u16::from_be_bytes([CLIENT_HELLO[3], CLIENT_HELLO[4]]);
        assert_eq!(CLIENT_HELLO.len(), 5 + usize::from(record));
    }

    #[test]
    fn answers_are_searched() {
        assert!(contains(b"-ERR\r\n+PONG\r\n", b"+PONG"));
        assert!(!contains(b"+PON", b"+PONG"));
        assert!(!contains(b"", b"+PONG"));
    }
}
