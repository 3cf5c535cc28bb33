//! An explanation made by hand, for tests of what is made from one.

use std::collections::BTreeMap;

use super::about::{AboutSink, AboutSource, FoundBy};
use super::analysis::{Analysis, Calls, Figure};
use super::expected::{Dma, Expected};
use super::explanation::{Asked, Choice, Explanation, FORMAT, PassedOver, ThresholdsInForce};
use super::memory::InMemory;
use crate::bench::results::Cost;
use crate::figure::Method;
use crate::host::Host;

/// 3 MiB of an immutable file to a peer on this machine.
pub(crate) fn sendfile() -> Explanation {
    Explanation {
        format: FORMAT,
        zhaul: "0.0.0".to_owned(),
        source: AboutSource {
            name: "/srv/video.mp4".to_owned(),
            kind: "regular".to_owned(),
            what: "regular file".to_owned(),
            file_system: Some("ext4".to_owned()),
            size_bytes: Some(3 << 20),
            seekable: true,
            in_memory: Some(InMemory {
                fraction: 1.0,
                method: Method::Exact,
            }),
            peer: None,
            interface: None,
            found_by: FoundBy::Descriptor,
        },
        sink: AboutSink {
            name: "tcp:127.0.0.1:9000".to_owned(),
            kind: "stream_socket".to_owned(),
            what: "TCP connection".to_owned(),
            file_system: None,
            exists: None,
            size_bytes: None,
            emptied: false,
            append: false,
            references_end: Some("never".to_owned()),
            peer: Some("127.0.0.1:9000".to_owned()),
            interface: Some("lo".to_owned()),
            found_by: FoundBy::Route,
        },
        asked: Asked {
            stability: "immutable".to_owned(),
            route: None,
            offset: 0,
            length: Some(3 << 20),
            chunk_bytes: 1 << 20,
        },
        plan: Choice {
            route: "sendfile".to_owned(),
            reason: "pages_by_reference".to_owned(),
            because: "pages go out by reference and nobody edits them meanwhile".to_owned(),
            passed_over: vec![
                passed_over("copy_file_range", "the sink is not a regular file", false),
                passed_over("splice", "a cheaper route does as well", true),
            ],
        },
        expected: Expected {
            bytes: Some(3 << 20),
            chunk_bytes: 1 << 20,
            chunks: Some(3),
            calls: calls(&[("fstat", 4.0), ("sendfile", 3.0)]),
            operations: 7.0,
            calls_per_chunk: 7.0 / 3.0,
            mode_switches_per_chunk: 14.0 / 3.0,
            cpu_copies_per_byte: 0,
            dma: Dma {
                source_copies: 1,
                source_bytes: Some(0),
                sink_copies: 0,
            },
        },
        thresholds: ThresholdsInForce {
            sendfile_min_bytes: 0,
            mmap_min_bytes: 64 << 10,
            origin: "built in".to_owned(),
        },
        host: Host {
            kernel: "6.12.0 x86_64".to_owned(),
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_mib: 1024,
            file_system: "ext4".to_owned(),
            load: "0.10".to_owned(),
        },
        notes: vec!["nobody was contacted: --run shows whether a peer answers".to_owned()],
        measured: None,
    }
}

/// The run of [`sendfile`], all as planned, on a kernel that shows everything.
pub(crate) fn analysis() -> Analysis {
    Analysis {
        finished: true,
        ending: "the length asked for".to_owned(),
        bytes: 3 << 20,
        stranded_bytes: 0,
        grew: false,
        wall_s: 0.003_145_728,
        instruments: vec!["counters of its calls".to_owned()],
        route: "sendfile".to_owned(),
        changes: Vec::new(),
        calls: Calls {
            operations: 7,
            by_name: Some(calls(&[("fstat", 4), ("sendfile", 3)])),
            set_up: Some(20),
            waiting: Some(0),
            total: Some(27),
        },
        calls_per_chunk: Figure::found(7.0 / 3.0, Method::Exact, "counted by the kernel"),
        mode_switches_per_chunk: Figure::found(14.0 / 3.0, Method::Exact, "counted by the kernel"),
        cpu_copies_per_byte: Figure::found(0.0, Method::Exact, "by breakpoints"),
        copied: None,
        copying_time: Figure::missing("the breakpoints leave no time for samples"),
        cost: Cost {
            user_s: 0.000_100,
            system_s: 0.001_5,
            voluntary_switches: 2,
            ..Cost::default()
        },
        cpu_s_per_gb: Some(0.508_6),
        disk_read_bytes: Figure::found(0.0, Method::Exact, "/proc/thread-self/io"),
        disk_write_bytes: Figure::found(0.0, Method::Exact, "/proc/thread-self/io"),
        in_memory_before: None,
        deviations: Vec::new(),
    }
}

fn passed_over(route: &str, because: &str, in_reserve: bool) -> PassedOver {
    PassedOver {
        route: route.to_owned(),
        reason: "a_word".to_owned(),
        because: because.to_owned(),
        in_reserve,
    }
}

fn calls<N: Copy>(pairs: &[(&str, N)]) -> BTreeMap<String, N> {
    let named = pairs.iter().map(|&(name, count)| (name.to_owned(), count));
    named.collect()
}
