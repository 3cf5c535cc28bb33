//! `zhaul serve`: from the command line to a running [`zhaul_http::Server`].

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueHint};
use zhaul_http::mime::parse_override;
use zhaul_http::{
    AccessLog, Charset, Config, Handle, Limits, ListenAddr, LogFormat, Server, Stability, Symlinks,
};

use crate::{Failure, say, signals};

const EXAMPLES: &str = "\
Examples:
  zhaul serve                                   # ./ on http://127.0.0.1:8080/
  zhaul serve /srv/www --listen :80 --access-log /var/log/zhaul/access.log
  zhaul serve dist --spa index.html --cache-control '/assets/**=public, max-age=31536000, immutable'

Signals:
  SIGTERM, SIGINT   stop accepting, let answers in progress finish (a second one ends at once)
  SIGHUP            nothing: it never means to stop
  SIGUSR1           open the access log again, after a rotation";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The directory to serve
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    root: PathBuf,

    #[arg(
        help = "Where to listen: host:port, [v6]:port, :port (every interface), unix:/path or \
                unix:@name, as in unix:/run/z.sock,mode=660,owner=USER:GROUP; repeatable",
        short,
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8080"
    )]
    listen: Vec<ListenAddr>,

    /// Worker threads; 0 means one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,

    /// What is promised about files that change while they are sent: immutable (they are replaced
    /// by rename), lease (an editor waits) or copy
    #[arg(long, value_name = "MODE", default_value = "immutable")]
    stability: Stability,

    #[command(flatten)]
    content: Content,

    #[command(flatten)]
    bounds: Bounds,

    /// Log requests to this file, or to standard output with -
    #[arg(long, value_name = "FILE", help_heading = "Logging", value_hint = ValueHint::FilePath)]
    access_log: Option<PathBuf>,

    /// How requests are logged: combined or json
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "combined",
        help_heading = "Logging"
    )]
    log_format: LogFormat,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Content")]
struct Content {
    /// A name to try when a directory is asked for; repeatable, first match wins
    #[arg(long, value_name = "NAME", default_value = "index.html")]
    index: Vec<String>,

    /// Answer 404 for directories without an index file instead of listing them
    #[arg(long)]
    no_listing: bool,

    /// Answer paths that do not exist with this file of DIR and status 200 (single-page apps)
    #[arg(long, value_name = "FILE")]
    spa: Option<String>,

    /// Send this file of DIR as the body of an error, such as 404=errors/404.html; repeatable
    #[arg(long, value_name = "STATUS=FILE", value_parser = pair::<u16, String>)]
    error_page: Vec<(u16, String)>,

    /// Do not look for .br, .zst and .gz files beside the one asked for
    #[arg(long)]
    no_precompressed: bool,

    /// Content-Type of an extension, such as log=text/plain; repeatable
    #[arg(long, value_name = "EXT=TYPE", value_parser = parse_override)]
    mime: Vec<(String, String)>,

    /// The charset that text is declared as: detect (utf-8 where the bytes tell), none, or a name
    /// such as utf-8 for all of it
    #[arg(long, value_name = "CHARSET", default_value = "detect")]
    charset: Charset,

    /// Cache-Control of the paths that match a glob; repeatable, first match wins
    #[arg(long, value_name = "GLOB=VALUE", value_parser = pair::<String, String>)]
    cache_control: Vec<(String, String)>,

    /// A header field for each answer, such as 'X-Frame-Options: DENY'; repeatable
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,

    /// An origin that may read answers across origins, or *; repeatable
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,

    /// A request header that pages of these origins may send, or * for any; repeatable
    #[arg(long, value_name = "NAME", requires = "cors")]
    cors_header: Vec<String>,

    /// How far symbolic links are followed: never, inside (DIR) or anywhere
    #[arg(long, value_name = "POLICY", default_value = "inside")]
    symlinks: Symlinks,

    /// How long what is known of a file on a network or FUSE file system is taken to hold, such as
    /// 500ms or 10s; files of other kinds are looked at for each answer
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    remote_freshness: Duration,

    /// Serve names that begin with a dot, too
    #[arg(long)]
    dot_files: bool,

    /// Bytes of small files (up to 64 KiB each) that are kept in memory
    #[arg(long, value_name = "BYTES", default_value_t = Config::default().cache_bytes)]
    cache_bytes: usize,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
struct Bounds {
    /// Connections open at once; 0 derives it from the limit on open files
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_connections: usize,

