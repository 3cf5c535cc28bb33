//! Limits of this process and settings of the kernel that decide how far the mechanisms carry.

use std::os::fd::AsFd;

use rustix::process::{Resource, getrlimit};

use super::context::Context;
use super::report::{Judgement, Limit};
use super::splice::Pipe;
use super::trouble::described;

/// All of them, the most often met first.
pub(super) fn look(context: &Context) -> Vec<Limit> {
    let mut limits = vec![
        open_files(),
        locked_memory(context),
        pipe_size(),
        one_pipe(),
    ];
    limits.extend(pipe_pages(context));
    limits.extend([
        optmem(),
        window("tcp_wmem", "/proc/sys/net/ipv4/tcp_wmem", "sending"),
        window("tcp_rmem", "/proc/sys/net/ipv4/tcp_rmem", "receiving"),
        somaxconn(),
        lease_break_time(),
        perf_event_paranoid(context),
    ]);
    limits
}

/// A limit before it is judged.
fn limit(
    name: &'static str,
    set_in: &'static str,
    unit: &'static str,
    value: Option<u64>,
) -> Limit {
    let text = value.map_or_else(|| "not seen".to_owned(), |value| amount(value, unit));
    Limit {
        name,
        set_in,
        value,
        unit,
        text,
        lifted_by: None,
        judgement: value.map_or(Judgement::Unknown, |_| Judgement::Fine),
        cost: None,
        remedy: None,
    }
}

impl Limit {
    fn low(mut self, cost: impl Into<String>, remedy: impl Into<String>) -> Self {
        self.judgement = Judgement::Low;
        self.cost = Some(cost.into());
        self.remedy = Some(remedy.into());
        self
    }

    fn low_if(self, is_low: impl Fn(u64) -> bool, cost: &str, remedy: &str) -> Self {
        match self.value {
            Some(value) if is_low(value) => self.low(cost, remedy),
            _ => self,
        }
    }

    fn lifted_by(mut self, capability: &'static str) -> Self {
        self.lifted_by = Some(capability);
        self
    }

    fn unlimited(mut self, text: &str) -> Self {
        self.value = None;
        self.text = text.to_owned();
        self.judgement = Judgement::Fine;
        self
    }
}

/// `1 MiB`, `45 s`, `1024`.
fn amount(value: u64, unit: &str) -> String {
    match unit {
        "bytes" if value >= 1 << 30 && value.is_multiple_of(1 << 30) => {
            format!("{} GiB", value >> 30)
        }
        "bytes" if value >= 1 << 20 => format!("{} MiB", value >> 20),
        "bytes" if value >= 1 << 10 => format!("{} KiB", value >> 10),
        "bytes" => format!("{value} bytes"),
        "seconds" => format!("{value} s"),
        _ => value.to_string(),
    }
}

/// One of the blank-separated numbers in a file of /proc/sys.
fn setting(path: &str, position: usize) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.split_whitespace().nth(position)?.parse().ok()
}

fn open_files() -> Limit {
    let rlimit = getrlimit(Resource::Nofile);
    let this = limit("nofile", "RLIMIT_NOFILE", "descriptors", rlimit.current);
    let Some(soft) = rlimit.current else {
        return this.unlimited("no limit");
    };
    if soft >= 8192 {
        return this;
    }
    let remedy = match rlimit.maximum {
        Some(hard) if hard <= soft => "LimitNOFILE= in the service, or limits.conf".to_owned(),
        Some(hard) => format!("ulimit -n {hard}, or LimitNOFILE= in the service"),
        None => "ulimit -n 65536, or LimitNOFILE= in the service".to_owned(),
    };
    this.low(
        "each connection takes a descriptor, each file in use another, a relayed pair up to six",
        remedy,
    )
}

fn locked_memory(context: &Context) -> Limit {
    let rlimit = getrlimit(Resource::Memlock);
    let this = limit("memlock", "RLIMIT_MEMLOCK", "bytes", rlimit.current);
    if rlimit.current.is_none() {
        return this.unlimited("no limit");
    }
    if context.has("CAP_IPC_LOCK") {
        return this.lifted_by("CAP_IPC_LOCK");
    }
    if soft_is_enough(rlimit.current) {
        return this;
    }
    this.low(
        "MSG_ZEROCOPY and io_uring buffers of this user together; beyond it ENOBUFS or ENOMEM",
        raise_memlock(rlimit.maximum),
    )
}

