//! Notices a copy of a file or a block device onto itself, which would read its own output. That a
//! partition lies on a disk, or a loop device on a file, is not noticed.

use crate::ask::{Ask, Length};
use crate::facts::{SinkFacts, SourceFacts};

/// True if source and sink are one and the ranges overlap, or may.
pub(super) fn reads_its_own_output(source: &SourceFacts, sink: &SinkFacts, ask: &Ask) -> bool {
    let same_device = source.device.is_some() && source.device == sink.device;
    let same_file = matches!(
        (source.version, sink.identity),
        (Some(version), Some(identity)) if (version.dev, version.ino) == identity
    );
    if !same_file && !same_device {
        return false;
    }
    let start = if sink.append {
        None
    } else {
        ask.sink_offset.or(sink.position)
    };
    match (ask.length, start) {
        (Length::Exact(len), Some(start)) => {
            start < ask.offset.saturating_add(len) && ask.offset < start.saturating_add(len)
        }
        _ => true,
    }
}
