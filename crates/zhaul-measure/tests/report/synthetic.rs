//! Results of runs that never took place: plausible, lacking, absurd and hostile ones.
//!
//! Costs follow a simple model (so much for a call, so much for a byte), with noise from a fixed
//! seed. None of it may ever be quoted as a measurement.

use std::collections::BTreeMap;

use fastrand::Rng;
use zhaul_measure::Method;
use zhaul_measure::bench::results::{
    Cell, Contender, Cost, Counted, Expected, FORMAT, Found, Part, Path, Profile, Results, Sample,
    Skipped,
};
use zhaul_measure::host::Host;

pub(crate) const CHUNK: u64 = 1 << 20;

/// What a route costs in the model.
#[derive(Clone, Copy)]
pub(crate) struct Model {
    pub(crate) path: Path,
    pub(crate) route: &'static str,
    /// Mode switches, CPU copies and DMA copies of the plan.
    expected: (u32, u32, u32),
    /// System calls for each chunk in truth.
    calls: f64,
    ns_per_transfer: f64,
    ns_per_byte: f64,
    copies: f64,
}

const fn model(
    path: Path,
    route: &'static str,
    expected: (u32, u32, u32),
    calls: f64,
    (ns_per_transfer, ns_per_byte): (f64, f64),
    copies: f64,
) -> Model {
    Model {
        path,
        route,
        expected,
        calls,
        ns_per_transfer,
        ns_per_byte,
        copies,
    }
}

pub(crate) const MODELS: [Model; 19] = [
    model(
        Path::FileToTcp,
        "read+write",
        (4, 2, 1),
        2.0,
        (1_150.0, 0.30),
        2.0,
    ),
    model(
        Path::FileToTcp,
        "mmap+write",
        (2, 1, 1),
        1.13,
        (5_400.0, 0.235),
        1.0,
    ),
    model(
        Path::FileToTcp,
        "sendfile",
        (2, 0, 1),
        1.0,
        (1_900.0, 0.118),
        0.0,
    ),
    model(
        Path::FileToTcp,
        "splice",
        (4, 0, 1),
        2.0,
        (3_300.0, 0.121),
        0.0,
    ),
    model(
        Path::FileToFile,
        "read+write",
        (4, 2, 1),
        2.0,
        (1_300.0, 0.41),
        2.0,
    ),
    model(
        Path::FileToFile,
        "mmap+write",
        (2, 1, 1),
        1.1,
        (5_600.0, 0.40),
        1.0,
    ),
    model(
        Path::FileToFile,
        "sendfile",
        (2, 1, 1),
        1.0,
        (2_900.0, 0.36),
        1.0,
    ),
    model(
        Path::FileToFile,
        "copy_file_range",
        (2, 1, 1),
        1.0,
        (2_300.0, 0.33),
        1.0,
    ),
    model(
        Path::TcpToTcp,
        "read+write",
        (4, 2, 0),
        5.8,
        (2_300.0, 0.42),
        2.0,
    ),
    model(
        Path::TcpToTcp,
        "splice",
        (4, 0, 0),
        6.4,
        (4_100.0, 0.11),
        0.0,
    ),
    model(
        Path::TcpToFile,
        "read+write",
        (4, 2, 0),
        4.0,
        (2_000.0, 0.47),
        2.0,
    ),
    model(
        Path::TcpToFile,
        "splice",
        (4, 1, 0),
        4.0,
        (3_000.0, 0.46),
        1.0,
    ),
    model(
        Path::PipeToTcp,
        "read+write",
        (4, 2, 0),
        32.0,
        (2_100.0, 0.52),
        2.0,
    ),
    model(
        Path::PipeToTcp,
        "splice",
        (2, 0, 0),
        16.0,
        (1_800.0, 0.15),
        0.0,
    ),
    model(
        Path::MemoryToTcp,
        "send",
        (2, 1, 0),
        1.0,
        (500.0, 0.21),
        1.0,
    ),
    model(
        Path::MemoryToTcp,
        "send-zerocopy",
        (2, 1, 0),
        1.0,
        (1_500.0, 0.28),
        1.0,
    ),
    model(
        Path::MemoryToUdp,
        "send",
        (2, 1, 0),
        1.0,
        (900.0, 0.25),
        1.0,
    ),
    model(
        Path::MemoryToUdp,
        "send-zerocopy",
        (2, 1, 0),
        1.0,
        (1_900.0, 0.30),
        1.0,
    ),
    model(
        Path::PipeToTcp,
        "sendfile",
        (2, 0, 0),
        16.0,
        (1_800.0, 0.15),
        0.0,
    ),
];

