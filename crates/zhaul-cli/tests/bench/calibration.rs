//! `--calibrate`.

use std::path::Path;

use zhaul_measure::bench::calibration::Calibration;

use crate::support::{Run, bench, command, dir, names};

const QUICK: [&str; 4] = ["--sizes", "1K,64K", "--rounds", "1"];

fn read(path: &Path) -> Calibration {
    let text = std::fs::read_to_string(path).unwrap();
    Calibration::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn thresholds_are_left_where_the_planner_reads_them() {
    let dir = dir();
    for (variable, value, file) in [
        ("ZHAUL_CALIBRATION", "here.toml", "here.toml"),
        ("XDG_CONFIG_HOME", "config", "config/zhaul/calibration.toml"),
        ("HOME", "home", "home/.config/zhaul/calibration.toml"),
    ] {
        let mut command = command(&dir, &[&["--calibrate"][..], &QUICK].concat());
        for name in ["ZHAUL_CALIBRATION", "XDG_CONFIG_HOME", "HOME"] {
            command.env_remove(name);
        }
        command.env(variable, dir.path().join(value));
        let run = Run::of(command.output().unwrap()).assert_success();
        let found = read(&dir.path().join(file));
        let kernel = rustix::system::uname();
        assert_eq!(found.kernel, kernel.release().to_str().unwrap());
        // One round is no evidence.
        assert_eq!(found.thresholds, Default::default());
        assert!(
            run.stdout.contains("sendfile ÷ read+write"),
            "{}",
            run.stdout
        );
        assert!(
            run.stdout.contains("Processes of this user read it"),
            "{}",
            run.stdout
        );
    }
}

#[test]
fn thresholds_go_to_a_file_that_is_named_with_the_evidence() {
    let dir = dir();
    let args = [&["--calibrate=a.toml", "--json", "a.json"][..], &QUICK].concat();
    bench(&dir, &args).assert_success();
    read(&dir.path().join("a.toml"));
    let text = std::fs::read_to_string(dir.path().join("a.toml")).unwrap();
    assert!(
        text.contains("#    1 KiB  ") && text.contains("#   64 KiB  "),
        "{text}"
    );
    let json = std::fs::read_to_string(dir.path().join("a.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["decisions"][0]["route"], "sendfile");
    assert_eq!(names(dir.path()), ["a.json", "a.toml"]);
}

#[test]
fn nowhere_to_leave_the_thresholds_is_said_before_anything_is_measured() {
    let dir = dir();
    let run = bench(&dir, &["--calibrate"]);
    run.assert_refused(2, &["nowhere to leave", "--calibrate=FILE"]);
    std::fs::write(dir.path().join("file"), "").unwrap();
    let run = bench(&dir, &["--calibrate=file/a.toml"]);
    run.assert_refused(1, &["cannot create", "file"]);
}
