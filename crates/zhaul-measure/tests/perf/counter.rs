//! Counters.

use std::sync::mpsc;
use std::time::Duration;

use zhaul_measure::perf::{Counter, Error};
use zhaul_sys::perf_event::software;

use crate::{own_tid, permitted, sys_enter};

#[test]
fn a_thread_that_waits_n_times_is_switched_n_times() {
    const TEST: &str = "a_thread_that_waits_n_times_is_switched_n_times";
    let counter = Counter::software("context switches", software::CONTEXT_SWITCHES);
    let Some(counter) = permitted(TEST, counter) else {
        return;
    };
    counter.enable().unwrap();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(1));
    }
    counter.disable().unwrap();
    let count = counter.read().unwrap();
    // At least: others may want the CPU, too.
    assert!(count.value >= 20, "{count:?}");
    assert_eq!(
        count.enabled_ns, count.running_ns,
        "software events share nothing"
    );
}

#[test]
fn the_calls_of_another_thread_are_counted() {
    const TEST: &str = "the_calls_of_another_thread_are_counted";
    let Some(enter) = sys_enter(TEST) else { return };
    let (tell, told) = mpsc::channel();
    let (go, wait) = mpsc::channel();
    let other = std::thread::spawn(move || {
        tell.send(own_tid()).unwrap();
        wait.recv().unwrap();
        for _ in 0..300 {
            let _ = rustix::process::getppid();
        }
    });
    let counter = Counter::of_thread(&enter, told.recv().unwrap());
    let Some(counter) = permitted(TEST, counter) else {
        return;
    };
    counter.enable().unwrap();
    go.send(()).unwrap();
    other.join().unwrap();
    let count = counter.read().unwrap().value;
    // Those it makes to wake up and to end come on top.
    assert!((300..400).contains(&count), "{count}");
}

#[test]
fn a_thread_that_does_not_exist_has_no_counter() {
    const TEST: &str = "a_thread_that_does_not_exist_has_no_counter";
    let Some(enter) = sys_enter(TEST) else { return };
    for tid in [0, u32::MAX, i32::MAX as u32] {
        match Counter::of_thread(&enter, tid) {
            Err(Error::NoProcess(said)) => assert_eq!(said, tid),
            other => panic!("{tid}: {other:?}"),
        }
        let switches = software::CONTEXT_SWITCHES;
        match Counter::software_of_thread("context switches", switches, tid) {
            Err(Error::NoProcess(said)) => assert_eq!(said, tid),
            other => panic!("{tid}: {other:?}"),
        }
    }
}
