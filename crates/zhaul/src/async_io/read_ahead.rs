//! Keeps a transfer from touching pages that are not in memory.
//!
//! Before each call that reads a file, the rest of its chunk is looked up: in what this transfer
//! knows already, in the residency cache, by a probe. If it is cold the pool reads it first; once a
//! stream turned out cold, its next chunk is read while the current one is sent, so that one
//! connection keeps a disk busy. Resident files cost a look into the cache per chunk.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use zhaul_core::{DEFAULT_CHUNK_BYTES, Errno, Version};

use super::end::{AsyncEnd, SharedFd};
use crate::cold::{ColdJob, ColdPool};
use crate::errno::of_rustix;
use crate::residency::{Chunk, Residency, ResidencyCache, Tick, populate, probe};

/// A file that can be kept alive by a job in the pool.
pub(crate) trait FileHandle {
    type Handle: AsFd + Send + 'static;

    fn file(&self) -> BorrowedFd<'_>;
    fn handle(&self) -> Result<Self::Handle, Errno>;
}

impl<F: AsFd + Clone + Send + 'static> FileHandle for &F {
    type Handle = F;

    fn file(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn handle(&self) -> Result<F, Errno> {
        Ok((*self).clone())
    }
}

/// The source of a transfer, shared or duplicated when the first cold chunk comes up.
#[derive(Debug)]
pub(crate) struct Kept<'a, S> {
    source: &'a S,
    duplicate: OnceLock<Arc<OwnedFd>>,
}

impl<'a, S> Kept<'a, S> {
    pub(crate) const fn new(source: &'a S) -> Self {
        Self {
            source,
            duplicate: OnceLock::new(),
        }
    }
}

impl<S: AsyncEnd> FileHandle for Kept<'_, S> {
    type Handle = SharedFd;

    fn file(&self) -> BorrowedFd<'_> {
        self.source.fd()
    }

    fn handle(&self) -> Result<SharedFd, Errno> {
        if let Some(shared) = self.source.shared() {
            return Ok(shared);
        }
        if let Some(duplicate) = self.duplicate.get() {
            return Ok(Arc::clone(duplicate).into());
        }
        let duplicate = rustix::io::fcntl_dupfd_cloexec(self.source.fd(), 0).map_err(of_rustix)?;
        let duplicate = self.duplicate.get_or_init(|| Arc::new(duplicate));
        Ok(Arc::clone(duplicate).into())
    }
}

/// What one transfer knows about the residency of its file.
pub(crate) struct ReadAhead<'a, F> {
    file: F,
    version: Option<Version>,
    cache: &'a ResidencyCache,
    cold: &'a ColdPool,
    chunk_bytes: u64,
    /// End of what will be asked for.
    end: u64,
    known: Range<u64>,
    known_at: Tick,
    next: Option<Reading>,
}

/// A chunk that the pool is reading.
struct Reading {
    range: Range<u64>,
    job: ColdJob<Result<u64, Errno>>,
}

impl<'a, F: FileHandle> ReadAhead<'a, F> {
    /// For a transfer that reads up to `end`, as far as that is known, in chunks aligned to
    /// `chunk_bytes`.
    pub(crate) fn new(
        file: F,
        version: Option<Version>,
        cache: &'a ResidencyCache,
        cold: &'a ColdPool,
        chunk_bytes: usize,
        end: Option<u64>,
    ) -> Self {
        let size = version.map(|version| version.size);
        Self {
            file,
            version,
            cache,
            cold,
            chunk_bytes: chunk_bytes.clamp(1, MAX_READ_BYTES) as u64,
            end: end.or(size).unwrap_or(u64::MAX),
            known: 0..0,
            known_at: Tick::now(),
            next: None,
        }
    }

    /// True if a call may read this range now without waiting for the disk.
    pub(crate) fn is_ready(&mut self, offset: u64, len: usize) -> bool {
        let now = Tick::now();
        let asked_end = offset.saturating_add(len as u64);
        let covers = self.known.start <= offset && asked_end <= self.known.end;
        if covers && now.is_within_a_second_of(self.known_at) {
            return true;
        }
        if self
            .next
            .as_ref()
            .is_some_and(|reading| reading.range.contains(&offset))
        {
            return false;
        }
        let need = self.rest_of_chunk(offset, asked_end);
        self.look_up(&need, now)
    }

