//! By the turns of an event loop.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use zhaul::residency::ResidencyCache;
use zhaul::send::{Advance, SendState, TurnTerms};
use zhaul::{Aggregate, Ask, Cause, FileRange, Progress, Stability, Stop};

use crate::common::{TestFile, pattern};
use crate::{Built, multipart, shrink, tcp_pair};

fn nonblocking_pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

/// Turns until it is done; whenever it is blocked, as many bytes are read as `take` says.
fn turn_and_read(
    mut state: SendState,
    (near, mut far): (impl AsFd, impl Read),
    mut take: impl FnMut() -> usize,
) -> (zhaul::SendSummary, Vec<u8>) {
    let mut received = Vec::new();
    let mut read = |bytes: usize| {
        let mut buffer = vec![0; bytes];
        if let Ok(read) = far.read(&mut buffer) {
            received.extend_from_slice(&buffer[..read]);
        }
    };
    loop {
        match state.turn(&near, TurnTerms::default()).unwrap() {
            Advance::Done(summary) => {
                let left = summary.moved as usize;
                for _ in 0..100 {
                    read(left);
                }
                return (summary, received);
            }
            Advance::Blocked => read(take()),
            Advance::Again => {}
            Advance::Later(at) => std::thread::sleep(at - Instant::now()),
            Advance::Cold => panic!("without a cache nothing is asked"),
        }
    }
}

#[test]
fn memory_is_one_turn_and_one_call() {
    let (near, far) = nonblocking_pair();
    let state = SendState::new(("head", "body"));
    let (summary, received) = turn_and_read(state, (near, far), || 1);
    assert_eq!((summary.calls, &received[..]), (1, &b"headbody"[..]));
}

#[test]
fn whatever_the_socket_takes_at_a_time_the_same_bytes_arrive() {
    let mut state = 99_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below) as usize
    };
    for round in 0..60 {
        let mut built = Built::default();
        for _ in 0..random(8) {
            built = match random(4) {
                0 => built.file(random(60_000) + 1, 0..1, Stability::Immutable),
                1 => {
                    let len = random(60_000) + 2;
                    let start = random(len as u64 - 1);
                    let stability = [Stability::Immutable, Stability::MayChange][random(2)];
                    built.file(len, start..len, stability)
                }
                2 => built.memory(&pattern(random(50_000))),
                _ => built.memory(&pattern(random(20))),
            };
        }
        let ask = Ask {
            budget_bytes: random(20_000) + 1,
            chunk_bytes: random(20_000) + 1,
            ..Ask::default()
        };
        let (near, far) = nonblocking_pair();
        shrink(&near);
        let state = SendState::with(built.aggregate, &ask);
        let (summary, received) = turn_and_read(state, (near, far), || random(5000) + 1);
        assert!(received == built.bytes, "round {round}");
        assert_eq!(summary.moved, built.bytes.len() as u64);
    }
}

#[test]
fn what_the_socket_has_not_taken_is_an_aggregate_of_its_own() {
    let (near, mut far) = nonblocking_pair();
    shrink(&near);
    let built = multipart();
    let mut state = SendState::new(built.aggregate);
    let progress = Progress::new();
    let terms = TurnTerms {
        progress: Some(&progress),
        ..TurnTerms::default()
    };
    while state.turn(&near, terms).unwrap() == Advance::Again {}
    let moved = state.moved() as usize;
    assert!(moved > 0 && moved < built.bytes.len());
    assert_eq!(progress.moved() as usize, moved);
    let rest = state.into_rest();
    assert_eq!(rest.len() as usize, built.bytes.len() - moved);
    let mut received = vec![0; moved];
    far.set_nonblocking(false).unwrap();
    far.read_exact(&mut received).unwrap();
    let reader = crate::reading(far);
    zhaul::send(rest, &near).run().unwrap();
    drop(near);
    received.extend(reader.join().unwrap());
    assert!(received == built.bytes);
}

#[test]
fn another_turn_after_an_error_says_the_same() {
    let (near, far) = nonblocking_pair();
    drop(far);
    let mut state = SendState::new("bytes");
    let first = state.turn(&near, TurnTerms::default()).unwrap_err();
    assert!(first.is_disconnect());
    assert_eq!(state.turn(&near, TurnTerms::default()), Err(first));
}

