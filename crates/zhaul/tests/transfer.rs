//! Any source to any sink, by both drivers, byte for byte.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{TestFile, pattern};
use rustix::fs::{MemfdFlags, SealFlags};
use zhaul::async_io::Attached;
use zhaul::{
    Cause, Ending, Lease, PipePool, Refusal, Route, Stability, Summary, TransferError, transfer,
};

const LEN: usize = 3_000_000;

/// A source with known content, and what keeps it going.
struct Source {
    name: &'static str,
    fd: OwnedFd,
    content: Vec<u8>,
    _feeder: Option<JoinHandle<()>>,
    _file: Option<TestFile>,
}

impl Source {
    fn lease_for(&self, stability: Stability) -> Option<Lease> {
        (stability == Stability::Leased && self.can_be_leased()).then(|| common::lease(&self.fd))
    }

    fn can_be_leased(&self) -> bool {
        self.name == "file"
    }

    /// Files that cannot have a lease; the others need none.
    fn lacks_a_lease(&self, stability: Stability) -> bool {
        stability == Stability::Leased && matches!(self.name, "memfd" | "empty file")
    }
}

fn sources() -> Vec<Source> {
    let bytes = pattern(LEN);
    let still = |name, fd: OwnedFd, content: &[u8], file| Source {
        name,
        fd,
        content: content.to_vec(),
        _feeder: None,
        _file: file,
    };
    let fed = |name, fd: OwnedFd, mut writer: File| {
        let content = bytes.clone();
        // Odd sizes, so that reads and writes never line up. A receiver that had enough closes.
        let feeder = std::thread::spawn(move || {
            for piece in content.chunks(33_333) {
                if writer.write_all(piece).is_err() {
                    return;
                }
            }
        });
        let content = bytes.clone();
        Source {
            name,
            fd,
            content,
            _feeder: Some(feeder),
            _file: None,
        }
    };
    let file = TestFile::with(&bytes);
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let (unix_near, unix_far) = UnixStream::pair().unwrap();
    let (tcp_near, tcp_far) = tcp_pair();
    let version = std::fs::read("/proc/version").unwrap();
    let page_size = std::fs::read("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
    let mut all = vec![
        still("file", file.open().into(), &bytes, Some(file)),
        still("memfd", memfd(&bytes, false), &bytes, None),
        still("sealed memfd", memfd(&bytes, true), &bytes, None),
        still(
            "empty file",
            tempfile::tempfile().unwrap().into(),
            b"",
            None,
        ),
        still(
            "procfs",
            File::open("/proc/version").unwrap().into(),
            &version,
            None,
        ),
        fed("pipe", reader, writer.into()),
        fed(
            "unix socket",
            unix_near.into(),
            OwnedFd::from(unix_far).into(),
        ),
        fed("tcp socket", tcp_near.into(), OwnedFd::from(tcp_far).into()),
    ];
    if let Ok(content) = page_size {
        let path = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
        all.push(still(
            "sysfs",
            File::open(path).unwrap().into(),
            &content,
            None,
        ));
    }
    all
}

fn memfd(bytes: &[u8], sealed: bool) -> OwnedFd {
    let memfd = rustix::fs::memfd_create("source", MemfdFlags::ALLOW_SEALING).unwrap();
    let mut file = File::from(memfd);
    file.write_all(bytes).unwrap();
    if sealed {
        rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK).unwrap();
    }
    file.into()
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// A sink, and what it received once it is closed.
struct Sink {
    name: &'static str,
    fd: OwnedFd,
    received: Box<dyn FnOnce() -> Vec<u8>>,
}

const SINKS: [&str; 7] = [
    "file",
    "appended file",
    "pipe",
    "unix socket",
    "tcp socket",
    "null",
    "memfd",
];

fn sink(name: &'static str) -> Sink {
    let drained = |fd: OwnedFd, mut reader: File| {
        let receiver = std::thread::spawn(move || {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).unwrap();
            received
        });
        Sink {
            name,
            fd,
            received: Box::new(move || receiver.join().unwrap()),
        }
    };
    let kept = |file: File| {
        let mut view = file.try_clone().unwrap();
        let received = Box::new(move || {
            let mut received = Vec::new();
            view.rewind().unwrap();
            view.read_to_end(&mut received).unwrap();
            received
        });
        Sink {
            name,
            fd: file.into(),
            received,
        }
    };
    match name {
        "file" => kept(tempfile::tempfile_in("/var/tmp").unwrap()),
        "memfd" => kept(
            rustix::fs::memfd_create("sink", MemfdFlags::CLOEXEC)
                .unwrap()
                .into(),
        ),
        "appended file" => {
            let path = tempfile::NamedTempFile::new_in("/var/tmp")
                .unwrap()
                .into_temp_path();
            kept(
                OpenOptions::new()
                    .read(true)
                    .append(true)
                    .open(path)
                    .unwrap(),
            )
        }
        "pipe" => {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            drained(writer, reader.into())
        }
        "unix socket" => {
            let (near, far) = UnixStream::pair().unwrap();
            drained(near.into(), OwnedFd::from(far).into())
        }
        "tcp socket" => {
            let (near, far) = tcp_pair();
            drained(near.into(), OwnedFd::from(far).into())
        }
        "null" => Sink {
            name,
            fd: File::options()
                .write(true)
                .open("/dev/null")
                .unwrap()
                .into(),
            received: Box::new(Vec::new),
        },
        other => unreachable!("no sink is called {other}"),
    }
}

