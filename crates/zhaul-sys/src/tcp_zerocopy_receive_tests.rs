use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{SpliceFlags, splice};

use super::*;
use crate::setsockopt::{IntOption, set};

const PAGE: usize = 4096;

/// A connection whose segments have a page of payload each.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    set(listener.as_fd(), IntOption::TcpMaxSegment, 4096 + 12).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    near.set_nodelay(true).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Sends pages that a pipe had; as many bytes as it takes.
fn send_pages(near: &TcpStream, bytes: &[u8]) {
    let (reader, mut writer) = io::pipe().unwrap();
    for part in bytes.chunks(8 * PAGE) {
        writer.write_all(part).unwrap();
        let mut left = part.len();
        while left > 0 {
            left -= splice(&reader, None, near, None, left, SpliceFlags::empty()).unwrap();
        }
    }
}

fn wait_for(far: &TcpStream, bytes: usize) {
    let mut there = vec![0; bytes];
    while far.peek(&mut there).unwrap() < bytes {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn wait_until(far: &TcpStream, event: PollFlags) {
    poll(&mut [PollFd::new(far, event)], None).unwrap();
}

/// `None` where this kernel or a filter has no such thing.
fn window_of(far: &TcpStream, test: &str) -> Option<ReceiveWindow> {
    let made = ReceiveWindow::of(far.as_fd(), 16 * PAGE);
    made.map_err(|error| zhaul_untested::skip(test, error)).ok()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn whole_pages_are_mapped_and_the_tail_is_copied() {
    let (near, far) = pair();
    let bytes = pattern(2 * PAGE + 1000);
    let Some(mut window) = window_of(&far, "whole_pages_are_mapped_and_the_tail_is_copied") else {
        return;
    };
    send_pages(&near, &bytes);
    wait_for(&far, bytes.len());
    let mut rest = [0; PAGE];
    let received = window.receive(usize::MAX, &mut rest).unwrap();
    assert_eq!((received.mapped, received.copied), (2 * PAGE, 1000));
    let mut out = vec![0; 3 * PAGE];
    assert_eq!(window.copy_to(&mut out), 2 * PAGE);
    assert_eq!(out[..2 * PAGE], bytes[..2 * PAGE]);
    assert_eq!(rest[..1000], bytes[2 * PAGE..]);
    let mut odd = vec![0; PAGE + 3];
    assert_eq!(window.copy_to(&mut odd), PAGE + 3);
    assert_eq!(odd, bytes[..PAGE + 3]);
    let mut file = tempfile::tempfile().unwrap();
    assert_eq!(window.write_to(file.as_fd(), PAGE).unwrap(), PAGE);
    let mut written = Vec::new();
    io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut written).unwrap();
    assert_eq!(written, bytes[PAGE..2 * PAGE]);
    window.release().unwrap();
    assert_eq!(window.copy_to(&mut out), 0);
}

#[test]
fn a_peer_on_this_machine_gives_no_slice() {
    let (near, far) = pair();
    let Some(mut window) = window_of(&far, "a_peer_on_this_machine_gives_no_slice") else {
        return;
    };
    send_pages(&near, &pattern(PAGE));
    wait_for(&far, PAGE);
    assert_eq!(window.receive(usize::MAX, &mut []).unwrap().mapped, PAGE);
    assert!(!window.is_remote());
    assert!(window.as_slice().is_none());
}

/// As when a packet filter redirects the connection to a process on this machine.
#[test]
fn a_local_peer_with_a_remote_address_gives_no_slice() {
    let (near, far) = pair();
    let test = "a_local_peer_with_a_remote_address_gives_no_slice";
    let Some(mut window) = window_of(&far, test) else {
        return;
    };
    window.remote = addresses(far.as_fd());
    assert!(window.is_remote());
    send_pages(&near, &pattern(PAGE));
    wait_for(&far, PAGE);
    assert_eq!(window.receive(usize::MAX, &mut []).unwrap().mapped, PAGE);
    assert!(window.as_slice().is_none());
    assert!(!window.is_remote());
}

/// Why there is none: the page of a ring's submission entries belongs to no file, and any process
/// may pass it on and write to it afterwards.
#[test]
fn a_sender_on_this_machine_can_change_what_is_mapped() {
    const TEST: &str = "a_sender_on_this_machine_can_change_what_is_mapped";
    let (near, far) = pair();
    let Some(mut window) = window_of(&far, TEST) else {
        return;
    };
    let Some(ring) = ring_of_a_page() else {
        zhaul_untested::skip(TEST, "no io_uring");
        return;
    };
    // SAFETY: IORING_OFF_SQES of a ring of 64 entries is one page, in which the kernel looks for
    // nothing before io_uring_enter(2), which is never called.
    let page = unsafe {
        rustix::mm::mmap(
            ptr::null_mut(),
            PAGE,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &ring,
            0x1000_0000,
        )
    }
    .unwrap();
    // SAFETY: a page of our own; nobody else has its address.
    unsafe { page.write_bytes(b'A', PAGE) };
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let part = libc::iovec {
        iov_base: page,
        iov_len: PAGE,
    };
    // SAFETY: the page is mapped until the end of the process; that what is in the pipe may be
    // written to is what this test is about.
    let given = unsafe { libc::vmsplice(writer.as_raw_fd(), &raw const part, 1, 0) };
    assert_eq!(given, 4096);
    splice(&reader, None, &near, None, PAGE, SpliceFlags::empty()).unwrap();
    wait_for(&far, PAGE);
    let received = window.receive(usize::MAX, &mut []).unwrap();
    if received.mapped == 0 {
        zhaul_untested::skip(TEST, "the kernel does not map such a page");
        return;
    }
    let mut byte = [0];
    window.copy_to(&mut byte);
    assert_eq!(byte, *b"A");
    // SAFETY: as above.
    unsafe { page.write_bytes(b'B', PAGE) };
    window.copy_to(&mut byte);
    assert_eq!(byte, *b"B", "the receiver sees the sender's store");
    assert!(window.as_slice().is_none(), "and so it gets no slice");
}

fn ring_of_a_page() -> Option<OwnedFd> {
    // struct io_uring_params, of which none is needed.
    let mut parameters = [0_u8; 120];
    // SAFETY: the kernel reads and writes the structure, which lives on this stack.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 64, parameters.as_mut_ptr()) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: a descriptor that the kernel just gave, and that nobody else knows.
    Some(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}

#[test]
fn pages_of_a_file_are_not_mapped() {
    let (near, mut far) = pair();
    let Some(mut window) = window_of(&far, "pages_of_a_file_are_not_mapped") else {
        return;
    };
    let bytes = pattern(2 * PAGE);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let sent = rustix::fs::sendfile(&near, &file, Some(&mut 0), 2 * PAGE).unwrap();
    assert_eq!(sent, 2 * PAGE);
    wait_for(&far, 2 * PAGE);
    let received = window.receive(usize::MAX, &mut []).unwrap();
    assert_eq!((received.mapped, received.to_read), (0, 2 * PAGE));
    let mut read = vec![0; 2 * PAGE];
    far.read_exact(&mut read).unwrap();
    assert_eq!(read, bytes);
}

#[test]
fn no_more_is_taken_than_was_asked_for() {
    let (near, mut far) = pair();
    let Some(mut window) = window_of(&far, "no_more_is_taken_than_was_asked_for") else {
        return;
    };
    let bytes = pattern(4 * PAGE);
    send_pages(&near, &bytes);
    wait_for(&far, bytes.len());
    let mut rest = [0; 10];
    let received = window.receive(PAGE + 10, &mut rest).unwrap();
    assert_eq!(received.mapped, PAGE);
    let taken = received.mapped + received.copied;
    assert!(taken <= PAGE + 10);
    let mut after = vec![0; bytes.len() - taken];
    far.read_exact(&mut after).unwrap();
    assert_eq!(after, bytes[taken..]);
}

#[test]
fn a_reset_is_told_once_and_what_was_mapped_stays() {
    let (near, mut far) = pair();
    let Some(mut window) = window_of(&far, "a_reset_is_told_once_and_what_was_mapped_stays") else {
        return;
    };
    send_pages(&near, &pattern(PAGE));
    wait_for(&far, PAGE);
    assert_eq!(window.receive(usize::MAX, &mut []).unwrap().mapped, PAGE);
    rustix::net::sockopt::set_socket_linger(&near, Some(Duration::ZERO)).unwrap();
    drop(near);
    wait_until(&far, PollFlags::HUP);
    let mut out = vec![0; PAGE];
    window.copy_to(&mut out);
    assert_eq!(out, pattern(PAGE), "a view outlives the connection");
    let received = window.receive(usize::MAX, &mut []);
    match received {
        Ok(received) => assert_eq!(received.error, Some(libc::ECONNRESET)),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO)),
    }
    // Who does not keep the error takes the reset for an end.
    assert_eq!(far.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn a_window_serves_its_own_kind_only() {
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    assert!(ReceiveWindow::of(pipe.as_fd(), 4096).is_err());
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    assert!(ReceiveWindow::of(file.as_fd(), 4096).is_err());
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(ReceiveWindow::of(udp.as_fd(), 4096).is_err());
    let unix = std::os::unix::net::UnixStream::pair().unwrap().0;
    assert!(ReceiveWindow::of(unix.as_fd(), 4096).is_err());
}

#[test]
fn the_end_and_an_urgent_mark_look_alike() {
    let (near, mut far) = pair();
    let Some(mut window) = window_of(&far, "the_end_and_an_urgent_mark_look_alike") else {
        return;
    };
    rustix::net::send(&near, b"!", rustix::net::SendFlags::OOB).unwrap();
    (&near).write_all(b"after").unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    wait_until(&far, PollFlags::RDHUP);
    let mut rest = [0; 16];
    let received = window.receive(usize::MAX, &mut rest);
    let says_nothing = |error: io::Error| error.raw_os_error() == Some(libc::EIO);
    assert!(received.map_or_else(says_nothing, |received| received.copied == 0));
    let mut read = Vec::new();
    far.read_to_end(&mut read).unwrap();
    assert_eq!(read, b"after");
}
