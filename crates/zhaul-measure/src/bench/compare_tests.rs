use std::collections::BTreeMap;

use super::super::results::{Cost, Expected, Sample};
use super::*;
use crate::host::Host;

pub(in crate::bench) fn results_of(cells: Vec<Cell>) -> Results {
    Results {
        format: FORMAT,
        zhaul: "0.1.0".to_owned(),
        began: "2026-01-01T00:00:00Z".to_owned(),
        seconds: 1.0,
        interrupted: false,
        host: Host {
            kernel: "6.18.0 x86_64".to_owned(),
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_mib: 1024,
            file_system: "ext4".to_owned(),
            load: "0.00".to_owned(),
        },
        chunk_bytes: 1 << 20,
        rounds: 3,
        seed: 1,
        methods: BTreeMap::new(),
        missing: BTreeMap::new(),
        notes: Vec::new(),
        cells,
        profiles: Vec::new(),
        skipped: Vec::new(),
    }
}

fn cell(route: &str, cpu: &[f64]) -> Cell {
    let samples = cpu.iter().zip(0..).map(|(&cpu_s, round)| Sample {
        round,
        bytes: 1_000_000_000,
        wall_s: 1.0,
        mover: Cost {
            system_s: cpu_s,
            ..Cost::default()
        },
        receiver: None,
        feeder: None,
        machine: crate::machine::Machine::default(),
    });
    Cell {
        path: Path::FileToTcp,
        route: route.to_owned(),
        contender: Contender::Zhaul,
        bytes: 4096,
        expected: Expected {
            mode_switches: 2,
            cpu_copies: 0,
            dma_copies: 1,
        },
        verified: true,
        samples: samples.collect(),
        counted: Vec::new(),
    }
}

fn cpu_verdict(a: &[f64], b: &[f64]) -> (Verdict, f64) {
    let (a, b) = (
        results_of(vec![cell("sendfile", a)]),
        results_of(vec![cell("sendfile", b)]),
    );
    let comparison = Comparison::of(&a, &b);
    let cpu = comparison
        .compared
        .iter()
        .find(|c| c.unit == "s/GB")
        .unwrap();
    (cpu.verdict, cpu.ratio)
}

#[test]
fn overlapping_spreads_are_no_difference_whatever_the_medians() {
    let (verdict, ratio) = cpu_verdict(&[1.0, 2.0, 1.1], &[1.9, 1.8, 2.2]);
    assert_eq!(verdict, Verdict::NoDifference);
    assert!((ratio - 1.9 / 1.1).abs() < 1e-9);
    assert_eq!(cpu_verdict(&[1.0; 3], &[1.0; 3]).0, Verdict::NoDifference);
    let touching = cpu_verdict(&[1.0, 1.5, 2.0], &[2.0, 2.5, 3.0]);
    assert_eq!(touching.0, Verdict::NoDifference);
}

#[test]
fn separate_spreads_are_a_difference_in_the_right_direction() {
    assert_eq!(
        cpu_verdict(&[1.0, 1.1, 1.2], &[1.3, 1.4, 1.5]).0,
        Verdict::Worse
    );
    assert_eq!(
        cpu_verdict(&[1.3, 1.4, 1.5], &[1.0, 1.1, 1.2]).0,
        Verdict::Better
    );
    // More throughput is better.
    let (slow, fast) = (cell("splice", &[1.0; 3]), cell("splice", &[1.0; 3]));
    let faster = fast.samples.iter().map(|s| Sample { wall_s: 0.5, ..*s });
    let fast = Cell {
        samples: faster.collect(),
        ..fast
    };
    let comparison = Comparison::of(&results_of(vec![slow]), &results_of(vec![fast]));
    assert_eq!(comparison.count(Verdict::Better), 1, "{comparison:?}");
    assert_eq!(comparison.count(Verdict::NoDifference), 1);
}

#[test]
fn two_rounds_tell_nothing() {
    let (verdict, _) = cpu_verdict(&[1.0, 1.1], &[9.0, 9.1, 9.2]);
    assert_eq!(verdict, Verdict::TooFewRounds);
}

#[test]
fn chance_is_that_of_not_interleaving() {
    assert!((chance((3, 3)) - 0.1).abs() < 1e-9);
    assert!((chance((5, 5)) - 2.0 / 252.0).abs() < 1e-9);
    assert!((chance((3, 5)) - 2.0 / 56.0).abs() < 1e-9);
}

#[test]
fn cells_of_one_run_only_are_listed() {
    let a = results_of(vec![cell("sendfile", &[1.0; 3]), cell("splice", &[1.0; 3])]);
    let b = results_of(vec![
        cell("sendfile", &[1.0; 3]),
        cell("mmap+write", &[1.0; 3]),
    ]);
    let comparison = Comparison::of(&a, &b);
    assert_eq!(comparison.only_a, ["file → TCP, splice, 4 KiB"]);
    assert_eq!(comparison.only_b, ["file → TCP, mmap+write, 4 KiB"]);
    assert_eq!(comparison.compared.len(), 2);
}

#[test]
fn other_kernels_and_interrupted_runs_are_flagged() {
    let a = results_of(vec![cell("sendfile", &[1.0; 3])]);
    let mut b = a.clone();
    assert!(Comparison::of(&a, &b).differs.is_empty());
    b.host.kernel = "6.12.0 x86_64".to_owned();
    b.interrupted = true;
    let differs = Comparison::of(&a, &b).differs;
    assert_eq!(differs.len(), 2, "{differs:?}");
    assert!(differs[0].contains("6.18.0") && differs[0].contains("6.12.0"));
    assert!(differs[1].contains("second"));
}

#[test]
fn files_that_are_no_results_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.json");
    assert!(matches!(load(&path), Err(LoadError::Unreadable(_))));
    for text in ["", "{}", "[1]", "{\"format\": 1}"] {
        std::fs::write(&path, text).unwrap();
        assert!(matches!(load(&path), Err(LoadError::Foreign(_))), "{text}");
    }
    std::fs::write(&path, "{\"format\": 99}").unwrap();
    assert!(matches!(load(&path), Err(LoadError::TooNew { found: 99 })));
    let results = results_of(vec![cell("sendfile", &[1.0; 3])]);
    std::fs::write(&path, serde_json::to_vec(&results).unwrap()).unwrap();
    assert_eq!(load(&path).unwrap().cells.len(), 1);
}
