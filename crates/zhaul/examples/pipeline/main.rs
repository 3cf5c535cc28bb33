//! Three processes read a file, transform its bytes and serve them over TCP: through channels of shared
//! buffers (shared.rs), then through pipes (piped.rs). Compares the bytes, prints what it took.
//!
//! cargo run --release -p zhaul --example pipeline
#![allow(clippy::print_stdout)]

mod piped;
mod shared;

use std::io::{Read as _, stdin, stdout};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;
use std::{env, error::Error, fs, time::Instant};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 512;

fn main() -> Outcome {
    if let [way, stage] = &env::args().skip(1).collect::<Vec<_>>()[..] {
        let input = stdin().as_fd().try_clone_to_owned()?;
        let output = stdout().as_fd().try_clone_to_owned()?;
        let run = if way == "pipes" {
            piped::run
        } else {
            shared::run
        };
        return run(stage, input, output);
    }
    let bytes: Vec<u8> = (0..CHUNK * CHUNKS).map(|i| (i % 251) as u8).collect();
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, &bytes)?;
    through("channels", &file, zhaul::channel::socket_pair, &bytes)?;
    through("pipes", &file, piped::connect, &bytes)
}

fn through(
    way: &str,
    file: &tempfile::NamedTempFile,
    connect: fn() -> std::io::Result<(OwnedFd, OwnedFd)>,
    bytes: &[u8],
) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let start = |stage, input: OwnedFd, output: OwnedFd| {
        let mut command = Command::new(env::current_exe()?);
        command
            .args([way, stage])
            .stdin(input)
            .stdout(output)
            .spawn()
    };
    let begun = Instant::now();
    let ((read, transform), (transformed, serve)) = (connect()?, connect()?);
    let stages = [
        start("read", file.reopen()?.into(), read)?,
        start("transform", transform, transformed)?,
        start("serve", serve, listener.accept()?.0.into())?,
    ];
    let mut received = vec![0; bytes.len()];
    client.read_exact(&mut received)?;
    println!("{way}: {:?}", begun.elapsed());
    assert!(received.iter().zip(bytes).all(|(got, sent)| *got == !sent));
    for mut stage in stages {
        assert!(stage.wait()?.success());
    }
    Ok(())
}
