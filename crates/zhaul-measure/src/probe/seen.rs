//! What a probe has seen, before it is put under its mechanism's name.

use std::collections::BTreeMap;

use serde_json::Value;

use super::report::{Cause, Finding, Group, Status};

/// What is known about a mechanism before it is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mechanism {
    /// A name for programs.
    pub(super) id: &'static str,
    /// A name for people.
    pub(super) name: &'static str,
    /// The system call and its flag.
    pub(super) call: &'static str,
    pub(super) group: Group,
    /// The first kernel with it: major and minor number.
    pub(super) since: (u32, u32),
    /// The same as text.
    pub(super) since_text: &'static str,
}

/// Why a mechanism is not simply available.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lack {
    cause: Cause,
    reason: String,
}

/// What a probe has seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    status: Status,
    lack: Option<Lack>,
    evidence: String,
    remedy: Option<String>,
    facts: BTreeMap<&'static str, Value>,
}

impl Seen {
    /// It did what it is for.
    pub(super) fn works(evidence: impl Into<String>) -> Self {
        Self {
            status: Status::Available,
            lack: None,
            evidence: evidence.into(),
            remedy: None,
            facts: BTreeMap::new(),
        }
    }

    /// It did part of what it is for.
    pub(super) fn limited(
        cause: Cause,
        reason: impl Into<String>,
        evidence: impl Into<String>,
    ) -> Self {
        Self::works(evidence).with_lack(Status::Limited, cause, reason)
    }

    /// It was refused, or did not do what it is for.
    pub(super) fn missing(
        cause: Cause,
        reason: impl Into<String>,
        evidence: impl Into<String>,
    ) -> Self {
        Self::works(evidence).with_lack(Status::Missing, cause, reason)
    }

    /// It could not be tried.
    pub(super) fn unknown(reason: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self::works(evidence).with_lack(Status::Unknown, Cause::NotTried, reason)
    }

    fn with_lack(mut self, status: Status, cause: Cause, reason: impl Into<String>) -> Self {
        self.status = status;
        self.lack = Some(Lack {
            cause,
            reason: reason.into(),
        });
        self
    }

    pub(super) fn is_available(&self) -> bool {
        self.status == Status::Available
    }

    /// What would change it.
    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Something measured beside.
    pub(super) fn fact(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.facts.insert(name, value.into());
        self
    }

    /// Under the mechanism's name.
    pub(super) fn of(self, mechanism: &Mechanism) -> Finding {
        let (cause, reason) = match self.lack {
            Some(lack) => (Some(lack.cause), Some(lack.reason)),
            None => (None, None),
        };
        Finding {
            id: mechanism.id,
            name: mechanism.name,
            call: mechanism.call,
            group: mechanism.group,
            status: self.status,
            cause,
            since: mechanism.since_text,
            evidence: self.evidence,
            reason,
            remedy: self.remedy,
            facts: self.facts,
        }
    }
}
