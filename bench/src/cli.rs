//! Command-line arguments. Contract: every duration, count and size that bounds a run is here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "zhaul-bench",
    about = "zhaul serve, nginx and the floor side by side",
    after_help = "Example: zhaul-bench serve --rounds 5 --check --json serve.json"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// CPU per request and per GB, requests/s, latency, peak memory
    Serve(Options),
    /// Hot latency while other clients read files, or look up paths, that are not cached (root)
    Cold(Options),
    /// Memory of idle connections, of a 4 GiB file, of a request with many ranges
    Idle(Options),
    /// zhaul proxy, HAProxy, nginx stream and two bare relay loops
    Proxy(Options),
    /// Copying, fork(2), userfaultfd(2) and CowRegion: writing on while a snapshot lives
    Cow(crate::cow::Options),
    /// A message to another process and back: pipe, UNIX socket, channels of shared buffers
    Channel(crate::channel::Options),
    /// The other process of `channel`
    #[command(hide = true)]
    ChannelPeer(crate::channel::PeerArgs),
    /// Receiving by copying, as mapped pages, and into a pool
    Receive(crate::receive::Options),
    /// serve, cold and idle, in one report
    All(Options),
    /// One of the bare loops that everything is compared with
    #[command(subcommand)]
    Floor(Floor),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Floor {
    /// epoll, recv, one send of a prepared answer with the bytes of FILE
    Canned(FloorArgs),
    /// epoll, recv, send of the header with MSG_MORE, sendfile of FILE
    Sendfile(FloorArgs),
    /// epoll, recv and send between each connection and one of its own to a backend
    #[command(name = "floor-copy")]
    Copy(RelayArgs),
    /// The same with splice through a pipe of 1 MiB for each direction
    #[command(name = "floor-splice")]
    Splice(RelayArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// Address to listen on
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Address of the backend
    #[arg(long)]
    pub(crate) to: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// Address to listen on
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// The file that answers every request
    pub(crate) file: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The zhaul binary
    #[arg(long, value_name = "FILE", default_value = "target/release/zhaul")]
    pub(crate) zhaul: PathBuf,
    /// One more argument for `zhaul serve` or `zhaul proxy`, may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) zhaul_arg: Vec<String>,
    /// Rounds; in each round every server runs once, in another order
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// Length of a single keep-alive run
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: Option<u32>,
    /// Length of a single cold run
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(2..=600))]
    pub(crate) cold_seconds: Option<u32>,
    /// Idle connections
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=11_000))]
    pub(crate) idle_connections: Option<u32>,
    /// Two rounds of short runs: shows that everything works, proves nothing
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only cases whose name contains TEXT, such as "16 KiB" or "new"
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    /// Only these servers: canned, sendfile, nginx-cached, nginx, nginx-aio, zhaul; for `proxy`
    /// floor-splice, floor-copy, haproxy, haproxy-copy, nginx-stream, zhaul
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) servers: Vec<String>,
    /// Where the files to serve are created (for `cold`: on a block device)
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub(crate) dir: PathBuf,
    /// Write the report with every raw sample as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the tables as Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Print PASS or FAIL for each target (the exit status does not depend on it)
    #[arg(long)]
    pub(crate) check: bool,
}

/// [`Options`] with every default decided.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Settings {
    pub(crate) quick: bool,
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    /// Connections opened and closed in one run of the new-connection case.
    pub(crate) new_connections: u32,
    /// Rounds of the 256 MiB cases: short, and twice as noisy as the others.
    pub(crate) bulk_rounds: u32,
    /// Bytes moved in one run of them.
    pub(crate) bulk_bytes: u64,
    pub(crate) cold_rounds: u32,
    pub(crate) cold_seconds: u32,
    /// Length of the run that measures the hot client with nothing cold beside it.
    pub(crate) alone_seconds: u32,
    pub(crate) idle_rounds: u32,
    pub(crate) idle_connections: u32,
    /// Size of the sparse file whose transfer must not need memory.
    pub(crate) sparse_bytes: u64,
}

impl Settings {
    pub(crate) fn new(options: &Options) -> Self {
        let quick = options.quick;
        let pick =
            |given: Option<u32>, brief, full| given.unwrap_or(if quick { brief } else { full });
        Self {
            quick,
            rounds: pick(options.rounds, 2, 5),
            seconds: pick(options.seconds, 1, 2),
            new_connections: if quick { 2_000 } else { 20_000 },
            bulk_rounds: 3 * pick(options.rounds, 1, 5),
            bulk_bytes: if quick { 1 << 30 } else { 4 << 30 },
            cold_rounds: pick(options.rounds, 1, 3),
            cold_seconds: pick(options.cold_seconds, 4, 10),
            alone_seconds: if quick { 1 } else { 3 },
            idle_rounds: pick(options.rounds, 1, 3),
            idle_connections: pick(options.idle_connections, 1_000, 10_000),
            sparse_bytes: if quick { 1 << 30 } else { 4 << 30 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_given_figure_beats_quick() {
        let cli = Cli::parse_from(["zhaul-bench", "serve", "--quick", "--rounds", "7"]);
        let Command::Serve(options) = cli.command else {
            panic!("serve was asked for")
        };
        let settings = Settings::new(&options);
        assert_eq!((settings.rounds, settings.seconds), (7, 1));
    }
}
