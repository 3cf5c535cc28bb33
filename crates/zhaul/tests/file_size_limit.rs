//! A process of its own, because the limit of a file's size is the process's.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;

use common::{TestFile, pattern};
use rustix::process::{Resource, Rlimit, setrlimit};
use zhaul::{Cause, Errno, Route, Summary, TransferError, transfer};

const LIMIT: u64 = 100_000;

fn limit(current: Option<u64>) {
    let maximum = None;
    setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
}

fn assert_too_large(what: &str, result: Result<Summary, TransferError>, sink: &File) {
    let error = result.unwrap_err();
    let is_too_large = matches!(
        error.cause,
        Cause::Io {
            errno: Errno::EFBIG,
            ..
        }
    );
    assert!(is_too_large, "{what}: {error}");
    assert_eq!(error.moved(), LIMIT, "{what}");
    assert_eq!(sink.metadata().unwrap().len(), LIMIT, "{what}");
}

/// Without more ado each of these ends the process by SIGXFSZ.
#[test]
fn a_sink_that_may_not_grow_is_an_error_on_every_route() {
    let source = TestFile::with(&pattern(300_000));
    // A socket to splice or read from, which has more than the sink may take.
    let stream = || {
        let (mut near, far) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            // The receiver is gone when the sink is full.
            let _ = near.write_all(&pattern(300_000));
        });
        far
    };
    let sink = || tempfile::tempfile_in("/var/tmp").unwrap();
    limit(Some(LIMIT));
    for route in [Route::ReadWrite, Route::Sendfile, Route::CopyFileRange] {
        let sink = sink();
        let haul = transfer(source.open(), &sink)
            .stability(zhaul::Stability::Immutable)
            .only(route);
        assert_too_large(&route.to_string(), haul.run(), &sink);
    }
    for route in [Route::ReadWrite, Route::Splice] {
        let sink = sink();
        let haul = transfer(stream(), &sink).only(route);
        let error = haul.run().unwrap_err();
        assert!(
            matches!(
                error.cause,
                Cause::Io {
                    errno: Errno::EFBIG,
                    ..
                }
            ),
            "{route}: {error}"
        );
        assert_eq!(sink.metadata().unwrap().len(), LIMIT, "{route}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let sink = sink();
    let result = runtime.block_on(transfer(source.open(), &sink).run_async());
    assert_too_large("on tokio", result, &sink);
    limit(None);
}
