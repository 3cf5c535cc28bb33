//! Real files that change or end early while they are moved, by both drivers.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/metadata.rs"]
mod metadata;

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use common::{TestFile, pattern, wait_until};
use fuse::ShortFile;
use metadata::METADATA;
use zhaul::async_io::{AsyncEnd, Attached};
use zhaul::{
    Cause, Ending, Haul, Lease, Progress, Refusal, Route, SourceFacts, Stability, Summary,
    TransferError, endpoint, transfer,
};

const LONG: usize = 24 << 20;

#[derive(Clone, Copy, Debug)]
enum Driver {
    Blocking,
    Tokio,
}

const DRIVERS: [Driver; 2] = [Driver::Blocking, Driver::Tokio];

fn on_tokio<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Runs what is asked of the sink.
fn drive<'a, S: AsyncEnd + AsFd + Sync>(
    driver: Driver,
    sink: OwnedFd,
    asked: impl FnOnce(Attached) -> Haul<'a, S, Attached>,
) -> Result<Summary, TransferError> {
    on_tokio(async {
        let haul = asked(Attached::new(sink).unwrap());
        match driver {
            Driver::Blocking => haul.run(),
            Driver::Tokio => haul.run_async().await,
        }
    })
}

/// Moves the file to a socket that nobody reads from before `act` has acted; what was received.
fn moved_while(
    driver: Driver,
    file: &Path,
    asked: impl Fn(Haul<'_, File, Attached>) -> Haul<'_, File, Attached> + Sync,
    lease: Option<&Lease>,
    act: impl FnOnce(),
) -> (Result<Summary, TransferError>, Vec<u8>) {
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let progress = Progress::new();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            drive(driver, near.into(), |near| {
                let haul = transfer(File::open(file).unwrap(), near).progress(&progress);
                let haul = asked(haul);
                match lease {
                    Some(lease) => haul.lease(lease),
                    None => haul,
                }
            })
        });
        wait_until("the socket is full", || progress.moved() > 0);
        std::thread::sleep(Duration::from_millis(20));
        act();
        let reading = scope.spawn(move || {
            let mut received = Vec::new();
            far.read_to_end(&mut received).map(|_| received)
        });
        let outcome = sending.join().unwrap();
        (outcome, reading.join().unwrap().unwrap())
    })
}

#[test]
fn a_default_transfer_of_a_file_that_is_cut_is_an_error_with_the_bytes_moved() {
    let bytes = pattern(LONG);
    for driver in DRIVERS {
        let file = TestFile::with(&bytes);
        let (outcome, received) = moved_while(
            driver,
            file.path(),
            |haul| haul,
            None,
            || {
                let file = OpenOptions::new().write(true).open(file.path()).unwrap();
                file.set_len(LONG as u64 / 2).unwrap();
            },
        );
        let error = outcome.unwrap_err();
        let size = LONG as u64 / 2;
        assert_eq!(error.cause, Cause::Truncated { size }, "{driver:?}");
        assert_eq!((error.moved(), received.len()), (size, LONG / 2));
        assert!(received == bytes[..LONG / 2]);
    }
}

#[test]
fn a_copy_of_a_file_that_is_cut_is_an_error_too() {
    for stability in [Stability::MayChange, Stability::Immutable] {
        for driver in DRIVERS {
            let file = TestFile::with(&pattern(8 << 20));
            let copy = tempfile::tempfile_in("/var/tmp").unwrap();
            let progress = Progress::new();
            let error = std::thread::scope(|scope| {
                let copying = scope.spawn(|| {
                    let rate = std::num::NonZeroU64::new(16 << 20).unwrap();
                    let haul = transfer(file.open(), &copy)
                        .stability(stability)
                        .throttle(rate)
                        .progress(&progress);
                    match driver {
                        Driver::Blocking => haul.run(),
                        Driver::Tokio => on_tokio(haul.run_async()),
                    }
                });
                wait_until("it has begun", || progress.moved() > 0);
                let file = OpenOptions::new().write(true).open(file.path()).unwrap();
                file.set_len(7 << 20).unwrap();
                copying.join().unwrap().unwrap_err()
            });
            let truncated = Cause::Truncated { size: 7 << 20 };
            assert_eq!(error.cause, truncated, "{stability:?} {driver:?}");
            assert_eq!(copy.metadata().unwrap().len(), error.moved());
        }
    }
}

