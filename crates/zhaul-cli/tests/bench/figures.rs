//! What a run measures, prints and writes.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use zhaul_measure::bench::results::{Contender, Path, Results};

use crate::support::{Run, bench, binary, command, dir, load, names, skip};

/// What the mechanisms are made for, path by path.
const LANES: [(Path, &[&str]); 7] = [
    (
        Path::FileToTcp,
        &["mmap+write", "read+write", "sendfile", "splice"],
    ),
    (
        Path::FileToFile,
        &[
            "copy_file_range",
            "mmap+write",
            "read+write",
            "sendfile",
            "splice",
        ],
    ),
    (Path::TcpToTcp, &["read+write", "splice"]),
    (Path::TcpToFile, &["read+write", "splice"]),
    (Path::PipeToTcp, &["read+write", "splice"]),
    (Path::MemoryToTcp, &["send", "send-zerocopy"]),
    (Path::MemoryToUdp, &["send", "send-zerocopy"]),
];

fn routes(results: &Results, path: Path, contender: Contender) -> BTreeSet<&str> {
    let cells = results.cells.iter();
    cells
        .filter(|cell| cell.path == path && cell.contender == contender)
        .map(|cell| cell.route.as_str())
        .collect()
}

#[test]
fn every_route_of_every_path_is_measured_by_both_contenders_and_verified() {
    let dir = dir();
    let args = [
        "--sizes",
        "1K,64K",
        "--rounds",
        "1",
        "--no-profile",
        "--json",
        "a.json",
    ];
    let run = bench(&dir, &args).assert_success();
    let results = load(&dir.path().join("a.json"));
    for (path, expected) in LANES {
        for contender in [Contender::Zhaul, Contender::Floor] {
            let expected: BTreeSet<&str> = expected.iter().copied().collect();
            assert_eq!(routes(&results, path, contender), expected, "{path:?}");
        }
        assert!(run.stdout.contains(path.label()), "{}", run.stdout);
    }
    for cell in &results.cells {
        assert!(cell.verified && cell.samples.len() == 1, "{cell:?}");
        let sample = &cell.samples[0];
        assert!(sample.bytes.is_multiple_of(cell.bytes) && sample.bytes > 0);
        assert!(
            sample.wall_s > 0.0 && sample.mover.cpu_s() > 0.0,
            "{cell:?}"
        );
        let to_tcp = !matches!(cell.path, Path::FileToFile | Path::TcpToFile);
        assert_eq!(sample.receiver.is_some(), to_tcp, "{cell:?}");
        let from_stream = matches!(
            cell.path,
            Path::TcpToTcp | Path::TcpToFile | Path::PipeToTcp
        );
        assert_eq!(sample.feeder.is_some(), from_stream, "{cell:?}");
    }
    assert!(!results.interrupted);
    // What cannot be is said.
    let said = |path, route: &str| {
        let mut skipped = results.skipped.iter();
        skipped.any(|skipped| skipped.path == path && skipped.route == route)
    };
    assert!(said(Path::TcpToTcp, "sendfile") && said(Path::FileToTcp, "copy_file_range"));
    assert_eq!(names(dir.path()), ["a.json"], "nothing else stays behind");
}

#[test]
fn calls_are_counted_exactly_where_the_kernel_allows_it() {
    let dir = dir();
    let args = [
        "read+write",
        "sendfile",
        "splice",
        "--path",
        "file-tcp",
        "--sizes",
        "4K",
        "--rounds",
        "1",
        "--no-profile",
        "--json",
        "a.json",
    ];
    bench(&dir, &args).assert_success();
    let results = load(&dir.path().join("a.json"));
    let Some(found) = results.methods.get("calls") else {
        let why = &results.missing["calls"];
        skip!("calls_are_counted_exactly", "{why}");
    };
    assert_eq!(found.method.name(), "exact");
    for cell in &results.cells {
        let expected = match cell.route.as_str() {
            "sendfile" => 1,
            _ => 2,
        };
        for counted in &cell.counted {
            let calls = counted.calls.unwrap();
            let transfers = counted.bytes / cell.bytes;
            // A floor's transfer that fits into the buffers is these calls and no more; one that
            // has to be waited for may be cut in pieces.
            if cell.contender == Contender::Floor {
                assert!(calls >= expected * transfers, "{cell:?}");
                assert!(calls <= (expected + 2) * transfers + 16, "{cell:?}");
            } else {
                assert!(
                    calls > expected * transfers,
                    "it examines the ends: {cell:?}"
                );
            }
        }
    }
}

#[test]
fn copies_by_call_are_those_of_the_contract_and_others_are_missing_not_zero() {
    let dir = dir();
    let args = [
        "--path",
        "file-tcp",
        "--sizes",
        "64K",
        "--rounds",
        "1",
        "--no-profile",
        "--json",
        "a.json",
    ];
    bench(&dir, &args).assert_success();
    let results = load(&dir.path().join("a.json"));
    let found = &results.methods["copied_bytes"];
    if found.method.name() == "exact" {
        skip!("copies_by_call", "this kernel counts copies exactly");
    }
    assert_eq!(found.method.name(), "by call");
    for cell in &results.cells {
        for counted in &cell.counted {
            let copied = counted.copied_bytes;
            match cell.route.as_str() {
                "read+write" => assert_eq!(copied, Some(2 * counted.bytes)),
                "mmap+write" => assert_eq!(copied, Some(counted.bytes)),
                _ => assert_eq!(copied, None, "{cell:?}"),
            }
        }
    }
}

