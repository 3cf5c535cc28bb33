//! From a stream into a file: exact lengths, early ends, full and stalled disks, files that others cut.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/fuse.rs"]
mod fuse;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{TestFile, pattern, wait_until};
use fuse::ShortFile;
use zhaul::{Cause, ColdPool, Errno, Operation, Progress, Route};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn of_tokio(socket: TcpStream) -> tokio::net::TcpStream {
    socket.set_nonblocking(true).unwrap();
    tokio::net::TcpStream::from_std(socket).unwrap()
}

fn for_writing(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

/// Bytes that the blocks of a file could hold.
fn allocated(file: &File) -> u64 {
    file.metadata().unwrap().blocks() * 512
}

const MIB: usize = 1 << 20;

#[test]
fn exactly_the_length_is_taken_and_what_follows_stays() {
    let (mut near, mut far) = pair();
    let target = TestFile::with(b"");
    let bytes = pattern(3 * MIB + 11);
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || {
        near.write_all(&sent).unwrap();
        near.write_all(b"the next request").unwrap();
    });
    let file = for_writing(target.path());
    let upload = zhaul::transfer(&far, &file)
        .sink_offset(0)
        .length(bytes.len() as u64);
    let summary = upload.reserve(true).run().unwrap();
    assert_eq!((summary.moved, summary.stranded), (bytes.len() as u64, 0));
    assert_eq!(summary.route, Route::Splice);
    assert!([0, bytes.len() as u64].contains(&summary.reserved));
    sender.join().unwrap();
    let mut rest = [0; 16];
    far.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"the next request");
    assert_eq!(std::fs::read(target.path()).unwrap(), bytes);
}

#[tokio::test]
async fn on_a_task_too() {
    let (mut near, far) = pair();
    let target = TestFile::with(b"");
    let bytes = pattern(5 * MIB + 1);
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || {
        // Pages that begin anywhere.
        for part in sent.chunks(70_001) {
            near.write_all(part).unwrap();
        }
        near.write_all(b"more").unwrap();
        near
    });
    let mut far = of_tokio(far);
    let length = bytes.len() as u64;
    let file = for_writing(target.path());
    let upload = zhaul::transfer(&far, file).sink_offset(0).length(length);
    let summary = upload.reserve(true).await.unwrap();
    assert_eq!((summary.moved, summary.stranded), (length, 0));
    drop(sender.join().unwrap());
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut far, &mut rest)
        .await
        .unwrap();
    assert_eq!(rest, b"more");
    assert_eq!(std::fs::read(target.path()).unwrap(), bytes);
}

#[test]
fn an_early_end_is_an_error_and_gives_the_blocks_back() {
    let (mut near, far) = pair();
    let target = TestFile::with(b"");
    near.write_all(&pattern(100_000)).unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let file = for_writing(target.path());
    let upload = zhaul::transfer(&far, &file).sink_offset(0).length(32 << 20);
    let error = upload.reserve(true).run().unwrap_err();
    assert_eq!(error.cause, Cause::SourceEnded);
    assert_eq!(error.moved(), 100_000);
    assert_eq!(std::fs::read(target.path()).unwrap(), pattern(100_000));
    let left = allocated(&file);
    assert!(left < 8 << 20, "{left} bytes of blocks");
}

#[tokio::test]
async fn a_dropped_upload_gives_the_blocks_back() {
    let (mut near, far) = pair();
    let target = TestFile::with(b"");
    near.write_all(&pattern(100_000)).unwrap();
    let (far, file) = (of_tokio(far), for_writing(target.path()));
    let progress = Progress::new();
    let upload = zhaul::transfer(&far, &file).sink_offset(0).length(32 << 20);
    let mut upload = Box::pin(upload.reserve(true).progress(&progress).run_async());
    while progress.moved() < 100_000 {
        let moment = Duration::from_millis(5);
        assert!(tokio::time::timeout(moment, &mut upload).await.is_err());
    }
    if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 1).is_ok() {
        assert!(allocated(&file) >= 32 << 20, "{}", allocated(&file));
    }
    drop(upload);
    wait_until("blocks are given back", || allocated(&file) < 8 << 20);
    assert_eq!(std::fs::read(target.path()).unwrap(), pattern(100_000));
}

