//! The progress bar, and Ctrl-C.

use std::io;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use zhaul_measure::bench::Observer;

/// Set by the first signal to end; a second one ends the process. Nothing is left behind even so:
/// the files of a run have no names.
#[derive(Clone, Debug)]
pub(super) struct Interrupt {
    set: Arc<AtomicBool>,
    /// The next signal ends the process.
    deadly: Arc<AtomicBool>,
}

impl Interrupt {
    pub(super) fn watch() -> io::Result<Self> {
        let (set, deadly) = (Arc::default(), Arc::default());
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal finds it unset.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&deadly))?;
            signal_hook::flag::register(signal, Arc::clone(&deadly))?;
            signal_hook::flag::register(signal, Arc::clone(&set))?;
        }
        Ok(Self { set, deadly })
    }

    pub(super) fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }

    /// The results are being written: whoever has been patient once more gets them whole.
    pub(super) fn spare(&self) {
        self.deadly.store(false, Ordering::Relaxed);
    }
}

/// On a terminal a bar with the time that is left; elsewhere nothing.
pub(super) struct Progress {
    interrupt: Interrupt,
    bar: Option<ProgressBar>,
    began: Instant,
    drawn: Option<Instant>,
    /// How far it was said to be: estimates change, and a bar does not go back.
    part: f64,
}

impl Progress {
    pub(super) fn new(interrupt: &Interrupt) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(10);
            let bar = ProgressBar::with_draw_target(Some(STEPS), target);
            let style = ProgressStyle::with_template("{bar:20} {prefix}  {wide_msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self {
            interrupt: interrupt.clone(),
            bar,
            began: Instant::now(),
            drawn: None,
            part: 0.0,
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Progress {
    fn advanced(&mut self, done: f64, total: f64, what: &str) {
        let Some(bar) = &self.bar else { return };
        // Drawing takes time from the core that the receiver uses next.
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < BETWEEN) {
            return;
        }
        self.drawn = Some(Instant::now());
        self.part = (done / total.max(f64::MIN_POSITIVE)).clamp(self.part, 1.0);
        bar.set_position((self.part * STEPS as f64) as u64);
        bar.set_prefix(left(self.began.elapsed(), self.part));
        bar.set_message(what.to_owned());
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt.is_set()
    }
}

/// What is left at the pace so far.
fn left(elapsed: Duration, part: f64) -> String {
    if part < 0.01 {
        return "      ".to_owned();
    }
    let seconds = elapsed.as_secs_f64() * (1.0 - part) / part;
    // A run takes minutes, so it fits.
    let seconds = seconds.ceil() as u64;
    format!("-{}:{:02}", seconds / 60, seconds % 60)
}

const STEPS: u64 = 1000;
const BETWEEN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_shown_in_minutes_and_seconds() {
        assert_eq!(left(Duration::from_secs(60), 0.5), "-1:00");
        assert_eq!(left(Duration::from_secs(10), 0.1), "-1:30");
        assert_eq!(left(Duration::from_secs(10), 1.0), "-0:00");
        assert_eq!(left(Duration::from_secs(10), 0.0).trim(), "");
    }
}
