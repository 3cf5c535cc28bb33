//! What the tree says. Pure.

use super::layout::{Node, Tone};
use super::measured;
use crate::explain::about::{AboutSink, AboutSource, FoundBy};
use crate::explain::expected::{Expected, SAMPLE_CHUNKS};
use crate::explain::explanation::{Choice, Explanation};
use crate::explain::units::{amount, amount_exactly, grouped, significant};

pub(super) fn root(explanation: &Explanation, columns: usize) -> Node {
    let Explanation {
        source, sink, plan, ..
    } = explanation;
    let title = format!("{} → {}", source.name, sink.name);
    let expected = match &explanation.measured {
        // The table beside the measured figures has them all.
        Some(_) => None,
        None => Some(expected(explanation)),
    };
    let notes = (!explanation.notes.is_empty())
        .then(|| Node::text("notes").children(explanation.notes.iter().map(Node::text)));
    Node::new(&plan.route, title)
        .tone(Tone::Chosen)
        .child(Node::new("because", &plan.because))
        .child(source_node(explanation))
        .child(sink_node(sink))
        .children(expected)
        .children(
            explanation
                .measured
                .as_ref()
                .map(|analysis| measured::node(explanation, analysis, columns)),
        )
        .child(passed_over(plan))
        .child(thresholds(explanation))
        .child(host(explanation))
        .children(notes)
}

fn source_node(explanation: &Explanation) -> Node {
    let AboutSource {
        what,
        file_system,
        size_bytes,
        in_memory,
        peer,
        interface,
        ..
    } = &explanation.source;
    let asked = &explanation.asked;
    let mut place = place(
        what,
        file_system.as_deref(),
        peer.as_deref(),
        interface.as_deref(),
    );
    match size_bytes {
        Some(0) => place.push_str(", empty"),
        Some(size) => place.push_str(&format!(", {}", amount_exactly(*size))),
        None => {}
    }
    let range = match (asked.offset, asked.length, *size_bytes) {
        (0, Some(length), Some(size)) if length == size => None,
        (0, None, Some(0)) => None,
        (0, None, _) => Some("to its end".to_owned()),
        (0, Some(length), _) => Some(format!("{} of it", amount_exactly(length))),
        (offset, Some(length), _) => Some(format!(
            "{} of it, from byte {}",
            amount_exactly(length),
            grouped(offset)
        )),
        (offset, None, _) => Some(format!("from byte {} to its end", grouped(offset))),
    };
    let memory = in_memory.map(|memory| {
        let percent = significant((memory.fraction * 1000.0).floor() / 10.0);
        format!("in memory: {percent} % ({})", memory.method)
    });
    let facts = [
        range,
        memory,
        Some(stability(&asked.stability, &explanation.source.kind)),
    ];
    Node::new("source", place).children(facts.into_iter().flatten().map(Node::text))
}

/// What is promised about others who write to the source.
fn stability(asked: &str, kind: &str) -> String {
    let edited = matches!(kind, "regular" | "memfd" | "block");
    match asked {
        _ if !edited => "nobody can edit what was not read yet".to_owned(),
        "immutable" => "immutable: nobody edits it in place, it was said".to_owned(),
        "leased" => "leased: whoever wants to write waits".to_owned(),
        _ => "may change: others may write to it at any time".to_owned(),
    }
}

fn sink_node(sink: &AboutSink) -> Node {
    let place = place(
        &sink.what,
        sink.file_system.as_deref(),
        sink.peer.as_deref(),
        sink.interface.as_deref(),
    );
    let state = match (sink.exists, sink.found_by) {
        (Some(false), FoundBy::Name) => Some("not there yet: it would be created".to_owned()),
        (Some(false), _) => Some("created".to_owned()),
        (Some(true), _) if sink.emptied => sink
            .size_bytes
            .map(|size| format!("replaced; it had {}", amount(size))),
        (Some(true), _) => sink
            .size_bytes
            .map(|size| format!("there already, with {}", amount(size))),
        (None, _) => None,
    };
    let append = sink.append.then(|| "opened for appending".to_owned());
    let references = sink.references_end.as_deref().map(|end| match end {
        "acknowledged" => "pages queued in it are free once the peer acknowledged".to_owned(),
        _ => "nobody can tell when pages queued in it are free".to_owned(),
    });
    let facts = [state, append, references];
    Node::new("sink", place).children(facts.into_iter().flatten().map(Node::text))
}

