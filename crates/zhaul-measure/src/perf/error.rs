//! Why the kernel gave no event, and what would help.

use std::fs;
use std::io;

use rustix::io::Errno;
use zhaul_sys::perf_event::{Attributes, Source};

/// Why something cannot be measured here. [`Error::remedy`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel does not permit it to this process.
    #[error("{what}: not permitted with kernel.perf_event_paranoid = {paranoid}")]
    NotPermitted {
        /// What was wanted.
        what: String,
        /// The setting now; `unknown` if it cannot be read.
        paranoid: Paranoid,
        /// What would permit it.
        needs: Needs,
    },
    /// There is no process or thread of this number, or it has ended.
    #[error("no process {0}")]
    NoProcess(u32),
    /// tracefs is not mounted.
    #[error("tracefs is not mounted")]
    NoTracefs,
    /// tracefs is mounted, and this process may not read it.
    #[error("tracefs may not be read")]
    TracefsForbidden,
    /// This kernel has no such tracepoint.
    #[error("this kernel has no tracepoint {0}")]
    NoTracepoint(String),
    /// A description in tracefs that is not understood.
    #[error("the format of the tracepoint {0} is not understood")]
    Format(String),
    /// `/proc/kallsyms` shows no addresses.
    #[error("the addresses of the kernel's functions are hidden")]
    SymbolsHidden,
    /// No copy routine of this kernel is known, or may have a breakpoint.
    #[error("this kernel has none of the copy routines that are known")]
    NoCopyRoutine,
    /// This kernel takes no breakpoints on its own text.
    #[error("this kernel takes no breakpoints on its own text")]
    NoKernelBreakpoints,
    /// All breakpoint registers are in use.
    #[error("all breakpoint registers are in use")]
    NoBreakpointRegister,
    /// The descriptors of this process have run out.
    #[error("too many open files: {wanted} events are wanted")]
    TooManyFiles {
        /// Events wanted at once.
        wanted: usize,
    },
    /// The rings need more locked memory than is allowed.
    #[error("no memory may be locked for the rings")]
    LockedMemory,
    /// The kernel does not understand a filter.
    #[error("the filter {filter:?} of {tracepoint} is refused")]
    Filter {
        /// The tracepoint.
        tracepoint: String,
        /// The expression.
        filter: String,
    },
    /// This kernel or machine has no such event.
    #[error("{what}: not on this kernel or machine")]
    Unsupported {
        /// What was wanted.
        what: String,
    },
    /// Anything else.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// What the kernel asks for before it gives an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// CAP_PERFMON, or a setting `kernel.perf_event_paranoid` of at most this.
    Perfmon(i32),
    /// CAP_SYS_ADMIN: breakpoints on the kernel's text.
    SysAdmin,
}

impl std::fmt::Display for Needs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Perfmon(level) => write!(
                f,
                "CAP_PERFMON (or root), or kernel.perf_event_paranoid <= {level}"
            ),
            Self::SysAdmin => f.write_str("CAP_SYS_ADMIN (or root)"),
        }
    }
}

/// The setting `kernel.perf_event_paranoid`, if it could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paranoid(pub Option<i32>);

impl std::fmt::Display for Paranoid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(level) => write!(f, "{level}"),
            None => f.write_str("unknown"),
        }
    }
}

impl Paranoid {
    fn now() -> Self {
        let text = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok();
        Self(text.and_then(|text| text.trim().parse().ok()))
    }
}

impl Error {
    /// What somebody could do about it, if anything.
    pub fn remedy(&self) -> Option<String> {
        let remedy = match self {
            Self::NotPermitted { needs, .. } => {
                format!("needs {needs}; a container's seccomp filter may forbid it, too")
            }
            Self::NoTracefs => "mount -t tracefs tracefs /sys/kernel/tracing".into(),
            // The numbers of events are readable for owner and group only, whatever the mode of the
            // mount point; the group of the mount is theirs.
            Self::TracefsForbidden => {
                "needs root or CAP_DAC_READ_SEARCH, or, for a group that you \
                 are in, mount -o remount,mode=750,gid=GROUP /sys/kernel/tracing"
                    .into()
            }
            Self::SymbolsHidden => "needs CAP_SYSLOG (or root), or kernel.kptr_restrict = 0 with \
                 kernel.perf_event_paranoid <= 1"
                .into(),
            Self::NoKernelBreakpoints => {
                "needs a kernel built with CONFIG_KPROBES, as distributions have".into()
            }
            Self::NoBreakpointRegister => "end the debugger or tracer that uses them".into(),
            Self::TooManyFiles { .. } => "raise the limit of open files (ulimit -n)".into(),
            Self::LockedMemory => {
                "raise kernel.perf_event_mlock_kb or the limit of locked memory (ulimit -l)".into()
            }
            Self::NoProcess(_)
            | Self::NoTracepoint(_)
            | Self::Format(_)
            | Self::NoCopyRoutine
            | Self::Filter { .. }
            | Self::Unsupported { .. }
            | Self::Io { .. } => return None,
        };
        Some(remedy)
    }

    /// The message with its remedy in brackets.
    pub fn with_remedy(&self) -> String {
        match self.remedy() {
            Some(remedy) => format!("{self} ({remedy})"),
            None => self.to_string(),
        }
    }

    /// What `perf_event_open(2)` answered.
    pub(super) fn of_open(what: &str, attributes: &Attributes, error: io::Error) -> Self {
        let source = attributes.source;
        let records = attributes.sample_period > 0;
        let what = what.to_owned();
        let breakpoint = matches!(source, Source::Execution(_));
        match Errno::from_io_error(&error) {
            Some(Errno::ACCESS | Errno::PERM) => Self::NotPermitted {
                what,
                paranoid: Paranoid::now(),
                needs: match source {
                    Source::Execution(_) => Needs::SysAdmin,
                    Source::Tracepoint(_) if records => Needs::Perfmon(-1),
                    Source::Tracepoint(_) | Source::Software(_) => Needs::Perfmon(1),
                },
            },
            Some(Errno::INVAL) if breakpoint => Self::NoKernelBreakpoints,
            Some(Errno::NOSPC) if breakpoint => Self::NoBreakpointRegister,
            Some(Errno::MFILE | Errno::NFILE) => Self::TooManyFiles { wanted: 1 },
            Some(Errno::NOENT | Errno::NOSYS | Errno::OPNOTSUPP | Errno::NODEV) => {
                Self::Unsupported { what }
            }
            _ => Self::Io {
                what,
                source: error,
            },
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match Errno::from_io_error(&source) {
            Some(Errno::MFILE | Errno::NFILE) => Self::TooManyFiles { wanted: 1 },
            _ => Self::Io {
                what: what.into(),
                source,
            },
        }
    }
}
