//! What sending an aggregate costs the thread that does it, next to a bare loop of `sendmsg(2)`.
//!
//! `cargo test --release -p zhaul --test send_cost -- --ignored --nocapture`
#![allow(clippy::unwrap_used, clippy::print_stdout)]
#![cfg(feature = "tokio")]

use std::io::IoSlice;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use rustix::time::{ClockId, clock_gettime};

use zhaul::Aggregate;
use zhaul::send::{Advance, SendState, TurnTerms};

const HEADER: &[u8] = &[b'h'; 200];
const ROUNDS: usize = 15;
const NAMES: [&str; 4] = ["bare sendmsg", "run()", "turn()", "tokio"];

#[test]
#[ignore = "it measures"]
fn cost_of_a_message() {
    println!(
        "CPU time of the sending thread for a message, µs, median (and ratio to bare sendmsg)"
    );
    for (bytes, messages) in [
        (1 << 10, 20_000),
        (16 << 10, 8_000),
        (128 << 10, 1_500),
        (1 << 20, 200),
    ] {
        let body = Bytes::from(vec![7; bytes]);
        let (socket, reader) = connection();
        let mut samples: [Vec<f64>; 4] = Default::default();
        for round in 0..ROUNDS {
            for turn in 0..NAMES.len() {
                // Each comes after each of the others, as often as before it.
                let which = if round % 2 == 0 {
                    turn
                } else {
                    NAMES.len() - 1 - turn
                };
                let which = (which + round / 2) % NAMES.len();
                let spent = match which {
                    0 => cpu_of(messages, || bare(&socket, &body)),
                    1 => cpu_of(messages, || {
                        zhaul::send((HEADER, body.clone()), &socket).run().unwrap();
                    }),
                    2 => cpu_of(messages, || turns(&socket, &body)),
                    _ => on_tokio(&socket, &body, messages),
                };
                samples[which].push(spent);
            }
        }
        drop(socket);
        reader.join().unwrap();
        let medians = samples.map(|mut samples| {
            samples.sort_by(f64::total_cmp);
            samples[samples.len() / 2]
        });
        print!("{:>5} KiB", bytes >> 10);
        for (name, median) in NAMES.iter().zip(medians) {
            print!("  {name} {median:.2} ({:.3})", median / medians[0]);
        }
        println!();
    }
}

fn bare(socket: &TcpStream, body: &[u8]) {
    let all = HEADER.len() + body.len();
    let pieces = [IoSlice::new(HEADER), IoSlice::new(body)];
    let mut control = SendAncillaryBuffer::default();
    let sent = rustix::net::sendmsg(socket, &pieces, &mut control, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(sent, all, "in blocking mode all is taken");
}

fn turns(socket: &TcpStream, body: &Bytes) {
    let mut state = SendState::new(Aggregate::from((HEADER, body.clone())));
    loop {
        match state.turn(socket, TurnTerms::default()).unwrap() {
            Advance::Done(_) => return,
            Advance::Blocked => {
                let mut fds = [PollFd::new(socket, PollFlags::OUT)];
                poll(&mut fds, None).unwrap();
            }
            _ => {}
        }
    }
}

/// On a runtime of this thread.
fn on_tokio(socket: &TcpStream, body: &Bytes, messages: u32) -> f64 {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(async {
        socket.set_nonblocking(true).unwrap();
        let own = tokio::net::TcpStream::from_std(socket.try_clone().unwrap()).unwrap();
        let before = cpu();
        for _ in 0..messages {
            let builder = zhaul::send((HEADER, body.clone()), &own);
            builder.run_async().await.unwrap();
        }
        let spent = cpu() - before;
        drop(own);
        socket.set_nonblocking(false).unwrap();
        spent.as_secs_f64() * 1e6 / f64::from(messages)
    })
}

fn cpu_of(messages: u32, mut send: impl FnMut()) -> f64 {
    let before = cpu();
    for _ in 0..messages {
        send();
    }
    (cpu() - before).as_secs_f64() * 1e6 / f64::from(messages)
}

fn cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// A connection whose other end is drained by a thread, without copying.
fn connection() -> (TcpStream, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while rustix::net::recv(far.as_fd(), &mut buffer[..], RecvFlags::TRUNC)
            .unwrap()
            .0
            > 0
        {}
    });
    (near, reader)
}
