//! `_exit(2)`: the end of the process, whatever its threads are doing.

/// Ends the process without running destructors or exit handlers, which may wait for a thread that
/// waits for a dead file system. What is buffered in user space is lost.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: it takes a number and does not return; no memory of ours is used afterwards.
    unsafe { libc::_exit(code) }
}
