//! Watches the version of a source that must not change while its pages are sent.
//!
//! The version is compared before each chunk and after the last, for sources declared immutable
//! or leased. For a copy out of a mapping it is compared around every write as well, because the
//! kernel reports zeros past a cut as written.
//!
//! Growth is taken for an append: the announced length is sent, and the longer version becomes
//! the one to compare with. `stat(2)` cannot tell an append from an edit that also appends, and
//! in the middle of an append it shows new times with the old size; so a file that looks edited
//! at a border is looked at once more, a moment later.
//!
//! Whatever the stability, the end of a source with a version is held against it: one that ends
//! before the longest size that it was ever seen to have was cut ([`Cause::Truncated`]). One that
//! gives no more although `fstat(2)` states more is asked again, by reading; if it still gives
//! nothing it has [ended](Cause::SourceEnded), whatever is stated.

use crate::ask::{Ask, Stability};
use crate::error::Cause;
use crate::facts::SourceFacts;
use crate::summary::{Ending, Why};
use crate::version::{Drift, Version};

use super::ledger::Ledger;

#[derive(Debug)]
pub(super) struct Guard {
    baseline: Option<Version>,
    /// The longest that it was seen to be.
    extent: u64,
    /// Where the source last said that it has no more, although more was stated.
    stuck_at: Option<u64>,
    /// Changes matter: the source was declared immutable, or is leased.
    watching: bool,
    /// Bytes read are not written before the file was found unchanged.
    verifies_reads: bool,
    ctime_is_edit: bool,
    cannot_shrink: bool,
    /// The baseline was read at this very moment.
    fresh: bool,
    final_check_due: bool,
    pub(super) grew: bool,
    round: StatRound,
    /// The question that the next version answers.
    pub(super) check: Option<Check>,
}

/// Why a version is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Is it still the same?
    Unchanged,
    /// Is it still the same, so that what was read may be written?
    AfterRead,
    /// How many of these bytes, written out of a mapping, were in the file?
    AfterMappedWrite { len: usize },
    /// Did the mapping fault because the file no longer reaches that far?
    MappedFault { end: u64, why: Why },
    /// The source reported its end: was it cut?
    End,
    /// All is queued: was it still the same to the end?
    Final(Ending),
}

/// A file that looks edited is asked a second time, after a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatRound {
    First,
    /// The moment has not passed.
    Suspect,
    Second,
}

pub(super) enum Judgement {
    GoOn,
    Finished(Ending),
    /// There should be more; another call is to try.
    SuspectEnd,
    Fall(Why),
    Fail(Cause),
}

impl Guard {
    pub(super) fn new(source: &SourceFacts, ask: &Ask) -> Self {
        let watching = source.kind.is_page_cache()
            && source.version.is_some()
            && !source.is_sealed()
            && matches!(ask.stability, Stability::Immutable | Stability::Leased);
        let verifies_reads = ask.one_version
            && source.kind.is_page_cache()
            && source.version.is_some()
            && !source.is_sealed();
        Self {
            baseline: source.version,
            extent: source.version.map_or(0, |version| version.size),
            stuck_at: None,
            watching,
            verifies_reads,
            ctime_is_edit: ask.ctime_is_edit,
            cannot_shrink: source.seals.shrink,
            fresh: ask.version_is_fresh,
            final_check_due: watching,
            grew: false,
            round: StatRound::First,
            check: None,
        }
    }

    pub(super) const fn knows_version(&self) -> bool {
        self.baseline.is_some()
    }

    /// Whether a source that says at this offset that it has no more ends before it should.
    pub(super) const fn is_early_end(&self, offset: u64) -> bool {
        self.baseline.is_some() && offset < self.extent
    }

    /// Where the file ended when it was last looked at.
    pub(super) fn size(&self) -> Option<u64> {
        self.baseline.map(|version| version.size)
    }

    /// Whether a write out of the mapping must be followed by a look at the size.
    pub(super) const fn checks_mapped_writes(&self) -> bool {
        !self.cannot_shrink
    }

    pub(super) const fn chunk_border(&mut self) {
        if self.watching && !self.fresh {
            self.check = Some(Check::Unchanged);
        }
    }

    pub(super) const fn before_mapped_write(&mut self) {
        if !self.cannot_shrink && !self.fresh {
            self.check = Some(Check::Unchanged);
        }
    }

