//! One client that repeats a request for a small file and keeps every latency.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::exchange::{Exchange, Unanswered};
use zhaul_measure::stats::percentile;

#[derive(Debug)]
pub(crate) struct Latencies {
    sorted_ns: Vec<u64>,
    /// The last request had no answer when time was up, and had waited longer than any before. It
    /// counts as if it had been answered then: a lower bound.
    pub(crate) unanswered: bool,
}

impl Latencies {
    pub(crate) fn count(&self) -> usize {
        self.sorted_ns.len()
    }

    pub(crate) fn percentile_us(&self, fraction: f64) -> f64 {
        percentile(&self.sorted_ns, fraction).map_or(0.0, |ns| ns as f64 / 1e3)
    }
}

/// Repeats GET `path` for `length`.
pub(crate) fn run(host: SocketAddrV4, path: &str, length: Duration) -> anyhow::Result<Latencies> {
    let mut exchange = Exchange::connect(host, Ipv4Addr::LOCALHOST)?;
    let request = super::request("GET", path, host, "");
    let mut sorted_ns = Vec::with_capacity(1 << 18);
    let mut unanswered = false;
    let end = Instant::now() + length;
    exchange.give_up_at(end);
    loop {
        let started = Instant::now();
        if started >= end {
            break;
        }
        let outcome = exchange.send(&request).and_then(|head| {
            ensure!(head.status == 200, "status {} for /{path}", head.status);
            exchange.body(head.length.unwrap_or(0), |_| Ok(()))
        });
        let latency_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        match outcome {
            Ok(()) => sorted_ns.push(latency_ns),
            Err(error) if error.is::<Unanswered>() => {
                // Cut off early it says nothing; cut off as the longest it must not be lost.
                if sorted_ns.iter().all(|&answered| answered < latency_ns) {
                    unanswered = true;
                    sorted_ns.push(latency_ns);
                }
                break;
            }
            Err(error) => return Err(error),
        }
    }
    sorted_ns.sort_unstable();
    Ok(Latencies {
        sorted_ns,
        unanswered,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};

    /// Answers `answers` requests, each after `delay`, and no more.
    fn peer(answers: usize, delay: Duration) -> SocketAddrV4 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!("asked for IPv4")
        };
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            for _ in 0..answers {
                let _ = stream.read(&mut request).unwrap();
                std::thread::sleep(delay);
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .unwrap();
            }
            // Ends when the client does.
            while stream.read(&mut request).is_ok_and(|count| count > 0) {}
        });
        address
    }

    #[test]
    fn stall_until_the_end_is_the_longest_latency_and_marked() {
        let latencies = run(peer(5, Duration::ZERO), "x", Duration::from_millis(300)).unwrap();
        assert!(latencies.unanswered);
        assert_eq!(latencies.count(), 6);
        assert!(latencies.percentile_us(1.0) > 150_000.0);
        assert!(latencies.percentile_us(0.5) < 150_000.0);
    }

    #[test]
    fn request_cut_off_by_the_end_is_not_a_latency() {
        // One answer at 300 ms; the next would come at 600.
        let peer = peer(1, Duration::from_millis(300));
        let latencies = run(peer, "x", Duration::from_millis(450)).unwrap();
        assert!(!latencies.unanswered);
        assert_eq!(latencies.count(), 1);
    }
}
