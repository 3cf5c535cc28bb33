//! A bounded pool of threads for work that waits for the disk.
//!
//! Jobs run in the order they were submitted; threads start when there is work and leave when
//! there is none. The queue is bounded: submitting waits for room, so that a burst of cold
//! requests holds connections up and not memory.
//!
//! [`populate`](crate::residency::populate) is the work drivers have for it: make a range of a file
//! resident.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The pool.
#[derive(Debug)]
pub struct ColdPool {
    max_threads: usize,
    room: Arc<Semaphore>,
    state: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("Shared")
            .field("queued", &state.queue.len())
            .field("threads", &state.threads)
            .field("idle", &state.idle)
            .finish()
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

type Job = Box<dyn FnOnce() + Send>;

/// A job under way; awaiting it gives its result. Dropping it does not stop the job, but one that has
/// not begun is then not begun.
#[derive(Debug)]
pub struct ColdJob<T> {
    result: oneshot::Receiver<std::thread::Result<T>>,
}

impl ColdPool {
    /// A pool of at most `max_threads` with room for `max_queued` waiting jobs.
    pub fn new(max_threads: usize, max_queued: usize) -> Arc<Self> {
        Arc::new(Self {
            max_threads: max_threads.max(1),
            room: Arc::new(Semaphore::new(max_queued.max(1))),
            state: Arc::default(),
        })
    }

    /// The process-wide pool: four threads a core, at least 8 and at most 32.
    ///
    /// Threads that wait for a disk use no CPU; more of them than a disk serves at once only
    /// lengthen its queue.
    pub fn shared() -> &'static Arc<Self> {
        static SHARED: OnceLock<Arc<ColdPool>> = OnceLock::new();
        SHARED.get_or_init(|| {
            let cores = std::thread::available_parallelism().map_or(2, usize::from);
            Self::new((4 * cores).clamp(8, 32), 1024)
        })
    }

    /// The process-wide pool for copies from file to file, which are made call by call on its
    /// threads: a few copies of large files must not keep first reads waiting.
    pub(crate) fn copies() -> &'static Arc<Self> {
        static COPIES: OnceLock<Arc<ColdPool>> = OnceLock::new();
        COPIES.get_or_init(|| Self::new(COPYING_THREADS, 1024))
    }

    /// Runs a job and waits for its result.
    ///
    /// # Panics
    /// If the job panicked, with its panic.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.submit(job).await.join().await
    }

    /// Queues a job, waiting for room, and returns without waiting for the job.
    pub async fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> ColdJob<T> {
        let room = Arc::clone(&self.room).acquire_owned().await;
        self.start(room.ok(), job)
    }

    /// Queues a job if there is room at once: for work that may as well not be done.
    pub fn try_submit<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<ColdJob<T>> {
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        Some(self.start(Some(room), job))
    }

    /// Queues a job whose result nobody waits for, without regard to the bound on the queue: for what
    /// has to be done in any case, such as closing a file.
    pub fn detach(&self, job: impl FnOnce() + Send + 'static) {
        self.push(Box::new(job));
    }

    /// Threads that exist now.
    pub fn threads(&self) -> usize {
        self.state.lock().threads
    }

    fn start<T: Send + 'static>(
        &self,
        room: Option<OwnedSemaphorePermit>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> ColdJob<T> {
        let (sender, result) = oneshot::channel();
        self.push(Box::new(move || {
            // The room is in the queue, and this job left it.
            drop(room);
            if sender.is_closed() {
                return;
            }
            // Whoever waited may be gone meanwhile.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(job)));
        }));
        ColdJob { result }
    }

    fn push(&self, job: Job) {
        let mut state = self.state.lock();
        state.queue.push_back(job);
        if state.idle >= state.queue.len() || state.threads >= self.max_threads {
            drop(state);
            self.state.work.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.state);
        let spawned = std::thread::Builder::new()
            .name("zhaul-cold".into())
            .spawn(move || shared.work_until_idle());
        if let Err(error) = spawned {
            self.without_a_new_thread(&error);
        }
    }

    /// With other threads alive the job waits for one of them. With none it would wait for ever, and
    /// so would those that others queued meanwhile, so the caller does them all and stalls: the
    /// last resort of a process out of threads.
    fn without_a_new_thread(&self, error: &std::io::Error) {
        let mut state = self.state.lock();
        state.threads -= 1;
        tracing::warn!(%error, threads = state.threads, "no thread for cold reads");
        while state.threads == 0 {
            let Some(job) = state.queue.pop_front() else {
                return;
            };
            drop(state);
            perform(job);
            state = self.state.lock();
        }
        drop(state);
        self.state.work.notify_one();
    }
}

impl<T> ColdJob<T> {
    /// Waits for the result.
    ///
    /// # Panics
    /// If the job panicked, with its panic.
    pub async fn join(mut self) -> T {
        self.result().await
    }

    /// The same for who may stop waiting and begin again, until there was a result.
    pub(crate) async fn result(&mut self) -> T {
        match (&mut self.result).await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => unreachable!("a queued job runs and sends its result"),
        }
    }

    /// Waits for the result on this thread, also within a runtime, where tokio's own call for that
    /// would panic. `None` if the job panicked, or there was a result before.
    pub(crate) fn wait(&mut self) -> Option<T> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        // With its budget used up, a task would be told to ask again for ever.
        let mut result = tokio::task::unconstrained(&mut self.result);
        loop {
            match Pin::new(&mut result).poll(&mut context) {
                Poll::Ready(result) => return result.ok()?.ok(),
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock, so a poisoned lock holds consistent state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work_until_idle(&self) {
        let mut state = self.lock();
        loop {
            while let Some(job) = state.queue.pop_front() {
                drop(state);
                perform(job);
                state = self.lock();
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, IDLE_TIME);
            let (returned, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = returned;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

/// A job catches its own panic, but a result that nobody waits for is dropped here, and that may
/// panic too. The thread outlives it.
fn perform(job: Job) {
    let _ = catch_unwind(AssertUnwindSafe(job));
}

/// One fast disk is kept busy by fewer.
const COPYING_THREADS: usize = 8;

/// Long enough to outlive a pause in a stream of cold requests.
const IDLE_TIME: Duration = Duration::from_secs(10);

#[cfg(test)]
#[path = "cold_tests.rs"]
mod tests;
