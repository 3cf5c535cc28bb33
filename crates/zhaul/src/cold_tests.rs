//! Tests of the cold pool.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;

#[tokio::test]
async fn jobs_run_and_their_results_come_back() {
    let pool = ColdPool::new(4, 16);
    let sum: u64 = {
        let jobs = (0..100_u64).map(|n| pool.run(move || n * 2));
        let mut sum = 0;
        for job in jobs {
            sum += job.await;
        }
        sum
    };
    assert_eq!(sum, 9900);
    assert!(pool.threads() <= 4);
}

#[tokio::test]
async fn threads_and_queue_are_bounded() {
    let pool = ColdPool::new(2, 3);
    let (release, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let running = Arc::new(AtomicUsize::new(0));
    let mut jobs = Vec::new();
    let block = |running: &Arc<AtomicUsize>| {
        let (wait, running) = (Arc::clone(&wait), Arc::clone(running));
        move || {
            running.fetch_add(1, Ordering::SeqCst);
            let _ = wait.lock().unwrap().recv();
        }
    };
    for _ in 0..2 {
        jobs.push(pool.submit(block(&running)).await);
    }
    while running.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        jobs.push(pool.try_submit(block(&running)).expect("room in the queue"));
    }
    assert!(pool.try_submit(|| ()).is_none(), "the queue is full");
    assert_eq!(pool.threads(), 2);
    let waiting = tokio::time::timeout(Duration::from_millis(20), pool.submit(|| ()));
    assert!(waiting.await.is_err(), "submitting waits for room");
    (0..5).for_each(|_| release.send(()).unwrap());
    for job in jobs {
        job.join().await;
    }
}

#[tokio::test]
async fn a_panic_reaches_whoever_waits_and_spares_the_thread() {
    let pool = ColdPool::new(1, 4);
    let job = pool.submit(|| panic!("the job's own")).await;
    let joined = tokio::spawn(job.join()).await;
    assert!(joined.unwrap_err().is_panic());
    assert_eq!(pool.run(|| 7).await, 7);
    assert_eq!(pool.threads(), 1);
}

#[tokio::test]
async fn a_result_that_panics_when_dropped_spares_the_thread() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("nobody wanted it");
        }
    }
    let pool = ColdPool::new(1, 4);
    let (release, wait) = mpsc::channel::<()>();
    let (begins, begun) = mpsc::channel::<()>();
    let unwanted = pool.submit(move || {
        begins.send(()).unwrap();
        let _ = wait.recv();
        Bomb
    });
    let unwanted = unwanted.await;
    begun.recv().unwrap();
    drop(unwanted);
    release.send(()).unwrap();
    let next = tokio::time::timeout(Duration::from_secs(5), pool.run(|| 7));
    assert_eq!(next.await, Ok(7), "the thread lives");
    assert_eq!(pool.threads(), 1);
}

#[tokio::test]
async fn a_job_that_nobody_waits_for_any_more_is_not_begun() {
    let pool = ColdPool::new(1, 4);
    let (release, wait) = mpsc::channel::<()>();
    let first = pool.submit(move || wait.recv().unwrap()).await;
    let ran = Arc::new(AtomicUsize::new(0));
    let count = |by: usize| {
        let ran = Arc::clone(&ran);
        move || {
            ran.fetch_add(by, Ordering::SeqCst);
        }
    };
    drop(pool.submit(count(1)).await);
    // What has to be done is done all the same, however long the queue is.
    (0..10).for_each(|_| pool.detach(count(100)));
    release.send(()).unwrap();
    first.join().await;
    pool.run(|| ()).await;
    assert_eq!(ran.load(Ordering::SeqCst), 1000);
}
