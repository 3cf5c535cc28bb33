//! The meter on real threads.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use zhaul_measure::bench::results::Part;
use zhaul_measure::meter::{Meter, Wanted};

/// A meter of which nothing is missing, or a skip.
fn meter(test: &str, wanted: Wanted) -> Option<Meter> {
    let meter = Meter::of_this_thread(wanted);
    if meter.missing().is_empty() {
        return Some(meter);
    }
    for missing in meter.missing() {
        zhaul_untested::skip(test, missing);
    }
    None
}

const CALLS: Wanted = Wanted {
    calls: true,
    copies: false,
    profile: false,
};

const PROFILE: Wanted = Wanted {
    calls: false,
    copies: false,
    profile: true,
};

#[test]
fn a_thread_that_makes_n_calls_reads_n() {
    let Some(mut meter) = meter("a_thread_that_makes_n_calls_reads_n", CALLS) else {
        return;
    };
    for calls in [0, 1, 7, 1000] {
        meter.start().unwrap();
        for _ in 0..calls {
            let _ = rustix::process::getppid();
        }
        assert_eq!(meter.stop().unwrap().calls, Some(calls));
    }
}

#[test]
fn other_instruments_add_no_calls() {
    let wanted = Wanted {
        calls: true,
        copies: false,
        profile: true,
    };
    let Some(mut meter) = meter("other_instruments_add_no_calls", wanted) else {
        return;
    };
    for calls in [0, 5] {
        meter.start().unwrap();
        for _ in 0..calls {
            let _ = rustix::process::getppid();
        }
        assert_eq!(meter.stop().unwrap().calls, Some(calls));
    }
}

#[test]
fn calls_of_other_threads_are_not_counted() {
    let Some(mut meter) = meter("calls_of_other_threads_are_not_counted", CALLS) else {
        return;
    };
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        while wait.try_recv().is_err() {
            let _ = rustix::process::getppid();
        }
    });
    meter.start().unwrap();
    for _ in 0..100 {
        let _ = rustix::process::getppid();
    }
    let reading = meter.stop().unwrap();
    go.send(()).unwrap();
    other.join().unwrap();
    assert_eq!(reading.calls, Some(100));
}

#[test]
fn a_meter_not_started_reads_nothing() {
    let mut meter = Meter::of_this_thread(CALLS);
    let reading = meter.stop().unwrap();
    assert_eq!((reading.calls, reading.copied), (None, None));
}

#[test]
fn reading_a_cached_file_is_mostly_copying() {
    let Some(mut meter) = meter("reading_a_cached_file_is_mostly_copying", PROFILE) else {
        return;
    };
    let mut file = tempfile::tempfile().unwrap();
    let mut buffer = vec![1_u8; 1 << 20];
    for _ in 0..8 {
        file.write_all(&buffer).unwrap();
    }
    meter.start().unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(200) {
        for chunk in 0..8 {
            rustix::io::pread(file.as_fd(), &mut buffer, chunk << 20).unwrap();
        }
    }
    let profile = meter.stop().unwrap().profile.unwrap();
    let top = profile.top(10);
    let of = |part| profile.parts.get(&part).copied().unwrap_or(0);
    assert!(
        of(Part::Copy) > of(Part::Vfs) + of(Part::Tcp) + of(Part::User),
        "{top:?}"
    );
    // By its own name or by its caller's, each routine copies to user memory.
    assert!(
        profile.copying.to_user * 10 >= of(Part::Copy) * 9,
        "{:?} {top:?}",
        profile.copying
    );
    let parts: u64 = profile.parts.values().sum();
    assert_eq!(parts, profile.total);
    assert_eq!(profile.functions.values().sum::<u64>(), profile.total);
}
