//! Thresholds measured on this host, in the file where `zhaul bench --calibrate` leaves them.
//!
//! The file is looked for once per process, at the first transfer:
//! 1. where `$ZHAUL_CALIBRATION` says, and nowhere else if it is set; empty means none;
//! 2. `$XDG_CONFIG_HOME/zhaul/calibration.toml`, or `~/.config/zhaul/calibration.toml`;
//! 3. `/etc/zhaul/calibration.toml`.
//!
//! The first that exists counts. If it cannot be read, says something that is not understood, or was
//! measured under another kernel release, that is reported once (`tracing`, level warn), the
//! [defaults](Thresholds::default) hold, and [`origin`] says why: a threshold of another kernel is
//! no better founded than the default, and a transfer never fails for it.
//!
//! # The format
//! TOML, of which this much is understood: comments, and `name = value` with a whole number or a
//! string in double quotes without escapes.
//! ```toml
//! format = 1
//! kernel = "6.12.9"                   # uname -r
//! measured = "2026-01-31T12:00:00Z"
//! sendfile_min_bytes = 0
//! mmap_min_bytes = 65536
//! ```
//! `format` and `kernel` must be there. A threshold that is missing keeps its default; names that
//! are not known belong to later versions and are ignored. So little is no reason for a parser of
//! all of TOML in every program that moves bytes.

use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use zhaul_core::Thresholds;

/// The number that goes up when a reader of older files would misunderstand a newer one.
pub const FORMAT: u64 = 1;

/// The thresholds of a host, and when they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// The thresholds.
    pub thresholds: Thresholds,
    /// The kernel release under which they were measured (`uname -r`).
    pub kernel: String,
    /// When: RFC 3339. Empty if the file does not say.
    pub measured: String,
}

/// Where the thresholds of this process come from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// There is no file.
    Default,
    /// From this file.
    File {
        /// Which.
        path: PathBuf,
        /// When it was measured: RFC 3339, or empty.
        measured: String,
    },
    /// There is a file, which does not count; the defaults hold.
    Ignored {
        /// Which.
        path: PathBuf,
        /// Why it does not count.
        why: Ignored,
    },
}

/// Why a file does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ignored {
    /// It cannot be read.
    Unreadable(String),
    /// It is not understood.
    Malformed(ParseError),
    /// It was measured under another kernel.
    OtherKernel {
        /// The release in the file.
        measured: String,
        /// The release that runs.
        running: String,
    },
}

/// What is not understood, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// The thresholds that the planner uses in this process.
pub fn thresholds() -> Thresholds {
    loaded().0
}

/// Where they come from.
pub fn origin() -> &'static Origin {
    &loaded().1
}

/// Where `zhaul bench --calibrate` leaves the thresholds unless told otherwise: the first place
/// where this user's processes look. `None` if `$ZHAUL_CALIBRATION` is empty, or there is neither a
/// home nor a configuration directory.
pub fn own_path() -> Option<PathBuf> {
    candidates(&|name| std::env::var_os(name))
        .into_iter()
        .find(|path| path != Path::new(SYSTEM_PATH))
}

/// The file for all users.
pub const SYSTEM_PATH: &str = "/etc/zhaul/calibration.toml";

fn loaded() -> &'static (Thresholds, Origin) {
    static LOADED: OnceLock<(Thresholds, Origin)> = OnceLock::new();
    LOADED.get_or_init(|| {
        let candidates = candidates(&|name| std::env::var_os(name));
        let uname = rustix::system::uname();
        let (thresholds, origin) = load(&candidates, &uname.release().to_string_lossy());
        if let Origin::Ignored { path, why } = &origin {
            tracing::warn!(
                "{} is ignored, the default thresholds hold: {why}",
                path.display()
            );
        }
        (thresholds, origin)
    })
}

/// The places to look, given the environment.
fn candidates(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    if let Some(path) = variable("ZHAUL_CALIBRATION") {
        return (!path.is_empty())
            .then(|| PathBuf::from(path))
            .into_iter()
            .collect();
    }
    // A relative path in these is to be ignored, by their specification.
    let absolute = |name: &str| {
        let path = PathBuf::from(variable(name)?);
        path.is_absolute().then_some(path)
    };
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    let own = config.map(|config| config.join("zhaul/calibration.toml"));
    own.into_iter()
        .chain([PathBuf::from(SYSTEM_PATH)])
        .collect()
}

fn load(candidates: &[PathBuf], running: &str) -> (Thresholds, Origin) {
    for path in candidates {
        let path = path.clone();
        let ignored = match read(&path) {
            Err(error) if is_absent(&error) => continue,
            Err(error) => Ignored::Unreadable(error.to_string()),
            Ok(text) => match Calibration::parse(&text) {
                Err(error) => Ignored::Malformed(error),
                Ok(found) if found.kernel != running => Ignored::OtherKernel {
                    measured: found.kernel,
                    running: running.to_owned(),
                },
                Ok(found) => {
                    let measured = found.measured;
                    return (found.thresholds, Origin::File { path, measured });
                }
            },
        };
        let why = ignored;
        return (Thresholds::default(), Origin::Ignored { path, why });
    }
    (Thresholds::default(), Origin::Default)
}

