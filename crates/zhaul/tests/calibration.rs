//! The planner takes its thresholds from the file that `$ZHAUL_CALIBRATION` names.
//!
//! The file is read once per process, so each case is a process of its own: this one, started again
//! with only [`what_this_process_plans`] to run.
#![allow(clippy::unwrap_used, reason = "tests panic to report")]

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use zhaul::{Stability, Thresholds, calibration, endpoint};

/// Says what a process with this environment plans.
fn plans(calibration: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "what_this_process_plans",
            "--ignored",
            "--nocapture",
        ])
        .env("ZHAUL_CALIBRATION", calibration)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.contains("plans: "));
    line.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
#[ignore = "started by the others, in a process of its own"]
fn what_this_process_plans() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let file = File::open("/proc/self/exe").unwrap();
    let route = |bytes| {
        let haul = zhaul::transfer(&file, &socket).stability(Stability::Immutable);
        haul.length(bytes).plan().unwrap().route
    };
    let Thresholds { mmap_min_bytes, .. } = endpoint::host_facts().thresholds;
    println!(
        "plans: {} for 1000 bytes, {} for 5000, mmap from {mmap_min_bytes}, thresholds: {}",
        route(1000),
        route(5000),
        calibration::origin()
    );
}

fn running_kernel() -> String {
    let release = rustix::system::uname();
    release.release().to_string_lossy().into_owned()
}

#[test]
fn a_calibrated_threshold_changes_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calibration.toml");
    let text = format!(
        "format = 1\nkernel = \"{}\"\nsendfile_min_bytes = 4096\nmmap_min_bytes = 8192\n",
        running_kernel()
    );
    std::fs::write(&path, text).unwrap();
    let plans = plans(&path);
    let expected = format!(
        "plans: read+write for 1000 bytes, sendfile for 5000, mmap from 8192, thresholds: {}",
        path.display()
    );
    assert!(plans.contains(&expected), "{plans}");
}

#[test]
fn a_calibration_of_another_kernel_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calibration.toml");
    std::fs::write(
        &path,
        "format = 1\nkernel = \"2.4.0\"\nsendfile_min_bytes = 4096\n",
    )
    .unwrap();
    let plans = plans(&path);
    assert!(plans.contains("sendfile for 1000 bytes"), "{plans}");
    assert!(
        plans.contains("is ignored: measured under Linux 2.4.0"),
        "{plans}"
    );
}

#[test]
fn an_empty_name_means_no_calibration() {
    let plans = plans(Path::new(""));
    assert!(plans.contains("sendfile for 1000 bytes"), "{plans}");
    assert!(plans.contains("thresholds: the defaults"), "{plans}");
}
