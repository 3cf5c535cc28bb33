//! Sessions on this thread, and what they refuse.

use zhaul_measure::perf::{CopyRoutines, Error, Kind, Session, Symbols, Target};

use crate::{GETPPID, getppid_only, own_tid, permitted, sys_enter};

#[test]
fn each_call_of_this_thread_is_recorded_once() {
    const TEST: &str = "each_call_of_this_thread_is_recorded_once";
    let Some(enter) = sys_enter(TEST) else { return };
    let mut builder = Session::builder();
    let key = builder.tracepoint(&enter, None);
    let Some(mut session) = permitted(TEST, builder.attach(Target::ThisThread)) else {
        return;
    };
    session.enable().unwrap();
    for _ in 0..1000 {
        let _ = rustix::process::getppid();
    }
    session.disable().unwrap();
    let id = enter.format.field("id").unwrap();
    let mut calls = 0;
    let drained = session.drain_all(|record| {
        if let Kind::Tracepoint { event, raw, .. } = record.kind {
            assert_eq!((event, record.tid), (key, own_tid()));
            calls += u64::from(id.signed(raw) == Some(GETPPID));
        }
    });
    assert_eq!(calls, 1000);
    assert_eq!(
        (drained.lost, drained.late, drained.misread),
        (0, 0, 0),
        "{drained:?}"
    );
    assert_eq!(
        session.total(key).unwrap(),
        1001,
        "with the call that disables"
    );
}

#[test]
fn a_filter_lets_only_its_calls_through() {
    const TEST: &str = "a_filter_lets_only_its_calls_through";
    let Some(enter) = sys_enter(TEST) else { return };
    let mut builder = Session::builder();
    let recorded = builder.tracepoint(&enter, Some(&getppid_only()));
    let counted = builder.count(&enter, Some(&getppid_only()));
    let Some(mut session) = permitted(TEST, builder.attach(Target::ThisThread)) else {
        return;
    };
    session.enable().unwrap();
    for _ in 0..10 {
        let _ = rustix::process::getppid();
        let _ = rustix::process::getuid();
    }
    session.disable().unwrap();
    assert_eq!(session.drain_all(|_| {}).records, 10);
    assert_eq!(session.total(counted).unwrap(), 10);
    assert_eq!(session.total(recorded).unwrap(), 10);
}

#[test]
fn a_filter_the_kernel_does_not_understand_is_refused() {
    const TEST: &str = "a_filter_the_kernel_does_not_understand_is_refused";
    let Some(enter) = sys_enter(TEST) else { return };
    for filter in ["absent == 1", "id ==", "id == 1\0"] {
        let mut builder = Session::builder();
        builder.tracepoint(&enter, Some(filter));
        match builder.attach(Target::ThisThread) {
            Err(Error::Filter {
                tracepoint,
                filter: said,
            }) => {
                assert_eq!(
                    (tracepoint.as_str(), said.as_str()),
                    ("raw_syscalls:sys_enter", filter)
                );
            }
            Err(error @ Error::NotPermitted { .. }) => {
                zhaul_untested::skip(TEST, error.with_remedy());
                return;
            }
            other => panic!("{filter:?}: {other:?}"),
        }
    }
}

#[test]
fn a_ring_that_wraps_around_many_times_hands_out_each_record() {
    const TEST: &str = "a_ring_that_wraps_around_many_times_hands_out_each_record";
    let Some(enter) = sys_enter(TEST) else { return };
    let mut builder = Session::builder();
    builder.ring_bytes(1);
    builder.tracepoint(&enter, None);
    let Some(mut session) = permitted(TEST, builder.attach(Target::ThisThread)) else {
        return;
    };
    let id = enter.format.field("id").unwrap();
    let mut calls = 0;
    for _ in 0..300 {
        session.enable().unwrap();
        for _ in 0..20 {
            let _ = rustix::process::getppid();
        }
        session.disable().unwrap();
        let drained = session.drain_all(|record| {
            if let Kind::Tracepoint { raw, .. } = record.kind {
                calls += u32::from(id.signed(raw) == Some(GETPPID));
            }
        });
        assert_eq!((drained.lost, drained.misread, drained.late), (0, 0, 0));
    }
    assert_eq!(calls, 300 * 20);
}

