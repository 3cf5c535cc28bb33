//! Alone in its process, so that nobody else opens descriptors meanwhile.
#![allow(clippy::unwrap_used)]

use rustix::process::{Resource, Rlimit};
use zhaul_measure::meter::{Meter, Wanted};
use zhaul_measure::perf::{Builder, Error, Session, Target};

#[test]
fn sessions_and_meters_leave_no_descriptor_mapping_or_thread() {
    let mut builder = Session::builder();
    builder.cpu_clock(1_000_000, 2);
    builder.inherit(true);
    let attach = || builder.clone().attach(Target::Process(std::process::id()));
    if let Err(error) = attach() {
        zhaul_untested::skip(
            "sessions_and_meters_leave_no_descriptor_mapping_or_thread",
            error.with_remedy(),
        );
        return;
    }
    let before = holdings();
    for drained in [false, true] {
        let mut session = attach().unwrap();
        session.enable().unwrap();
        if drained {
            session.drain(|_| {});
        }
    }
    let failed = builder.clone().attach(Target::Thread(u32::MAX));
    assert!(failed.is_err());
    let wanted = Wanted {
        calls: true,
        copies: true,
        profile: true,
    };
    for stopped in [false, true] {
        let mut meter = Meter::of_this_thread(wanted);
        meter.start().unwrap();
        if stopped {
            meter.stop().unwrap();
        }
    }
    out_of_descriptors(&builder);
    assert_eq!(holdings(), before);
}

/// Room for some of the events is not enough, and they are given back.
fn out_of_descriptors(builder: &Builder) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let (open, _, _) = holdings();
    for more in 0..8 {
        let lower = Rlimit {
            // One of those counted was the directory.
            current: Some((open - 1 + more) as u64),
            ..limit
        };
        rustix::process::setrlimit(Resource::Nofile, lower).unwrap();
        let attached = builder.clone().attach(Target::Process(std::process::id()));
        rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
        match attached {
            Err(error @ Error::TooManyFiles { .. }) => assert!(error.remedy().is_some()),
            other => panic!("{more} descriptors: {other:?}"),
        }
    }
}

/// Descriptors, mappings of perf events, and threads.
fn holdings() -> (usize, usize, usize) {
    let entries = |path: &str| std::fs::read_dir(path).unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let rings = maps.matches("[perf_event]").count();
    (entries("/proc/self/fd"), rings, entries("/proc/self/task"))
}
