//! What is expected is what the library then does: real transfers between ends that take all that is
//! offered are counted and compared.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use zhaul::{Route, Stability};

use super::super::endpoint::{Endpoint, Role};
use super::super::explanation::{Explanation, Wishes};
use super::super::look::{Sink, Source};

fn source_of(fd: impl AsFd) -> Source {
    let mut source = Source::of_descriptor(&path("source"), "source", fd.as_fd()).unwrap();
    source.file = fd.as_fd().try_clone_to_owned().ok();
    source
}

fn sink_of(fd: impl AsFd) -> Sink {
    Sink::of_descriptor(&path("sink"), "sink", fd.as_fd()).unwrap()
}

fn path(name: &str) -> Endpoint {
    Endpoint::parse(name.as_ref(), Role::Source).unwrap()
}

fn file(len: usize) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..len).map(|place| (place % 251) as u8).collect();
    file.write_all(&content).unwrap();
    file
}

/// Explains, transfers, and compares the count of operations.
#[track_caller]
fn assert_as_expected(source: impl AsFd, sink: impl AsFd, wishes: &Wishes) -> Explanation {
    let explanation = Explanation::of(&source_of(&source), &sink_of(&sink), wishes).unwrap();
    let lease = (wishes.stability == Stability::Leased)
        .then(|| zhaul::Lease::acquire(&source).ok())
        .flatten();
    let mut haul = zhaul::transfer(&source, &sink)
        .offset(explanation.asked.offset)
        .stability(wishes.stability)
        .chunk_bytes(wishes.chunk_bytes);
    if let Some(length) = explanation.asked.length {
        haul = haul.length(length);
    }
    if let Some(route) = wishes.route {
        haul = haul.only(route);
    }
    if let Some(lease) = &lease {
        haul = haul.lease(lease);
    }
    let summary = haul.run().unwrap();
    assert_eq!(summary.route.name(), explanation.plan.route);
    assert_eq!(
        summary.calls as f64, explanation.expected.operations,
        "{:?}",
        explanation.expected
    );
    assert_eq!(
        explanation.expected.bytes.unwrap_or(summary.moved),
        summary.moved
    );
    explanation
}

#[test]
fn every_route_from_a_file_makes_the_calls_that_were_expected() {
    for len in [1, 4096, 65_536, 65_537, 1 << 20, (3 << 20) + 17] {
        for route in [
            Route::ReadWrite,
            Route::Sendfile,
            Route::Splice,
            Route::CopyFileRange,
        ] {
            for stability in [Stability::Immutable, Stability::MayChange] {
                let in_place = route != Route::ReadWrite;
                if in_place && stability == Stability::MayChange {
                    continue;
                }
                let wishes = Wishes {
                    stability,
                    route: Some(route),
                    ..Wishes::default()
                };
                assert_as_expected(file(len), file(0), &wishes);
            }
        }
    }
}

#[test]
fn offsets_and_small_chunks_are_in_it() {
    for (offset, chunk_bytes) in [(1, 1 << 20), (65_536, 100_000), ((1 << 20) - 1, 65_536)] {
        let wishes = Wishes {
            stability: Stability::Immutable,
            offset: Some(offset),
            length: Some(1 << 20),
            chunk_bytes,
            ..Wishes::default()
        };
        for route in [Route::ReadWrite, Route::Sendfile, Route::CopyFileRange] {
            let wishes = Wishes {
                route: Some(route),
                ..wishes
            };
            let explanation = assert_as_expected(file(3 << 20), file(0), &wishes);
            let chunk = chunk_bytes as u64;
            let chunks = (offset + (1 << 20)).div_ceil(chunk) - offset / chunk;
            assert_eq!(explanation.expected.chunks, Some(chunks));
        }
    }
}

#[test]
fn windows_of_a_mapping_are_in_it() {
    let wishes = Wishes {
        stability: Stability::Leased,
        route: Some(Route::MmapWrite),
        ..Wishes::default()
    };
    // Two windows of 8 MiB, and a bit.
    let len = (16 << 20) + 5;
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), vec![7; len]).unwrap();
    let source = File::open(source.path()).unwrap();
    if let Err(error) = zhaul::Lease::acquire(&source) {
        zhaul_untested::skip(
            "windows_of_a_mapping_are_in_it",
            format_args!("no lease: {error}"),
        );
        return;
    }
    let explanation = assert_as_expected(&source, file(0), &wishes);
    let calls = &explanation.expected.calls;
    assert_eq!((calls["mmap"], calls["munmap"]), (3.0, 3.0), "{calls:?}");
    // Each write is followed by a look at the size, whose answer serves the next one as well.
    assert!(calls["fstat"] >= calls["write"], "{calls:?}");
}

#[test]
fn a_sealed_memfd_needs_no_looks() {
    let sealed: OwnedFd = rustix::fs::memfd_create("sealed", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::io::write(&sealed, &[7; 100_000]).unwrap();
    rustix::fs::fcntl_add_seals(&sealed, SealFlags::SHRINK | SealFlags::WRITE).unwrap();
    // Not by copy_file_range, which refuses to leave the file system of a memfd.
    let wishes = Wishes {
        route: Some(Route::Splice),
        ..Wishes::default()
    };
    let explanation = assert_as_expected(&sealed, file(0), &wishes);
    assert_eq!(explanation.expected.calls.get("fstat"), None);
}

#[test]
fn generated_and_empty_sources_are_followed_to_their_end() {
    let empty = assert_as_expected(file(0), file(0), &Wishes::default());
    assert_eq!(empty.expected.bytes, Some(0));
    assert_eq!(empty.expected.cpu_copies_per_byte, 0);
    let zero = File::open("/dev/zero").unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    let wishes = Wishes {
        length: Some(5 << 20),
        ..Wishes::default()
    };
    assert_as_expected(&zero, &null, &wishes);
}

#[test]
fn a_stream_is_told_by_the_chunk() {
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let explanation =
        Explanation::of(&source_of(&reader), &sink_of(file(0)), &Wishes::default()).unwrap();
    assert_eq!(explanation.plan.route, "splice");
    assert_eq!(
        (explanation.expected.bytes, explanation.expected.chunks),
        (None, None)
    );
    assert_eq!(explanation.expected.calls_per_chunk, 1.0);
    assert_eq!(explanation.expected.calls_in_all(), None);
}

#[test]
fn a_pipe_takes_no_more_than_it_holds() {
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let wishes = Wishes {
        stability: Stability::Immutable,
        ..Wishes::default()
    };
    let explanation =
        Explanation::of(&source_of(file(1 << 20)), &sink_of(&writer), &wishes).unwrap();
    assert_eq!(explanation.plan.route, "sendfile");
    assert_eq!(explanation.expected.calls["sendfile"], 16.0);
}

#[test]
fn a_terabyte_is_expected_in_a_moment() {
    let sparse = tempfile::tempfile().unwrap();
    if let Err(error) = sparse.set_len(1 << 40) {
        zhaul_untested::skip("a_terabyte_is_expected_in_a_moment", error);
        return;
    }
    let sink = Sink::look(&Endpoint::Null).unwrap();
    let wishes = Wishes {
        stability: Stability::Immutable,
        ..Wishes::default()
    };
    let explanation = Explanation::of(&source_of(&sparse), &sink, &wishes).unwrap();
    let sendfile = explanation.expected.calls["sendfile"];
    assert!(
        (sendfile / f64::from(1 << 20) - 1.0).abs() < 0.001,
        "{sendfile}"
    );
    assert_eq!(explanation.expected.chunks, Some(1 << 20));
}
