//! The mechanisms that are drawn: which places the bytes pass, and who moves them from each to the
//! next.
//!
//! They are as the plan has them, between a disk and a network device; a test holds them against
//! the planner.

use crate::bench::results::Path;

/// Where a box lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the program's memory, above.
    User,
    /// In the kernel, at the source, between, at the sink.
    Source,
    Middle,
    Sink,
    /// The devices, below.
    From,
    To,
}

/// Who moves the bytes along an arrow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Cpu,
    Dma,
    Reference,
}

pub(super) struct Arrow {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) by: By,
}

pub(super) struct Drawing {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// The route in the results, and the path on which it is measured.
    pub(super) route: &'static str,
    pub(super) path: Path,
    pub(super) boxes: &'static [(Place, &'static str)],
    pub(super) arrows: &'static [Arrow],
    pub(super) switches: u32,
    pub(super) words: &'static str,
}

const fn arrow(from: Place, to: Place, by: By) -> Arrow {
    Arrow { from, to, by }
}

pub(super) const DRAWINGS: [Drawing; 7] = [
    Drawing {
        id: "read-write",
        title: "read + write",
        route: "read+write",
        path: Path::FileToTcp,
        boxes: &[
            (Place::From, "disk"),
            (Place::Source, "page cache"),
            (Place::User, "user buffer"),
            (Place::Sink, "socket"),
            (Place::To, "NIC"),
        ],
        arrows: &[
            arrow(Place::From, Place::Source, By::Dma),
            arrow(Place::Source, Place::User, By::Cpu),
            arrow(Place::User, Place::Sink, By::Cpu),
            arrow(Place::Sink, Place::To, By::Dma),
        ],
        switches: 4,
        words: "The read copies from the page cache into a buffer of the program, the write from \
                there into the socket: two system calls, and each byte copied twice.",
    },
    Drawing {
        id: "mmap-write",
        title: "mmap + write",
        route: "mmap+write",
        path: Path::FileToTcp,
        boxes: &[
            (Place::From, "disk"),
            (Place::Source, "page cache"),
            (Place::User, "mapping"),
            (Place::Sink, "socket"),
            (Place::To, "NIC"),
        ],
        arrows: &[
            arrow(Place::From, Place::Source, By::Dma),
            arrow(Place::Source, Place::User, By::Reference),
            arrow(Place::User, Place::Sink, By::Cpu),
            arrow(Place::Sink, Place::To, By::Dma),
        ],
        switches: 2,
        words: "The mapping shows the very pages of the cache, so there is nothing to read; the \
                write copies from them into the socket. The literature counts 4 mode switches, mmap \
                included; one mmap serves many chunks, so the plan counts the write alone.",
    },
    Drawing {
        id: "sendfile",
        title: "sendfile, without gather",
        route: "sendfile",
        path: Path::FileToTcp,
        boxes: &[
            (Place::From, "disk"),
            (Place::Source, "page cache"),
            (Place::Sink, "socket"),
            (Place::To, "NIC"),
        ],
        arrows: &[
            arrow(Place::From, Place::Source, By::Dma),
            arrow(Place::Source, Place::Sink, By::Cpu),
            arrow(Place::Sink, Place::To, By::Dma),
        ],
        switches: 2,
        words: "The program never sees the bytes. A device that cannot gather scattered pages needs \
                them in one piece, so the kernel copies once.",
    },
    Drawing {
        id: "sendfile-gather",
        title: "sendfile, with gather",
        route: "sendfile",
        path: Path::FileToTcp,
        boxes: &[
            (Place::From, "disk"),
            (Place::Source, "page cache"),
            (Place::Sink, "socket"),
            (Place::To, "NIC"),
        ],
        arrows: &[
            arrow(Place::From, Place::Source, By::Dma),
            arrow(Place::Source, Place::Sink, By::Reference),
            arrow(Place::Source, Place::To, By::Dma),
        ],
        switches: 2,
        words: "The socket holds references to the pages, and the device gathers the bytes from the \
                page cache itself. The CPU touches none of them.",
    },
    Drawing {
        id: "splice",
        title: "splice, file to socket",
        route: "splice",
        path: Path::FileToTcp,
        boxes: &[
            (Place::From, "disk"),
            (Place::Source, "page cache"),
            (Place::Middle, "pipe"),
            (Place::Sink, "socket"),
            (Place::To, "NIC"),
        ],
        arrows: &[
            arrow(Place::From, Place::Source, By::Dma),
            arrow(Place::Source, Place::Middle, By::Reference),
            arrow(Place::Middle, Place::Sink, By::Reference),
            arrow(Place::Source, Place::To, By::Dma),
        ],
        switches: 4,
        words: "References to the pages go into a pipe and out of it again: two system calls, no \
                copy.",
    },
    Drawing {
        id: "splice-relay",
        title: "splice, socket to socket",
        route: "splice",
        path: Path::TcpToTcp,
        boxes: &[
            (Place::From, "NIC"),
            (Place::Source, "socket"),
            (Place::Middle, "pipe"),
            (Place::Sink, "socket"),
            (Place::To, "NIC"),
        ],
        arrows: &[
            arrow(Place::From, Place::Source, By::Dma),
            arrow(Place::Source, Place::Middle, By::Reference),
            arrow(Place::Middle, Place::Sink, By::Reference),
            arrow(Place::Source, Place::To, By::Dma),
        ],
        switches: 4,
        words: "A relay: the buffers that the first device filled change hands until the second \
                device has sent them.",
    },
    Drawing {
        id: "copy-file-range",
        title: "copy_file_range",
        route: "copy_file_range",
        path: Path::FileToFile,
        boxes: &[
            (Place::From, "disk"),
            (Place::Source, "page cache"),
            (Place::Sink, "page cache"),
            (Place::To, "disk"),
        ],
        arrows: &[
            arrow(Place::From, Place::Source, By::Dma),
            arrow(Place::Source, Place::Sink, By::Cpu),
            arrow(Place::Sink, Place::To, By::Dma),
        ],
        switches: 2,
        words: "The file system copies from the pages of the one file to those of the other. Where \
                it can share blocks (XFS, Btrfs) it copies nothing at all.",
    },
];

