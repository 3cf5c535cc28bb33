//! Whatever a user of std or tokio holds can be an end, on a thread and on a task.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use common::{TestFile, pattern};
use tokio::net as on_tokio;
use zhaul::async_io::AsyncEnd;
use zhaul::{Stability, transfer};

const LEN: usize = 3_000_000;

/// Receives until the end, on a thread.
fn receiver(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Sends all of it, on a thread.
fn sender(mut to: impl Write + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || to.write_all(&pattern(LEN)).unwrap())
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn on_a_task<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

/// A file to this sink, which is dropped afterwards.
async fn to_sink(sink: impl AsyncEnd + Sync) {
    let file = TestFile::with(&pattern(LEN)).open();
    let haul = transfer(&file, sink).stability(Stability::Immutable);
    assert_eq!(haul.run_async().await.unwrap().moved, LEN as u64);
}

/// This source to a file.
async fn from_source(source: impl AsyncEnd + Sync) {
    let mut file = tempfile::tempfile().unwrap();
    let summary = transfer(source, &file).run_async().await.unwrap();
    assert_eq!(summary.moved, LEN as u64);
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes == pattern(LEN));
}

#[test]
fn std_sockets_are_ends_of_tasks_and_stay_in_blocking_mode() {
    let is_blocking = |fd: &dyn AsFd| {
        let flags = rustix::fs::fcntl_getfl(fd.as_fd()).unwrap();
        !flags.contains(rustix::fs::OFlags::NONBLOCK)
    };
    let (near, far) = tcp_pair();
    let received = receiver(far);
    on_a_task(to_sink(&near));
    assert!(is_blocking(&near));
    drop(near);
    assert!(received.join().unwrap() == pattern(LEN));

    let (near, far) = UnixStream::pair().unwrap();
    let sending = sender(far);
    on_a_task(from_source(&near));
    assert!(is_blocking(&near));
    sending.join().unwrap();
}

#[test]
fn owned_borrowed_boxed_and_shared_descriptors_are_ends() {
    let each: [fn(TcpStream); 6] = [
        |near| on_a_task(to_sink(OwnedFd::from(near))),
        |near| on_a_task(to_sink(near.as_fd())),
        |near| on_a_task(to_sink(Box::new(near))),
        |near| on_a_task(to_sink(Arc::new(near))),
        |mut near| on_a_task(to_sink(&mut near)),
        |near| on_a_task(to_sink(Arc::new(OwnedFd::from(near)))),
    ];
    for send in each {
        let (near, far) = tcp_pair();
        let received = receiver(far);
        send(near);
        assert!(received.join().unwrap() == pattern(LEN));
    }
}

#[test]
fn a_thread_takes_whatever_has_a_descriptor() {
    let file = TestFile::with(&pattern(LEN)).open();
    let each: [fn(&File, TcpStream); 5] = [
        |file, near| drop(transfer(file, near).run().unwrap()),
        |file, near| drop(transfer(file.as_fd(), OwnedFd::from(near)).run().unwrap()),
        |file, near| drop(transfer(file, Arc::new(near)).run().unwrap()),
        |file, near| drop(transfer(file, Box::new(near)).run().unwrap()),
        |file, mut near| drop(transfer(file, &mut near).run().unwrap()),
    ];
    for send in each {
        let (near, far) = tcp_pair();
        let received = receiver(far);
        send(&file, near);
        assert!(received.join().unwrap() == pattern(LEN));
    }
}

fn tokio_of(socket: TcpStream) -> on_tokio::TcpStream {
    socket.set_nonblocking(true).unwrap();
    on_tokio::TcpStream::from_std(socket).unwrap()
}

