//! A process of its own, because the limit of descriptors is the process's.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{TestFile, pattern, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use zhaul::{CancelToken, Cause, Progress, transfer};

#[test]
fn a_cancellation_is_noticed_without_a_descriptor_to_wake_up_by() {
    let file = TestFile::with(&pattern(4 << 20)).open();
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let (token, progress) = (CancelToken::new(), Progress::new());
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let haul = transfer(&file, &near).cancel(&token);
            // From here on nothing can be opened.
            let maximum = getrlimit(Resource::Nofile).maximum;
            let current = Some(3);
            setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
            haul.progress(&progress).run()
        });
        wait_until("the socket is full", || progress.moved() > 0);
        std::thread::sleep(Duration::from_millis(50));
        let began = Instant::now();
        token.cancel();
        while !sending.is_finished() && began.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Ends it in any case, but then not as cancelled.
        drop(far);
        let outcome = sending.join().unwrap();
        assert_eq!(outcome.unwrap_err().cause, Cause::Cancelled);
        assert!(began.elapsed() < Duration::from_secs(2));
    });
}
