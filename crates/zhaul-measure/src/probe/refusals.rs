//! Routes that this host refuses, for the planner.

use rustix::io::Errno;
use zhaul::Route;

use super::context::Context;
use super::trouble::Trouble;
use super::{copy_file_range, mmap, sendfile, splice};

type Try = fn(&Context) -> Result<(), Trouble>;

/// The routes whose system calls this host refuses altogether (a seccomp filter, an old kernel),
/// found by moving 16 KiB over each. It takes about a millisecond; whoever plans many transfers does
/// it once, and tells the planner by `HostFacts::without`. A route that could not be tried is not
/// among them.
pub fn host_refusals() -> Vec<Route> {
    let tries: [(Route, Try); 4] = [
        (Route::MmapWrite, |context| {
            mmap::to_socket(context).map(drop)
        }),
        (Route::Sendfile, |context| {
            sendfile::to_socket(context).map(drop)
        }),
        (Route::Splice, |context| {
            splice::to_socket(context).map(drop)
        }),
        (Route::CopyFileRange, |_| copy_file_range::in_memory()),
    ];
    let context = Context::look();
    let refused = tries
        .iter()
        .filter(|(_, try_it)| is_refused(&try_it(&context)));
    refused.map(|&(route, _)| route).collect()
}

/// Not permitted, or not there. Everything else depends on the files.
fn is_refused(tried: &Result<(), Trouble>) -> bool {
    matches!(
        tried,
        Err(Trouble::Call(_, Errno::NOSYS | Errno::PERM | Errno::ACCESS))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_refused_where_nothing_is_filtered() {
        if Context::look().is_filtered() {
            zhaul_untested::skip(
                "nothing_is_refused_where_nothing_is_filtered",
                "a filter is active",
            );
            return;
        }
        assert_eq!(host_refusals(), []);
    }

    #[test]
    fn what_could_not_be_tried_is_not_refused() {
        assert!(is_refused(&Err(Trouble::Call("sendfile", Errno::NOSYS))));
        assert!(!is_refused(&Err(Trouble::Call("sendfile", Errno::INVAL))));
        assert!(!is_refused(&Err(Trouble::Needs(
            "memfd_create",
            Errno::MFILE
        ))));
        assert!(!is_refused(&Ok(())));
    }
}
