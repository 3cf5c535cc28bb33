//! Drives `wrk` and reads its result.
//!
//! wrk speaks to one URL over N keep-alive connections on one thread. Its Lua hook is called once,
//! at the end, and prints one JSON line, so no script runs while it measures.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tempfile::TempDir;

use crate::child::Child;

/// wrk with its script.
#[derive(Debug)]
pub(crate) struct Wrk {
    program: PathBuf,
    core: Option<usize>,
    home: TempDir,
}

/// What one run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) duration_us: u64,
    pub(crate) bytes: u64,
    pub(crate) connect_errors: u64,
    pub(crate) read_errors: u64,
    pub(crate) write_errors: u64,
    pub(crate) status_errors: u64,
    pub(crate) timeouts: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

impl Outcome {
    pub(crate) fn errors(&self) -> u64 {
        self.connect_errors
            + self.read_errors
            + self.write_errors
            + self.status_errors
            + self.timeouts
    }
}

impl Wrk {
    pub(crate) fn new(program: PathBuf, core: Option<usize>) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("zhaul-bench-wrk-")
            .tempdir()?;
        std::fs::write(home.path().join(SCRIPT_NAME), SCRIPT)?;
        Ok(Self {
            program,
            core,
            home,
        })
    }

    /// Requests `url` over `connections` for `seconds`.
    pub(crate) fn run(&self, url: &str, connections: u32, seconds: u32) -> anyhow::Result<Outcome> {
        let output = self.home.path().join("stdout");
        let mut command = self.command(url, connections, seconds);
        command.stdout(std::fs::File::create(&output)?);
        let mut child = Child::spawn(command, self.core)?;
        let status = child.wait(Duration::from_secs(u64::from(seconds)) + GRACE)?;
        let text = std::fs::read_to_string(&output)?;
        if !status.success() {
            bail!("wrk {url} ended with {status}: {}", text.trim());
        }
        let outcome = parse(&text).with_context(|| format!("wrk {url} said: {}", text.trim()))?;
        if outcome.requests == 0 || outcome.status_errors > 0 {
            bail!("wrk {url} got no usable answers: {outcome:?}");
        }
        Ok(outcome)
    }

    fn command(&self, url: &str, connections: u32, seconds: u32) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--threads", "1", "--timeout", "30s"]);
        command.args(["--connections", &connections.to_string()]);
        command.args(["--duration", &format!("{seconds}s")]);
        command
            .arg("--script")
            .arg(Path::new(self.home.path()).join(SCRIPT_NAME))
            .arg(url);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }
}

fn parse(text: &str) -> anyhow::Result<Outcome> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(MARK))
        .context("no result line")?;
    serde_json::from_str(line).context("result line is not as the script writes it")
}

const SCRIPT_NAME: &str = "report.lua";
const MARK: &str = "zhaul-bench ";
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'zhaul-bench {"requests":%d,"duration_us":%d,"bytes":%d,"connect_errors":%d,' ..
    '"read_errors":%d,"write_errors":%d,"status_errors":%d,"timeouts":%d,' ..
    '"p50_us":%d,"p99_us":%d,"max_us":%d}\n',
    summary.requests, summary.duration, summary.bytes, e.connect, e.read, e.write, e.status,
    e.timeout, latency:percentile(50), latency:percentile(99), latency.max))
end
"#;
const GRACE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"zhaul-bench {"requests":31,"duration_us":2000000,"bytes":9,"connect_errors":1,"read_errors":2,"write_errors":3,"status_errors":4,"timeouts":5,"p50_us":6,"p99_us":7,"max_us":8}"#;

    #[test]
    fn result_is_found_among_what_wrk_prints_itself() {
        let text = format!("Running 2s test @ http://127.0.0.1/\n  1 threads\n{LINE}\nother\n");
        let outcome = parse(&text).unwrap();
        assert_eq!(
            (outcome.requests, outcome.p50_us, outcome.p99_us),
            (31, 6, 7)
        );
        assert_eq!(outcome.errors(), 15);
    }

    #[test]
    fn missing_or_changed_result_is_an_error() {
        assert!(parse("Running 2s test\n").is_err());
        assert!(parse(&LINE.replace("\"p99_us\":7,", "")).is_err());
    }

    #[test]
    fn script_writes_every_field_that_is_read() {
        let fields = LINE.split('"').skip(1).step_by(2).collect::<Vec<_>>();
        assert_eq!(fields.len(), 11);
        for field in fields {
            assert!(SCRIPT.contains(&format!("\"{field}\":%d")), "{field}");
        }
    }
}