const STABILITIES: [Stability; 3] = [
    Stability::Immutable,
    Stability::MayChange,
    Stability::Leased,
];

fn check(
    source: &Source,
    sink: Sink,
    stability: Stability,
    outcome: Result<Summary, TransferError>,
) {
    let what = format!("{} to {} as {stability:?}", source.name, sink.name);
    if source.lacks_a_lease(stability) {
        let refusal = Refusal::NoLease;
        assert_eq!(outcome.unwrap_err().cause, Cause::Refused { refusal });
        return;
    }
    let summary = outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
    let is_null = sink.name == "null";
    drop(sink.fd);
    let received = (sink.received)();
    assert_eq!(
        summary.moved,
        source.content.len() as u64,
        "{what}: {summary:?}"
    );
    assert_eq!(
        (summary.stranded, summary.ending),
        (0, Some(Ending::SourceEnd)),
        "{what}"
    );
    assert!(is_null || received == source.content, "{what}: {summary:?}");
}

#[test]
fn blocking_any_source_to_any_sink() {
    for stability in STABILITIES {
        for name in SINKS {
            for source in sources() {
                let sink = sink(name);
                let haul = transfer(&source.fd, &sink.fd).stability(stability);
                let lease = source.lease_for(stability);
                let outcome = match &lease {
                    Some(lease) => haul.lease(lease).run(),
                    None => haul.run(),
                };
                check(&source, sink, stability, outcome);
            }
        }
    }
}

#[tokio::test]
async fn tokio_any_source_to_any_sink() {
    for stability in STABILITIES {
        for name in SINKS {
            for source in sources() {
                let sink = sink(name);
                let from = Attached::new(source.fd.try_clone().unwrap()).unwrap();
                let to = Attached::new(sink.fd.try_clone().unwrap()).unwrap();
                let haul = transfer(&from, &to).stability(stability);
                let lease = source.lease_for(stability);
                let outcome = match &lease {
                    Some(lease) => haul.lease(lease).run_async().await,
                    None => haul.run_async().await,
                };
                drop(to);
                check(&source, sink, stability, outcome);
            }
        }
    }
}