/// What is run.
pub(crate) struct Plan {
    pub(crate) models: Vec<Model>,
    pub(crate) sizes: Vec<u64>,
    pub(crate) rounds: u32,
    /// The spread of a round around its median, as a part of it.
    pub(crate) noise: f64,
    pub(crate) contenders: Vec<Contender>,
}

impl Plan {
    /// As a user runs it.
    pub(crate) fn whole() -> Self {
        Self {
            models: MODELS[..18].to_vec(),
            sizes: [10, 12, 14, 16, 18, 20, 24, 30]
                .map(|power| 1 << power)
                .to_vec(),
            rounds: 5,
            noise: 0.06,
            contenders: vec![Contender::Zhaul, Contender::Floor],
        }
    }
}

/// A whole run with everything in it.
pub(crate) fn whole() -> Results {
    results(&Plan::whole())
}

/// The same with every round like the other, so that each figure is known in advance.
pub(crate) fn quiet() -> Results {
    results(&Plan {
        noise: 0.0,
        ..Plan::whole()
    })
}

pub(crate) fn results(plan: &Plan) -> Results {
    let mut rng = Rng::with_seed(7);
    let mut cells = Vec::new();
    let mut profiles = Vec::new();
    for model in &plan.models {
        for &contender in &plan.contenders {
            for &bytes in &plan.sizes {
                cells.push(cell(plan, model, contender, bytes, &mut rng));
            }
            profiles.push(profile(model, contender, profiled(plan), &mut rng));
        }
    }
    Results {
        format: FORMAT,
        zhaul: "0.1.0".into(),
        began: "2026-03-14T09:26:53Z".into(),
        seconds: 512.3,
        interrupted: false,
        host: Host {
            kernel: "6.18.0 x86_64".into(),
            cpu: "Example Processor 9000".into(),
            cores: 8,
            memory_mib: 24_105,
            file_system: "ext4".into(),
            load: "0.12".into(),
        },
        chunk_bytes: CHUNK,
        rounds: plan.rounds,
        seed: 0x5eed,
        methods: methods(),
        missing: BTreeMap::from([(
            "exact_copies".to_owned(),
            "the kernel refuses breakpoints on its own text (run it on one with kprobes)"
                .to_owned(),
        )]),
        notes: vec!["mover pinned to core 0, receiver to 1, feeder to 1".to_owned()],
        cells,
        profiles,
        skipped: vec![
            Skipped {
                path: Path::FileToTcp,
                route: "copy_file_range".into(),
                bytes: None,
                why: "the sink is not a regular file".into(),
            },
            Skipped {
                path: Path::FileToFile,
                route: "splice".into(),
                bytes: Some(1 << 30),
                why: "the file system has 512 MiB left, 1 GiB is needed (free some, or choose \
                      another directory with --dir)"
                    .into(),
            },
        ],
    }
}

pub(crate) fn methods() -> BTreeMap<String, Found> {
    [
        ("user_s", Method::Exact, "getrusage(RUSAGE_THREAD)"),
        ("system_s", Method::Exact, "getrusage(RUSAGE_THREAD)"),
        (
            "voluntary_switches",
            Method::Exact,
            "getrusage(RUSAGE_THREAD)",
        ),
        (
            "involuntary_switches",
            Method::Exact,
            "getrusage(RUSAGE_THREAD)",
        ),
        ("minor_faults", Method::Exact, "getrusage(RUSAGE_THREAD)"),
        ("major_faults", Method::Exact, "getrusage(RUSAGE_THREAD)"),
        ("dma_bytes", Method::Exact, "/proc/diskstats"),
        ("interrupts", Method::Exact, "/proc/stat"),
        ("softirqs", Method::Exact, "/proc/stat"),
        ("calls", Method::Exact, "counter on raw_syscalls:sys_enter"),
        (
            "copied_bytes",
            Method::ByCall,
            "results of read, write, send and recv",
        ),
        (
            "sampled_copies_per_byte",
            Method::Sampled,
            "cpu-clock samples in the copy routines, against those of a loop that copies a known \
             number of bytes",
        ),
    ]
    .into_iter()
    .map(|(name, method, how)| {
        let how = how.to_owned();
        (name.to_owned(), Found { method, how })
    })
    .collect()
}

