//! Copies by execution breakpoints, where the kernel takes them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use zhaul_measure::meter::{Copied, Meter, Wanted};
use zhaul_measure::perf::{CopyRoutines, Error, Record, Session, Symbols, Woken};

const BYTES: u64 = 1 << 20;

/// What the work, on this thread, had copied; or a skip.
fn copied(test: &str, work: impl FnOnce()) -> Option<Copied> {
    let mut meter = Meter::of_this_thread(Wanted {
        copies: true,
        ..Wanted::default()
    });
    if let Some(missing) = meter.missing().first() {
        // In parallel these tests want more breakpoints than there are.
        zhaul_untested::skip(test, missing);
        return None;
    }
    meter.start().unwrap();
    work();
    let copied = meter.stop().unwrap().copied.unwrap();
    assert_eq!(copied.lost, 0);
    Some(copied)
}

fn nothing() -> Copied {
    Copied::default()
}

fn cached_file() -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![5; BYTES as usize]).unwrap();
    file
}

/// A connection whose far end is read by another thread.
fn drained_socket() -> (TcpStream, std::thread::JoinHandle<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut far, &mut std::io::sink()).unwrap());
    (near, reader)
}

fn sendfile_all(source: &File, sink: impl AsFd) {
    let mut from = 0;
    while from < BYTES {
        let left = usize::try_from(BYTES - from).unwrap();
        assert!(rustix::fs::sendfile(&sink, source, Some(&mut from), left).unwrap() > 0);
    }
}

#[test]
fn each_byte_of_read_and_send_is_copied_once() {
    let file = cached_file();
    let (mut near, reader) = drained_socket();
    let mut buffer = vec![0_u8; 64 << 10];
    let found = copied("each_byte_of_read_and_send_is_copied_once", || {
        for at in (0..BYTES).step_by(buffer.len()) {
            assert_eq!(
                rustix::io::pread(&file, &mut buffer, at).unwrap(),
                buffer.len()
            );
            near.write_all(&buffer).unwrap();
        }
    });
    drop(near);
    reader.join().unwrap();
    let Some(found) = found else { return };
    let expected = Copied {
        to_user: BYTES,
        from_user: BYTES,
        ..nothing()
    };
    assert_eq!(found, expected);
}

#[test]
fn sendfile_to_a_socket_copies_nothing() {
    let file = cached_file();
    let (near, reader) = drained_socket();
    let found = copied("sendfile_to_a_socket_copies_nothing", || {
        sendfile_all(&file, &near);
    });
    drop(near);
    assert_eq!(reader.join().unwrap() % BYTES, 0);
    let Some(found) = found else { return };
    assert_eq!(found, nothing());
}

#[test]
fn sendfile_to_a_file_copies_within_the_kernel() {
    let (file, sink) = (cached_file(), tempfile::tempfile().unwrap());
    let found = copied("sendfile_to_a_file_copies_within_the_kernel", || {
        sendfile_all(&file, &sink);
    });
    let Some(found) = found else { return };
    let expected = Copied {
        within: BYTES,
        ..nothing()
    };
    assert_eq!(found, expected);
}

#[test]
fn writing_and_reading_a_file_copies_each_byte_once() {
    let mut buffer = vec![3; 64 << 10];
    let file = tempfile::tempfile().unwrap();
    let found = copied("writing_and_reading_a_file_copies_each_byte_once", || {
        for at in (0..BYTES).step_by(buffer.len()) {
            assert_eq!(
                rustix::io::pwrite(&file, &buffer, at).unwrap(),
                buffer.len()
            );
        }
        for at in (0..BYTES).step_by(buffer.len()) {
            assert_eq!(
                rustix::io::pread(&file, &mut buffer, at).unwrap(),
                buffer.len()
            );
        }
    });
    let Some(found) = found else { return };
    let expected = Copied {
        to_user: BYTES,
        from_user: BYTES,
        ..nothing()
    };
    assert_eq!(found, expected);
}

#[test]
fn pipes_and_unix_sockets_copy_in_and_out() {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let mut buffer = vec![3; 4096];
    let found = copied("pipes_and_unix_sockets_copy_in_and_out", || {
        for _ in 0..10 {
            writer.write_all(&buffer).unwrap();
            reader.read_exact(&mut buffer).unwrap();
            near.write_all(&buffer).unwrap();
            far.read_exact(&mut buffer).unwrap();
        }
    });
    let Some(found) = found else { return };
    let expected = Copied {
        to_user: 2 * 10 * 4096,
        from_user: 2 * 10 * 4096,
        ..nothing()
    };
    assert_eq!(found, expected);
}

#[test]
fn the_copies_of_a_program_are_counted() {
    const TEST: &str = "the_copies_of_a_program_are_counted";
    let routines = Symbols::shared().and_then(CopyRoutines::find);
    let routines = match routines {
        Ok(routines) => routines,
        Err(error) => {
            zhaul_untested::skip(TEST, error.with_remedy());
            return;
        }
    };
    let mut builder = Session::builder();
    let events = routines.add_to(&mut builder);
    let mut command = Command::new("/bin/dd");
    command
        .args(["if=/dev/zero", "bs=64K", "count=16"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let (mut session, mut child) = match builder.spawn(&mut command) {
        Ok(spawned) => spawned,
        Err(error @ Error::NoBreakpointRegister) => {
            zhaul_untested::skip(TEST, error.with_remedy());
            return;
        }
        Err(error) => panic!("{}", error.with_remedy()),
    };
    let mut stdout = child.stdout.take().unwrap();
    let reader =
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()).unwrap());
    let mut sum = nothing();
    let mut add = |record: Record<'_>| {
        if let Some(copy) = events.copy(&record) {
            sum.add(copy);
        }
    };
    while session.wait(Duration::from_millis(20)).unwrap() != Woken::Ended {
        session.drain(&mut add);
    }
    child.wait().unwrap();
    session.drain_all(&mut add);
    assert_eq!(
        (reader.join().unwrap(), session.lost().unwrap()),
        (BYTES, 0)
    );
    // Zeros are made, not copied; what the loader reads comes on top.
    assert_eq!(sum.from_user, BYTES);
    assert!(sum.to_user < 64 << 10, "{sum:?}");
}
