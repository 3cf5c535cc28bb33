//! Movers that do it wrong, on every path.

use rustix::io::{pread, read, write};

use super::super::mover::Job;
use super::*;

type Broken = fn(&Job<'_>) -> io::Result<()>;

/// Small enough for every buffer, so that nobody waits for anybody.
const BYTES: u64 = 3000;

/// All bytes of the source.
fn taken(job: &Job<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; BYTES as usize];
    let mut got = 0;
    while got < bytes.len() {
        got += match job.source {
            Source::File(source) => pread(source, &mut bytes[got..], got as u64)?,
            Source::Stream(source) => read(source, &mut bytes[got..])?,
            Source::Memory(memory) => {
                bytes.copy_from_slice(memory);
                memory.len()
            }
        };
    }
    Ok(bytes)
}

fn put(job: &Job<'_>, bytes: &[u8]) -> io::Result<()> {
    assert_eq!(write(job.sink, bytes)?, bytes.len());
    Ok(())
}

fn right(job: &Job<'_>) -> io::Result<()> {
    put(job, &taken(job)?)
}

fn one_bit_flipped(job: &Job<'_>) -> io::Result<()> {
    let mut bytes = taken(job)?;
    bytes[1234] ^= 1;
    put(job, &bytes)
}

fn two_pieces_swapped(job: &Job<'_>) -> io::Result<()> {
    let mut bytes = taken(job)?;
    bytes.rotate_left(1000);
    put(job, &bytes)
}

fn zeros_at_the_end(job: &Job<'_>) -> io::Result<()> {
    let mut bytes = taken(job)?;
    bytes[2999] = !bytes[2999];
    put(job, &bytes)
}

fn one_byte_too_many(job: &Job<'_>) -> io::Result<()> {
    put(job, &taken(job)?)?;
    put(job, b"x")
}

/// Nothing is wrong, says the mover.
fn one_byte_too_few(job: &Job<'_>) -> io::Result<()> {
    put(job, &taken(job)?[1..])
}

fn fails_at_once(_job: &Job<'_>) -> io::Result<()> {
    Err(io::Error::other("broken on purpose"))
}

fn set() -> (tempfile::TempDir, Set) {
    let dir = tempfile::tempdir().unwrap();
    let mut set = Set::new(dir.path().to_path_buf()).unwrap();
    set.add_file(BYTES).unwrap();
    for path in Path::ALL {
        set.open(path).unwrap();
    }
    (dir, set)
}

fn with(set: &mut Set, path: Path, broken: Broken) -> Take {
    let route = match from_memory(path) {
        true => Way::Send,
        false => Way::Route(Route::ReadWrite),
    };
    let key = (route.index(), true, path == Path::MemoryToUdp);
    set.movers.insert(key, Mover::Broken(broken));
    Take {
        path,
        route,
        contender: Contender::Floor,
        bytes: BYTES,
        repeats: 1,
        copying: Copying::Plainly,
    }
}

#[test]
fn right_bytes_pass_on_every_path() {
    let (_dir, mut set) = set();
    for path in Path::ALL {
        let take = with(&mut set, path, right);
        for repeats in [1, 7] {
            let verified = set.verify(Take { repeats, ..take }).unwrap();
            assert!(verified.is_ok(), "{path:?}: {verified:?}");
        }
    }
}

#[test]
fn wrong_bytes_are_noticed_on_every_path() {
    let wrongs: [(Broken, &str); 4] = [
        (one_bit_flipped, "they are others"),
        (two_pieces_swapped, "they are others"),
        (zeros_at_the_end, "they are others"),
        (one_byte_too_many, ""),
    ];
    for path in Path::ALL {
        for (broken, words) in wrongs {
            // The one before left its bytes in the connection.
            let (_dir, mut set) = set();
            let take = with(&mut set, path, broken);
            let what = set.verify(take).unwrap().expect_err("it is wrong");
            assert!(what.contains(words), "{path:?}: {what}");
        }
    }
}

#[test]
fn a_file_that_lacks_bytes_is_noticed() {
    let (_dir, mut set) = set();
    for path in [Path::FileToFile, Path::TcpToFile] {
        let take = with(&mut set, path, one_byte_too_few);
        let what = set.verify(take).unwrap().unwrap_err();
        assert!(what.contains("2999 bytes are in the file"), "{what}");
    }
}

#[test]
fn bytes_that_never_come_are_wrong_and_not_waited_for_for_ever() {
    let (_dir, mut set) = set();
    for path in [
        Path::FileToTcp,
        Path::TcpToTcp,
        Path::PipeToTcp,
        Path::MemoryToTcp,
        Path::MemoryToUdp,
    ] {
        let take = with(&mut set, path, one_byte_too_few);
        let what = set.verify(take).unwrap().unwrap_err();
        assert!(what.contains("1 of 3000 bytes never came"), "{what}");
    }
}

#[test]
fn a_mover_that_fails_leaves_nobody_waiting_and_the_next_is_none_the_worse() {
    let (_dir, mut set) = set();
    for path in Path::ALL {
        // More than all buffers on the way hold.
        let take = Take {
            repeats: 10_000,
            ..with(&mut set, path, fails_at_once)
        };
        let error = set.sample(take, Mode::Timed).unwrap_err();
        assert!(
            error.to_string().contains("on purpose"),
            "{path:?}: {error}"
        );
        let take = with(&mut set, path, right);
        assert!(set.verify(take).unwrap().is_ok(), "{path:?}");
    }
}
