//! How it ends: exit codes, errors, and that it does end.

use std::process::Stdio;

use crate::support::{Doctor, can_unshare, open_directory, set_mode, skip};

#[test]
fn it_succeeds_with_a_report_and_says_nothing_on_stderr() {
    let run = Doctor::with([] as [&str; 0]).run();
    run.assert_success();
    assert!(run.stdout.starts_with("Linux "), "{}", run.stdout);
}

#[test]
fn a_path_that_does_not_exist_is_an_error_before_anything_is_printed() {
    let dir = open_directory();
    for path in ["missing", "missing/deeper"] {
        let run = Doctor::on(dir.path()).arg(dir.path().join(path)).run();
        run.assert_refused(1, &["missing", "No such file or directory", "(name a"]);
    }
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let run = Doctor::on(dir.path().join("file/below")).run();
    run.assert_refused(1, &["file/below", "Not a directory"]);
    let run = Doctor::on("").run();
    assert_ne!(run.status.code(), Some(0));
    let loops = dir.path().join("loop");
    std::os::unix::fs::symlink(&loops, &loops).unwrap();
    Doctor::on(&loops)
        .run()
        .assert_refused(1, &["loop", "ELOOP"]);
    let long = dir.path().join("x".repeat(300));
    Doctor::on(long).run().assert_refused(1, &["ENAMETOOLONG"]);
}

#[test]
fn control_characters_of_a_path_are_not_printed() {
    let run = Doctor::on("/missing\x1b[31m\nzhaul: all is well").run();
    run.assert_refused(1, &["/missing?[31m?zhaul"]);
    assert!(!run.stderr.contains('\x1b'));
    assert_eq!(run.stderr.lines().count(), 1);
}

#[test]
fn wrong_usage_is_exit_2() {
    for arguments in [
        vec!["--no-such-option"],
        vec!["--peer", "nobody"],
        vec!["--peer", "127.0.0.1"],
        vec!["--json=yes"],
    ] {
        let run = Doctor::with(arguments).run();
        assert_eq!(run.status.code(), Some(2), "{}", run.stderr);
        assert!(run.stderr.starts_with("zhaul: "), "{}", run.stderr);
    }
}

#[test]
fn help_has_examples() {
    let run = Doctor::with(["--help"]).run();
    run.assert_success();
    assert!(run.stdout.contains("Examples:") && run.stdout.contains("zhaul doctor /srv"));
    assert!(!run.stdout.contains("try-alone"), "not for people");
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    for arguments in [vec!["."], vec![".", "--json"]] {
        let mut command = Doctor::with(arguments).command();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.stdout(writer).output().unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn a_full_disk_under_the_output_is_a_failure() {
    for arguments in [vec!["."], vec![".", "--json"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let Ok(full) = full else {
            skip!("a_full_disk_under_the_output_is_a_failure", "no /dev/full");
        };
        let mut command = Doctor::with(arguments).command();
        let output = command
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            text.contains("cannot print") && text.contains("No space left"),
            "{text}"
        );
    }
}

#[test]
fn a_directory_of_fifos_and_a_fifo_do_not_stop_it() {
    let dir = open_directory();
    for name in ["a", "b"] {
        let made = std::process::Command::new("mkfifo")
            .arg(dir.path().join(name))
            .status();
        if !made.is_ok_and(|status| status.success()) {
            skip!(
                "a_directory_of_fifos_and_a_fifo_do_not_stop_it",
                "no mkfifo"
            );
        }
    }
    Doctor::on(dir.path().join("a")).run().assert_success();
    // Where nothing can be made it looks for a file to read.
    set_mode(dir.path(), 0o555);
    let run = Doctor::on(dir.path()).run();
    set_mode(dir.path(), 0o755);
    run.assert_success();
}

#[test]
fn a_file_system_that_never_answers_is_given_up() {
    const NAME: &str = "a_file_system_that_never_answers_is_given_up";
    // A FUSE file system whose server holds the device and never reads from it.
    const SCRIPT: &str = r#"
        dead=$1; shift
        exec 3<>/dev/fuse
        mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 dead "$dead" || exit 77
        exec "$@"
    "#;
    if !can_unshare(&["mount"]) || !std::path::Path::new("/dev/fuse").exists() {
        skip!(NAME, "it takes root, mount and /dev/fuse");
    }
    let dir = open_directory();
    let dead = dir.path().to_str().unwrap();
    let mut words = vec!["unshare", "--mount", "--propagation", "private"];
    words.extend(["sh", "-euc", SCRIPT, "sh", dead]);
    let run = Doctor::on(dead).under(words).run();
    if run.status.code() == Some(77) {
        skip!(NAME, "no FUSE: {}", run.stderr);
    }
    run.assert_refused(1, &[dead, "no answer", "server"]);
}
