//! Metrics in the OpenMetrics text format, over HTTP.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zhaul_service::{Bound, Listener};

use super::conversations::{converse, unix_listener};
use super::shared::Shared;
use crate::pure::health::Status;
use crate::state::counts::{ListenerTotals, ServerTotals};
use crate::state::listener::Listener as ProxyListener;

/// How long a scraper may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_REQUEST: usize = 8 << 10;
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Serving = Pin<Box<dyn Future<Output = ()>>>;

pub(super) fn serve(shared: Arc<Shared>, listener: &Listener) -> io::Result<Serving> {
    let fd = listener.fd.try_clone()?;
    Ok(match listener.address {
        Bound::Unix(_) => {
            let listener = unix_listener(fd)?;
            Box::pin(converse(
                async move || Ok(listener.accept().await?.0),
                move |stream| answer(stream, Arc::clone(&shared)),
            ))
        }
        Bound::Tcp(_) => {
            let listener = tokio::net::TcpListener::from_std(fd.into())?;
            Box::pin(converse(
                async move || Ok(listener.accept().await?.0),
                move |stream| answer(stream, Arc::clone(&shared)),
            ))
        }
    })
}

/// One request, one answer, and the end.
async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let _ = tokio::time::timeout(TIMEOUT, exchange(stream, &shared)).await;
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > MAX_REQUEST || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let line = request.split(|&byte| byte == b'\r').next().unwrap_or(&[]);
    let is_metrics = line.starts_with(b"GET /metrics ") || line.starts_with(b"GET /metrics?");
    let (status, content_type, body) = if is_metrics {
        // Only now: who asks for nothing costs nothing.
        ("200 OK", CONTENT_TYPE, render(shared))
    } else {
        let body = "the metrics are at /metrics\n".to_owned();
        ("404 Not Found", "text/plain; charset=utf-8", body)
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

fn render(shared: &Arc<Shared>) -> String {
    let mut registry = Registry::with_prefix("zhaul_proxy");
    registry.register_collector(Box::new(Figures(Arc::clone(shared))));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

/// Reads the figures at the moment of scraping.
#[derive(Debug)]
struct Figures(Arc<Shared>);

/// What is said of each server or listener: name, help, whether it is a counter, its value.
struct Figure<T> {
    name: &'static str,
    help: &'static str,
    counter: bool,
    value: fn(&T) -> u64,
}

struct OfServer {
    up: bool,
    connections: usize,
    weight: u32,
    totals: ServerTotals,
}

struct OfListener {
    open: usize,
    totals: ListenerTotals,
}

const SERVER_FIGURES: &[Figure<OfServer>] = &[
    Figure {
        name: "server_up",
        help: "Whether the server takes connections",
        counter: false,
        value: |s| u64::from(s.up),
    },
    Figure {
        name: "server_weight",
        help: "Its share relative to others",
        counter: false,
        value: |s| u64::from(s.weight),
    },
    Figure {
        name: "server_connections",
        help: "Connections it has",
        counter: false,
        value: |s| s.connections as u64,
    },
    Figure {
        name: "server_sessions",
        help: "Connections made to it",
        counter: true,
        value: |s| s.totals.sessions,
    },
    Figure {
        name: "server_failures",
        help: "Connections to it that failed",
        counter: true,
        value: |s| s.totals.failures,
    },
    Figure {
        name: "server_downs",
        help: "Times it went down or was counted out",
        counter: true,
        value: |s| s.totals.downs,
    },
    Figure {
        name: "server_sent_bytes",
        help: "Bytes from clients to it",
        counter: true,
        value: |s| s.totals.to_server,
    },
    Figure {
        name: "server_received_bytes",
        help: "Bytes from it to clients",
        counter: true,
        value: |s| s.totals.to_client,
    },
];

const LISTENER_FIGURES: &[Figure<OfListener>] = &[
    Figure {
        name: "listener_connections",
        help: "Connections from clients",
        counter: false,
        value: |l| l.open as u64,
    },
    Figure {
        name: "listener_accepted",
        help: "Connections let in",
        counter: true,
        value: |l| l.totals.accepted,
    },
    Figure {
        name: "listener_refused",
        help: "Connections refused by a rule or a limit",
        counter: true,
        value: |l| l.totals.refused,
    },
    Figure {
        name: "listener_received_bytes",
        help: "Bytes from clients",
        counter: true,
        value: |l| l.totals.to_server,
    },
    Figure {
        name: "listener_sent_bytes",
        help: "Bytes to clients",
        counter: true,
        value: |l| l.totals.to_client,
    },
];

const ENDED: [Figure<u64>; 1] = [Figure {
    name: "listener_ended",
    help: "Connections from clients that ended, by the causes of the log",
    counter: true,
    value: |count| *count,
}];

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let site = self.0.site.load();
        let now = self.0.now();
        let mut servers = Vec::new();
        for pool in site.pools.values() {
            for (server, config) in pool.servers.iter().zip(&pool.config.servers) {
                let of = OfServer {
                    up: server.status(now) == Status::Up,
                    connections: server.connections(),
                    weight: server.weight(config),
                    totals: server.counts.totals(),
                };
                let labels = vec![("pool", pool.name.clone()), ("server", server.name.clone())];
                servers.push((labels, of));
            }
        }
        let by_cause = |listener: &Arc<ProxyListener>| {
            let name = listener.name.clone();
            let labels =
                move |cause: &str| vec![("listener", name.clone()), ("cause", cause.to_owned())];
            let terminations = listener.gate.counts.terminations();
            terminations
                .map(move |(termination, count)| (labels(termination.name()), count))
                .collect::<Vec<_>>()
        };
        let causes: Vec<_> = site.listeners.values().flat_map(by_cause).collect();
        let listeners = site.listeners.values().map(|listener| {
            let of = OfListener {
                open: listener.gate.open(),
                totals: listener.gate.counts.totals(),
            };
            (vec![("listener", listener.name.clone())], of)
        });
        let waiting = site
            .pools
            .values()
            .map(|pool| (vec![("pool", pool.name.clone())], pool.queue.len() as u64));
        let queue = [Figure {
            name: "pool_waiting",
            help: "Sessions that wait for a place at a server",
            counter: false,
            value: |waiting: &u64| *waiting,
        }];
        family(&mut encoder, SERVER_FIGURES, &servers)?;
        family(
            &mut encoder,
            LISTENER_FIGURES,
            &listeners.collect::<Vec<_>>(),
        )?;
        family(&mut encoder, &queue, &waiting.collect::<Vec<_>>())?;
        family(&mut encoder, &ENDED, &causes)
    }
}

type Labels = Vec<(&'static str, String)>;

fn family<T>(
    encoder: &mut DescriptorEncoder<'_>,
    figures: &[Figure<T>],
    of: &[(Labels, T)],
) -> Result<(), std::fmt::Error> {
    for figure in figures {
        let kind = match figure.counter {
            true => MetricType::Counter,
            false => MetricType::Gauge,
        };
        let mut metric = encoder.encode_descriptor(figure.name, figure.help, None, kind)?;
        for (labels, of) in of {
            let value = (figure.value)(of);
            let labelled = metric.encode_family(labels)?;
            if figure.counter {
                ConstCounter::new(value).encode(labelled)?;
            } else {
                ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(labelled)?;
            }
        }
    }
    Ok(())
}
