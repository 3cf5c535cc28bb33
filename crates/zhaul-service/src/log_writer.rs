//! The access log's way to the disk: workers fill buffers, one thread writes them.
//!
//! A worker never waits for the log. When the writer falls more than [`QUEUE`] buffers behind,
//! lines are dropped and counted, and the count is reported with the next buffer that is written.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Buffers under way at most; with [`FLUSH_BYTES`] this bounds the memory.
const QUEUE: usize = 256;
/// A worker hands its buffer over when it holds this much (or when its clock ticks).
pub const FLUSH_BYTES: usize = 32 * 1024;

/// The handle that workers send their lines through.
#[derive(Clone, Debug)]
pub struct LogSender {
    queue: SyncSender<Message>,
    state: Arc<State>,
}

#[derive(Debug)]
enum Message {
    /// Whole lines.
    Lines(Vec<u8>),
    /// Look at [`State::reopen`].
    Wake,
    /// Nothing follows.
    End,
}

#[derive(Debug, Default)]
struct State {
    reopen: AtomicBool,
    lost_lines: AtomicU64,
}

/// The writing thread.
#[derive(Debug)]
pub struct LogWriter {
    thread: JoinHandle<()>,
    queue: SyncSender<Message>,
}

impl LogWriter {
    /// Opens the log and starts the thread. `None` stands for standard output.
    pub fn start(path: Option<PathBuf>) -> io::Result<(Self, LogSender)> {
        let target = Target::open(path)?;
        let (queue, lines) = sync_channel(QUEUE);
        let state = Arc::new(State::default());
        let theirs = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("zhaul-log".to_owned())
            .spawn(move || write_lines(target, &lines, &theirs))?;
        let writer = Self {
            thread,
            queue: queue.clone(),
        };
        Ok((writer, LogSender { queue, state }))
    }

    /// Returns when everything that was sent is written, or `patience` has run out: standard output
    /// may be a pipe that nobody reads.
    pub fn finish(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut ended = false;
        while Instant::now() < deadline && !self.thread.is_finished() {
            ended = ended || self.queue.try_send(Message::End).is_ok();
            std::thread::sleep(Duration::from_millis(1));
        }
        if !self.thread.is_finished() {
            tracing::warn!("access log: it does not take its last lines; they are lost");
        } else if self.thread.join().is_err() {
            tracing::error!("the access log's thread panicked");
        }
    }
}

impl LogSender {
    /// Hands over whole lines.
    pub fn send(&self, lines: Vec<u8>) {
        let Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost)) =
            self.queue.try_send(Message::Lines(lines))
        else {
            return;
        };
        if let Message::Lines(lines) = lost {
            let lost = memchr::memchr_iter(b'\n', &lines).count() as u64;
            self.state.lost_lines.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Makes the writer open its file by name again, after a rotation.
    pub fn reopen(&self) {
        self.state.reopen.store(true, Ordering::Release);
        // Wakes the writer; a full queue means that it is awake anyway.
        let _ = self.queue.try_send(Message::Wake);
    }
}

fn write_lines(mut target: Target, messages: &Receiver<Message>, state: &State) {
    let mut failing = false;
    while let Ok(message) = messages.recv() {
        if state.reopen.swap(false, Ordering::Acquire) {
            target.reopen();
        }
        let lost = state.lost_lines.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!("access log: {lost} lines were lost because the log could not keep up");
        }
        let lines = match message {
            Message::Lines(lines) => lines,
            Message::Wake => continue,
            Message::End => return,
        };
        match target.file.write_all(&lines) {
            Ok(()) => failing = false,
            // Said once for each streak of failures, not once for each buffer.
            Err(e) if !failing => {
                tracing::error!("access log: cannot write: {e} (lines are lost until it can)");
                failing = true;
            }
            Err(_) => {}
        }
    }
}

struct Target {
    path: Option<PathBuf>,
    file: File,
}

impl Target {
    fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let file = match &path {
            Some(path) => append(path)?,
            None => File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?),
        };
        Ok(Self { path, file })
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match append(path) {
            Ok(file) => self.file = file,
            Err(e) => tracing::error!(
                "access log: cannot reopen {}: {e} (the old file is still written)",
                path.display()
            ),
        }
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reopening_writes_to_the_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let (writer, sender) = LogWriter::start(Some(path.clone())).unwrap();
        sender.send(b"one\n".to_vec());
        let rotated = dir.path().join("access.log.1");
        while std::fs::read(&path).unwrap().is_empty() {
            std::thread::yield_now();
        }
        std::fs::rename(&path, &rotated).unwrap();
        sender.reopen();
        sender.send(b"two\n".to_vec());
        writer.finish(Duration::from_secs(10));
        assert_eq!(std::fs::read(&rotated).unwrap(), b"one\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
    }

    #[test]
    fn a_writer_that_is_gone_costs_lines_and_nothing_else() {
        let (queue, lines) = sync_channel(1);
        drop(lines);
        let sender = LogSender {
            queue,
            state: Arc::default(),
        };
        sender.send(b"a\nb\n".to_vec());
        assert_eq!(sender.state.lost_lines.load(Ordering::Relaxed), 2);
    }
}
