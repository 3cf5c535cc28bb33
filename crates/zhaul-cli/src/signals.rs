//! Signals become calls on a running server.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use anyhow::anyhow;

/// What signals ask of a server.
pub(crate) trait Service: Send + Sync + 'static {
    /// SIGTERM, SIGINT: let what is under way finish.
    fn stop(&self);
    /// The second of these: end at once.
    fn stop_now(&self);
    /// SIGUSR1: open the log again.
    fn reopen_log(&self);
    /// SIGHUP: read the configuration again. A server without one ends, as by SIGTERM.
    fn reload(&self) {
        self.stop();
    }
}

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
                service.reload();
            }
        })?;
    Ok(reloads)
}

async fn forward(
    service: &impl Service,
    reloads: &Sender<()>,
    ready: &Sender<std::io::Result<()>>,
) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let _ = ready.send(Ok(()));
    let mut asked = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = reopen.recv() => {
                service.reopen_log();
                continue;
            }
            _ = hang_up.recv() => {
                // The thread ends only with the process.
                let _ = reloads.send(());
                continue;
            }
        }
        if asked {
            service.stop_now();
        } else {
            service.stop();
        }
        asked = true;
    }
}