#[test]
fn what_no_file_can_hold_is_refused_before_a_byte_is_moved() {
    let (mut near, mut far) = pair();
    let target = TestFile::with(b"");
    near.write_all(b"still there").unwrap();
    let file = for_writing(target.path());
    let upload = zhaul::transfer(&far, &file).sink_offset(0).length(1 << 62);
    let error = upload.reserve(true).run().unwrap_err();
    let Cause::Io { operation, errno } = error.cause else {
        panic!("{error}");
    };
    assert_eq!(operation, Operation::Reserve);
    assert!([Errno::EFBIG, Errno::ENOSPC].contains(&errno), "{errno}");
    let mut rest = [0; 11];
    far.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"still there");
    assert_eq!(file.metadata().unwrap().len(), 0);
}

/// A file system of one MiB; `None` where none can be mounted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(test: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=1m", "zhaul-test"];
        let mounted = Command::new("mount").args(mount).arg(dir.path()).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(dir));
        }
        zhaul_untested::skip(test, "no tmpfs can be mounted");
        None
    }

    fn file(&self) -> (File, PathBuf) {
        let path = self.0.path().join("upload");
        File::create(&path).unwrap();
        (for_writing(&path), path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_is_an_error_with_the_bytes_before() {
    let Some(disk) = SmallDisk::mount("a_full_disk_is_an_error_with_the_bytes_before") else {
        return;
    };
    let (mut near, far) = pair();
    let bytes = pattern(4 * MIB);
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || {
        // The receiver ends before.
        let _ = near.write_all(&sent);
    });
    let (file, path) = disk.file();
    let length = bytes.len() as u64;
    let error = zhaul::transfer(&far, &file)
        .sink_offset(0)
        .length(length)
        .run()
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOSPC), "{error}");
    let moved = usize::try_from(error.moved()).unwrap();
    assert!(moved > 0 && moved <= MIB);
    let written = std::fs::read(path).unwrap();
    assert!(written.len() >= moved);
    assert_eq!(written[..moved], bytes[..moved]);
    drop(far);
    sender.join().unwrap();
}

#[test]
fn with_reserved_blocks_a_full_disk_is_known_at_once_and_left_as_it_was() {
    const TEST: &str = "with_reserved_blocks_a_full_disk_is_known_at_once_and_left_as_it_was";
    let Some(disk) = SmallDisk::mount(TEST) else {
        return;
    };
    let (mut near, mut far) = pair();
    near.write_all(b"still there").unwrap();
    let (file, _) = disk.file();
    let upload = zhaul::transfer(&far, &file).sink_offset(0).length(4 << 20);
    let error = upload.reserve(true).run().unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOSPC), "{error}");
    let mut rest = [0; 11];
    far.read_exact(&mut rest).unwrap();
    assert_eq!(allocated(&file), 0);
}

/// Uploads half, cuts the file, uploads the rest.
fn cut_in_the_middle(near: &mut TcpStream, file: &File, progress: &Progress) {
    near.write_all(&pattern(MIB)).unwrap();
    wait_until("the first half is written", || {
        progress.moved() >= MIB as u64
    });
    file.set_len(1000).unwrap();
    near.write_all(&pattern(MIB)).unwrap();
}

#[test]
fn a_file_that_another_cuts_gets_no_hole() {
    let (mut near, far) = pair();
    let target = TestFile::with(b"");
    let (file, other) = (for_writing(target.path()), for_writing(target.path()));
    let progress = Arc::new(Progress::new());
    let counted = Arc::clone(&progress);
    let cutter = std::thread::spawn(move || {
        cut_in_the_middle(&mut near, &other, &counted);
        near
    });
    let upload = zhaul::transfer(&far, &file).sink_offset(0).length(2 << 20);
    let error = upload.reserve(true).progress(progress).run().unwrap_err();
    assert_eq!(error.cause, Cause::SinkTruncated { size: 1000 });
    assert_eq!(error.moved(), 1 << 20);
    assert_eq!(std::fs::read(target.path()).unwrap(), pattern(MIB)[..1000]);
    drop(cutter.join().unwrap());
}

