//! A runtime without timers drives whatever asks for no time limit.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::File;
use std::future::Future;
use std::io::Write;

use common::TestFile;
use zhaul::tokio::Attached;
use zhaul::{Progress, transfer};

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// It slept for a millisecond at each, and for that it needed a timer.
#[test]
fn a_transfer_from_a_pipe_to_a_file_waits_for_the_pipe_alone() {
    run(async {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let source = Attached::new(reader).unwrap();
        let target = TestFile::with(b"");
        let sink = File::options().append(true).open(target.path()).unwrap();
        let progress = Progress::new();
        let sending = transfer(&source, &sink).progress(&progress).run_async();
        let feeding = async {
            let mut writer = File::from(writer);
            for number in 1..=100 {
                writer.write_all(&[7; 100]).unwrap();
                while progress.moved() < number * 100 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let (summary, ()) = tokio::join!(sending, feeding);
        assert_eq!(summary.unwrap().moved, 10_000);
        assert_eq!(std::fs::read(target.path()).unwrap().len(), 10_000);
    });
}
