//! An ordinary user's pipe pages. A program of its own, because the kernel counts them per user.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use zhaul::PipePool;
use zhaul::pipe_pool::PipeDenied;

#[test]
fn a_pipe_too_small_to_be_worth_it_is_refused_and_not_used() {
    if rustix::process::geteuid().is_root() {
        zhaul_untested::skip_this("the kernel does not limit root's pipe pages");
        return;
    }
    let soft = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").unwrap();
    let soft: usize = soft.trim().parse().unwrap();
    let pool = PipePool::new(usize::MAX, 256 << 10);
    let mut held = Vec::new();
    let denied = loop {
        match pool.take() {
            Ok(pipe) => {
                assert!(
                    pipe.nominal_bytes() >= 64 << 10,
                    "after {} pipes",
                    held.len()
                );
                held.push(pipe);
            }
            Err(denied) => break denied,
        }
        assert!(held.len() <= soft, "the limit is reached");
    };
    assert_eq!(denied, PipeDenied::UserPages);
    assert_eq!(pool.alive(), held.len(), "the small pipe was closed");
    held.truncate(held.len() / 2);
    assert!(
        pool.take().is_ok(),
        "pages that were given back can be had again"
    );
}
