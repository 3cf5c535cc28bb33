//! Waiting for pages in flight, by both drivers. A UNIX socket stands in for one across a wire:
//! its `SIOCOUTQ` counts until the receiver has read.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use zhaul_core::{
    Ask, Cause, HostFacts, InPlaceEnd, Plan, Route, SinkFacts, SourceFacts, Stability, Summary,
    Transfer, TransferError,
};

use super::*;
use crate::calls::Buffers;
use crate::progress::Progress;
use crate::{async_io as on_tokio, blocking, endpoint};

struct Leased {
    path: tempfile::TempPath,
    file: File,
    lease: Lease,
}

impl Leased {
    fn file_of(len: usize) -> Self {
        let mut named = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        named.write_all(&vec![7; len]).unwrap();
        let path = named.into_temp_path();
        let file = File::open(&path).unwrap();
        let lease = Lease::acquire(&file).unwrap();
        Self { path, file, lease }
    }

    fn transfer(&self) -> (Transfer, Buffers) {
        let source = SourceFacts::regular(endpoint::version(&self.file).unwrap());
        let sink = SinkFacts::stream_socket(InPlaceEnd::Acknowledged);
        let ask = Ask {
            stability: Stability::Leased,
            ..Ask::default()
        };
        let host = HostFacts::default();
        let plan = Plan::select(&source, &sink, &host, &ask);
        assert_eq!(plan.route, Route::Sendfile);
        let transfer = Transfer::new(plan, &source, &sink, &host, &ask).unwrap();
        (transfer, Buffers::new(&source, &sink, None))
    }

    fn run(&self, sink: &UnixStream, progress: &Progress) -> Result<Summary, TransferError> {
        let (transfer, buffers) = self.transfer();
        let control = blocking::Control {
            lease: Some(&self.lease),
            cancel: None,
            progress: Some(progress),
            began: None,
        };
        blocking::drive(
            (self.file.as_fd(), sink.as_fd()),
            transfer,
            buffers,
            None,
            control,
        )
    }

    async fn run_async(
        &self,
        sink: &tokio::net::UnixStream,
        progress: &Progress,
    ) -> Result<Summary, TransferError> {
        let (transfer, buffers) = self.transfer();
        let control = on_tokio::Control {
            lease: Some(&self.lease),
            cancel: None,
            progress: Some(progress),
            began: None,
            deadline: None,
        };
        let read_ahead: Option<on_tokio::ReadAhead<'_, on_tokio::Kept<'_, File>>> = None;
        let mut state = on_tokio::DriveState::new(transfer, buffers);
        let (ends, at_drop) = ((&self.file, sink), on_tokio::AtDrop::Keep);
        let drive = on_tokio::Drive::new(ends, &mut state, read_ahead, control, at_drop);
        drive.run(on_tokio::Goal::End).await.unwrap()
    }
}

/// Breaks the lease without changing the file.
fn break_lease(path: &Path) {
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    assert!(opened.is_err(), "the lease is state");
}

fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec.try_into().unwrap())
}

fn wait_until(mut is_true: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_editor_waits_for_the_release_and_no_thread_spins_meanwhile() {
    let leased = Leased::file_of(50_000);
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let progress = Progress::new();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let before = thread_time();
            let outcome = leased.run(&near, &progress);
            (outcome, thread_time() - before)
        });
        wait_until(|| progress.moved() == 50_000);
        break_lease(&leased.path);
        std::thread::sleep(Duration::from_millis(300));
        assert!(!sending.is_finished(), "the receiver has not read yet");
        far.read_exact(&mut vec![0; 50_000]).unwrap();
        let (outcome, busy) = sending.join().unwrap();
        assert_eq!(outcome.unwrap().moved, 50_000);
        assert!(busy < Duration::from_millis(100), "{busy:?} of spinning");
    });
}

#[test]
fn a_broken_lease_is_reported_when_nothing_is_in_flight_any_more() {
    let leased = Leased::file_of(4 << 20);
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let progress = Progress::new();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| leased.run(&near, &progress));
        wait_until(|| progress.moved() > 0);
        break_lease(&leased.path);
        std::thread::sleep(Duration::from_millis(100));
        assert!(!sending.is_finished(), "pages are in flight");
        let mut left = progress.moved();
        while left > 0 {
            left -= far.read(&mut [0; 1 << 16]).unwrap() as u64;
        }
        let error = sending.join().unwrap().unwrap_err();
        assert_eq!((error.cause, error.in_flight), (Cause::LeaseBroken, false));
        assert_eq!(error.moved(), progress.moved());
    });
}

#[tokio::test]
async fn a_task_waits_for_the_release_before_it_reports_a_broken_lease() {
    let leased = Leased::file_of(4 << 20);
    let (near, mut far) = tokio::net::UnixStream::pair().unwrap();
    let progress = Progress::new();
    let receiving = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        break_lease(&leased.path);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut left = progress.moved();
        let mut buffer = vec![0; 1 << 16];
        while left > 0 {
            left -= tokio::io::AsyncReadExt::read(&mut far, &mut buffer)
                .await
                .unwrap() as u64;
        }
    };
    let (outcome, ()) = tokio::join!(leased.run_async(&near, &progress), receiving);
    let error = outcome.unwrap_err();
    assert_eq!((error.cause, error.in_flight), (Cause::LeaseBroken, false));
    assert_eq!(
        error.moved(),
        progress.moved(),
        "not a byte after the break"
    );
}

#[test]
fn patience_ends_some_time_after_the_break() {
    let leased = Leased::file_of(10);
    let patience = Patience::new(Some(&leased.lease), false);
    assert_eq!(patience.ends_at(), None, "nobody waits");
    let failed = Patience::new(Some(&leased.lease), true);
    assert!(failed.ends_at().is_some() && !failed.is_over());
    break_lease(&leased.path);
    wait_until(|| leased.lease.is_broken());
    let left = patience.ends_at().unwrap() - leased.lease.broken_at().unwrap();
    assert!(left <= LONGEST && left > Duration::ZERO, "{left:?}");
    assert!(!patience.is_over());
}