#[test]
fn halves_of_sockets_are_ends() {
    let (near, far) = tcp_pair();
    let (received, sending) = (receiver(far.try_clone().unwrap()), {
        let mut far = far;
        std::thread::spawn(move || {
            far.write_all(&pattern(LEN)).unwrap();
            far.shutdown(std::net::Shutdown::Write).unwrap();
        })
    });
    on_a_task(async {
        let (reader, writer) = tokio_of(near).into_split();
        tokio::join!(from_source(reader), to_sink(writer));
    });
    sending.join().unwrap();
    assert!(received.join().unwrap() == pattern(LEN));

    let (near, far) = UnixStream::pair().unwrap();
    let received = receiver(far);
    on_a_task(async {
        near.set_nonblocking(true).unwrap();
        let mut near = on_tokio::UnixStream::from_std(near).unwrap();
        let (_, writer) = near.split();
        to_sink(writer).await;
    });
    assert!(received.join().unwrap() == pattern(LEN));
}

#[test]
fn files_of_tokio_and_pipes_are_ends() {
    on_a_task(async {
        let from = tokio::fs::File::from_std(TestFile::with(&pattern(LEN)).open());
        let to = TestFile::with(b"");
        let sink = File::options().write(true).open(to.path()).unwrap();
        let sink = tokio::fs::File::from_std(sink);
        let summary = transfer(&from, &sink).run_async().await.unwrap();
        assert_eq!(summary.moved, LEN as u64);
        assert!(std::fs::read(to.path()).unwrap() == pattern(LEN));
    });
    let (reader, writer) = std::io::pipe().unwrap();
    let received = receiver(reader);
    on_a_task(to_sink(writer));
    assert!(received.join().unwrap() == pattern(LEN));
    on_a_task(async {
        let (sender, receiver) = on_tokio::unix::pipe::pipe().unwrap();
        tokio::join!(to_sink(sender), from_source(receiver));
    });
}

#[test]
fn standard_streams_of_child_processes_are_ends() {
    let file = TestFile::with(&pattern(LEN));
    let cat = || {
        let mut cat = Command::new("cat");
        cat.stdin(Stdio::piped()).stdout(Stdio::piped());
        cat
    };
    let mut child = cat().spawn().unwrap();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    on_a_task(async { tokio::join!(to_sink(stdin), from_source(stdout)) });
    assert!(child.wait().unwrap().success());

    on_a_task(async {
        let mut child = tokio::process::Command::from(cat()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        tokio::join!(to_sink(stdin), from_source(stdout));
        assert!(child.wait().await.unwrap().success());
    });

    let mut child = cat().stdin(file.open()).spawn().unwrap();
    let sink = tempfile::tempfile().unwrap();
    let stdout = child.stdout.take().unwrap();
    assert_eq!(transfer(stdout, &sink).run().unwrap().moved, LEN as u64);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_relay_takes_sockets_of_std_on_a_task() {
    let ((client, a), (b, server)) = (tcp_pair(), UnixStream::pair().unwrap());
    let received = receiver(server);
    let sending = sender(client);
    let ending = on_a_task(async { zhaul::relay(&a, &b).one_way().run_async().await });
    assert_eq!(ending.stats.delivered(), LEN as u64);
    sending.join().unwrap();
    assert!(received.join().unwrap() == pattern(LEN));
}

/// A reactor that is asked for errors alone must not be told that the pipe is not ready.
#[test]
fn asking_a_pipe_for_its_errors_takes_no_readiness_back() {
    on_a_task(async {
        let (sender, receiver) = on_tokio::unix::pipe::pipe().unwrap();
        let refused = || Err::<(), _>(std::io::ErrorKind::WouldBlock.into());
        let limit = std::time::Duration::from_secs(20);
        tokio::time::timeout(limit, sender.writable())
            .await
            .unwrap()
            .unwrap();
        let mut called = false;
        let asked = AsyncEnd::try_io(&sender, tokio::io::Interest::ERROR, || {
            called = true;
            refused()
        });
        assert!(asked.is_err() && !called);
        tokio::time::timeout(limit, sender.writable())
            .await
            .expect("is writable")
            .unwrap();
        assert_eq!(sender.try_write(b"x").unwrap(), 1);
        tokio::time::timeout(limit, receiver.readable())
            .await
            .unwrap()
            .unwrap();
        assert!(AsyncEnd::try_io(&receiver, tokio::io::Interest::ERROR, refused).is_err());
        tokio::time::timeout(limit, receiver.readable())
            .await
            .expect("is readable")
            .unwrap();
    });
}