    /// Connections open at once from one address; 0 means no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_connections_per_address: usize,

    /// Requests on one connection; 0 means no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_requests_per_connection: u64,

    /// Bytes of a request line with its header fields
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().header_bytes)]
    max_header_bytes: usize,

    /// Header fields in a request
    #[arg(long, value_name = "N", default_value_t = Limits::default().header_count)]
    max_headers: usize,

    /// Seconds in which a request's header must be complete
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().header_timeout.as_secs())]
    header_timeout: u64,

    /// Seconds that a connection may rest between requests
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().idle_timeout.as_secs())]
    idle_timeout: u64,

    /// Bytes a second that a client must take on average over each window; 0 switches it off
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().min_send_rate)]
    min_send_rate: u64,

    /// Seconds over which the minimum rate is averaged: no client that pauses for less is cut off
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().send_window.as_secs())]
    send_window: u64,

    /// Bytes a second sent on one connection; 0 means no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    rate: u64,

    /// Seconds that a file system has for a look-up, a directory or a read before the answer is 503 or
    /// cut short; 0 means no limit
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().storage_timeout.as_secs())]
    storage_timeout: u64,

    /// Seconds that answers in progress have to finish after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().drain_timeout.as_secs())]
    drain_timeout: u64,
}

impl Arguments {
    fn into_config(self) -> Config {
        let stdout = std::path::Path::new("-");
        let access_log = self.access_log.map(|path| AccessLog {
            path: (path != stdout).then_some(path),
            format: self.log_format,
        });
        let Content {
            index,
            no_listing,
            spa,
            error_page,
            no_precompressed,
            ..
        } = self.content;
        let Content {
            mime,
            charset,
            cache_control,
            header,
            cors,
            cors_header,
            symlinks,
            remote_freshness,
            dot_files,
            cache_bytes,
            ..
        } = self.content;
        Config {
            root: self.root,
            listen: self.listen,
            workers: self.workers,
            stability: self.stability,
            index,
            listing: !no_listing,
            spa,
            error_pages: error_page.into_iter().collect(),
            precompressed: !no_precompressed,
            mime,
            charset,
            cache_control,
            headers: header,
            cors,
            cors_headers: cors_header,
            symlinks,
            dot_files,
            cache_bytes,
            remote_freshness,
            limits: self.bounds.into_limits(),
            access_log,
        }
    }
}

impl Bounds {
    fn into_limits(self) -> Limits {
        Limits {
            header_bytes: self.max_header_bytes,
            header_count: self.max_headers,
            header_timeout: Duration::from_secs(self.header_timeout),
            idle_timeout: Duration::from_secs(self.idle_timeout),
            min_send_rate: self.min_send_rate,
            send_window: Duration::from_secs(self.send_window),
            connections: self.max_connections,
            connections_per_address: self.max_connections_per_address,
            requests_per_connection: self.max_requests_per_connection,
            rate: self.rate,
            storage_timeout: Duration::from_secs(self.storage_timeout),
            drain_timeout: Duration::from_secs(self.drain_timeout),
            ..Limits::default()
        }
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.into_config();
    let server = Server::bind(config).map_err(|e| {
        let exit = if e.is_usage() { 2 } else { 1 };
        Failure {
            why: e.into(),
            exit,
        }
    })?;
    // Before it is said that the server is there: who reacts to that may send a signal.
    signals::watch(server.handle())?;
    announce(&server);
    Ok(server.run()?)
}

fn announce(server: &Server) {
    for url in server.urls() {
        say(format_args!("serving {} on {url}", server.root().display()));
    }
}

impl signals::Service for Handle {
    fn stop(&self) {
        Self::stop(self);
    }

    fn stop_now(&self) {
        Self::stop_now(self);
    }

    fn reopen_log(&self) {
        self.reopen_logs();
    }
}

fn pair<A: FromStr, B: FromStr>(text: &str) -> Result<(A, B), String>
where
    A::Err: std::fmt::Display,
    B::Err: std::fmt::Display,
{
    let (a, b) = text.split_once('=').ok_or("there is no = in it")?;
    Ok((
        a.parse().map_err(|e: A::Err| format!("{a:?}: {e}"))?,
        b.parse().map_err(|e: B::Err| format!("{b:?}: {e}"))?,
    ))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("there is no : in it")?;
    Ok((name.to_owned(), value.trim().to_owned()))
}
