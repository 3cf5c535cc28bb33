//! Which mechanisms end the process that tries them.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use zhaul_measure::probe;

/// The ids of the mechanisms that a seccomp filter kills for, each found out by a child that tries
/// it. None where no filter is active, and none that cannot be tried: then it is tried here.
pub(super) fn mechanisms(path: &Path) -> Vec<String> {
    if !probe::is_filtered() {
        return Vec::new();
    }
    let ids = probe::mechanisms().into_iter();
    ids.filter(|id| kills(id, path))
        .map(str::to_owned)
        .collect()
}

fn kills(id: &str, path: &Path) -> bool {
    let Ok(this) = std::env::current_exe() else {
        return false;
    };
    let child = Command::new(this)
        .args(["doctor", "--try-alone", id])
        .arg("--")
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let ended = child.ok().and_then(end_of);
    ended.and_then(|status| status.signal()) == Some(Signal::SYS.as_raw())
}

/// How the child ended; one that does not end in time is killed.
fn end_of(mut child: Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            ended => return ended.ok().flatten(),
        }
    }
    let _ = child.kill();
    None
}

/// A probe gives up sooner.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the child does.
pub(super) fn try_alone(id: &str, path: &Path) {
    // It may be about to be killed, which is no reason for a core file.
    let none = Rlimit {
        current: Some(0),
        maximum: None,
    };
    let _ = setrlimit(Resource::Core, none);
    probe::try_alone(id, path);
}