    /// Has this range read, and the chunk after it started.
    pub(crate) async fn make_ready(&mut self, offset: u64, len: usize) -> Result<(), Errno> {
        let mut need = self.rest_of_chunk(offset, offset.saturating_add(len as u64));
        match self.next.take() {
            Some(reading) if reading.range.contains(&offset) => {
                need = offset..reading.range.end;
                reading.job.join().await?;
            }
            _ => {
                let job = self.reader(need.clone())?;
                self.cold.submit(job).await.join().await?;
            }
        }
        self.learn(need.clone(), Tick::now());
        self.read_next(need.end);
        Ok(())
    }

    fn look_up(&mut self, need: &Range<u64>, now: Tick) -> bool {
        let remembered = self
            .version
            .as_ref()
            .is_some_and(|version| self.cache.is_resident(version, self.chunk(need.start), now));
        if !remembered {
            let asked = probe(self.file.file(), need.start, need.end - need.start);
            if asked != Residency::Resident {
                return false;
            }
            self.learn(need.clone(), now);
        }
        self.known = need.clone();
        self.known_at = now;
        true
    }

    fn learn(&mut self, range: Range<u64>, now: Tick) {
        if let Some(version) = &self.version {
            let chunk = self.chunk(range.start);
            let start = chunk.index * self.chunk_bytes;
            let end = start.saturating_add(self.chunk_bytes).min(version.size);
            // Only a whole chunk is remembered: the cache does not know parts.
            if range.start == start && range.end >= end {
                self.cache.note(version, chunk, now);
            }
        }
        self.known = range;
        self.known_at = now;
    }

    const fn chunk(&self, offset: u64) -> Chunk {
        Chunk::at(offset, self.chunk_bytes)
    }

    /// From here to the end of the chunk or of what is needed, and at least what is asked for.
    fn rest_of_chunk(&self, offset: u64, asked_end: u64) -> Range<u64> {
        let chunk_end = (offset / self.chunk_bytes + 1).saturating_mul(self.chunk_bytes);
        offset..chunk_end.min(self.end).max(asked_end)
    }

    fn read_next(&mut self, start: u64) {
        if start >= self.end {
            return;
        }
        let range = self.rest_of_chunk(start, start.saturating_add(1));
        if self.look_up_without_learning(&range) {
            return;
        }
        // Without room in the queue the chunk is read when its turn comes.
        if let Ok(reader) = self.reader(range.clone())
            && let Some(job) = self.cold.try_submit(reader)
        {
            self.next = Some(Reading { range, job });
        }
    }

    fn look_up_without_learning(&self, range: &Range<u64>) -> bool {
        let remembered = self.version.as_ref().is_some_and(|version| {
            self.cache
                .is_resident(version, self.chunk(range.start), Tick::now())
        });
        remembered
            || probe(self.file.file(), range.start, range.end - range.start) == Residency::Resident
    }

    fn reader(
        &self,
        range: Range<u64>,
    ) -> Result<impl FnOnce() -> Result<u64, Errno> + Send + 'static + use<F>, Errno> {
        let handle = self.file.handle()?;
        Ok(move || populate(&handle, range.start, range.end - range.start))
    }
}

/// Brings a range into memory, in the pool if it is not there. True if something had to be read.
/// For what must be known before the first byte goes out: that the disk can read it.
///
/// # Errors
/// What the disk says, typically EIO.
pub async fn warm<F: AsFd + Clone + Send + 'static>(
    file: &F,
    version: &Version,
    range: Range<u64>,
    cache: &ResidencyCache,
    cold: &ColdPool,
) -> Result<bool, Errno> {
    let mut read_ahead = ReadAhead::new(
        file,
        Some(*version),
        cache,
        cold,
        DEFAULT_CHUNK_BYTES,
        Some(range.end),
    );
    let mut was_cold = false;
    let mut at = range.start;
    while at < range.end {
        let chunk = read_ahead.rest_of_chunk(at, at.saturating_add(1));
        if !read_ahead.is_ready(at, 1) {
            read_ahead.make_ready(at, 1).await?;
            was_cold = true;
        }
        at = chunk.end;
    }
    Ok(was_cold)
}

/// Largest piece read at once for one transfer, whatever chunk size the caller chose, and so the
/// largest chunk that a transfer on tokio submits.
pub(crate) const MAX_READ_BYTES: usize = 16 << 20;
