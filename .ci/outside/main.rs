//! A program that uses zhaul from outside of the workspace: once with its default features, once
//! without any.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn main() {
    // A library must not decide what the programs that use it may log.
    assert_eq!(
        tracing::level_filters::STATIC_MAX_LEVEL,
        tracing::level_filters::LevelFilter::TRACE
    );
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    assert_eq!(blocking(&bytes), bytes);
    relay(&bytes);
    #[cfg(feature = "tokio")]
    assert_eq!(on_a_task(&bytes), bytes);
}

fn file_of(bytes: &[u8]) -> std::fs::File {
    let path = std::env::temp_dir().join(format!("zhaul-outside-{}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

fn received(mut socket: UnixStream) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

fn blocking(bytes: &[u8]) -> Vec<u8> {
    let (near, far) = UnixStream::pair().unwrap();
    let receiver = received(far);
    let cancel = zhaul::CancelToken::new();
    let progress = zhaul::Progress::new();
    let summary = zhaul::transfer(&file_of(bytes), &near)
        .stability(zhaul::Stability::Immutable)
        .deadline(Duration::from_secs(60))
        .cancel(&cancel)
        .progress(&progress)
        .run()
        .unwrap();
    assert_eq!(summary.moved, bytes.len() as u64);
    assert_eq!(progress.moved(), summary.moved);
    drop(near);
    receiver.join().unwrap()
}

fn relay(bytes: &[u8]) {
    let ((mut client, a), (b, server)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let receiver = received(server);
    let relaying = std::thread::spawn(move || zhaul::relay(&a, &b).one_way().run().unwrap());
    client.write_all(bytes).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    relaying.join().unwrap();
    assert_eq!(receiver.join().unwrap(), bytes);
}

#[cfg(feature = "tokio")]
fn on_a_task(bytes: &[u8]) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let receiver = received(far);
    runtime.block_on(async {
        near.set_nonblocking(true).unwrap();
        let near = tokio::net::UnixStream::from_std(near).unwrap();
        let file = file_of(bytes);
        let haul = zhaul::transfer(&file, &near).run_async();
        assert_eq!(haul.await.unwrap().moved, bytes.len() as u64);
    });
    receiver.join().unwrap()
}