#[tokio::test]
async fn a_task_writes_no_hole_either() {
    let (mut near, far) = pair();
    let target = TestFile::with(b"");
    let (file, other) = (for_writing(target.path()), for_writing(target.path()));
    let progress = Arc::new(Progress::new());
    let counted = Arc::clone(&progress);
    let cutter = std::thread::spawn(move || {
        cut_in_the_middle(&mut near, &other, &counted);
        near
    });
    let upload = zhaul::transfer(of_tokio(far), file)
        .sink_offset(0)
        .length(2 << 20);
    let error = upload.reserve(true).progress(progress).await.unwrap_err();
    assert_eq!(error.cause, Cause::SinkTruncated { size: 1000 });
    assert_eq!(std::fs::read(target.path()).unwrap().len(), 1000);
    drop(cutter.join().unwrap());
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_no_other_task() {
    let (mounted, disk) = match ShortFile::on_stalled_disk() {
        Ok(mounted) => mounted,
        Err(why) => return zhaul_untested::skip("a_disk_that_hangs_holds_up_no_other_task", why),
    };
    let (mut near, far) = pair();
    let bytes = pattern(300_007);
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || near.write_all(&sent).unwrap());
    let (far, file) = (of_tokio(far), for_writing(&mounted.path()));
    let turns = AtomicUsize::new(0);
    let others = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            turns.fetch_add(1, Ordering::Relaxed);
        }
        assert!(disk.written().is_empty(), "nothing was written meanwhile");
        disk.go_on();
    };
    let pool = ColdPool::new(1, 4);
    let length = bytes.len() as u64;
    let upload = zhaul::transfer(
        &far,
        file.as_fd().try_clone_to_owned().map(File::from).unwrap(),
    )
    .sink_offset(0)
    .length(length)
    .reserve(true)
    .cold_pool(&pool);
    let (summary, ()) = tokio::join!(upload.run_async(), others);
    let summary = summary.unwrap();
    assert_eq!((summary.moved, summary.reserved), (length, 0));
    assert_eq!(turns.load(Ordering::Relaxed), 20);
    assert!(disk.written() == bytes);
    sender.join().unwrap();
}

#[tokio::test]
async fn a_pipe_and_a_stream_to_its_end_are_taken_as_well() {
    let target = TestFile::with(b"");
    let (reader, mut writer) = std::io::pipe().unwrap();
    let bytes = pattern(2 * MIB + 5);
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let file = for_writing(target.path());
    let summary = zhaul::transfer(&reader, &file).await.unwrap();
    assert_eq!(summary.moved, bytes.len() as u64);
    sender.join().unwrap();
    assert!(std::fs::read(target.path()).unwrap() == bytes);
}

#[tokio::test]
async fn urgent_data_does_not_stop_an_upload() {
    let (mut near, far) = pair();
    let target = TestFile::with(b"");
    near.write_all(b"before").unwrap();
    rustix::net::send(&near, b"!", rustix::net::SendFlags::OOB).unwrap();
    near.write_all(b"after").unwrap();
    drop(near);
    let summary = zhaul::transfer(of_tokio(far), for_writing(target.path()))
        .await
        .unwrap();
    assert_eq!(summary.moved, 11);
    assert_eq!(std::fs::read(target.path()).unwrap(), b"beforeafter");
}

#[tokio::test]
async fn an_upload_that_is_interrupted_goes_on_without_loss() {
    let (mut near, far) = pair();
    let target = TestFile::with(b"");
    let bytes = pattern(4 * MIB);
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || {
        for part in sent.chunks(MIB / 2) {
            near.write_all(part).unwrap();
            std::thread::sleep(Duration::from_millis(3));
        }
    });
    let upload = zhaul::transfer(of_tokio(far), for_writing(target.path()));
    let mut running = upload.start().await.unwrap();
    let summary = loop {
        let moment = tokio::time::sleep(Duration::from_millis(1));
        if let Some(summary) = running.run_until(moment).await.unwrap() {
            break summary;
        }
    };
    sender.join().unwrap();
    assert_eq!((summary.moved, summary.stranded), (bytes.len() as u64, 0));
    assert!(std::fs::read(target.path()).unwrap() == bytes);
}
