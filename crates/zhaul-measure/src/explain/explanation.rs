//! The explanation of one transfer: what was chosen, what was passed over, what it should cost.
//!
//! It is plain data, the format of `zhaul explain --json`, and is printed by [`render`](super::render).

use serde::{Deserialize, Serialize};
use zhaul::calibration::Origin;
use zhaul::{
    Ask, Cause, Lease, Length, Plan, Rejection, Route, SourceFacts, SourceKind, Stability,
};

use super::about::{AboutSink, AboutSource, code};
use super::analysis::Analysis;
use super::endpoint::printable;
use super::error::{Error, Problem};
use super::expected::{Ends, Expected};
use super::look::{Sink, Source};
use super::memory::in_memory;
use super::notes;
use crate::host::Host;

/// The number that goes up when a reader of the older format would misunderstand the newer one.
pub const FORMAT: u32 = 1;

/// What the caller wants of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// What is promised about others who write to the source.
    pub stability: Stability,
    /// This route or none.
    pub route: Option<Route>,
    /// Where to start; without it at the beginning, or where standard input stands.
    pub offset: Option<u64>,
    /// How much; without it all of it.
    pub length: Option<u64>,
    /// Largest amount asked of one call.
    pub chunk_bytes: usize,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            stability: Stability::default(),
            route: None,
            offset: None,
            length: None,
            chunk_bytes: zhaul::DEFAULT_CHUNK_BYTES,
        }
    }
}

/// An explained transfer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of zhaul.
    pub zhaul: String,
    /// Where the bytes come from.
    pub source: AboutSource,
    /// Where they go.
    pub sink: AboutSink,
    /// What was asked for.
    pub asked: Asked,
    /// What was chosen, and what not.
    pub plan: Choice,
    /// What it should cost: from the plan.
    pub expected: Expected,
    /// Sizes below which a route is not worth it.
    pub thresholds: ThresholdsInForce,
    /// The machine.
    pub host: Host,
    /// What else bears on it.
    pub notes: Vec<String>,
    /// What it cost, if it was run.
    pub measured: Option<Analysis>,
}

/// What was asked for, with what follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// `immutable`, `may_change` or `leased`.
    pub stability: String,
    /// The only route wanted.
    pub route: Option<String>,
    /// Where in the source it starts.
    pub offset: u64,
    /// How much; `None` means to the end, wherever that is.
    pub length: Option<u64>,
    /// Largest amount asked of one call.
    pub chunk_bytes: u64,
}

/// The route taken and those passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Its name ([`Route::name`]).
    pub route: String,
    /// Why, as a word.
    pub reason: String,
    /// Why, as a sentence.
    pub because: String,
    /// The others, cheapest first.
    pub passed_over: Vec<PassedOver>,
}

/// A route that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// Its name.
    pub route: String,
    /// Why not, as a word.
    pub reason: String,
    /// Why not, as a sentence.
    pub because: String,
    /// It would do as well, and is taken if the kernel refuses a cheaper one.
    pub in_reserve: bool,
}

/// Thresholds, and where they are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThresholdsInForce {
    /// Below this sendfile is not worth it.
    pub sendfile_min_bytes: u64,
    /// Below this mmap + write is not worth it.
    pub mmap_min_bytes: u64,
    /// `built in`, or the file that a calibration wrote, or why such a file does not count.
    pub origin: String,
}

impl Wishes {
    /// What is asked of the planner. A file's size is a fact, so exactly that is asked for; a file
    /// without bytes is read to its end, in case it has some all the same (some file systems
    /// state no size).
    pub(crate) fn ask(&self, source: &Source) -> Result<Ask, Error> {
        let about = &source.about;
        let refused = |problem| Error::new(about.name.clone(), problem);
        if self.offset.is_some() && !source.facts.seekable {
            return Err(refused(Problem::NoPositions));
        }
        let has_size = about.size_bytes.is_some();
        let offset = match (self.offset, source.position) {
            (Some(offset), _) => offset,
            (None, Some(position)) if has_size => position,
            _ => 0,
        };
        let available = about.size_bytes.map(|size| size.checked_sub(offset));
        let length = match (self.length, available, about.size_bytes) {
            (_, Some(None), Some(size)) if self.offset.is_some() => {
                return Err(refused(Problem::PastEnd { size }));
            }
            (Some(wanted), Some(Some(left)), Some(size)) if wanted > left => {
                return Err(refused(Problem::PastEnd { size }));
            }
            (Some(wanted), ..) => Length::Exact(wanted),
            (None, Some(Some(left)), Some(size)) if size > 0 => Length::Exact(left),
            (None, Some(None), _) => Length::Exact(0),
            _ => Length::ToEnd,
        };
        Ok(Ask {
            offset,
            length,
            stability: self.stability,
            chunk_bytes: self.chunk_bytes,
            only: self.route,
            ..Ask::default()
        })
    }
}

