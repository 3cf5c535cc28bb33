//! RLIMIT_NOFILE: the soft limit is raised to the hard one, here and by inheritance in every child.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit and returns it.
pub(crate) fn raise_nofile() -> std::io::Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Both ends of 10,000 proxied connections. Only a privileged process may raise the hard limit.
    let enough = Rlimit {
        current: Some(ENOUGH),
        maximum: Some(ENOUGH),
    };
    if maximum.is_some_and(|maximum| maximum < ENOUGH)
        && setrlimit(Resource::Nofile, enough).is_ok()
    {
        return Ok(ENOUGH);
    }
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    // `None` is RLIM_INFINITY.
    Ok(maximum.unwrap_or(u64::MAX))
}

const ENOUGH: u64 = 32_768;