fn place(
    what: &str,
    file_system: Option<&str>,
    peer: Option<&str>,
    interface: Option<&str>,
) -> String {
    let mut text = what.to_owned();
    if let Some(file_system) = file_system {
        text.push_str(&format!(" on {file_system}"));
    }
    if let Some(peer) = peer {
        text.push_str(&format!(" with {peer}"));
    }
    if let Some(interface) = interface {
        text.push_str(&format!(" over {interface}"));
    }
    text
}

fn expected(explanation: &Explanation) -> Node {
    let expected = &explanation.expected;
    Node::text("expected, from the plan")
        .aligned()
        .child(Node::new("chunks", chunks(expected)))
        .child(Node::new("mode switches", switches(expected)))
        .child(Node::new(
            "CPU copies",
            format!("{} of each byte", expected.cpu_copies_per_byte),
        ))
        .child(Node::new("DMA copies", dma(explanation)))
}

/// How many chunks there are, and of what size.
pub(super) fn chunks(expected: &Expected) -> String {
    let size = amount(expected.chunk_bytes);
    match expected.chunks {
        Some(0) => "none: there is nothing to move".to_owned(),
        Some(1) => format!("1 of at most {size}"),
        Some(chunks) => format!("{} of at most {size}", grouped(chunks)),
        None => format!("of at most {size}, until the source ends"),
    }
}

fn switches(expected: &Expected) -> String {
    let per_chunk = significant(expected.mode_switches_per_chunk);
    let calls: Vec<_> = expected
        .calls
        .iter()
        .map(|(name, &count)| match expected.bytes {
            Some(_) => format!("{} {name}", grouped(count as u64)),
            None => format!("{} {name}", significant(count / SAMPLE_CHUNKS as f64)),
        })
        .collect();
    match (expected.bytes, calls.is_empty()) {
        (_, true) => "none".to_owned(),
        (Some(_), _) => format!("{per_chunk} a chunk; {} in all", calls.join(", ")),
        (None, _) => format!(
            "{per_chunk} a chunk, if it comes whole: {}",
            calls.join(", ")
        ),
    }
}

fn dma(explanation: &Explanation) -> String {
    let dma = &explanation.expected.dma;
    let source = match (dma.source_copies, dma.source_bytes) {
        (0, _) => "none from a disk".to_owned(),
        (_, Some(0)) => "none from the disk: all of it is in memory".to_owned(),
        (copies, Some(bytes)) => format!("{copies} from the disk, of {}", amount(bytes)),
        (copies, None) => format!("{copies} from the disk, of what is not in memory"),
    };
    let sink = match (dma.sink_copies, explanation.sink.kind.as_str()) {
        (0, _) => "none to a device".to_owned(),
        (copies, "regular" | "block") => format!("{copies} to the disk, later"),
        (copies, _) => format!("{copies} to the network device"),
    };
    format!("{source}; {sink}")
}

fn passed_over(plan: &Choice) -> Node {
    let routes = plan.passed_over.iter().map(|other| {
        let text = if other.in_reserve {
            format!("in reserve: {}", other.because)
        } else {
            format!("no: {}", other.because)
        };
        Node::new(&other.route, text).tone(Tone::Quiet)
    });
    Node::text("passed over").aligned().children(routes)
}

fn thresholds(explanation: &Explanation) -> Node {
    let thresholds = &explanation.thresholds;
    let from = |bytes| match bytes {
        0 => "worth it from the first byte".to_owned(),
        u64::MAX => "never worth it here".to_owned(),
        bytes => format!("worth it from {}", amount(bytes)),
    };
    Node::text(format!("thresholds ({})", thresholds.origin))
        .aligned()
        .child(Node::new("sendfile", from(thresholds.sendfile_min_bytes)))
        .child(Node::new("mmap+write", from(thresholds.mmap_min_bytes)))
}

fn host(explanation: &Explanation) -> Node {
    let host = &explanation.host;
    let cores = match host.cores {
        1 => "1 core".to_owned(),
        cores => format!("{cores} cores"),
    };
    let text = format!(
        "Linux {}, {cores} of {}, load {}",
        host.kernel, host.cpu, host.load
    );
    Node::new("host", text)
}
