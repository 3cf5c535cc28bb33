//! Runs a trace: from attaching to the report.

use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rustix::process::{Pid, Resource, Signal};
use zhaul_measure::perf::Error;
use zhaul_measure::trace::{family, name_of, process_of};

use super::Arguments;
use super::output::Output;
use super::signals::{Came, Signals};
use super::watch::Watch;
use crate::{Failure, say};

/// `zhaul trace -p PID`.
pub(super) fn processes(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut pids = Vec::new();
    for &asked in &arguments.pid {
        let pid = process_of(asked).ok_or_else(|| no_process(asked))?;
        if pid == std::process::id() {
            return Err(anyhow!("cannot trace process {asked}: it is this one").into());
        }
        for member in family(pid) {
            if !pids.contains(&member) && member != std::process::id() {
                pids.push(member);
            }
        }
    }
    let name = name_of(pids[0]).unwrap_or_default();
    let what = format!("{name} (process {})", pids[0]);
    // Each event takes a descriptor for each thread and CPU.
    raise_descriptor_limit();
    let mut signals = Signals::watch().context("watching for signals")?;
    let watch = Watch::attach(arguments, &pids).map_err(|error| match error {
        Error::NoProcess(_) => no_process(pids[0]),
        error => explain(&format!("cannot trace process {}", pids[0]), &error),
    })?;
    let until = match arguments.seconds {
        Some(seconds) => format!("for {} s", seconds.as_secs_f64()),
        None => "until Ctrl-C or its end".to_owned(),
    };
    say(format_args!("tracing {what} {until}"));
    let mut run = Run::new(arguments, watch, what, false);
    while run.step()? == Step::Goes {
        if signals.came() != Came::default() {
            break;
        }
    }
    run.report()?;
    Ok(ExitCode::SUCCESS)
}

/// `zhaul trace -- COMMAND`.
pub(super) fn command(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let [program, rest @ ..] = arguments.command.as_slice() else {
        return Err(anyhow!("no command is given").into());
    };
    let shown = program.to_string_lossy().into_owned();
    let mut signals = Signals::watch().context("watching for signals")?;
    let mut command = Command::new(program);
    command.args(rest);
    let started = Watch::spawn(arguments, command);
    let (watch, child) = match started {
        Ok(started) => started,
        Err(error) => return Err(not_started(&shown, &error)),
    };
    let mut child = Started(child);
    let mut run = Run::new(arguments, watch, shown, true);
    let mut interrupts = 0;
    while run.step()? == Step::Goes {
        let came = signals.came();
        child.forward(came);
        // The terminal sends Ctrl-C to the command as well. If it does not end of it, the second
        // one ends the trace and leaves the command alone.
        interrupts += came.interrupts;
        if interrupts > 1 {
            break;
        }
    }
    run.report()?;
    loop {
        if let Some(status) = child.0.try_wait().context("waiting for the command")? {
            return Ok(exit_code(status));
        }
        if interrupts > 1 {
            return Ok(ExitCode::from(128 + 2));
        }
        // A command that goes on untraced (--seconds).
        std::thread::sleep(Duration::from_millis(20));
        let came = signals.came();
        child.forward(came);
        interrupts += came.interrupts;
    }
}

/// A command that was started and is not ours to end.
struct Started(Child);

impl Started {
    /// A SIGTERM that was meant for us is meant for the command.
    fn forward(&self, came: Came) {
        let pid = Pid::from_raw(self.0.id().cast_signed());
        if let (Some(pid), 1..) = (pid, came.terminations) {
            // Not reaped yet, so the number is still its own.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let signalled = || status.signal().map(|signal| 128 + signal);
    let code = status.code().or_else(signalled).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The codes of `env(1)` and its like for a command that is not there or cannot be run.
fn not_started(program: &str, error: &Error) -> Failure {
    if let Error::Io { source, .. } = error
        && let std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied = source.kind()
    {
        let not_found = source.kind() == std::io::ErrorKind::NotFound;
        return Failure {
            why: anyhow!("cannot run {program}: {source}"),
            exit: if not_found { 127 } else { 126 },
        };
    }
    explain(&format!("cannot trace {program}"), error)
}

fn no_process(pid: u32) -> Failure {
    anyhow!("cannot trace process {pid}: there is none (see ps -e)").into()
}

fn explain(what: &str, error: &Error) -> Failure {
    anyhow!("{what}: {}", error.with_remedy()).into()
}

/// Up to the hard limit. Only for traces of processes that are there: a command would inherit it.
fn raise_descriptor_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What cannot be raised suffices for most.
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Goes,
    Over,
}

/// A trace in progress.
struct Run<'a> {
    arguments: &'a Arguments,
    watch: Watch,
    what: String,
    output: Output,
    until: Option<Instant>,
    next_line: Option<Instant>,
    /// Nobody reads the output any more.
    unread: bool,
}

impl<'a> Run<'a> {
    fn new(arguments: &'a Arguments, watch: Watch, what: String, of_command: bool) -> Self {
        let now = Instant::now();
        Self {
            arguments,
            watch,
            what,
            output: Output::new(arguments.output.as_deref(), of_command),
            until: arguments.seconds.map(|seconds| now + seconds),
            next_line: arguments.interval().map(|interval| now + interval),
            unread: false,
        }
    }

    /// Waits a little, and prints what is due.
    fn step(&mut self) -> Result<Step, Failure> {
        let now = Instant::now();
        let due = [self.until, self.next_line].into_iter().flatten().min();
        let wait = due.map_or(ROUND, |due| due.saturating_duration_since(now).min(ROUND));
        let goes = self.watch.step(wait)?;
        let now = Instant::now();
        if let (Some(due), Some(interval)) = (self.next_line, self.arguments.interval())
            && now >= due
            && goes
        {
            // Not from now on: lines keep their pace.
            self.next_line = Some(due + interval)
                .filter(|next| *next > now)
                .or(Some(now + interval));
            self.print_line()?;
        }
        let over = !goes || self.unread || self.until.is_some_and(|until| now >= until);
        Ok(if over { Step::Over } else { Step::Goes })
    }

    fn print_line(&mut self) -> Result<(), Failure> {
        let text = self.watch.line(self.arguments.json)?;
        self.unread = !self.output.print(&text)?;
        Ok(())
    }

    fn report(self) -> Result<(), Failure> {
        let Self {
            arguments,
            watch,
            what,
            mut output,
            unread,
            ..
        } = self;
        let text = watch.report(&what, arguments.json)?;
        if unread {
            return Ok(());
        }
        output.print(&text)?;
        Ok(output.finish()?)
    }
}

/// How late a signal or a line of figures may be.
const ROUND: Duration = Duration::from_millis(25);
