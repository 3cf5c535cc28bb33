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
use std::{env, error::Error, fs::File, process::Command, time::Instant};
use zhaul_sys::getrusage::{Who, getrusage};
type Outcome<T = ()> = Result<T, Box<dyn Error>>;
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 512;

fn main() -> Outcome {
    if let [way, stage] = &env::args().skip(1).collect::<Vec<_>>()[..] {
        let input = stdin().as_fd().try_clone_to_owned()?;
        let output = stdout().as_fd().try_clone_to_owned()?;
        let run = [shared::run, piped::run][usize::from(way == "pipes")];
        return run(stage, input, output);
    }
    let bytes: Vec<u8> = (0..CHUNK * CHUNKS).map(|i| (i % 251) as u8).collect();
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(&file, &bytes)?;
    through("channels", file.reopen()?, &bytes, shared::connect)?;
    through("pipes", file.reopen()?, &bytes, piped::connect)
}

fn through(way: &str, file: File, bytes: &[u8], connect: fn() -> Outcome<[OwnedFd; 2]>) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (begun, before) = (Instant::now(), getrusage(Who::Children)?);
    let ([read, transform], [transformed, serve]) = (connect()?, connect()?);
    let start = |stage, input: OwnedFd, output: OwnedFd| {
        let mut command = Command::new("/proc/self/exe");
        command
            .args([way, stage])
            .stdin(input)
            .stdout(output)
            .spawn()
    };
    let stages = [
        start("read", file.into(), read)?,
        start("transform", transform, transformed)?,
        start("serve", serve, listener.accept()?.0.into())?,
    ];
    let mut received = vec![0; bytes.len()];
    client.read_exact(&mut received)?;
    let time = begun.elapsed();
    assert!(received.iter().zip(bytes).all(|(got, sent)| *got == !sent));
    for mut stage in stages {
        assert!(stage.wait()?.success());
    }
    let after = getrusage(Who::Children)?;
    let cpu = after.user_us + after.system_us - before.user_us - before.system_us;
    println!("{way}: {time:.1?}, CPU time {} ms", cpu / 1000);
    Ok(())
}