#[test]
fn what_finds_no_room_is_lost_and_counted() {
    const TEST: &str = "what_finds_no_room_is_lost_and_counted";
    let Some(enter) = sys_enter(TEST) else { return };
    let mut builder = Session::builder();
    builder.ring_bytes(1);
    let key = builder.tracepoint(&enter, Some(&getppid_only()));
    let Some(mut session) = permitted(TEST, builder.attach(Target::ThisThread)) else {
        return;
    };
    session.enable().unwrap();
    for _ in 0..500 {
        let _ = rustix::process::getppid();
    }
    let first = session.drain_all(|_| {});
    assert_eq!(
        (first.records, first.lost),
        (first.records, 0),
        "nothing told of it yet"
    );
    // The next record brings the news of what was lost before it.
    let _ = rustix::process::getppid();
    session.disable().unwrap();
    let second = session.drain_all(|_| {});
    assert_eq!(second.records, 2, "the call and the loss");
    assert_eq!(first.records + second.lost + 1, 501);
    assert_eq!(session.total(key).unwrap(), 501);
    assert_eq!(session.lost().unwrap(), second.lost);
}

#[test]
fn losses_that_no_record_tells_of_are_known() {
    const TEST: &str = "losses_that_no_record_tells_of_are_known";
    let Some(enter) = sys_enter(TEST) else { return };
    let mut builder = Session::builder();
    builder.ring_bytes(1);
    builder.tracepoint(&enter, Some(&getppid_only()));
    let Some(mut session) = permitted(TEST, builder.attach(Target::ThisThread)) else {
        return;
    };
    session.enable().unwrap();
    for _ in 0..500 {
        let _ = rustix::process::getppid();
    }
    session.disable().unwrap();
    let drained = session.drain_all(|_| {});
    let lost = session.lost().unwrap();
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let major = release
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    if lost == 0 && major.unwrap_or(0) < 6 {
        zhaul_untested::skip(TEST, format_args!("Linux {release} does not count them"));
        return;
    }
    assert_eq!(drained.records + lost, 500);
}

#[test]
fn clock_samples_fall_where_the_thread_is() {
    const TEST: &str = "clock_samples_fall_where_the_thread_is";
    let mut builder = Session::builder();
    let clock = builder.cpu_clock(100_000, 0);
    let Some(mut session) = permitted(TEST, builder.attach(Target::ThisThread)) else {
        return;
    };
    session.enable().unwrap();
    let before = std::time::Instant::now();
    let mut sum = 0_u64;
    while before.elapsed().as_millis() < 100 {
        for number in 0..10_000_u64 {
            sum = std::hint::black_box(sum ^ number);
        }
    }
    session.disable().unwrap();
    let (mut user, mut all) = (0, 0);
    session.drain_all(|record| {
        if let Kind::Sample {
            event,
            user: in_user,
            ..
        } = record.kind
        {
            assert_eq!((event, record.tid), (clock, own_tid()));
            user += u32::from(in_user);
            all += 1;
        }
    });
    // Not most of them: an emulated processor spends its time in interrupts.
    assert!(user > 0 && all >= user, "{user} of {all}");
}

#[test]
fn breakpoints_on_kernel_text_work_or_are_said_to_be_refused() {
    const TEST: &str = "breakpoints_on_kernel_text_work_or_are_said_to_be_refused";
    let symbols = match Symbols::load() {
        Ok(symbols) => symbols,
        Err(error) => {
            zhaul_untested::skip(TEST, error.with_remedy());
            return;
        }
    };
    match CopyRoutines::find(&symbols) {
        Ok(routines) => {
            let names: Vec<_> = routines.names().collect();
            assert!(
                names.contains(&"_copy_to_iter") && names.len() >= 3,
                "{names:?}"
            );
        }
        Err(error) => {
            let known = matches!(
                error,
                Error::NoKernelBreakpoints | Error::NotPermitted { .. } | Error::Unsupported { .. }
            );
            assert!(known && error.remedy().is_some(), "{error}");
            zhaul_untested::skip(TEST, error.with_remedy());
        }
    }
}
