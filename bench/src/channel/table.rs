//! Samples as Markdown: medians over rounds, and medians of the ratios within a round.

use std::fmt::Write as _;

use super::ways::Way;
use super::{SIZES, Sample};

pub(super) fn markdown(samples: &[Sample]) -> String {
    let mut text = String::new();
    for cores in [1, 2] {
        for bytes in SIZES {
            let heading = match cores {
                1 => "both on one core",
                _ => "a core each",
            };
            let _ = writeln!(text, "{} KiB, {heading}:\n", bytes >> 10);
            let _ = writeln!(
                text,
                "| way | p50 µs | p99 µs | CPU µs/message | p50 : eventfd |"
            );
            let _ = writeln!(text, "|---|---|---|---|---|");
            let of = |way: Way| {
                let runs = samples.iter().filter(move |sample| {
                    sample.way == way && sample.bytes == bytes && sample.cores == cores
                });
                runs.collect::<Vec<_>>()
            };
            let floor = of(Way::Eventfd);
            for &way in Way::available() {
                let runs = of(way);
                let median =
                    |figure: fn(&Sample) -> f64| median(runs.iter().map(|run| figure(run)));
                let ratio = self::median(floor.iter().zip(&runs).map(|(a, b)| b.p50_us / a.p50_us));
                let _ = writeln!(
                    text,
                    "| {} | {:.2} | {:.2} | {:.2} | {ratio:.2} |",
                    way.name(),
                    median(|run| run.p50_us),
                    median(|run| run.p99_us),
                    median(|run| run.cpu_us),
                );
            }
            text.push('\n');
        }
    }
    text
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let sample = |way, round, p50_us| Sample {
            way,
            bytes: SIZES[0],
            cores: 1,
            round,
            p50_us,
            p99_us: 0.0,
            cpu_us: 0.0,
        };
        let samples = [
            sample(Way::Eventfd, 0, 1.0),
            sample(Way::Zhaul, 0, 2.0),
            sample(Way::Eventfd, 1, 10.0),
            sample(Way::Zhaul, 1, 20.0),
        ];
        let text = markdown(&samples);
        let row = text.lines().find(|line| line.starts_with("| zhaul |"));
        assert!(row.is_some_and(|row| row.ends_with("| 2.00 |")), "{text}");
    }
}
