//! What a user without privilege is told.

use std::os::unix::process::CommandExt;

use zhaul_measure::meter::{Meter, Wanted};
use zhaul_measure::perf::{Counter, Error, Session, Symbols, Target, Tracefs};
use zhaul_sys::perf_event::software;

const NOBODY: u32 = 65534;
const ROLE: &str = "ZHAUL_TEST_ORDINARY";

#[test]
fn an_ordinary_user_is_told_what_is_missing() {
    const TEST: &str = "an_ordinary_user_is_told_what_is_missing";
    if !rustix::process::geteuid().is_root() {
        return check();
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "ordinary_user::as_nobody",
            "--ignored",
            "--nocapture",
        ])
        .env(ROLE, "1")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    match status {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "{said}{}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
        Err(error) => zhaul_untested::skip(
            TEST,
            format_args!("the test program as uid {NOBODY}: {error}"),
        ),
    }
}

#[test]
#[ignore = "run by another test as another user"]
fn as_nobody() {
    if std::env::var_os(ROLE).is_some() {
        check();
    }
}

/// Whatever is refused is refused with the right error and a remedy; what is permitted, by a
/// setting of this machine, is fine.
fn check() {
    let told = |error: &Error| {
        let known = matches!(
            error,
            Error::NotPermitted { .. }
                | Error::TracefsForbidden
                | Error::NoTracefs
                | Error::SymbolsHidden
                | Error::LockedMemory
        );
        assert!(known && error.remedy().is_some(), "{error:?}");
    };
    if let Err(error) = Tracefs::find() {
        told(&error);
    }
    if let Err(error) = Symbols::load() {
        told(&error);
    }
    if let Err(error) = Counter::software("context switches", software::CONTEXT_SWITCHES) {
        told(&error);
    }
    for target in [Target::ThisThread, Target::Process(1), Target::System] {
        let mut builder = Session::builder();
        builder.cpu_clock(1_000_000, 0);
        if let Err(error) = builder.attach(target) {
            told(&error);
        }
    }
    let wanted = Wanted {
        calls: true,
        copies: true,
        profile: true,
    };
    let mut meter = Meter::of_this_thread(wanted);
    for missing in meter.missing() {
        if missing.what != "copies" {
            told(&missing.why);
        }
        println!("{missing}");
    }
    meter.start().unwrap();
    let reading = meter.stop().unwrap();
    let lacks = |what| meter.missing().iter().any(|missing| missing.what == what);
    assert_eq!(reading.calls.is_none(), lacks("calls"));
    assert_eq!(reading.copied.is_none(), lacks("copies"));
    assert_eq!(reading.profile.is_none(), lacks("profile"));
}