/// Reads a file that may be anything, without waiting for a writer of a fifo or reading for ever.
fn read(path: &Path) -> io::Result<String> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    file.take(MOST_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

const MOST_BYTES: u64 = 64 << 10;

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

impl Calibration {
    /// Reads the format.
    ///
    /// # Errors
    /// The first line that is not understood, or what is missing.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut format = None;
        let mut kernel = None;
        let mut measured = String::new();
        let mut thresholds = Thresholds::default();
        for (line, number) in text.lines().zip(1..) {
            let wrong = |what: String| ParseError { line: number, what };
            let Some((name, value)) = assignment(line).map_err(wrong)? else {
                continue;
            };
            match name {
                "format" => format = Some(value.number().map_err(wrong)?),
                "kernel" => kernel = Some(value.text().map_err(wrong)?),
                "measured" => measured = value.text().map_err(wrong)?,
                "sendfile_min_bytes" => {
                    thresholds.sendfile_min_bytes = value.number().map_err(wrong)?;
                }
                "mmap_min_bytes" => thresholds.mmap_min_bytes = value.number().map_err(wrong)?,
                _ => {}
            }
        }
        let whole = |what: String| ParseError { line: 0, what };
        match format {
            Some(FORMAT) => {}
            Some(other) => {
                return Err(whole(format!("format {other} is not known, only {FORMAT}")));
            }
            None => return Err(whole("it does not say its format".to_owned())),
        }
        Ok(Self {
            thresholds,
            kernel: kernel.ok_or_else(|| whole("it does not name its kernel".to_owned()))?,
            measured,
        })
    }
}

impl fmt::Display for Calibration {
    /// The text of a file; lines of comment may follow.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "format = {FORMAT}")?;
        writeln!(f, "kernel = \"{}\"", self.kernel)?;
        writeln!(f, "measured = \"{}\"", self.measured)?;
        let Thresholds {
            sendfile_min_bytes,
            mmap_min_bytes,
            ..
        } = self.thresholds;
        writeln!(f, "sendfile_min_bytes = {sendfile_min_bytes}")?;
        writeln!(f, "mmap_min_bytes = {mmap_min_bytes}")
    }
}

enum Value<'a> {
    Number(u64),
    Text(&'a str),
}

impl Value<'_> {
    fn number(&self) -> Result<u64, String> {
        match *self {
            Self::Number(number) => Ok(number),
            Self::Text(text) => Err(format!("{text:?} is no number")),
        }
    }

    fn text(&self) -> Result<String, String> {
        match *self {
            Self::Text(text) => Ok(text.to_owned()),
            Self::Number(number) => Err(format!("{number} is no text in quotes")),
        }
    }
}

/// `name = value`, or nothing in an empty line and in one of comment.
fn assignment(line: &str) -> Result<Option<(&str, Value<'_>)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let no_assignment = || format!("{line:?} is no `name = value`");
    let (name, value) = line.split_once('=').ok_or_else(no_assignment)?;
    let value = value.trim_start();
    let (value, rest) = match value.strip_prefix('"') {
        Some(quoted) => {
            let (text, rest) = quoted.split_once('"').ok_or_else(no_assignment)?;
            if text.contains('\\') {
                return Err(format!("{line:?}: escapes are not understood"));
            }
            (Value::Text(text), rest)
        }
        None => {
            let end = value.find(['#', ' ', '\t']).unwrap_or(value.len());
            let (number, rest) = value.split_at(end);
            // TOML's separator of thousands.
            let parsed = number.replace('_', "").parse();
            (Value::Number(parsed.map_err(|_| no_assignment())?), rest)
        }
    };
    let rest = rest.trim_start();
    if !rest.is_empty() && !rest.starts_with('#') {
        return Err(no_assignment());
    }
    Ok(Some((name.trim_end(), value)))
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.what),
            line => write!(f, "line {line}: {}", self.what),
        }
    }
}

impl std::error::Error for ParseError {}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => f.write_str(why),
            Self::Malformed(error) => error.fmt(f),
            Self::OtherKernel { measured, running } => write!(
                f,
                "measured under Linux {measured}, this is {running} (zhaul bench --calibrate \
                 measures anew)"
            ),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::File { path, measured } if measured.is_empty() => {
                write!(f, "{}", path.display())
            }
            Self::File { path, measured } => {
                write!(f, "{}, measured {measured}", path.display())
            }
            Self::Ignored { path, why } => {
                write!(f, "the defaults; {} is ignored: {why}", path.display())
            }
        }
    }
}

#[cfg(test)]
#[path = "calibration_tests.rs"]
mod tests;
