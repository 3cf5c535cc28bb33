//! A bar on the terminal while a transfer takes longer than a second.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use zhaul::Progress;

/// Does the work on this thread, which alone is measured, and draws from another. Nothing is drawn
/// where nobody would see it, nor where the bytes themselves go to the same terminal.
pub(super) fn beside<T>(
    progress: &Progress,
    total: Option<u64>,
    sink_is_stdout: bool,
    work: impl FnOnce() -> T,
) -> T {
    let mixes = sink_is_stdout && std::io::stdout().is_terminal();
    if !std::io::stderr().is_terminal() || mixes {
        return work();
    }
    std::thread::scope(|scope| {
        // Dropped when the work is done, however it ends.
        let (_done, is_done) = channel::<()>();
        scope.spawn(move || {
            let began = Instant::now();
            if is_done.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let bar = bar(total);
            while is_done.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let moved = progress.moved();
                bar.set_message(speed(moved, total, began.elapsed().as_secs_f64()));
                bar.set_position(moved);
            }
            bar.finish_and_clear();
        });
        work()
    })
}

fn bar(total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{wide_bar} {binary_bytes}/{binary_total_bytes} {msg}",
        None => "{spinner} {binary_bytes} {msg}",
    };
    let style = ProgressStyle::with_template(template);
    ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The mean since the beginning, of which the bar itself missed the first second.
fn speed(moved: u64, total: Option<u64>, seconds: f64) -> String {
    let per_second = moved as f64 / seconds;
    let speed = format!("{:.1} MB/s", per_second / 1e6);
    match total {
        Some(total) if moved > 0 => {
            let left = total.saturating_sub(moved) as f64 / per_second;
            format!("{speed}, {left:.0} s left")
        }
        _ => speed,
    }
}

/// What is over sooner needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);

const TICK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_the_mean_and_tells_the_time_left_if_the_end_is_known() {
        assert_eq!(speed(10_000_000, None, 2.0), "5.0 MB/s");
        assert_eq!(
            speed(10_000_000, Some(40_000_000), 2.0),
            "5.0 MB/s, 6 s left"
        );
        assert_eq!(speed(0, Some(40), 2.0), "0.0 MB/s");
    }
}
