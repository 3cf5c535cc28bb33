//! What is known about an end, for people and for `--json`.

use serde::{Deserialize, Serialize};
use zhaul::{InPlaceEnd, SinkFacts, SinkKind, SourceFacts, SourceKind};

use super::endpoint::Endpoint;
use super::memory::InMemory;

/// What is known about a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AboutSource {
    /// As it was named.
    pub name: String,
    /// The planner's word: `regular`, `memfd`, `block`, `pipe`, `stream_socket`, `device`,
    /// `pseudo`, `other`.
    pub kind: String,
    /// In words.
    pub what: String,
    /// The type of the file system that it lies on.
    pub file_system: Option<String>,
    /// Bytes it has, if its size means something.
    pub size_bytes: Option<u64>,
    /// It can be read at an offset.
    pub seekable: bool,
    /// How much of what is to be moved was in the page cache.
    pub in_memory: Option<InMemory>,
    /// The address, for a peer.
    pub peer: Option<String>,
    /// The interface towards the peer.
    pub interface: Option<String>,
    /// How this was found out.
    pub found_by: FoundBy,
}

/// What is known about a sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AboutSink {
    /// As it was named.
    pub name: String,
    /// The planner's word: `regular`, `block`, `pipe`, `stream_socket`, `message_socket`, `null`,
    /// `device`, `other`.
    pub kind: String,
    /// In words.
    pub what: String,
    /// The type of the file system that it lies on, or would.
    pub file_system: Option<String>,
    /// Whether the file is there; `None` for what is no file.
    pub exists: Option<bool>,
    /// Bytes the file has now, or had before it was emptied.
    pub size_bytes: Option<u64>,
    /// Its content was taken away to make room for this transfer.
    pub emptied: bool,
    /// Opened for appending.
    pub append: bool,
    /// When pages queued by reference end: `acknowledged`, or `never` at a moment that can be
    /// observed. `None` where nothing stays queued.
    pub references_end: Option<String>,
    /// The address, for a peer.
    pub peer: Option<String>,
    /// The interface towards the peer.
    pub interface: Option<String>,
    /// How this was found out.
    pub found_by: FoundBy,
}

/// How the facts about an end were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FoundBy {
    /// From an open descriptor.
    Descriptor,
    /// From its name, by `stat(2)`; it was not opened.
    Name,
    /// From the routing table; nobody was contacted.
    Route,
}

impl AboutSource {
    /// What the facts alone tell.
    pub(crate) fn of(name: &str, facts: &SourceFacts, what: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: code(&facts.kind),
            what: what.to_owned(),
            file_system: None,
            size_bytes: None,
            seekable: facts.seekable,
            in_memory: None,
            peer: None,
            interface: None,
            found_by: FoundBy::Name,
        }
    }
}

impl AboutSink {
    /// What the facts alone tell.
    pub(crate) fn of(name: &str, facts: &SinkFacts, what: &str) -> Self {
        let references_end = facts.kind.queues_page_references().then(|| {
            match facts.in_place_ends_at {
                InPlaceEnd::Acknowledged => "acknowledged",
                _ => "never",
            }
            .to_owned()
        });
        Self {
            name: name.to_owned(),
            kind: code(&facts.kind),
            what: what.to_owned(),
            file_system: None,
            exists: None,
            size_bytes: None,
            emptied: false,
            append: facts.append,
            references_end,
            peer: None,
            interface: None,
            found_by: FoundBy::Name,
        }
    }
}

/// `PagesByReference` as `pages_by_reference`: the words of the planner, for programs.
pub(crate) fn code(word: &impl std::fmt::Debug) -> String {
    let mut text = String::new();
    for c in format!("{word:?}").chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

pub(crate) const fn source_words(kind: SourceKind, endpoint: &Endpoint) -> &'static str {
    match kind {
        SourceKind::Regular => "regular file",
        SourceKind::Memfd => "memfd",
        SourceKind::Block => "block device",
        SourceKind::Pipe if matches!(endpoint, Endpoint::Standard) => "pipe",
        SourceKind::Pipe => "FIFO",
        SourceKind::StreamSocket => "stream socket",
        SourceKind::Device => "character device",
        SourceKind::Pseudo => "made up by the kernel at each read",
        _ => "neither file nor stream",
    }
}

pub(crate) const fn sink_words(kind: SinkKind, endpoint: &Endpoint) -> &'static str {
    match kind {
        SinkKind::Regular => "regular file",
        SinkKind::Block => "block device",
        SinkKind::Pipe if matches!(endpoint, Endpoint::Standard) => "pipe",
        SinkKind::Pipe => "FIFO",
        SinkKind::StreamSocket => "stream socket",
        SinkKind::MessageSocket => "socket with message boundaries",
        SinkKind::Null => "/dev/null",
        SinkKind::Device => "character device",
        _ => "neither file nor stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_planner_are_made_fit_for_programs() {
        assert_eq!(code(&SourceKind::StreamSocket), "stream_socket");
        assert_eq!(code(&zhaul::Stability::MayChange), "may_change");
        assert_eq!(code(&zhaul::Reason::Asked), "asked");
    }
}