fn soft_is_enough(bytes: Option<u64>) -> bool {
    bytes.is_none_or(|bytes| bytes >= 8 << 20)
}

/// How to get more, up to the hard limit.
fn raise_memlock(hard: Option<u64>) -> String {
    const ENOUGH_KIB: u64 = 65536;
    let kib = hard.map_or(ENOUGH_KIB, |hard| ENOUGH_KIB.min(hard >> 10));
    if soft_is_enough(Some(kib << 10)) {
        format!("ulimit -l {kib}, or LimitMEMLOCK= in the service")
    } else {
        "LimitMEMLOCK= in the service, or memlock in limits.conf".to_owned()
    }
}

/// What helps against ENOMEM and ENOBUFS, if it is that little memory may be locked.
pub(super) fn remedy_of_locked_memory(context: &Context) -> Option<String> {
    let rlimit = getrlimit(Resource::Memlock);
    let is_short = !soft_is_enough(rlimit.current) && !context.has("CAP_IPC_LOCK");
    is_short.then(|| {
        let raise = raise_memlock(rlimit.maximum);
        format!("raise the limit on locked memory ({raise})")
    })
}

fn pipe_size() -> Limit {
    const WHERE: &str = "/proc/sys/fs/pipe-max-size";
    limit("pipe-max-size", WHERE, "bytes", setting(WHERE, 0)).low_if(
        |bytes| bytes < 1 << 20,
        "splice moves less at a time, so it takes more system calls",
        "sysctl fs.pipe-max-size=1048576 (as root)",
    )
}

/// What a pipe really gets that asks for 1 MiB.
fn one_pipe() -> Limit {
    const WANTED: usize = 1 << 20;
    let set_in = "fcntl (F_SETPIPE_SZ)";
    let Ok(pipe) = Pipe::new() else {
        return limit("one pipe", set_in, "bytes", None);
    };
    let grown = rustix::pipe::fcntl_setpipe_size(pipe.writer.as_fd(), WANTED);
    let size = rustix::pipe::fcntl_getpipe_size(pipe.writer.as_fd());
    let size = size.ok().map(|bytes| bytes as u64);
    let this = limit("one pipe", set_in, "bytes", size);
    let text = format!("up to {}", this.text);
    let this = Limit { text, ..this };
    match grown {
        Ok(_) => this,
        Err(errno) => {
            let text = format!("{}: {}", this.text, described(errno));
            Limit { text, ..this }.low(
                "splice moves less at a time, so it takes more system calls",
                "raise fs.pipe-max-size and fs.pipe-user-pages-soft, or grant CAP_SYS_RESOURCE",
            )
        }
    }
}

/// How many pages all pipes of this user may have.
fn pipe_pages(context: &Context) -> [Limit; 2] {
    const SOFT: &str = "/proc/sys/fs/pipe-user-pages-soft";
    const HARD: &str = "/proc/sys/fs/pipe-user-pages-hard";
    let exempt = ["CAP_SYS_RESOURCE", "CAP_SYS_ADMIN"]
        .into_iter()
        .find(|capability| context.has(capability));
    [
        ("pipe-user-pages-soft", SOFT),
        ("pipe-user-pages-hard", HARD),
    ]
    .map(|(name, set_in)| {
        let this = limit(name, set_in, "pages", setting(set_in, 0));
        match (this.value, exempt) {
            (Some(0), _) => this.unlimited("no limit"),
            (Some(_), Some(capability)) => this.lifted_by(capability),
            (Some(pages), None) if pages < 16_384 => this.low(
                format!(
                    "the pipes of a user get 64 KiB each only as long as there are fewer than {}",
                    (pages / 16).max(1)
                ),
                format!("sysctl fs.{name}=16384 (as root)"),
            ),
            _ => this,
        }
    })
}

