//! [`FileRange`]: bytes that are in a file and stay there until they are sent.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use zhaul_core::{Ask, Length, SourceFacts, Stability};

use crate::endpoint;
use crate::lease::Lease;

/// A file that is kept open by everybody who refers to it.
#[derive(Clone)]
pub struct SharedFd(Arc<dyn AsFd + Send + Sync>);

impl AsFd for SharedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for SharedFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedFd").field(&self.as_fd()).finish()
    }
}

/// Allocates nothing: for a file that many ranges refer to.
impl<F: AsFd + Send + Sync + 'static> From<Arc<F>> for SharedFd {
    fn from(file: Arc<F>) -> Self {
        Self(file)
    }
}

impl From<File> for SharedFd {
    fn from(file: File) -> Self {
        Self(Arc::new(file))
    }
}

impl From<OwnedFd> for SharedFd {
    fn from(file: OwnedFd) -> Self {
        Self(Arc::new(file))
    }
}

/// A range of a file, with what is known about who else may write to it, as for
/// [`transfer`](crate::transfer): without a word ([`Stability::MayChange`]) it is copied when it is sent.
#[derive(Clone, Debug)]
pub struct FileRange {
    file: SharedFd,
    start: u64,
    end: u64,
    facts: Option<Arc<SourceFacts>>,
    lease: Option<Arc<Lease>>,
    stability: Stability,
    version_is_fresh: bool,
    one_version: bool,
    ctime_is_edit: bool,
}

impl FileRange {
    /// The bytes of `file` from `range.start` to before `range.end`. That the file has them is found
    /// out when they are sent; one that ends before is an error then.
    pub fn new(file: impl Into<SharedFd>, range: Range<u64>) -> Self {
        Self {
            file: file.into(),
            start: range.start,
            end: range.end.max(range.start),
            facts: None,
            lease: None,
            stability: Stability::default(),
            version_is_fresh: false,
            one_version: false,
            ctime_is_edit: false,
        }
    }

    /// All bytes that the file has now, which must be one whose size means something.
    ///
    /// # Errors
    /// As `fstat(2)`; EINVAL for a stream, a directory, or a file of procfs.
    pub fn whole(file: impl Into<SharedFd>) -> io::Result<Self> {
        let file = file.into();
        let facts = endpoint::source_facts(&file)?;
        let version = facts.version.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self::new(file, 0..version.size).source_facts(facts))
    }

    /// Who else may write to the file.
    #[must_use]
    pub const fn stability(mut self, stability: Stability) -> Self {
        self.stability = stability;
        self
    }

    /// Relies on this lease, which is held as long as the range. Implies [`Stability::Leased`].
    #[must_use]
    pub fn lease(mut self, lease: Arc<Lease>) -> Self {
        self.lease = Some(lease);
        self.stability = Stability::Leased;
        self
    }

    /// What the file is, for a caller who has examined it; nothing is asked then.
    #[must_use]
    pub fn source_facts(mut self, facts: impl Into<Arc<SourceFacts>>) -> Self {
        self.facts = Some(facts.into());
        self
    }

    /// The version in [`source_facts`](Self::source_facts) was read just now.
    #[must_use]
    pub const fn version_is_fresh(mut self, fresh: bool) -> Self {
        self.version_is_fresh = fresh;
        self
    }

    /// All bytes come from one version of the file ([`Ask::one_version`]).
    #[must_use]
    pub const fn one_version(mut self, wanted: bool) -> Self {
        self.one_version = wanted;
        self
    }

    /// A move of ctime alone counts as an edit ([`Ask::ctime_is_edit`]).
    #[must_use]
    pub const fn ctime_is_edit(mut self, wanted: bool) -> Self {
        self.ctime_is_edit = wanted;
        self
    }

    /// The file.
    pub const fn file(&self) -> &SharedFd {
        &self.file
    }

    /// Where in the file.
    pub const fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    /// How many bytes.
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// True for none.
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// What was said about the file.
    pub fn facts(&self) -> Option<&SourceFacts> {
        self.facts.as_deref()
    }

    /// The lease that it relies on.
    pub const fn held_lease(&self) -> Option<&Arc<Lease>> {
        self.lease.as_ref()
    }

    /// The wishes for a transfer of these bytes.
    pub fn ask(&self) -> Ask {
        Ask {
            offset: self.start,
            length: Length::Exact(self.len()),
            stability: self.stability,
            version_is_fresh: self.version_is_fresh,
            one_version: self.one_version,
            ctime_is_edit: self.ctime_is_edit,
            ..Ask::default()
        }
    }

    /// The part `range`, counted from the start of this one.
    ///
    /// # Panics
    /// If the range is not inside.
    #[must_use]
    pub fn slice(&self, range: Range<u64>) -> Self {
        let mut part = self.clone();
        part.narrow(range);
        part
    }

    pub(super) fn narrow(&mut self, range: Range<u64>) {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "inside the range"
        );
        self.end = self.start + range.end;
        self.start += range.start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_a_range_is_a_range_of_the_file() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.set_len(100).unwrap();
        let whole = FileRange::whole(file.clone()).unwrap();
        assert_eq!(whole.range(), 0..100);
        assert_eq!(whole.facts().unwrap().version.unwrap().size, 100);
        let part = whole
            .stability(Stability::Immutable)
            .slice(10..90)
            .slice(5..6);
        assert_eq!((part.range(), part.len()), (15..16, 1));
        assert_eq!(part.ask().offset, 15);
        assert_eq!(part.ask().length, Length::Exact(1));
        assert_eq!(part.ask().stability, Stability::Immutable);
        assert!(FileRange::new(file, 5..5).is_empty());
    }

    #[test]
    fn a_stream_has_no_whole() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let error = FileRange::whole(reader).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    #[should_panic(expected = "inside the range")]
    fn a_part_outside_is_refused() {
        let _ = FileRange::new(tempfile::tempfile().unwrap(), 10..20).slice(5..11);
    }
}