#[test]
fn a_file_that_grows_is_moved_to_its_new_end() {
    for driver in DRIVERS {
        let file = TestFile::with(&pattern(LONG));
        let (outcome, received) = moved_while(
            driver,
            file.path(),
            |haul| haul,
            None,
            || {
                let mut log = OpenOptions::new().append(true).open(file.path()).unwrap();
                std::io::Write::write_all(&mut log, b"appended").unwrap();
            },
        );
        assert_eq!(outcome.unwrap().ending, Some(Ending::SourceEnd));
        assert!(received.ends_with(b"appended") && received.len() == LONG + 8);
    }
}

#[test]
fn a_change_of_metadata_stops_nothing() {
    let bytes = pattern(LONG);
    for (name, change) in METADATA {
        for driver in DRIVERS {
            for (stability, one_version) in [
                (Stability::MayChange, true),
                (Stability::Immutable, false),
                (Stability::Leased, false),
            ] {
                // To set times a descriptor is opened for writing, which a lease is there to hold up.
                if stability == Stability::Leased && name == "atime put back" {
                    continue;
                }
                let file = TestFile::with(&bytes);
                let opened = file.open();
                let lease = (stability == Stability::Leased).then(|| common::lease(&opened));
                let before = opened.metadata().unwrap();
                let (outcome, received) = moved_while(
                    driver,
                    file.path(),
                    |haul| haul.stability(stability).one_version(one_version),
                    lease.as_ref(),
                    || change(file.path()),
                );
                let what = format!("{name}, {driver:?}, {stability:?}");
                outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(received == bytes, "{what}");
                let after = opened.metadata().unwrap();
                assert_eq!(
                    before.modified().unwrap(),
                    after.modified().unwrap(),
                    "{what}"
                );
                let _ = std::fs::remove_file(file.path().with_extension("4"));
            }
        }
    }
}

#[test]
fn who_counts_ctime_sees_an_edit_whose_mtime_was_put_back() {
    for (strict, driver) in [
        (true, Driver::Blocking),
        (true, Driver::Tokio),
        (false, Driver::Blocking),
    ] {
        let file = TestFile::with(&pattern(LONG));
        let (outcome, _) = moved_while(
            driver,
            file.path(),
            |haul| haul.stability(Stability::Immutable).ctime_is_edit(strict),
            None,
            || {
                let editor = OpenOptions::new().write(true).open(file.path()).unwrap();
                let mtime = editor.metadata().unwrap().modified().unwrap();
                std::os::unix::fs::FileExt::write_all_at(&editor, b"edited", 0).unwrap();
                editor.set_modified(mtime).unwrap();
            },
        );
        match strict {
            true => assert_eq!(outcome.unwrap_err().cause, Cause::Changed, "{driver:?}"),
            // As docs/stability.md says.
            false => drop(outcome.unwrap()),
        }
    }
}

#[test]
fn a_file_that_gives_less_than_it_states_ends_where_it_ends() {
    let bytes = pattern(1_000_003);
    for direct_io in [true, false] {
        let short = match ShortFile::mount(&bytes, 5_000, direct_io) {
            Ok(short) => short,
            Err(why) => return zhaul_untested::skip_this(why),
        };
        for driver in DRIVERS {
            for stability in [Stability::MayChange, Stability::Immutable] {
                for length in [None, Some(1_005_003)] {
                    for (only, to_file) in [
                        (None, false),
                        (None, true),
                        (Some(Route::Splice), false),
                        (Some(Route::ReadWrite), false),
                    ] {
                        let only = only.filter(|_| stability == Stability::Immutable);
                        let what = format!(
                            "direct_io {direct_io}, {driver:?}, {stability:?}, {length:?}, {only:?}, to a file: {to_file}"
                        );
                        let (outcome, received) =
                            run_short(&short.path(), driver, stability, length, only, to_file);
                        if !direct_io {
                            // The kernel may fill up the pages that it keeps with zeros.
                            assert!(received.starts_with(&bytes), "{what}");
                            continue;
                        }
                        let error = outcome.unwrap_err();
                        assert!(
                            matches!(error.cause, Cause::SourceEnded | Cause::Truncated { .. }),
                            "{what}: {error}"
                        );
                        assert_eq!(error.moved(), bytes.len() as u64, "{what}: {error}");
                        assert!(received == bytes, "{what}");
                        assert!(error.summary.calls < 200, "{what}: {error:?}");
                    }
                }
            }
        }
    }
}

