//! What a trace does not see, so that no figure of it passes for a 0.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use super::procfs::name_of;

/// Something that happened and is in no figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blind {
    /// What it was, in words.
    pub what: String,
    /// How often, if that is known: calls, programs, or mappings.
    pub times: Option<u64>,
    /// Bytes were moved there, or copied, that are in no figure.
    pub hides_bytes: bool,
}

/// Watches for programs whose calls are not seen.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// Programs of another word length, by name.
    foreign: BTreeMap<String, u64>,
    /// Programs with rights that the one who executed them has not, by name.
    privileged: BTreeMap<String, u64>,
}

impl Sight {
    /// A process runs a program from now on, or did when it was attached to. One that is over before
    /// it is looked at is not seen.
    pub(super) fn runs(&mut self, pid: u32) {
        let name = || name_of(pid).unwrap_or_else(|| pid.to_string());
        if is_of_other_length(pid) == Some(true) {
            *self.foreign.entry(name()).or_default() += 1;
        }
        if is_privileged(pid) == Some(true) {
            *self.privileged.entry(name()).or_default() += 1;
        }
    }

    /// With calls that move data where they do not show it.
    pub(super) fn blind(&self, elsewhere: Vec<(&str, u64)>) -> Vec<Blind> {
        let mut blind: Vec<Blind> = elsewhere.into_iter().map(asynchronous).collect();
        let programs = |of: &BTreeMap<String, u64>, what: &str| {
            let names: Vec<&str> = of.keys().map(String::as_str).take(NAMES_AT_MOST).collect();
            (!of.is_empty()).then(|| Blind {
                what: format!("{what}: {}", names.join(", ")),
                times: Some(of.values().sum()),
                hides_bytes: true,
            })
        };
        blind.extend(programs(
            &self.foreign,
            "programs of 32 bits, whose calls are in the mode switches only",
        ));
        blind.extend(programs(
            &self.privileged,
            "programs with rights of their own (set-uid, capabilities), which the kernel shows to no \
             tracer from then on",
        ));
        blind
    }
}

/// Calls that hand requests to the kernel, which works on them by itself.
pub(super) fn asynchronous((name, calls): (&str, u64)) -> Blind {
    let by = match name {
        "io_submit" => "libaio",
        _ => "io_uring",
    };
    Blind {
        what: format!("what went through {by} ({name}): its operations, bytes and flows"),
        times: Some(calls),
        hides_bytes: true,
    }
}

/// Whether the program is of 32 bits, by its ELF header.
fn is_of_other_length(pid: u32) -> Option<bool> {
    let mut header = [0; 5];
    let mut program = fs::File::open(format!("/proc/{pid}/exe")).ok()?;
    program.read_exact(&mut header).ok()?;
    (header[..4] == *b"\x7fELF").then_some(header[4] == ELFCLASS32)
}

/// Whether the kernel has made it undumpable, which is when it takes its events away: then `/proc`
/// shows it as root's, whoever runs it.
fn is_privileged(pid: u32) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let mut uids = uids
        .split_ascii_whitespace()
        .filter_map(|uid| uid.parse().ok());
    let (real, effective): (u32, u32) = (uids.next()?, uids.next()?);
    let owner = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    Some(owner != effective || real != effective)
}

const ELFCLASS32: u8 = 1;
const NAMES_AT_MOST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_program_of_this_length_hides_nothing() {
        let mut sight = Sight::default();
        let mut child = std::process::Command::new("sleep")
            .arg("10")
            .spawn()
            .unwrap();
        sight.runs(child.id());
        sight.runs(u32::MAX);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(sight.blind(Vec::new()), []);
    }

    #[test]
    fn what_is_handed_to_the_kernel_is_named_with_the_calls_that_did() {
        let blind = Sight::default().blind(vec![("io_submit", 3)]);
        assert_eq!(blind[0].times, Some(3));
        assert!(blind[0].what.contains("libaio") && blind[0].hides_bytes);
    }
}