#[test]
fn the_route_is_the_cheapest_that_is_safe() {
    let route = |source: &dyn AsFd, sink: &dyn AsFd, stability| {
        let (source, sink): (BorrowedFd<'_>, BorrowedFd<'_>) = (source.as_fd(), sink.as_fd());
        transfer(source, sink)
            .stability(stability)
            .plan()
            .unwrap()
            .route
    };
    let file = TestFile::with(&pattern(1 << 20)).open();
    let (near, _far) = tcp_pair();
    let regular = tempfile::tempfile().unwrap();
    assert_eq!(route(&file, &near, Stability::Immutable), Route::Sendfile);
    assert_eq!(route(&file, &near, Stability::MayChange), Route::ReadWrite);
    assert_eq!(
        route(&file, &near, Stability::Leased),
        Route::MmapWrite,
        "loopback"
    );
    assert_eq!(
        route(&file, &regular, Stability::Immutable),
        Route::CopyFileRange
    );
    assert_eq!(
        route(&file, &regular, Stability::MayChange),
        Route::ReadWrite
    );
    assert_eq!(route(&near, &near, Stability::MayChange), Route::Splice);
    assert_eq!(
        route(&memfd(b"x", true), &near, Stability::MayChange),
        Route::Sendfile
    );
}

#[test]
fn every_route_can_be_asked_for_and_moves_a_range() {
    let bytes = pattern(LEN);
    let file = TestFile::with(&bytes);
    let source = file.open();
    let lease = common::lease(&source);
    for route in [
        Route::ReadWrite,
        Route::MmapWrite,
        Route::Sendfile,
        Route::Splice,
    ] {
        for chunk_bytes in [4096, 70_000, 1 << 20] {
            let sink = sink("tcp socket");
            let haul = transfer(&source, &sink.fd);
            let haul = match route {
                Route::MmapWrite => haul.lease(&lease),
                _ => haul.stability(Stability::Immutable),
            };
            let summary = haul
                .only(route)
                .chunk_bytes(chunk_bytes)
                .offset(4_321)
                .length(2_000_000)
                .run()
                .unwrap();
            assert_eq!((summary.route, summary.moved), (route, 2_000_000));
            drop(sink.fd);
            assert!(
                (sink.received)() == bytes[4_321..2_004_321],
                "{route} by {chunk_bytes}"
            );
        }
    }
}

/// The file system changes the count of names and ctime one after the other, and the transfer
/// looks at both all the time.
#[test]
fn a_file_may_lose_its_name_at_any_moment() {
    let bytes = pattern(2_000_000);
    for dir in ["/var/tmp", "/dev/shm"] {
        if !std::path::Path::new(dir).is_dir() {
            zhaul_untested::skip(
                "a_file_may_lose_its_name_at_any_moment",
                format_args!("there is no {dir}"),
            );
            continue;
        }
        for round in 0..150_u64 {
            let named = tempfile::NamedTempFile::new_in(dir).unwrap();
            named.as_file().write_all_at(&bytes, 0).unwrap();
            let source = File::open(named.path()).unwrap();
            let sink = OpenOptions::new().write(true).open("/dev/null").unwrap();
            let (tell, told) = std::sync::mpsc::channel();
            let remover = std::thread::spawn(move || {
                told.recv().unwrap();
                let until = Instant::now() + Duration::from_micros(2 * round);
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
                named.close().unwrap();
            });
            tell.send(()).unwrap();
            let result = transfer(&source, &sink)
                .chunk_bytes(4096)
                .only(Route::Sendfile)
                .stability(Stability::Immutable)
                .run();
            remover.join().unwrap();
            let moved = result.unwrap_or_else(|e| panic!("{dir}, round {round}: {e}"));
            assert_eq!(moved.moved, bytes.len() as u64);
        }
    }
}

#[test]
fn a_sink_offset_leaves_the_position_alone() {
    let bytes = pattern(LEN);
    let file = TestFile::with(&bytes);
    for route in [Route::CopyFileRange, Route::Splice, Route::ReadWrite] {
        let mut sink = tempfile::tempfile_in("/var/tmp").unwrap();
        sink.write_all(b"head").unwrap();
        let haul = transfer(file.open(), &sink).sink_offset(1_000).offset(10);
        let summary = haul
            .stability(Stability::Immutable)
            .only(route)
            .run()
            .unwrap();
        assert_eq!((summary.moved, summary.route), (LEN as u64 - 10, route));
        assert_eq!(sink.stream_position().unwrap(), 4, "{route}");
        sink.rewind().unwrap();
        let mut written = Vec::new();
        sink.read_to_end(&mut written).unwrap();
        assert!(
            written[..4] == *b"head" && written[1_000..] == bytes[10..],
            "{route}"
        );
    }
}