    /// A read filled the buffer.
    pub(super) const fn after_read(&mut self) {
        if self.verifies_reads {
            self.check = Some(Check::AfterRead);
        }
    }

    /// A call was made or others ran: what was seen before is no longer current.
    pub(super) const fn time_passed(&mut self) {
        self.fresh = false;
    }

    pub(super) const fn wants_final_check(&self) -> bool {
        self.final_check_due
    }

    pub(super) const fn final_check_done(&mut self) {
        self.final_check_due = false;
    }

    pub(super) fn observe(&mut self, now: Version, ledger: &mut Ledger) -> Judgement {
        let Some(check) = self.check.take() else {
            return Judgement::GoOn;
        };
        let drift = self
            .baseline
            .map_or(Drift::Same, |baseline| baseline.drift_to(&now));
        let verdict = self.verdict(drift, now.size);
        // An unlink in progress shows its ctime before its count of names.
        let is_suspect = matches!(drift, Drift::Edited | Drift::Metadata);
        if is_suspect && verdict.is_some() && self.may_stat_again(check) {
            self.round = StatRound::Suspect;
            self.check = Some(check);
            return Judgement::GoOn;
        }
        self.round = StatRound::First;
        self.extent = self.extent.max(now.size);
        if verdict.is_none() {
            self.grew |= drift == Drift::Grown;
            // In the middle of an unlink ext4 has lowered the count of names and not yet moved
            // ctime. With that count as the baseline, the ctime to come would be an edit. The price:
            // where timestamps have ticks, a link made within the tick of the baseline excuses one
            // later edit whose mtime is set back.
            if drift != Drift::Same {
                self.baseline = Some(now);
            }
            self.fresh = true;
        }
        match check {
            Check::Unchanged | Check::AfterRead => verdict.map_or(Judgement::GoOn, Judgement::Fail),
            Check::Final(ending) => verdict.map_or(Judgement::Finished(ending), Judgement::Fail),
            Check::AfterMappedWrite { len } => {
                let in_file = now.size.saturating_sub(ledger.offset());
                ledger.pass(usize::try_from(in_file).map_or(len, |in_file| in_file.min(len)));
                verdict.map_or(Judgement::GoOn, Judgement::Fail)
            }
            Check::MappedFault { end, why } => match verdict {
                Some(cause) => Judgement::Fail(cause),
                None if now.size < end => Judgement::Fail(Cause::Truncated { size: now.size }),
                None => Judgement::Fall(why),
            },
            Check::End => self.judge_end(now, ledger, verdict),
        }
    }

    /// Whether the next version should be that of a moment later.
    pub(super) fn begins_second_round(&mut self) -> bool {
        let suspect = self.round == StatRound::Suspect;
        if suspect {
            self.round = StatRound::Second;
        }
        suspect
    }

    fn may_stat_again(&self, check: Check) -> bool {
        // After a write out of a mapping the account must not wait.
        self.round == StatRound::First
            && matches!(check, Check::Unchanged | Check::AfterRead | Check::Final(_))
    }

    /// The source reported its end at the ledger's offset.
    fn judge_end(&mut self, now: Version, ledger: &Ledger, verdict: Option<Cause>) -> Judgement {
        if let Some(cause) = verdict {
            return Judgement::Fail(cause);
        }
        let here = ledger.offset();
        if now.size > here {
            // It grew meanwhile, or was cut and refilled: there is more to move. Unless it said so
            // before.
            return match self.stuck_at.replace(here) {
                Some(before) if before == here => Judgement::Fail(Cause::SourceEnded),
                _ => Judgement::SuspectEnd,
            };
        }
        if now.size < self.extent {
            return Judgement::Fail(Cause::Truncated { size: now.size });
        }
        match ledger.remaining() {
            Some(_) => Judgement::Fail(Cause::SourceEnded),
            None => Judgement::Finished(Ending::SourceEnd),
        }
    }

    fn verdict(&self, drift: Drift, size: u64) -> Option<Cause> {
        if !self.watching && !self.verifies_reads {
            return None;
        }
        match drift {
            Drift::Truncated => Some(Cause::Truncated { size }),
            Drift::Edited | Drift::Replaced => Some(Cause::Changed),
            Drift::Metadata => self.ctime_is_edit.then_some(Cause::Changed),
            Drift::Same | Drift::Relinked | Drift::Grown => None,
        }
    }
}
