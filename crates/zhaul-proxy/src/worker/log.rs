//! One line for each session.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Serialize;
use zhaul::relay::{Stats, Way, WayStats};
use zhaul_service::{FLUSH_BYTES, LogSender};

use super::end::End;
use super::session::Session;
use crate::config::{Log, LogFormat};

/// How long lines are held back.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// A worker's lines on their way to the log; none are kept without one.
#[derive(Debug)]
pub(super) struct SessionLog {
    sender: Option<LogSender>,
    format: LogFormat,
    bytes: Vec<u8>,
    flush_at: Option<Duration>,
}

/// What a line says; in JSON these are the names.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// When the session ended.
    time: String,
    session: u64,
    listener: &'a str,
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    retries: usize,
    total_ms: f64,
    hello_ms: f64,
    queue_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ms: Option<f64>,
    bytes_up: u64,
    bytes_down: u64,
    spliced_up: u64,
    spliced_down: u64,
    route_up: &'static str,
    route_down: &'static str,
    switches: u32,
    calls: u64,
    lost_up: u64,
    lost_down: u64,
}

impl SessionLog {
    pub(super) fn new(sender: Option<LogSender>, log: Option<&Log>) -> Self {
        Self {
            sender,
            format: log.map_or(LogFormat::default(), |log| log.format),
            bytes: Vec::new(),
            flush_at: None,
        }
    }

    /// Tells of a session that has ended.
    pub(super) fn push(
        &mut self,
        session: &Session,
        end: &End,
        stats: Option<&Stats>,
        now: Duration,
    ) {
        if self.sender.is_none() {
            return;
        }
        let line = Line::of(session, end, stats, now);
        match self.format {
            LogFormat::Json => {
                // Numbers and strings only, so this cannot fail.
                let _ = serde_json::to_writer(&mut self.bytes, &line);
            }
            LogFormat::Text => self.bytes.extend(line.text().into_bytes()),
        }
        self.bytes.push(b'\n');
        if self.bytes.len() >= FLUSH_BYTES {
            self.flush();
        } else {
            self.flush_at.get_or_insert(now + FLUSH_EVERY);
        }
    }

    /// When the lines that are there are to be handed over.
    pub(super) const fn flush_at(&self) -> Option<Duration> {
        self.flush_at
    }

    /// Hands the lines that are there over.
    pub(super) fn flush(&mut self) {
        self.flush_at = None;
        if let Some(sender) = &self.sender
            && !self.bytes.is_empty()
        {
            sender.send(std::mem::take(&mut self.bytes));
        }
    }
}

impl<'a> Line<'a> {
    fn of(session: &'a Session, end: &End, stats: Option<&Stats>, now: Duration) -> Self {
        let facts = &session.facts;
        let of = |way: Way| stats.map(|stats| stats.way(way));
        let bytes = |way: Way| of(way).map_or(0, |stats| stats.delivered);
        let spliced = |way: Way| of(way).map_or(0, |stats| stats.spliced);
        let lost = |way: Way| of(way).map_or(0, WayStats::in_transit);
        Self {
            time: timestamp(),
            session: session.number,
            listener: &session.listener.name,
            client: session.source_text(),
            sni: facts.server_name.as_deref(),
            pool: facts.pool.as_deref(),
            server: facts.server.as_deref(),
            cause: end.termination().name(),
            detail: end.detail(),
            retries: facts.tried.len(),
            total_ms: ms(now.saturating_sub(facts.began)),
            hello_ms: facts.hello.map_or(0.0, ms),
            queue_ms: ms(facts.queued),
            connect_ms: facts.connect.map(ms),
            bytes_up: bytes(Way::AToB),
            bytes_down: bytes(Way::BToA),
            spliced_up: spliced(Way::AToB),
            spliced_down: spliced(Way::BToA),
            route_up: route(bytes(Way::AToB), spliced(Way::AToB)),
            route_down: route(bytes(Way::BToA), spliced(Way::BToA)),
            switches: Way::BOTH
                .iter()
                .filter_map(|&way| of(way))
                .map(|stats| stats.switches)
                .sum(),
            calls: Way::BOTH
                .iter()
                .filter_map(|&way| of(way))
                .map(|stats| stats.calls)
                .sum(),
            lost_up: lost(Way::AToB),
            lost_down: lost(Way::BToA),
        }
    }

    fn text(&self) -> String {
        let mut out = String::with_capacity(300);
        let or_dash = |value: Option<&'a str>| value.unwrap_or("-");
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "{} session={} listener={} client={} sni={} pool={} server={} cause={}",
            self.time,
            self.session,
            self.listener,
            self.client,
            or_dash(self.sni),
            or_dash(self.pool),
            or_dash(self.server),
            self.cause,
        );
        if let Some(detail) = &self.detail {
            let _ = write!(out, " detail={detail:?}");
        }
        let _ = write!(
            out,
            " retries={} total_ms={} hello_ms={} queue_ms={}",
            self.retries, self.total_ms, self.hello_ms, self.queue_ms
        );
        if let Some(connect_ms) = self.connect_ms {
            let _ = write!(out, " connect_ms={connect_ms}");
        }
        let _ = write!(
            out,
            " bytes_up={} bytes_down={} spliced_up={} spliced_down={} route_up={} route_down={} \
             switches={} calls={} lost_up={} lost_down={}",
            self.bytes_up,
            self.bytes_down,
            self.spliced_up,
            self.spliced_down,
            self.route_up,
            self.route_down,
            self.switches,
            self.calls,
            self.lost_up,
            self.lost_down,
        );
        out
    }
}

/// The route taken by what was moved.
const fn route(bytes: u64, spliced: u64) -> &'static str {
    match (bytes, spliced) {
        (0, _) => "none",
        (_, 0) => "copy",
        (bytes, spliced) if bytes == spliced => "splice",
        _ => "both",
    }
}

fn timestamp() -> String {
    let now = Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{now:.6}")
}

/// Milliseconds, to the microsecond.
fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
