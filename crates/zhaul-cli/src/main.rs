//! The `zhaul` command: arguments in, one call into a crate, results out.
//!
//! Errors go to stderr as `zhaul: what failed: why (what to do)`. Exit codes: 0, 1 for a failure,
//! 2 for wrong usage.

mod bench;
mod doctor;
mod explain;
mod proxy;
mod serve;
mod signals;
mod trace;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use signal_hook::consts::SIGXFSZ;
use tracing_appender::non_blocking::WorkerGuard;

/// Move bytes on Linux without copying them.
#[derive(Debug, Parser)]
#[command(
    name = "zhaul",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// What to report on stderr: error, warn, info, debug, or target=level pairs
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        default_value = "warn",
        env = "ZHAUL_LOG"
    )]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the files of a directory over HTTP/1.1
    Serve(Box<serve::Arguments>),
    /// Forward TCP connections without copying what they carry
    Proxy(Box<proxy::Arguments>),
    /// Say what this kernel, these limits and these devices allow
    Doctor(doctor::Arguments),
    /// Show the route from a source to a sink, why it was chosen, and what it should cost
    Explain(explain::Arguments),
    /// Measure every route that this host allows, next to the bare system calls
    Bench(bench::Arguments),
    /// Show what the input and output of any process costs
    Trace(trace::Arguments),
}

fn main() -> ExitCode {
    // A file that may not grow (RLIMIT_FSIZE) then says so by EFBIG, instead of ending the process.
    // A handler and not "ignore", which commands that we start would inherit.
    if let Err(error) = signal_hook::flag::register(SIGXFSZ, Arc::default()) {
        return fail(&error.into(), 1);
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return explain_usage(&error),
    };
    let _reporting = match start_reporting(&arguments.log) {
        Ok(reporting) => reporting,
        Err(error) => return fail(&error, 2),
    };
    let done = match arguments.command {
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Proxy(arguments) => proxy::run(*arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Trace(arguments) => match trace::run(&arguments) {
            // A traced command's own.
            Ok(code) => return code,
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.why, error.exit),
    }
}

/// Why a command ended, and with which exit code.
#[derive(Debug)]
struct Failure {
    why: anyhow::Error,
    exit: u8,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            why: error.into(),
            exit: 1,
        }
    }
}

fn fail(error: &anyhow::Error, exit: u8) -> ExitCode {
    say(format_args!("{error:#}"));
    ExitCode::from(exit)
}

/// Says something to whoever started us. That nobody listens any more is no reason to fail.
fn say(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "zhaul: {what}");
}

/// Help and version go to stdout; what is wrong goes to stderr in the words of all our errors.
fn explain_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader that closed the pipe has seen enough.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    match text.strip_prefix("error: ") {
        Some(wrong) => say(format_args!("{}", wrong.trim_end())),
        // Called without a command: the help itself.
        None => drop(std::io::stderr().write_all(text.as_bytes())),
    }
    ExitCode::from(2)
}

/// Reports go to stderr through a thread of their own, so that a terminal or journal that stalls
/// does not stall the server; what it cannot take is dropped.
fn start_reporting(filter: &str) -> anyhow::Result<WorkerGuard> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).map_err(|e| {
        anyhow::anyhow!("--log {filter:?}: {e} (use error, warn, info, debug or target=level)")
    })?;
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .log_internal_errors(false)
        .init();
    Ok(guard)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Arguments::command().debug_assert();
    }

    /// Help is shown as it is written: nobody renders it as Markdown.
    #[test]
    fn no_help_shows_markup() {
        assert_shows_no_markup(&mut super::Arguments::command());
    }

    fn assert_shows_no_markup(command: &mut clap::Command) {
        let name = command.get_name().to_owned();
        let version = command.render_long_version();
        let short = command.render_help().to_string();
        let long = command.render_long_help().to_string();
        for text in [version, short, long] {
            for line in text.lines() {
                // At its end, a backslash tells the shell that a command goes on.
                let shown = line.strip_suffix('\\').unwrap_or(line);
                let has_markup = shown.contains(['\\', '`']) || shown.contains("](");
                assert!(!has_markup, "{name}: {line}");
            }
        }
        for subcommand in command.get_subcommands_mut() {
            assert_shows_no_markup(subcommand);
        }
    }
}