fn optmem() -> Limit {
    const WHERE: &str = "/proc/sys/net/core/optmem_max";
    limit("optmem_max", WHERE, "bytes", setting(WHERE, 0)).low_if(
        |bytes| bytes < 128 << 10,
        "few MSG_ZEROCOPY sends may be under way on a socket; beyond it ENOBUFS",
        "sysctl net.core.optmem_max=131072 (as root)",
    )
}

/// The largest buffer that TCP takes by itself.
fn window(name: &'static str, set_in: &'static str, doing: &str) -> Limit {
    let this = limit(name, set_in, "bytes", setting(set_in, 2));
    match this.value {
        Some(bytes) if bytes < 4 << 20 => {
            let rate = bytes / (100_000);
            this.low(
                format!("{doing} is limited to {rate} MB/s for each 100 ms of round trip"),
                format!("sysctl net.ipv4.{name}='4096 131072 6291456' (as root)"),
            )
        }
        _ => this,
    }
}

fn somaxconn() -> Limit {
    const WHERE: &str = "/proc/sys/net/core/somaxconn";
    limit("somaxconn", WHERE, "connections", setting(WHERE, 0)).low_if(
        |connections| connections < 1024,
        "connections that come in a burst are dropped and tried again after a second",
        "sysctl net.core.somaxconn=4096 (as root)",
    )
}

fn lease_break_time() -> Limit {
    const WHERE: &str = "/proc/sys/fs/lease-break-time";
    limit("lease-break-time", WHERE, "seconds", setting(WHERE, 0)).low_if(
        |seconds| seconds < 15,
        "an editor waits no longer for bytes under way; zhaul serve gives up after 10 s",
        "sysctl fs.lease-break-time=45 (as root)",
    )
}

fn perf_event_paranoid(context: &Context) -> Limit {
    const WHERE: &str = "/proc/sys/kernel/perf_event_paranoid";
    let text = std::fs::read_to_string(WHERE).ok();
    let level: Option<i64> = text.and_then(|text| text.trim().parse().ok());
    let this = limit("perf_event_paranoid", WHERE, "level", None);
    let Some(level) = level else { return this };
    let this = Limit {
        value: u64::try_from(level).ok(),
        text: level.to_string(),
        judgement: Judgement::Fine,
        ..this
    };
    let exempt = ["CAP_PERFMON", "CAP_SYS_ADMIN"];
    if let Some(capability) = exempt
        .into_iter()
        .find(|capability| context.has(capability))
    {
        return this.lifted_by(capability);
    }
    if level <= 1 {
        return this;
    }
    this.low(
        "zhaul trace and the exact figures of zhaul bench see nothing of the kernel",
        "grant CAP_PERFMON, or sysctl kernel.perf_event_paranoid=1 (as root)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_readable() {
        assert_eq!(amount(1 << 20, "bytes"), "1 MiB");
        assert_eq!(amount(20_480, "bytes"), "20 KiB");
        assert_eq!(amount(100, "bytes"), "100 bytes");
        assert_eq!(amount(3 << 30, "bytes"), "3 GiB");
        assert_eq!(amount(45, "seconds"), "45 s");
        assert_eq!(amount(1024, "descriptors"), "1024");
    }

    #[test]
    fn a_low_limit_says_what_it_costs_and_how_to_raise_it() {
        let is_low = |bytes| bytes < 100;
        let low = limit("x", "/x", "bytes", Some(99)).low_if(is_low, "slow", "more");
        assert_eq!(
            (low.judgement, low.cost.as_deref()),
            (Judgement::Low, Some("slow"))
        );
        let fine = limit("x", "/x", "bytes", Some(100)).low_if(is_low, "slow", "more");
        assert_eq!((fine.judgement, fine.cost), (Judgement::Fine, None));
        let unseen = limit("x", "/x", "bytes", None).low_if(is_low, "slow", "more");
        assert_eq!(unseen.judgement, Judgement::Unknown);
    }

    #[test]
    fn every_limit_has_a_name_and_a_place() {
        for limit in look(&Context::look()) {
            assert!(!limit.name.is_empty() && !limit.set_in.is_empty());
            assert_eq!(
                limit.judgement == Judgement::Low,
                limit.remedy.is_some(),
                "{limit:?}"
            );
        }
    }
}