fn cell(plan: &Plan, model: &Model, contender: Contender, bytes: u64, rng: &mut Rng) -> Cell {
    let own = if contender == Contender::Zhaul {
        1.0
    } else {
        0.0
    };
    let transfers = ((64 << 20) / bytes).clamp(1, 20_000);
    let all = transfers * bytes;
    let samples = (0..plan.rounds)
        .map(|round| {
            let noise = 1.0 + plan.noise * (2.0 * rng.f64() - 1.0);
            let chunks = bytes.div_ceil(CHUNK) as f64;
            let ns = model.ns_per_transfer
                + 380.0 * own
                + 260.0 * own * chunks
                + bytes as f64 * model.ns_per_byte;
            let cpu_s = ns * transfers as f64 * noise / 1e9;
            let user = 0.02 + 0.12 * own * (1024.0 / bytes as f64).min(1.0);
            let mut cost = |cpu_s: f64, user: f64| Cost {
                user_s: cpu_s * user,
                system_s: cpu_s * (1.0 - user),
                voluntary_switches: transfers + all / 300_000 + rng.u64(..20),
                involuntary_switches: rng.u64(..9),
                minor_faults: if model.route == "mmap+write" {
                    all / 65_536
                } else {
                    rng.u64(..4)
                },
                major_faults: 0,
            };
            let received = all as f64 * 0.21 / 1e9;
            Sample {
                round,
                bytes: all,
                wall_s: (cpu_s + received * 0.4) * 1.1,
                mover: cost(cpu_s, user),
                receiver: (!matches!(model.path, Path::FileToFile | Path::TcpToFile))
                    .then(|| cost(received * noise, 0.03)),
                machine: zhaul_measure::machine::Machine {
                    dma_bytes: Some(0),
                    interrupts: Some(12),
                    softirqs: Some(3),
                },
                feeder: matches!(
                    model.path,
                    Path::TcpToTcp | Path::TcpToFile | Path::PipeToTcp
                )
                .then(|| cost(received * 1.2 * noise, 0.03)),
            }
        })
        .collect();
    let chunks = bytes.div_ceil(CHUNK) as f64;
    let calls = transfers as f64 * (chunks * (model.calls + 0.5 * own) + 8.0 * own);
    Cell {
        path: model.path,
        route: model.route.into(),
        contender,
        bytes,
        expected: Expected {
            mode_switches: model.expected.0,
            cpu_copies: model.expected.1,
            dma_copies: model.expected.2,
        },
        verified: true,
        samples,
        counted: counted(plan, model, bytes, (all, calls as u64), rng),
    }
}

/// Calls at every size; copies by call where a call promises them; samples at one size.
fn counted(
    plan: &Plan,
    model: &Model,
    bytes: u64,
    (all, calls): (u64, u64),
    rng: &mut Rng,
) -> Vec<Counted> {
    let promised = ["read+write", "mmap+write"].contains(&model.route);
    let mut counted = vec![Counted {
        bytes: all,
        calls: Some(calls),
        copied_bytes: promised.then_some((all as f64 * model.copies) as u64),
        sampled_copies_per_byte: None,
        sampled_plus_minus: None,
        copied_after_all: None,
    }];
    if bytes == profiled(plan) {
        counted.push(Counted {
            bytes: all,
            sampled_copies_per_byte: Some((model.copies + 0.2 * (rng.f64() - 0.5)).max(0.0)),
            ..Counted::default()
        });
    }
    counted
}

/// The size that is profiled: the largest but one.
fn profiled(plan: &Plan) -> u64 {
    plan.sizes[plan.sizes.len().saturating_sub(2)]
}

fn profile(model: &Model, contender: Contender, bytes: u64, rng: &mut Rng) -> Profile {
    let copy = (model.copies * 620.0) as u64 + rng.u64(..30);
    let tcp = if matches!(model.path, Path::FileToFile) {
        12
    } else {
        520 + rng.u64(..80)
    };
    let vfs = 230 + rng.u64(..120);
    let kernel = 170 + rng.u64(..50);
    let user = if contender == Contender::Zhaul { 34 } else { 8 };
    Profile {
        path: model.path,
        route: model.route.into(),
        contender,
        bytes,
        samples: copy + tcp + vfs + kernel + user,
        lost: 0,
        parts: BTreeMap::from([
            (Part::Copy, copy),
            (Part::Tcp, tcp),
            (Part::Vfs, vfs),
            (Part::Kernel, kernel),
            (Part::User, user),
        ]),
        top: vec![
            ("rep_movs_alternative".into(), copy),
            ("tcp_sendmsg_locked".into(), tcp / 3),
            ("skb_splice_from_iter".into(), tcp / 4),
            ("filemap_get_read_batch".into(), vfs / 2),
            ("entry_SYSCALL_64_after_hwframe".into(), kernel / 2),
            (
                "<zhaul::blocking::Driver as zhaul_core::Perform>::complete".into(),
                user / 2,
            ),
        ],
    }
}
