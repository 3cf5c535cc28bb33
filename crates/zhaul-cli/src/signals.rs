//! Signals become calls on a running server.
//!
//! SIGHUP never means to stop. And what whoever started us had us ignore stays ignored, as for every
//! program: `nohup` does that to SIGHUP, a shell without job control to SIGINT of what it starts in
//! the background.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::anyhow;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::say;

/// What signals ask of a server.
pub(crate) trait Service: Send + Sync + 'static {
    /// SIGTERM, SIGINT: let what is under way finish.
    fn stop(&self);
    /// The second of these: end at once.
    fn stop_now(&self);
    /// SIGUSR1: open the log again.
    fn reopen_log(&self);
    /// SIGHUP: read the configuration again.
    fn reload(&self) {
        tracing::info!("SIGHUP: there is no configuration file to read again");
    }
}

/// How long a server that was told to end at once may take. A thread that waits for a dead file
/// system, or a log that nobody reads, holds it up no longer than that.
const GRACE: Duration = Duration::from_secs(2);

/// Watches for signals on a thread of its own, from when this returns.
pub(crate) fn watch(service: impl Service) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let service = Arc::new(service);
    let reloads = reloader(Arc::clone(&service))?;
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name("zhaul-signals".to_owned())
        .spawn(move || {
            if let Err(e) = runtime.block_on(forward(&*service, &reloads, &ready)) {
                // The receiver is gone only after it has heard that all is well.
                let _ = ready.send(Err(e));
            }
        })?;
    is_ready
        .recv()
        .map_err(|_| anyhow!("cannot watch for signals"))??;
    Ok(())
}

/// Reloads on a thread of its own, when told to: to look names up may take long, and a signal to stop
/// is not to wait for it.
fn reloader(service: Arc<impl Service>) -> std::io::Result<Sender<()>> {
    let (reloads, asked) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name("zhaul-reload".to_owned())
        .spawn(move || {
            while asked.recv().is_ok() {
                // Several that came meanwhile are one.
                asked.try_iter().for_each(drop);
                // One that fails by a defect is not the last.
                let reloading = AssertUnwindSafe(|| service.reload());
                if catch_unwind(reloading).is_err() {
                    tracing::error!("a defect ended a reload");
                }
            }
        })?;
    Ok(reloads)
}

async fn forward(
    service: &impl Service,
    reloads: &Sender<()>,
    ready: &Sender<std::io::Result<()>>,
) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = unless_ignored(SignalKind::interrupt())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    let mut hang_up = unless_ignored(SignalKind::hangup())?;
    let _ = ready.send(Ok(()));
    let mut asked = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            () = received(&mut interrupt) => {}
            _ = reopen.recv() => {
                service.reopen_log();
                continue;
            }
            () = received(&mut hang_up) => {
                // The thread ends only with the process.
                let _ = reloads.send(());
                continue;
            }
        }
        if asked {
            service.stop_now();
            end_soon();
        }
        service.stop();
        asked = true;
    }
}

/// Nothing of ours can be relied on any more: what does not end by itself is ended.
fn end_soon() -> ! {
    std::thread::sleep(GRACE);
    say(format_args!(
        "ended at once, while something was still waited for (a file system that does not answer, \
         or a log that nobody reads)"
    ));
    zhaul_sys::exit::exit_at_once(1)
}

/// Watches for a signal that whoever started us may have had us ignore; then there is nothing to
/// watch for.
fn unless_ignored(kind: SignalKind) -> std::io::Result<Option<Signal>> {
    if zhaul_sys::sigaction::is_ignored(kind.as_raw_value())? {
        return Ok(None);
    }
    signal(kind).map(Some)
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
