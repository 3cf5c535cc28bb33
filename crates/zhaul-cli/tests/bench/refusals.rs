//! Bad input: said in one message, before anything long is begun, and nothing is left behind.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::{Run, bench, binary, dir, names, skip, small_run};

#[test]
fn an_unknown_route_path_or_size_is_named_with_those_there_are() {
    let dir = dir();
    let routes = [
        "read+write",
        "mmap+write",
        "splice",
        "sendfile",
        "copy_file_range",
    ];
    let words = [&["teleport"][..], &routes].concat();
    bench(&dir, &["teleport"]).assert_refused(2, &words);
    bench(&dir, &["--path", "file-moon"]).assert_refused(2, &["file-moon", "tcp-tcp"]);
    bench(&dir, &["--sizes", "1K,64Q"]).assert_refused(2, &["64Q", "4096, 64K"]);
    bench(&dir, &["--sizes", "0"]).assert_refused(2, &["nothing"]);
    bench(&dir, &["--rounds", "0"]).assert_refused(2, &["--rounds"]);
    bench(&dir, &["--compare", "a.json"]).assert_refused(2, &["--compare"]);
}

#[test]
fn a_combination_that_does_not_exist_is_explained() {
    let dir = dir();
    let run = bench(&dir, &["sendfile", "--path", "tcp-tcp", "--sizes", "1K"]);
    run.assert_refused(2, &["TCP → TCP by sendfile", "not a file", "ask for other"]);
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let dir = dir();
    let run = bench(&dir, &["--dir", "missing", "--sizes", "1K"]);
    run.assert_refused(1, &["missing", "No such file", "--dir"]);
    if rustix::process::geteuid().is_root() {
        skip!("a_directory_that_cannot_be_used", "root may write anywhere");
    }
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
    let run = bench(&dir, &["--dir", "closed", "--sizes", "1K"]);
    run.assert_refused(1, &["closed", "Permission denied", "--dir"]);
}

#[test]
fn a_size_that_does_not_fit_is_refused_with_figures_and_the_others_run() {
    let dir = dir();
    let run = bench(&dir, &["--sizes", "1000000G"]);
    run.assert_refused(2, &["1000000 GiB", "MiB"]);
    let args = [
        "sendfile",
        "--path",
        "file-tcp",
        "--sizes",
        "1K,1000000G",
        "--rounds",
        "1",
    ];
    let run = bench(&dir, &[&args[..], &["--no-profile"]].concat()).assert_success();
    assert!(run.stdout.contains("1 KiB"), "{}", run.stdout);
    let words = "not run: file → TCP, sendfile with 1000000 GiB:";
    assert!(run.stdout.contains(words), "{}", run.stdout);
}

#[test]
fn a_file_that_cannot_be_written_is_said_before_the_run() {
    let dir = dir();
    for option in ["--json", "--html"] {
        // The default run would take minutes.
        let run = bench(&dir, &[option, "missing/a"]);
        run.assert_refused(1, &["missing/a", "create its directory"]);
        bench(&dir, &[option, "."]).assert_refused(1, &["it is a directory"]);
    }
    bench(&dir, &["--json", "a", "--html", "a"]).assert_refused(2, &["the same file"]);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_full_disk_loses_neither_the_table_nor_the_other_file() {
    let dir = dir();
    let args = [
        "sendfile", "--path", "file-tcp", "--sizes", "1K", "--rounds", "1",
    ];
    let more = ["--no-profile", "--json", "/dev/full", "--html", "a.html"];
    let run = bench(&dir, &[&args[..], &more[..]].concat());
    assert_eq!(run.exit, Some(1), "{run:#?}");
    assert!(run.stdout.contains("file → TCP"), "{run:#?}");
    assert!(
        run.stderr.contains("/dev/full") && run.stderr.contains("make room"),
        "{run:#?}"
    );
    assert_eq!(names(dir.path()), ["a.html"]);
}

#[test]
fn a_file_cut_short_is_not_left_in_place() {
    let dir = dir();
    let before = small_run(&dir, "a.json", "1");
    let old = std::fs::read(dir.path().join("a.json")).unwrap();
    // Fewer bytes than the results have, and enough for what is sent.
    let script = "ulimit -f 2 && exec \"$0\" bench sendfile --path file-tcp --sizes 1K --rounds 1 \
                  --no-profile --json a.json --html b.html";
    let output = Command::new("bash")
        .args(["-c", script])
        .arg(binary())
        .current_dir(dir.path())
        .env("TMPDIR", dir.path())
        .env("ZHAUL_CALIBRATION", "")
        .output();
    let Ok(output) = output else {
        skip!("a_file_cut_short", "no bash");
    };
    let run = Run::of(output);
    assert_eq!(run.exit, Some(1), "{run:#?}");
    assert!(run.stderr.contains("cannot write"), "{run:#?}");
    assert_eq!(
        std::fs::read(dir.path().join("a.json")).unwrap(),
        old,
        "{before:?}"
    );
    assert_eq!(names(dir.path()), ["a.json"]);
}
