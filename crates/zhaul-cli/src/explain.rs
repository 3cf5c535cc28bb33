//! `zhaul explain`: from the command line to an explanation, and with `--run` to what it cost.

mod bar;
mod interrupt;
mod output;

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use anyhow::anyhow;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, ValueHint};
use zhaul::{CancelToken, Progress, Route, Stability};
use zhaul_measure::explain::{
    Consent, Endpoint, Explanation, Prepared, Ran, Role, Sink, Source, Wishes, parse_bytes,
};

use crate::Failure;

const EXAMPLES: &str = "\
An end is
  PATH               a file, FIFO, block device or character device (./- for a file called -)
  -                  standard input or output; the report then goes to standard error
  tcp:HOST:PORT      a peer to connect to; an IPv6 address stands in brackets
  unix:PATH          a UNIX stream socket to connect to; unix:@NAME for an abstract one
  null               a sink that keeps nothing

Examples:
  zhaul explain video.mp4 tcp:192.0.2.7:9000        # what would be done, and what it should cost
  zhaul explain video.mp4 tcp:192.0.2.7:9000 --stability immutable
  zhaul explain a.img b.img --stability immutable --run      # do it, and what it did cost
  zhaul explain /dev/zero null --length 1G --route splice --run --json
  producer | zhaul explain - unix:/run/consumer.sock --run";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Where the bytes come from
    #[arg(value_name = "SOURCE", value_hint = ValueHint::FilePath)]
    source: OsString,

    /// Where they go
    #[arg(value_name = "SINK", value_hint = ValueHint::FilePath)]
    sink: OsString,

    /// Make the transfer, and print what it cost beside what it should
    #[arg(long)]
    run: bool,

    /// Who else may write to the source: immutable (nobody edits it in place), may-change, or
    /// leased (whoever wants to write waits)
    #[arg(long, value_name = "PROMISE", default_value = "may-change", value_parser = stability())]
    stability: Stability,

    /// Take this route or none: read+write, mmap+write, sendfile, splice or copy_file_range
    #[arg(long, value_name = "ROUTE", value_parser = route())]
    route: Option<Route>,

    /// Bytes to move, such as 4096, 64K, 1M or 2G; without it, all of them
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    length: Option<u64>,

    /// Where in the source to start
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    offset: Option<u64>,

    /// Largest amount asked of one system call
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = chunk)]
    chunk: usize,

    /// Print JSON instead of a tree
    #[arg(long)]
    json: bool,

    /// Replace what is in the sink, if it is a file that exists or a block device
    #[arg(long, requires = "run")]
    overwrite: bool,

    /// Seconds to wait for a peer to answer, or for the other side of a FIFO
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    wait: Duration,

    /// Attach no instruments: times are undisturbed, but calls and copies are not counted
    #[arg(long, requires = "run")]
    plain: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { source, sink, .. } = arguments;
    let source = end(&source, Role::Source)?;
    let sink = end(&sink, Role::Sink)?;
    let wishes = Wishes {
        stability: arguments.stability,
        route: arguments.route,
        offset: arguments.offset,
        length: arguments.length,
        chunk_bytes: arguments.chunk,
    };
    let explained = if arguments.run {
        let consent = Consent {
            overwrite: arguments.overwrite,
            patience: arguments.wait,
        };
        let prepared = Prepared::open(&source, &sink, &wishes, consent)?;
        transfer(prepared, sink == Endpoint::Standard, !arguments.plain)?
    } else {
        Ran {
            explanation: Explanation::of(&Source::look(&source)?, &Sink::look(&sink)?, &wishes)?,
            stopped: None,
        }
    };
    // Where the bytes go to standard output, words would be among them.
    let to = if sink == Endpoint::Standard {
        output::To::Stderr
    } else {
        output::To::Stdout
    };
    output::print(&explained.explanation, arguments.json, to)?;
    match explained.stopped {
        Some(stopped) => Err(stopped.into()),
        None => Ok(()),
    }
}

/// The run, which Ctrl-C cancels, with a bar if it takes long.
fn transfer(prepared: Prepared, to_stdout: bool, instruments: bool) -> Result<Ran, Failure> {
    let cancel = CancelToken::new();
    interrupt::cancels(&cancel)?;
    let progress = Progress::new();
    let total = prepared.explanation().expected.bytes;
    Ok(bar::beside(&progress, total, to_stdout, || {
        prepared.run(instruments, &cancel, &progress)
    }))
}

/// What is wrong with a name is wrong usage.
fn end(text: &OsStr, role: Role) -> Result<Endpoint, Failure> {
    Endpoint::parse(text, role).map_err(|wrong| {
        let which = match role {
            Role::Source => "source",
            Role::Sink => "sink",
        };
        Failure {
            why: anyhow!("{which}: {wrong}"),
            exit: 2,
        }
    })
}

fn route() -> impl clap::builder::TypedValueParser<Value = Route> {
    PossibleValuesParser::new(Route::BY_COST.map(Route::name)).map(|name| {
        let named = Route::BY_COST
            .into_iter()
            .find(|route| route.name() == name);
        named.expect("only names of routes get here")
    })
}

fn stability() -> impl clap::builder::TypedValueParser<Value = Stability> {
    PossibleValuesParser::new(["immutable", "may-change", "leased"]).map(|name| {
        match name.as_str() {
            "immutable" => Stability::Immutable,
            "leased" => Stability::Leased,
            _ => Stability::MayChange,
        }
    })
}

fn chunk(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text).map_err(|wrong| wrong.to_string())?;
    match usize::try_from(bytes) {
        Ok(bytes) if (1..=MAX_CHUNK_BYTES).contains(&bytes) => Ok(bytes),
        _ => Err("a chunk has from 1 byte to 1 GiB".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "not a number of seconds (write 10 or 0.5)".to_owned();
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// What splice takes in one call; others take a little more.
const MAX_CHUNK_BYTES: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_seconds_have_bounds() {
        assert_eq!(chunk("64K"), Ok(65536));
        assert_eq!(chunk("1G"), Ok(1 << 30));
        assert!(chunk("0").is_err() && chunk("2G").is_err() && chunk("x").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("-1").is_err() && seconds("NaN").is_err() && seconds("soon").is_err());
    }
}
