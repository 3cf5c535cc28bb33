//! Signals become calls on a running server.

use anyhow::anyhow;

/// What signals ask of a server.
pub(crate) trait Service: Send + 'static {
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
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name("zhaul-signals".to_owned())
        .spawn(move || {
            if let Err(e) = runtime.block_on(forward(&service, &ready)) {
                // The receiver is gone only after it has heard that all is well.
                let _ = ready.send(Err(e));
            }
        })?;
    is_ready
        .recv()
        .map_err(|_| anyhow!("cannot watch for signals"))??;
    Ok(())
}

async fn forward(
    service: &impl Service,
    ready: &std::sync::mpsc::Sender<std::io::Result<()>>,
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
                service.reload();
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