impl Explanation {
    /// Plans a transfer between two ends that were looked at.
    ///
    /// # Errors
    /// If it cannot be made as it is wished, or at all.
    pub fn of(source: &Source, sink: &Sink, wishes: &Wishes) -> Result<Self, Error> {
        let both = format!("{} and {}", source.about.name, sink.about.name);
        if is_same_file(source, sink) {
            return Err(Error::new(both, Problem::SameFile));
        }
        let ask = wishes.ask(source)?;
        let mut about = source.about.clone();
        let bytes = match ask.length {
            Length::Exact(bytes) => Some(bytes),
            _ => None,
        };
        if let (Some(file), Some(bytes)) = (&source.file, bytes)
            && source.facts.kind.is_page_cache()
        {
            about.in_memory = in_memory(file, ask.offset, bytes);
        }
        let host = zhaul::endpoint::host_facts();
        let plan = Plan::select(&source.facts, &sink.facts, &host, &ask);
        let ends = Ends {
            source: &source.facts,
            sink: &sink.facts,
            sink_pipe_bytes: sink.pipe_bytes,
            in_memory: about.in_memory,
            source_is_in_memory: keeps_in_memory(about.file_system.as_deref()),
            sink_is_in_memory: keeps_in_memory(sink.about.file_system.as_deref()),
        };
        let expected = Expected::of(&plan, &ends, &host, &ask)
            .map_err(|error| refusal(&both, source, error.cause))?;
        let lease = match (ask.stability, &source.file) {
            (Stability::Leased, Some(file)) if needs_lease(&source.facts) => {
                Lease::acquire(file).err()
            }
            _ => None,
        };
        let context = notes::Context {
            source,
            sink,
            ask: &ask,
            plan: &plan,
            host: &host,
            expected: &expected,
            no_lease: lease,
        };
        let notes = notes::of(&context);
        let directory = std::env::current_dir().unwrap_or_default();
        Ok(Self {
            format: FORMAT,
            zhaul: env!("CARGO_PKG_VERSION").to_owned(),
            source: about,
            sink: sink.about.clone(),
            asked: Asked {
                stability: code(&ask.stability),
                route: ask.only.map(|route| route.name().to_owned()),
                offset: ask.offset,
                length: bytes,
                chunk_bytes: ask.chunk_bytes as u64,
            },
            plan: Choice::of(&plan),
            expected,
            thresholds: ThresholdsInForce {
                sendfile_min_bytes: host.thresholds.sendfile_min_bytes,
                mmap_min_bytes: host.thresholds.mmap_min_bytes,
                origin: origin(zhaul::calibration::origin()),
            },
            host: Host::describe(&directory),
            notes,
            measured: None,
        })
    }
}

impl Choice {
    fn of(plan: &Plan) -> Self {
        let passed_over = plan
            .rejected()
            .map(|(route, rejection)| PassedOver {
                route: route.name().to_owned(),
                reason: code(&rejection),
                because: rejection.to_string(),
                in_reserve: rejection == Rejection::CheaperRouteExists,
            })
            .collect();
        Self {
            route: plan.route.name().to_owned(),
            reason: code(&plan.because),
            because: plan.because.to_string(),
            passed_over,
        }
    }
}

/// One inode, or the two names of one pipe. Characters may well go from a terminal to itself.
fn is_same_file(source: &Source, sink: &Sink) -> bool {
    let takes_place = matches!(
        source.facts.kind,
        SourceKind::Regular | SourceKind::Memfd | SourceKind::Block | SourceKind::Pipe
    );
    let same_inode = source.identity.is_some() && source.identity == sink.identity;
    // A block device may have several nodes.
    let same_device = source.facts.device.is_some() && source.facts.device == sink.facts.device;
    takes_place && (same_inode || same_device)
}

fn refusal(both: &str, source: &Source, cause: Cause) -> Error {
    match cause {
        Cause::RouteRefused { route, rejection } => {
            Error::new(both, Problem::RouteRefused { route, rejection })
        }
        Cause::SameFile => Error::new(both, Problem::SameFile),
        cause => Error::new(
            source.about.name.clone(),
            Problem::Stopped {
                cause,
                moved: 0,
                stranded: 0,
            },
        ),
    }
}

/// Where the thresholds are from, in words.
fn origin(origin: &Origin) -> String {
    match origin {
        Origin::File { path, measured } if measured.is_empty() => {
            format!("from {}", printable(path))
        }
        Origin::File { path, measured } => {
            format!("from {}, measured {measured}", printable(path))
        }
        Origin::Ignored { path, why } => {
            format!("built in; {} does not count: {why}", printable(path))
        }
        _ => "built in".to_owned(),
    }
}

/// What is sealed, or has no pages that others could edit, is leased already.
pub(crate) const fn needs_lease(source: &SourceFacts) -> bool {
    source.kind.is_page_cache() && !source.is_sealed()
}

/// File systems that have no disk behind their pages.
pub(crate) fn keeps_in_memory(file_system: Option<&str>) -> bool {
    matches!(
        file_system,
        Some("tmpfs" | "ramfs" | "hugetlbfs" | "devtmpfs")
    )
}
