//! The administrator's socket: one command a line, one answer each.
//!
//! Answers are lines of text and end with an empty line, so that a person with `nc -U` and a script
//! can read them. A command that fails is answered by one line that begins with `error:`.

use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use zhaul::relay::{Stats, Way};
use zhaul_service::Listener;

use super::conversations::{converse, unix_listener};
use super::shared::Shared;
use crate::pure::health::{AdminState, SHARE};
use crate::state::pool::Pool;
use crate::worker::{Message, SessionView};

const MAX_LINE: u64 = 4096;
/// Silence after which a conversation ends.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How long workers may take to list their sessions.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

const HELP: &str = "\
help                          this list
servers                       every server: status, weight, connections, counts
sessions                      every session: client, server, bytes, route
drain POOL/SERVER             no new connections; those it has go on
ready POOL/SERVER             use it again
weight POOL/SERVER N|default  set its weight (0 to 1000), or use the configured one
kill N                        end the session of this number
";

pub(super) fn serve(
    shared: Arc<Shared>,
    listener: &Listener,
) -> io::Result<impl Future<Output = ()> + 'static> {
    let listener = unix_listener(listener.fd.try_clone()?)?;
    Ok(converse(
        async move || Ok(listener.accept().await?.0),
        move |stream| talk(Arc::clone(&shared), stream),
    ))
}

async fn talk(shared: Arc<Shared>, stream: UnixStream) {
    let (input, mut output) = stream.into_split();
    let mut input = BufReader::new(input);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut input).take(MAX_LINE);
        let read = limited.read_until(b'\n', &mut line);
        match tokio::time::timeout(TIMEOUT, read).await {
            // A line without its end is no command: it would be a part of one.
            Ok(Ok(n @ 1..)) if (n as u64) < MAX_LINE => {}
            _ => return,
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let asking = Arc::clone(&shared);
        // Listing waits for workers, so it is done elsewhere.
        let answer = tokio::task::spawn_blocking(move || answer(&asking, line.trim())).await;
        let mut text = match answer {
            Ok(Ok(text)) => text,
            Ok(Err(why)) => format!("error: {why}\n"),
            Err(_) => return,
        };
        text.push('\n');
        let write = output.write_all(text.as_bytes());
        if !matches!(tokio::time::timeout(TIMEOUT, write).await, Ok(Ok(()))) {
            return;
        }
    }
}

fn answer(shared: &Shared, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [] => Ok(String::new()),
        ["help"] => Ok(HELP.to_owned()),
        ["servers"] => Ok(servers(shared)),
        ["sessions"] => Ok(sessions(shared)),
        ["drain", server] => set_state(shared, server, AdminState::Drain),
        ["ready", server] => set_state(shared, server, AdminState::Ready),
        ["weight", server, weight] => set_weight(shared, server, weight),
        ["kill", number] => {
            let number = number
                .parse()
                .map_err(|_| format!("{number:?} is not the number of a session"))?;
            kill(shared, number)
        }
        _ => Err(format!("unknown command {line:?} (send help for a list)")),
    }
}

fn servers(shared: &Shared) -> String {
    let site = shared.site.load();
    let now = shared.now();
    let mut out = String::from(
        "server status weight connections sessions failures downs bytes_up bytes_down waiting address\n",
    );
    for pool in site.pools.values() {
        for (server, config) in pool.servers.iter().zip(&pool.config.servers) {
            let (weight, slow_start) = (server.weight(config), pool.config.slow_start);
            let share = server.health().share(weight, slow_start, now);
            let status = server.status(now).name();
            let totals = server.counts.totals();
            // Two digits tell a slow start from its end, and never from a server that takes nothing.
            let hundredths = u64::from(share) * 100 / u64::from(SHARE);
            let weight = hundredths.max(u64::from(share > 0)) as f64 / 100.0;
            // Writing to a string does not fail.
            let _ = writeln!(
                out,
                "{}/{} {status}{} {weight} {} {} {} {} {} {} {} {}",
                pool.name,
                server.name,
                if config.backup { ",backup" } else { "" },
                server.connections(),
                totals.sessions,
                totals.failures,
                totals.downs,
                totals.to_server,
                totals.to_client,
                pool.queue.len(),
                server.address,
            );
        }
    }
    out
}

