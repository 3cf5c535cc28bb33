//! What a start would say about a configuration, without starting: `zhaul proxy --check`.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use zhaul_service::{ListenError, Listener, Options};

use crate::config::{self, Config};
use crate::state::error::ProxyError;
use crate::state::resolve::resolve_all;
use crate::state::site::{may_be_transparent, new_pools, sound};
use crate::state::sockets::{Asked, asked};

/// Everything because of which a proxy would not start here and now.
pub(crate) fn problems(config: &Config) -> Vec<ProxyError> {
    let mut problems: Vec<_> = sound(config).err().into_iter().collect();
    problems.extend(may_be_transparent(config));
    let resolved = resolve_all(new_pools(config, None).values());
    problems.extend(
        resolved
            .err()
            .map(|(server, host, why)| ProxyError::Resolve { server, host, why }),
    );
    problems.extend(listening(config).into_iter().map(ProxyError::Listen));
    if let Some(log) = &config.log
        && let Some(path) = &log.path
        && let Err(why) = can_be_written(path)
    {
        problems.push(ProxyError::log(log, why));
    }
    problems
}

/// Whether it is the configuration that is wrong, whoever starts the proxy and when.
pub(crate) fn is_a_mistake(problem: &ProxyError) -> bool {
    match problem {
        ProxyError::Listen(ListenError { why, .. })
        | ProxyError::Log { why, .. }
        | ProxyError::Transparent { why, .. } => !matches!(
            Errno::from_io_error(why),
            Some(Errno::ADDRINUSE | Errno::ACCESS | Errno::PERM)
        ),
        _ => true,
    }
}

fn listening(config: &Config) -> Vec<ListenError> {
    let all = config.listens_on();
    let plain = config::Listener::default();
    let listeners = config.listeners.values();
    let of_clients =
        listeners.flat_map(|listener| listener.listen.iter().map(move |a| (listener, a)));
    let others = config.metrics.iter().chain(&config.admin);
    let places = of_clients.chain(others.map(|address| (&plain, address)));
    let mut failed = Vec::new();
    for (listener, address) in places {
        let check = |asked: Asked| {
            let access = address.access();
            Listener::check(
                &asked.address,
                Options {
                    access,
                    ..asked.options
                },
            )
        };
        let checks: Vec<_> = asked(listener, address, &all, 1)
            .into_iter()
            .map(check)
            .collect();
        // Of the addresses that a name stands for one has to do.
        if !checks.iter().any(Result::is_ok) {
            failed.extend(checks.into_iter().filter_map(Result::err));
        }
    }
    failed
}

/// Whether a log can be appended to, or made; nothing is.
fn can_be_written(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access as May, access};
    if path.try_exists()? {
        return std::fs::OpenOptions::new()
            .append(true)
            .open(path)
            .map(drop);
    }
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    Ok(access(directory, May::WRITE_OK | May::EXEC_OK)?)
}
