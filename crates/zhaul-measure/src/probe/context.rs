//! On which kernel, as whom and under which restrictions the probes run.

use std::fs;
use std::sync::OnceLock;

use crate::perf::{Error, Symbols};

use super::report::Kernel;

/// What every probe may ask about its surroundings.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) kernel: Kernel,
    /// The bits of the effective capabilities.
    capabilities: Option<u64>,
    symbols: OnceLock<Option<Symbols>>,
}

/// The capabilities that a mechanism here depends on, by number.
const CAPABILITIES: [(&str, u32); 9] = [
    ("CAP_NET_ADMIN", 12),
    ("CAP_NET_RAW", 13),
    ("CAP_IPC_LOCK", 14),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYS_RESOURCE", 24),
    ("CAP_LEASE", 28),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

impl Context {
    pub(super) fn look() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let capabilities =
            field(&status, "CapEff").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let seccomp_filter = field(&status, "Seccomp").map(|mode| mode == "2");
        let mut unseen = Vec::new();
        if status.is_empty() {
            unseen.push("capabilities and settings (/proc is not mounted)".to_owned());
        }
        let lockdown = lockdown(&mut unseen);
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy().into_owned();
        let kernel = Kernel {
            version: version(&release),
            release,
            machine: uname.machine().to_string_lossy().into_owned(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            uid: rustix::process::geteuid().as_raw(),
            capabilities: capabilities.map(names),
            seccomp_filter,
            lockdown,
            unseen,
        };
        Self {
            kernel,
            capabilities,
            symbols: OnceLock::new(),
        }
    }

    /// The kernel's functions, read once: there are hundreds of thousands.
    ///
    /// # Errors
    /// That they are hidden.
    pub(super) fn symbols(&self) -> Result<&Symbols, Error> {
        let loaded = self.symbols.get_or_init(|| Symbols::load().ok());
        loaded.as_ref().ok_or(Error::SymbolsHidden)
    }

    /// True if the kernel is known to be older than this version. Distributions carry newer things
    /// back, so this explains a refusal and never predicts one.
    pub(super) fn is_before(&self, version: (u32, u32)) -> bool {
        self.kernel.version != (0, 0) && self.kernel.version < version
    }

    /// True if a seccomp filter is active.
    pub(super) fn is_filtered(&self) -> bool {
        self.kernel.seccomp_filter == Some(true)
    }

    /// Whether the process has this capability, one of those listed above; false if in doubt.
    pub(super) fn has(&self, capability: &str) -> bool {
        let Some(&(_, bit)) = CAPABILITIES.iter().find(|(name, _)| *name == capability) else {
            return false;
        };
        self.capabilities.is_some_and(|bits| bits >> bit & 1 != 0)
    }
}

fn names(bits: u64) -> Vec<&'static str> {
    let held = CAPABILITIES
        .iter()
        .filter(|&&(_, bit)| bits >> bit & 1 != 0);
    held.map(|&(name, _)| name).collect()
}

/// The value of a line `Name:\tvalue`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim())
}

/// The first two numbers of a release such as `6.12.41+deb13-amd64`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor),
        _ => (0, 0),
    }
}

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

fn lockdown(unseen: &mut Vec<String>) -> Option<String> {
    match fs::read_to_string(LOCKDOWN) {
        Ok(text) => chosen(&text).map(str::to_owned),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Either securityfs is not mounted or the module is not there.
            let mounted =
                fs::read_dir("/sys/kernel/security").is_ok_and(|mut dir| dir.next().is_some());
            if !mounted {
                unseen.push("the lockdown mode (securityfs is not mounted)".into());
            }
            None
        }
        Err(error) => {
            unseen.push(format!("the lockdown mode ({LOCKDOWN}: {error})"));
            None
        }
    }
}

/// The word in brackets, as in `none [integrity] confidentiality`.
pub(super) fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_its_version() {
        assert_eq!(version("6.12.41+deb13-amd64"), (6, 12));
        assert_eq!(version("5.15"), (5, 15));
        assert_eq!(version("7.0-rc1"), (7, 0));
        assert_eq!(version("mine"), (0, 0));
        assert_eq!(version(""), (0, 0));
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t7\nCapEff:\t0000000000000000\n";
        assert_eq!(field(status, "Seccomp"), Some("2"));
        assert_eq!(field(status, "CapEff"), Some("0000000000000000"));
        assert_eq!(field(status, "Cap"), None);
    }

    #[test]
    fn the_chosen_word_is_in_brackets() {
        assert_eq!(
            chosen("none [integrity] confidentiality"),
            Some("integrity")
        );
        assert_eq!(chosen("always"), None);
        assert_eq!(chosen("[broken"), None);
    }

    #[test]
    fn capabilities_have_their_own_bits() {
        let mut context = Context::look();
        context.capabilities = Some(1 << 21 | 1 << 38);
        assert!(context.has("CAP_SYS_ADMIN") && context.has("CAP_PERFMON"));
        assert!(!context.has("CAP_BPF") && !context.has("CAP_UNHEARD_OF"));
        assert_eq!(names(1 << 14), ["CAP_IPC_LOCK"]);
    }

    #[test]
    fn an_unknown_version_is_never_too_old() {
        let mut context = Context::look();
        context.kernel.version = (0, 0);
        assert!(!context.is_before((9, 9)));
        context.kernel.version = (5, 15);
        assert!(context.is_before((6, 0)) && !context.is_before((5, 15)));
    }
}