#[test]
fn an_endless_device_is_moved_by_length() {
    let sink = sink("unix socket");
    let zero = File::open("/dev/zero").unwrap();
    let summary = transfer(&zero, &sink.fd).length(1_000_000).run().unwrap();
    assert_eq!(
        (summary.moved, summary.ending),
        (1_000_000, Some(Ending::Length))
    );
    drop(sink.fd);
    assert!((sink.received)() == vec![0; 1_000_000]);
    let sink = self::sink("file");
    let random = File::open("/dev/urandom").unwrap();
    assert_eq!(
        transfer(&random, &sink.fd)
            .length(100_000)
            .run()
            .unwrap()
            .moved,
        100_000
    );
}

#[test]
fn a_block_device_is_a_source() {
    let image = TestFile::with(&pattern(1 << 20));
    let losetup = std::process::Command::new("losetup")
        .args(["--find", "--show", "--read-only"])
        .arg(image.path())
        .output();
    let device = match losetup {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap(),
        _ => {
            zhaul_untested::skip_this("no loop device to be had");
            return;
        }
    };
    let device = device.trim();
    let block = File::open(device).unwrap();
    let (immutable, copied) = (sink("tcp socket"), sink("tcp socket"));
    let in_place = transfer(&block, &immutable.fd)
        .stability(Stability::Immutable)
        .run();
    let by_copy = transfer(&block, &copied.fd).run();
    drop(block);
    let _ = std::process::Command::new("losetup")
        .args(["--detach", device])
        .status();
    assert_eq!(in_place.unwrap().route, Route::Sendfile);
    assert_eq!(by_copy.unwrap().route, Route::ReadWrite);
    for sink in [immutable, copied] {
        drop(sink.fd);
        assert!((sink.received)() == pattern(1 << 20));
    }
}

#[test]
fn directories_and_wrong_directions_are_errors_before_anything_moves() {
    let (near, _far) = tcp_pair();
    let directory = File::open("/").unwrap();
    let error = transfer(&directory, &near).run().unwrap_err();
    assert_eq!(error.errno(), Some(zhaul::Errno::EISDIR));
    let file = TestFile::with(b"read only");
    let error = transfer(file.open(), file.open()).run().unwrap_err();
    assert_eq!(
        (error.errno(), error.moved()),
        (Some(zhaul::Errno::EBADF), 0)
    );
}

#[test]
fn a_file_is_not_copied_onto_itself() {
    let file = TestFile::with(b"itself");
    let sink = OpenOptions::new().write(true).open(file.path()).unwrap();
    let error = transfer(file.open(), &sink).run().unwrap_err();
    assert_eq!(error.cause, Cause::SameFile);
    assert_eq!(std::fs::read(file.path()).unwrap(), b"itself");
}

#[test]
fn nothing_leaks_over_a_thousand_transfers() {
    const ROUNDS: usize = 334;
    let file = TestFile::with(&pattern(10_000));
    let pool = PipePool::new(3, 256 << 10);
    let run = || {
        for name in ["tcp socket", "pipe", "file"] {
            let sink = sink(name);
            transfer(file.open(), &sink.fd)
                .stability(Stability::Immutable)
                .only(Route::Splice)
                .pipes(&pool)
                .run()
                .unwrap();
            drop(sink.fd);
            (sink.received)();
        }
    };
    (0..ROUNDS).for_each(|_| run());
    assert_eq!(
        (pool.alive(), pool.held()),
        (1, 0),
        "one pipe served them all"
    );
    // Other tests open descriptors too: count only those of this file.
    let path = std::fs::canonicalize(file.path()).unwrap();
    let still_open = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .filter(|target| *target == path)
            .count()
    };
    assert_eq!(still_open(), 0);
    let held = file.open();
    assert_eq!(still_open(), 1, "the count sees what is open");
    drop(held);
}
