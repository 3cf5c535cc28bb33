//! Little room, few pipes, few buffers.

use std::io::Write;
use std::sync::Arc;

use zhaul::PipePool;
use zhaul::relay::{BufferPool, Way};

use crate::common::pattern;
use crate::stand::{Kind, Peer, Rest, Running, Setup, each, each_driver, tiny_connection};

/// Both ways at once, compared; the peers are done then.
fn exchange(a: Peer, b: Peer, len: usize) {
    let bytes = Arc::new(pattern(len));
    let readers = [a.try_clone(), b.try_clone()].map(|mut peer| {
        let bytes = Arc::clone(&bytes);
        std::thread::spawn(move || assert!(peer.read_all() == *bytes))
    });
    let writers = [a, b].map(|mut peer| {
        let bytes = Arc::clone(&bytes);
        std::thread::spawn(move || {
            peer.write_all(&bytes).unwrap();
            peer.end();
        })
    });
    for thread in readers.into_iter().chain(writers) {
        thread.join().unwrap();
    }
}

fn run(running: Running, len: usize) -> zhaul::relay::Stats {
    let (a, b, rest): (_, _, Rest) = running.split();
    exchange(a, b, len);
    let ending = rest.finish();
    assert!(ending.cause.is_clean(), "{}", ending.cause);
    ending.stats
}

#[test]
fn tiny_socket_buffers_only_slow_it_down() {
    each(|driver, kinds| {
        let [a, b] = [kinds.0, kinds.1].map(|kind| tiny_connection(kind, 2304));
        // Counts as bulk all the same.
        let setup = Setup::with(|options| {
            options.thresholds.short_splices = u8::MAX;
            options.thresholds.full_reads = 1;
        });
        let mut setup = setup;
        setup.resources.buffers = BufferPool::new(8, 512);
        run(Running::start_between(driver, a, b, setup), 300_000);
    });
}

#[test]
fn without_a_pipe_everything_is_copied() {
    each_driver(|driver| {
        let mut setup = Setup::default();
        setup.resources.pipes = PipePool::new(0, 1 << 20);
        let stats = run(
            Running::start(driver, (Kind::Tcp, Kind::Tcp), setup),
            12 << 20,
        );
        for way in Way::BOTH {
            assert_eq!(stats.way(way).spliced, 0);
            assert_eq!(stats.way(way).copied(), 12 << 20);
        }
    });
}

#[test]
fn one_pipe_and_one_buffer_serve_many() {
    each_driver(|driver| {
        let mut setup = Setup::default();
        setup.resources.pipes = PipePool::new(1, 1 << 20);
        setup.resources.buffers = BufferPool::new(1, 16 << 10);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let mut setup = setup.clone();
                setup.progress = Arc::default();
                std::thread::spawn(move || {
                    let running = Running::start(driver, (Kind::Tcp, Kind::Tcp), setup);
                    let (a, b, rest) = running.split();
                    exchange(a, b, 3 << 20);
                    rest.finish_sharing()
                })
            })
            .collect();
        for thread in threads {
            assert!(thread.join().unwrap().cause.is_clean());
        }
        setup.check_returned();
    });
}
