//! The three stages with channels of shared buffers.
#![allow(clippy::print_stderr)]

use super::{CHUNK, CHUNKS, Outcome};
use std::os::fd::OwnedFd;
use zhaul::Pool;
use zhaul::channel::{Limits, Receiver, Sender, TrustedPeer, socket_pair};

pub(crate) fn connect() -> Outcome<[OwnedFd; 2]> {
    Ok(socket_pair()?.into())
}

pub(crate) fn run(stage: &str, input: OwnedFd, output: OwnedFd) -> Outcome {
    match stage {
        "read" => read(&input, output),
        "transform" => transform(input, output),
        _ => serve(input, &output),
    }
}

fn read(file: &OwnedFd, output: OwnedFd) -> Outcome {
    let (mut sender, pool) = (Sender::new(output, 8)?, Pool::new(CHUNK, 10)?);
    for chunk in 0..CHUNKS {
        let mut buffer = sender.allocate(&pool)?.ok_or("no slot")?;
        let len = buffer.read_file(file, (chunk * CHUNK) as u64)?;
        sender.send(buffer.freeze(len))?;
    }
    Ok(sender.finish(None)?)
}

/// Each byte is read once and written once, as in place; what was handed over does not change.
fn transform(input: OwnedFd, output: OwnedFd) -> Outcome {
    let (mut sender, pool) = (Sender::new(output, 8)?, Pool::new(CHUNK, 10)?);
    let mut receiver = Receiver::new(input, Limits::default())?;
    while let Some(buffer) = receiver.receive()? {
        let from = buffer.trust(trusted())?;
        let mut to = sender.allocate(&pool)?.ok_or("no slot")?;
        to.iter_mut()
            .zip(&from[..])
            .for_each(|(to, from)| *to = !from);
        sender.send(to.freeze(from.len()))?;
    }
    Ok(sender.finish(None)?)
}

fn serve(input: OwnedFd, socket: &OwnedFd) -> Outcome {
    let (mut receiver, mut moved, mut copied) = (Receiver::new(input, Limits::default())?, 0, 0);
    while let Some(buffer) = receiver.receive()? {
        let sent = zhaul::send(buffer.trust(trusted())?, socket).run()?;
        moved += sent.moved;
        copied += sent.moved - (sent.by_reference - sent.copied_after_all);
    }
    eprintln!("  {moved} bytes: 0 copied between processes, {copied} into the socket");
    Ok(())
}

fn trusted() -> TrustedPeer {
    // SAFETY: all stages are this program, which does not touch what it handed over.
    unsafe { TrustedPeer::assume() }
}