fn run_short(
    path: &Path,
    driver: Driver,
    stability: Stability,
    length: Option<u64>,
    only: Option<Route>,
    to_file: bool,
) -> (Result<Summary, TransferError>, Vec<u8>) {
    let source = File::open(path).unwrap();
    let (near, mut far) = UnixStream::pair().unwrap();
    let file = tempfile::tempfile_in("/var/tmp").unwrap();
    let reading = std::thread::spawn(move || {
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        received
    });
    let sink: OwnedFd = match to_file {
        true => file.try_clone().unwrap().into(),
        false => near.try_clone().unwrap().into(),
    };
    let asked = |sink| {
        let mut haul = transfer(&source, sink).stability(stability);
        if let Some(bytes) = length {
            haul = haul.length(bytes);
        }
        if let Some(route) = only {
            haul = haul.only(route);
        }
        haul
    };
    let outcome = drive(driver, sink, asked);
    drop(near);
    let mut received = reading.join().unwrap();
    if to_file {
        let written = file.metadata().unwrap().len();
        received = vec![0; usize::try_from(written).unwrap()];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut received, 0).unwrap();
    }
    (outcome, received)
}

/// sysfs states a page for every attribute, whatever it holds. A caller that takes it for a regular
/// file gets what there is, and an end.
#[test]
fn a_stated_size_that_nobody_keeps_does_not_hold_a_thread() {
    let path = "/sys/devices/system/cpu/online";
    let Ok(content) = std::fs::read(path) else {
        return zhaul_untested::skip_this(format_args!("no {path}"));
    };
    for driver in DRIVERS {
        let source = File::open(path).unwrap();
        let version = endpoint::version(&source).unwrap();
        assert!(version.size > content.len() as u64);
        let (near, mut far) = UnixStream::pair().unwrap();
        let sink = near.try_clone().unwrap().into();
        let asked = |sink| {
            transfer(&source, sink)
                .source_facts(SourceFacts::regular(version))
                .stability(Stability::Immutable)
                .length(version.size)
        };
        let outcome = drive(driver, sink, asked);
        let error = outcome.unwrap_err();
        assert_eq!(
            (error.cause, error.moved()),
            (Cause::SourceEnded, content.len() as u64),
            "{driver:?}"
        );
        drop(near);
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        assert!(received == content);
    }
}

/// The largest file there can be, on tmpfs, read at its very end.
#[test]
fn the_last_bytes_that_an_offset_can_name_are_moved() {
    let Ok(file) = tempfile::tempfile_in("/dev/shm") else {
        return zhaul_untested::skip_this("no /dev/shm");
    };
    let last = i64::MAX as u64;
    if let Err(error) = file.set_len(last) {
        return zhaul_untested::skip_this(format_args!("no file of 2^63 - 1 bytes: {error}"));
    }
    for driver in DRIVERS {
        for only in [
            None,
            Some(Route::Sendfile),
            Some(Route::Splice),
            Some(Route::ReadWrite),
        ] {
            let (near, mut far) = UnixStream::pair().unwrap();
            let sink = near.try_clone().unwrap().into();
            let asked = |sink| {
                let haul = transfer(&file, sink).stability(Stability::Immutable);
                let haul = haul.offset(last - 1_000);
                match only {
                    Some(route) => haul.only(route),
                    None => haul,
                }
            };
            let outcome = drive(driver, sink, asked);
            let summary = outcome.unwrap_or_else(|error| panic!("{driver:?}, {only:?}: {error}"));
            assert_eq!(summary.moved, 1_000, "{driver:?}, {only:?}");
            drop(near);
            let mut received = Vec::new();
            far.read_to_end(&mut received).unwrap();
            assert_eq!(received, [0; 1_000]);
        }
    }
}

#[test]
fn an_offset_behind_all_files_is_refused() {
    let file = TestFile::with(b"short");
    let sink = tempfile::tempfile().unwrap();
    for offset in [1 << 63, u64::MAX] {
        let refused = |outcome: Result<Summary, TransferError>| {
            let refusal = Refusal::OffsetTooLarge;
            assert_eq!(outcome.unwrap_err().cause, Cause::Refused { refusal });
        };
        refused(transfer(file.open(), &sink).offset(offset).run());
        refused(transfer(file.open(), &sink).sink_offset(offset).run());
        refused(on_tokio(
            transfer(file.open(), &sink).offset(offset).run_async(),
        ));
    }
    // Behind the end, but not behind all ends, there is just nothing.
    let outcome = transfer(file.open(), &sink).offset(i64::MAX as u64).run();
    assert_eq!(outcome.unwrap().moved, 0);
    let error = transfer(file.open(), &sink)
        .length(u64::MAX)
        .run()
        .unwrap_err();
    assert_eq!((error.cause, error.moved()), (Cause::SourceEnded, 5));
}