#[test]
fn pages_that_are_on_the_disk_end_the_turn_before_they_are_touched() {
    let content = pattern(3 << 20);
    let file = TestFile::with(&content);
    let opened = file.open();
    rustix::fs::fsync(&opened).unwrap();
    let range = FileRange::whole(opened)
        .unwrap()
        .stability(Stability::Immutable);
    rustix::fs::fadvise(range.file(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
    if zhaul::residency::probe(range.file(), 0, 4096) != zhaul::residency::Residency::Cold {
        let name = "pages_that_are_on_the_disk_end_the_turn_before_they_are_touched";
        zhaul_untested::skip(name, "the file system keeps its pages in memory");
        return;
    }
    let mut aggregate = Aggregate::from("head");
    aggregate.push(range);
    let (near, far) = tcp_pair();
    let reader = crate::reading(far);
    let cache = ResidencyCache::new();
    let terms = TurnTerms {
        residency: Some(&cache),
        ..TurnTerms::default()
    };
    let mut state = SendState::new(aggregate);
    assert_eq!(state.turn(&near, terms).unwrap(), Advance::Cold);
    assert_eq!(state.moved(), 4, "the header went out");
    let summary = state.to(&near).run().unwrap();
    drop(near);
    assert_eq!(summary.moved, 4 + content.len() as u64);
    let received = reader.join().unwrap();
    assert!(received[..4] == *b"head" && received[4..] == content);
}

/// A sending whose file looks edited: `None` if the moment at which it is to be looked at again came
/// before this test.
fn suspect(near: &UnixStream, far: &mut UnixStream) -> (SendState, TestFile, Option<Instant>) {
    shrink(near);
    let file = TestFile::with(&pattern(1 << 20));
    let range = FileRange::whole(file.open()).unwrap();
    let mut state = SendState::new(Aggregate::from(range.stability(Stability::Immutable)));
    let terms = TurnTerms::default();
    assert_eq!(state.turn(near, terms), Ok(Advance::Blocked));
    let edit = std::fs::OpenOptions::new().write(true).open(file.path());
    let edited = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    edit.unwrap().set_modified(edited).unwrap();
    let mut buffer = vec![0; 1 << 20];
    // An edit may be an append under way.
    let at = loop {
        match state.turn(near, terms).unwrap() {
            Advance::Later(at) => break at,
            Advance::Done(_) => panic!("the edit was not noticed"),
            _ => drop(far.read(&mut buffer)),
        }
    };
    let second = state.turn(near, terms);
    let too_early = Instant::now() < at;
    if too_early {
        assert_eq!(
            second,
            Ok(Advance::Later(at)),
            "a turn too early changes nothing"
        );
    }
    (state, file, too_early.then_some(at))
}

#[test]
fn a_suspect_file_is_not_looked_at_again_before_its_time_by_whoever_drives_on() {
    let (near, mut far) = nonblocking_pair();
    let (mut state, _file, at) = suspect(&near, &mut far);
    if let Some(at) = at {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let error = state.turn(&near, TurnTerms::default()).unwrap_err();
        assert_eq!(error.cause, Cause::Changed);
    }

    let (near, mut far) = nonblocking_pair();
    let (state, _file, at) = suspect(&near, &mut far);
    if let Some(at) = at {
        assert_eq!(state.to(&near).run().unwrap_err().cause, Cause::Changed);
        assert!(Instant::now() >= at, "on a thread");
    }

    #[cfg(feature = "tokio")]
    {
        let (near, mut far) = nonblocking_pair();
        let (state, _file, at) = suspect(&near, &mut far);
        let at = at.unwrap_or_else(Instant::now);
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let outcome = runtime.block_on(async { state.to(&near).run_async().await });
        assert_eq!(outcome.unwrap_err().cause, Cause::Changed);
        assert!(Instant::now() >= at, "on a task");
    }
}

#[test]
fn a_stop_is_heard_while_a_suspect_file_is_left_alone() {
    let (near, mut far) = nonblocking_pair();
    let (mut state, _file, at) = suspect(&near, &mut far);
    if at.is_some() {
        state.stop(Stop::Cancelled);
        let error = state.turn(&near, TurnTerms::default()).unwrap_err();
        assert_eq!(error.cause, Cause::Cancelled);
    }
}
