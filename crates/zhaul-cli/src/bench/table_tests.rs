use std::collections::BTreeMap;

use zhaul_measure::Method;
use zhaul_measure::bench::results::{Cost, Counted, Expected, FORMAT, Found, Sample, Skipped};
use zhaul_measure::host::Host;

use super::*;

fn cell(path: Path, route: &str, contender: Contender, bytes: u64) -> Cell {
    let cost = |cpu_s: f64| Cost {
        user_s: 0.01,
        system_s: cpu_s,
        voluntary_switches: 123,
        involuntary_switches: 4,
        minor_faults: 1234,
        major_faults: 0,
    };
    let slower = if contender == Contender::Zhaul {
        1.2
    } else {
        1.0
    };
    let is_file = matches!(path, Path::FileToFile | Path::TcpToFile);
    let has_feeder = !matches!(path, Path::FileToTcp | Path::FileToFile);
    let sample = |round: u32| {
        let noise = 1.0 + f64::from(round) / 10.0;
        Sample {
            round,
            bytes: 123_456_789,
            wall_s: 0.05 * noise,
            mover: cost(0.04 * noise * slower),
            receiver: (!is_file).then(|| cost(0.03 * noise)),
            feeder: has_feeder.then(|| cost(0.02 * noise)),
            machine: zhaul_measure::machine::Machine::default(),
        }
    };
    Cell {
        path,
        route: route.to_owned(),
        contender,
        bytes,
        expected: Expected {
            mode_switches: 4,
            cpu_copies: 2,
            dma_copies: 1,
        },
        verified: true,
        samples: (0..5).map(sample).collect(),
        counted: vec![Counted {
            bytes: 1_000_000_000,
            calls: Some(1_954_321),
            copied_bytes: (route != "sendfile").then_some(2_000_000_000),
            sampled_copies_per_byte: Some(0.034),
            sampled_plus_minus: Some(0.01),
            copied_after_all: None,
        }],
    }
}

fn results() -> Results {
    let mut cells = Vec::new();
    let lanes = [
        (
            Path::FileToTcp,
            vec!["read+write", "mmap+write", "splice", "sendfile"],
        ),
        (
            Path::FileToFile,
            vec!["read+write", "sendfile", "copy_file_range"],
        ),
        (Path::TcpToTcp, vec!["read+write", "splice"]),
    ];
    for (path, routes) in lanes {
        for bytes in [1024, 1 << 20, 1 << 30] {
            for route in &routes {
                cells.push(cell(path, route, Contender::Zhaul, bytes));
                cells.push(cell(path, route, Contender::Floor, bytes));
            }
        }
    }
    let found = Found {
        method: Method::Exact,
        how: "counter on raw_syscalls:sys_enter".to_owned(),
    };
    Results {
        format: FORMAT,
        zhaul: "0.1.0".to_owned(),
        began: "2026-01-01T00:00:00Z".to_owned(),
        seconds: 100.0,
        interrupted: false,
        host: Host {
            kernel: "6.18.0 x86_64".to_owned(),
            cpu: "a processor with a rather long name @ 2.50GHz".to_owned(),
            cores: 2,
            memory_mib: 1024,
            file_system: "ext4".to_owned(),
            load: "0.00".to_owned(),
        },
        chunk_bytes: 1 << 20,
        rounds: 5,
        seed: 42,
        methods: BTreeMap::from([("calls".to_owned(), found)]),
        missing: BTreeMap::from([("copied_bytes".to_owned(), "no permission".to_owned())]),
        notes: vec!["mover pinned to core 0".to_owned()],
        cells,
        profiles: Vec::new(),
        skipped: vec![Skipped {
            path: Path::TcpToTcp,
            route: "sendfile".to_owned(),
            bytes: None,
            why: "the source is not a file".to_owned(),
        }],
    }
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let results = results();
    for width in [40, 60, 80, 100, 160] {
        let text = plain(&text(&results, width));
        for line in text.lines() {
            assert!(
                columns(line) <= width,
                "{width}: {} columns: {line}",
                columns(line)
            );
        }
    }
}

#[test]
fn eighty_columns_are_enough_for_a_grid_and_forty_get_a_list() {
    let results = results();
    let wide = plain(&text(&results, 80));
    assert!(wide.contains("GB/s") && wide.contains("×floor"), "{wide}");
    assert!(!wide.contains("mover s/GB"), "{wide}");
    let narrow = plain(&text(&results, 40));
    assert!(narrow.contains("1 KiB, sendfile"), "{narrow}");
    assert!(narrow.contains("  mover s/GB "), "{narrow}");
}

#[test]
fn what_was_not_measured_is_a_dash_or_an_estimate_and_never_zero() {
    let mut results = results();
    let narrow = plain(&text(&results, 40));
    assert!(narrow.contains("copies/byte     ~0.0"), "{narrow}");
    for cell in &mut results.cells {
        if cell.route == "sendfile" {
            cell.counted.clear();
        }
    }
    let narrow = plain(&text(&results, 40));
    assert!(narrow.contains("copies/byte        –"), "{narrow}");
    let wide = plain(&text(&results, 200));
    assert!(
        wide.contains("CPU copies: not measured (no permission)"),
        "{wide}"
    );
}

#[test]
fn every_figure_has_its_method_and_everything_left_out_its_reason() {
    let text = plain(&text(&results(), 200));
    for words in [
        "system calls: exact (counter on raw_syscalls:sys_enter)",
        "not run: TCP → TCP, sendfile: the source is not a file",
        "seed 42",
        "mover pinned",
    ] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
}

#[test]
fn long_words_and_short_lines_are_wrapped() {
    let lines = [
        "one two three".to_owned(),
        "a-word-longer-than-that x".to_owned(),
    ];
    assert_eq!(
        wrap(&lines, 8),
        "one two\n  three\na-word-longer-than-that\n  x\n"
    );
}