fn views(shared: &Shared) -> Vec<SessionView> {
    let (reply, answers) = mpsc::channel();
    shared.tell_all(|| Message::List(reply.clone()));
    drop(reply);
    let mut views = Vec::new();
    for _ in &shared.mailboxes {
        match answers.recv_timeout(LIST_TIMEOUT) {
            Ok(some) => views.extend(some),
            Err(_) => break,
        }
    }
    views.sort_by_key(|view| view.number);
    views
}

fn sessions(shared: &Shared) -> String {
    let mut out = String::from(
        "session phase age_s client listener server bytes_up bytes_down route_up route_down\n",
    );
    for view in views(shared) {
        let bytes = |way| {
            view.stats
                .map_or(0, |stats: Stats| stats.way(way).delivered)
        };
        let route = |way| {
            view.stats
                .map_or("-", |stats: Stats| stats.way(way).route.name())
        };
        let server = match (&view.pool, &view.server) {
            (Some(pool), Some(server)) => format!("{pool}/{server}"),
            (Some(pool), None) => pool.to_string(),
            _ => "-".to_owned(),
        };
        let _ = writeln!(
            out,
            "{} {} {:.3} {} {} {server} {} {} {} {}",
            view.number,
            view.phase,
            view.age.as_secs_f64(),
            view.client,
            view.listener,
            bytes(Way::AToB),
            bytes(Way::BToA),
            route(Way::AToB),
            route(Way::BToA),
        );
    }
    out
}

/// The pool, and the index of the server, of `POOL/SERVER`.
fn find(shared: &Shared, name: &str) -> Result<(Arc<Pool>, usize), String> {
    let site = shared.site.load();
    let Some((pool, server)) = name.split_once('/') else {
        return Err(format!("{name:?} is no server (write POOL/SERVER)"));
    };
    let Some(pool) = site.pools.get(pool) else {
        return Err(format!(
            "there is no pool {pool:?} (send servers for a list)"
        ));
    };
    let index = pool.servers.iter().position(|s| s.name == server);
    match index {
        Some(index) => Ok((Arc::clone(pool), index)),
        None => Err(format!(
            "pool {:?} has no server {server:?} (send servers for a list)",
            pool.name
        )),
    }
}

fn set_state(shared: &Shared, name: &str, state: AdminState) -> Result<String, String> {
    let (pool, index) = find(shared, name)?;
    pool.servers[index].health().admin_state = state;
    if state == AdminState::Ready {
        pool.queue.call_all();
    }
    let word = match state {
        AdminState::Ready => "ready",
        AdminState::Drain => "draining",
    };
    tracing::warn!("the administrator made server {name} {word}");
    Ok(format!("{name} is {word}\n"))
}

fn set_weight(shared: &Shared, name: &str, weight: &str) -> Result<String, String> {
    let (pool, index) = find(shared, name)?;
    let value = match weight {
        "default" => None,
        number => match number.parse::<u32>() {
            Ok(value @ ..=1000) => Some(value),
            _ => {
                return Err(format!(
                    "{number:?} is no weight (use 0 to 1000, or default)"
                ));
            }
        },
    };
    pool.servers[index].set_weight(value);
    pool.queue.call_all();
    tracing::warn!("the administrator set the weight of server {name} to {weight}");
    Ok(format!("{name} has weight {weight}\n"))
}

fn kill(shared: &Shared, number: u64) -> Result<String, String> {
    if !views(shared).iter().any(|view| view.number == number) {
        return Err(format!(
            "there is no session {number} (send sessions for a list)"
        ));
    }
    shared.tell_all(|| Message::Kill { number });
    tracing::warn!("the administrator ended session {number}");
    Ok(format!("session {number} is ended\n"))
}
