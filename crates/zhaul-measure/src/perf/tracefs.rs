//! The kernel's tracepoints, by their files in tracefs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Error, Format};

/// Where tracefs is mounted.
#[derive(Clone, Debug)]
pub struct Tracefs {
    events: PathBuf,
}

/// One tracepoint of the running kernel.
#[derive(Clone, Debug)]
pub struct Tracepoint {
    /// `group:name`, such as `raw_syscalls:sys_enter`.
    pub name: String,
    /// The number by which `perf_event_open(2)` knows it; it changes from boot to boot.
    pub id: u64,
    /// Where its fields lie.
    pub format: Format,
}

impl Tracefs {
    /// Finds tracefs at its usual places.
    ///
    /// # Errors
    /// [`Error::NoTracefs`]; [`Error::TracefsForbidden`], as ordinary users find it.
    pub fn find() -> Result<Self, Error> {
        let mut found = Error::NoTracefs;
        for place in PLACES {
            let events = Path::new(place).join("events");
            match fs::metadata(&events) {
                Ok(_) => return Ok(Self { events }),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    found = Error::TracefsForbidden;
                }
                Err(_) => {}
            }
        }
        Err(found)
    }

    /// The tracepoint called `group:name`.
    ///
    /// # Errors
    /// [`Error::NoTracepoint`], [`Error::TracefsForbidden`], [`Error::Format`].
    pub fn tracepoint(&self, name: &str) -> Result<Tracepoint, Error> {
        let absent = || Error::NoTracepoint(name.into());
        let (group, event) = name.split_once(':').ok_or_else(absent)?;
        let plain = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if !plain(group) || !plain(event) {
            return Err(absent());
        }
        let directory = self.events.join(group).join(event);
        let read = |file: &str| {
            fs::read_to_string(directory.join(file)).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => absent(),
                io::ErrorKind::PermissionDenied => Error::TracefsForbidden,
                _ => Error::io(format!("reading {file} of the tracepoint {name}"), error),
            })
        };
        let id = read("id")?;
        let format = read("format")?;
        let misread = || Error::Format(name.into());
        Ok(Tracepoint {
            name: name.into(),
            id: id.trim().parse().map_err(|_| misread())?,
            format: Format::parse(&format).ok_or_else(misread)?,
        })
    }
}

/// Since Linux 4.1, and before it.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

#[cfg(test)]
mod tests {
    use super::*;

    fn tracefs(test: &str) -> Option<Tracefs> {
        Tracefs::find()
            .inspect_err(|error| zhaul_untested::skip(test, error.with_remedy()))
            .ok()
    }

    #[test]
    fn the_entry_of_system_calls_is_found() {
        let Some(tracefs) = tracefs("the_entry_of_system_calls_is_found") else {
            return;
        };
        let found = tracefs.tracepoint("raw_syscalls:sys_enter").unwrap();
        assert!(found.id > 0);
        let args = found.format.field("args").unwrap();
        assert_eq!((args.size, args.count), (48, 6));
        assert!(found.format.field("id").unwrap().signed);
    }

    #[test]
    fn what_is_no_tracepoint_is_said_to_be_none() {
        let Some(tracefs) = tracefs("what_is_no_tracepoint_is_said_to_be_none") else {
            return;
        };
        for name in [
            "",
            "sched",
            "sched:",
            "sched:absent",
            "../x:y",
            "a/b:c",
            "sched:..",
        ] {
            let error = tracefs.tracepoint(name).unwrap_err();
            assert!(
                matches!(&error, Error::NoTracepoint(said) if said == name),
                "{error}"
            );
        }
    }
}
