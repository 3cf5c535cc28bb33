//! The threads of a server: how many, and what follows when one ends.

use std::io;
use std::num::NonZeroUsize;
use std::thread::{self, JoinHandle};

/// A thread of a server.
pub type ServerThread = JoinHandle<io::Result<()>>;

/// Worker threads: as many as were asked for, or (0) one for each available core.
pub fn worker_threads(asked: usize) -> usize {
    match asked {
        0 => thread::available_parallelism().map_or(1, NonZeroUsize::get),
        n => n,
    }
}

/// Starts a thread that the server cannot do without: `at_end` is called when it ends, in whatever
/// way, and stops the others. A server that accepts for a thread that is gone would look healthy and
/// serve nobody.
///
/// # Errors
/// As `pthread_create(3)`; `at_end` is called then, too.
pub fn spawn_essential(
    name: String,
    at_end: impl FnOnce() + Send + 'static,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<ServerThread> {
    let at_end = OnDrop(Some(at_end));
    thread::Builder::new().name(name).spawn(move || {
        let _at_end = at_end;
        body()
    })
}

/// Waits for all of them.
///
/// # Errors
/// Of the first that failed; a panic is an error.
pub fn join_all(threads: impl IntoIterator<Item = ServerThread>) -> io::Result<()> {
    let mut result = Ok(());
    for thread in threads {
        let name = thread.thread().name().unwrap_or("?").to_owned();
        let panicked = |_| Err(io::Error::other(format!("the thread {name} panicked")));
        result = result.and(thread.join().unwrap_or_else(panicked));
    }
    result
}

struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(at_end) = self.0.take() {
            at_end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_end_of_a_thread_is_told_even_if_it_panics() {
        let (told, ends) = mpsc::channel();
        let spawn = |name: &str, body: fn() -> io::Result<()>| {
            let (told, name) = (told.clone(), name.to_owned());
            spawn_essential(name.clone(), move || told.send(name).unwrap(), body).unwrap()
        };
        let threads = [
            spawn("good", || Ok(())),
            spawn("bad", || panic!("on purpose")),
        ];
        let error = join_all(threads).unwrap_err().to_string();
        assert_eq!(error, "the thread bad panicked");
        let mut names: Vec<String> = ends.try_iter().collect();
        names.sort();
        assert_eq!(names, ["bad", "good"]);
    }
}