#[test]
fn every_figure_has_a_method_or_a_reason_why_it_is_missing() {
    let dir = dir();
    let args = [
        "sendfile", "--path", "file-tcp", "--sizes", "1K", "--rounds", "1",
    ];
    bench(&dir, &[&args[..], &["--json", "a.json"]].concat()).assert_success();
    let results = load(&dir.path().join("a.json"));
    for name in [
        "wall_s",
        "system_s",
        "calls",
        "copied_bytes",
        "sampled_copies_per_byte",
    ] {
        let found = results.methods.contains_key(name);
        let missing = results.missing.get(name);
        assert!(
            found != missing.is_some(),
            "{name}: {:?} {:?}",
            results.methods,
            results.missing
        );
        assert!(
            missing.is_none_or(|why| why.len() > 10),
            "{name}: {missing:?}"
        );
    }
}

#[test]
fn the_same_seed_is_printed_and_kept() {
    let dir = dir();
    let args = [
        "sendfile", "--path", "file-tcp", "--sizes", "1K", "--rounds", "1",
    ];
    let more = ["--no-profile", "--seed", "12345", "--json", "a.json"];
    let run = bench(&dir, &[&args[..], &more[..]].concat()).assert_success();
    assert!(run.stdout.contains("seed 12345"), "{}", run.stdout);
    assert_eq!(load(&dir.path().join("a.json")).seed, 12345);
}

#[test]
fn the_table_fits_and_has_no_colour_in_a_pipe() {
    let dir = dir();
    let args = [
        "--path",
        "file-tcp,tcp-tcp",
        "--sizes",
        "1K",
        "--rounds",
        "1",
        "--no-profile",
    ];
    for width in ["80", "40"] {
        let output = command(&dir, &args).env("COLUMNS", width).output().unwrap();
        let run = Run::of(output).assert_success();
        assert!(!run.stdout.contains('\u{1b}'), "{}", run.stdout);
        // The kernel's own messages may hold a longer word than fits.
        let lines = run.stdout.lines();
        for line in lines.take_while(|line| !line.starts_with("Median")) {
            let columns = line.chars().count();
            assert!(
                columns <= width.parse().unwrap(),
                "{width}: {columns}: {line}"
            );
        }
        assert!(run.stdout.contains("TCP → TCP"), "{}", run.stdout);
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn json_and_page_go_to_files_or_to_stdout_alone() {
    let dir = dir();
    let args = [
        "sendfile", "--path", "file-tcp", "--sizes", "1K", "--rounds", "1",
    ];
    let more = ["--no-profile", "--html", "a.html", "--json", "-"];
    let run = bench(&dir, &[&args[..], &more[..]].concat()).assert_success();
    let results: Results = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(results.cells.len(), 2);
    let page = std::fs::read_to_string(dir.path().join("a.html")).unwrap();
    assert!(page.to_ascii_lowercase().starts_with("<!doctype html>"));
    assert!(page.contains("sendfile") && page.trim_end().ends_with("</html>"));
    assert_eq!(names(dir.path()), ["a.html"]);
}

/// A directory without leases: mmap+write takes a sealed copy in memory, and says so.
#[test]
fn files_in_memory_are_measured_as_well() {
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else {
        skip!("files_in_memory", "no /dev/shm to write to");
    };
    let dir = dir();
    let memory_path = memory.path().to_str().unwrap();
    let args = [
        "--path",
        "file-tcp,file-file",
        "--sizes",
        "4K",
        "--rounds",
        "1",
        "--no-profile",
    ];
    let more = ["--json", "a.json", "--dir", memory_path];
    bench(&dir, &[&args[..], &more[..]].concat()).assert_success();
    let results = load(&dir.path().join("a.json"));
    let contender = Contender::Zhaul;
    assert!(routes(&results, Path::FileToTcp, contender).contains("mmap+write"));
    assert!(names(memory.path()).is_empty());
}

#[test]
fn an_ordinary_user_gets_figures_and_reasons() {
    if !rustix::process::geteuid().is_root() {
        skip!(
            "an_ordinary_user",
            "this is one, and all the other tests are about it"
        );
    }
    let dir = dir();
    let copy = dir.path().join("zhaul");
    std::fs::copy(binary(), &copy).unwrap();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(dir.path(), 0o777);
    open(&copy, 0o755);
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--bounding-set=-all",
        ])
        .arg(&copy)
        .args([
            "bench", "--path", "file-tcp", "--sizes", "64K", "--rounds", "1",
        ])
        .args(["--json", "a.json"])
        .current_dir(dir.path())
        .env("TMPDIR", dir.path())
        .env("ZHAUL_CALIBRATION", "")
        .output();
    let Ok(output) = output else {
        skip!("an_ordinary_user", "no setpriv");
    };
    let run = Run::of(output).assert_success();
    let results = load(&dir.path().join("a.json"));
    let routes = routes(&results, Path::FileToTcp, Contender::Zhaul);
    assert_eq!(routes.len(), 4, "{routes:?}");
    if let Some(why) = results.missing.get("calls") {
        assert!(why.contains('('), "a reason with its remedy: {why}");
        assert!(
            run.stdout.contains("system calls: not measured"),
            "{}",
            run.stdout
        );
        let mut counted = results.cells.iter().flat_map(|cell| &cell.counted);
        assert!(counted.all(|counted| counted.calls.is_none()));
    }
    assert_eq!(names(dir.path()), ["a.json", "zhaul"]);
}