impl Drawing {
    pub(super) fn number_of(&self, by: By) -> u32 {
        self.arrows
            .iter()
            .map(|arrow| u32::from(arrow.by == by))
            .sum()
    }

    pub(super) fn description(&self) -> String {
        let label = |place: Place| {
            let named = self.boxes.iter().find(|(other, _)| *other == place);
            named.map_or("", |(_, label)| label)
        };
        let steps: Vec<String> = (1..)
            .zip(self.arrows)
            .map(|(step, arrow)| {
                let (from, to) = (label(arrow.from), label(arrow.to));
                format!("{step}: {from} to {to}, {}.", arrow.by.words())
            })
            .collect();
        steps.join(" ")
    }
}

impl By {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Cpu => "copied by the CPU",
            Self::Dma => "moved by DMA",
            Self::Reference => "by reference",
        }
    }

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Cpu => "CPU copy",
            Self::Dma => "DMA",
            Self::Reference => "reference",
        }
    }

    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Cpu => "by-cpu",
            Self::Dma => "by-dma",
            Self::Reference => "by-reference",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zhaul::{Cost, InPlaceEnd, Route, SinkFacts, SinkKind, SourceFacts, SourceKind};

    /// What the planner says about the ends of a drawing; `None` for what it does not plan.
    fn planned(drawing: &Drawing) -> Option<Cost> {
        let route = Route::BY_COST
            .into_iter()
            .find(|route| route.name() == drawing.route)
            .unwrap();
        let source = match drawing.path {
            Path::TcpToTcp => SourceKind::StreamSocket,
            _ => SourceKind::Regular,
        };
        let sink = match drawing.path {
            Path::FileToFile => SinkFacts::new(SinkKind::Regular),
            _ => SinkFacts::stream_socket(InPlaceEnd::Acknowledged),
        };
        // The planner knows nothing of devices that cannot gather.
        let plannable = drawing.id != "sendfile";
        plannable.then(|| Cost::expected(route, &SourceFacts::new(source), &sink))
    }

    #[test]
    fn drawings_agree_with_the_planner() {
        for drawing in &DRAWINGS {
            let Some(cost) = planned(drawing) else {
                continue;
            };
            assert_eq!(cost.mode_switches, drawing.switches, "{}", drawing.id);
            assert_eq!(
                cost.cpu_copies,
                drawing.number_of(By::Cpu),
                "{}",
                drawing.id
            );
            // It counts neither what a device wrote before the transfer nor what is written back
            // after it.
            if drawing.path == Path::FileToTcp {
                assert_eq!(
                    cost.dma_copies,
                    drawing.number_of(By::Dma),
                    "{}",
                    drawing.id
                );
            }
        }
    }

    #[test]
    fn arrows_begin_and_end_at_boxes_of_their_drawing() {
        for drawing in &DRAWINGS {
            for arrow in drawing.arrows {
                for end in [arrow.from, arrow.to] {
                    assert!(
                        drawing.boxes.iter().any(|(place, _)| *place == end),
                        "{}",
                        drawing.id
                    );
                }
            }
        }
    }
}
