//! The account in the form in which it is printed: with the method of each figure, and sentences.

use serde::{Deserialize, Serialize};

use super::flows::Flow;
use super::ledger::Ledger;
use super::object::Kind;
use super::verdict::{Facts, advice, verdict};
use super::world::World;
use crate::figure::Method;

/// A figure and how it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figure {
    /// How many.
    pub value: u64,
    /// How it is known.
    pub method: Method,
}

/// What one kind of system call did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallLine {
    /// Its name.
    pub name: String,
    /// How often it returned.
    pub calls: u64,
    /// Bytes that it says it moved. `None` if its result does not say.
    pub bytes: Option<u64>,
    /// Bytes that the CPU copied in it; by the method of [`Summary::copied`].
    pub copied_bytes: u64,
    /// Times it said: not now (EAGAIN).
    pub would_block: u64,
    /// Times it failed otherwise.
    pub errors: u64,
}

/// Bytes that went the same way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FlowLine {
    /// From what kind of thing.
    pub source: Kind,
    /// To what kind of thing.
    pub sink: Kind,
    /// By which calls, in this order.
    pub calls: Vec<String>,
    /// How many.
    pub bytes: u64,
    /// How many bytes the CPU copied for them.
    pub copied_bytes: u64,
    /// The quotient of both.
    pub copies_per_byte: f64,
    /// How the copies were found.
    pub method: Method,
    /// Of the bytes: those of which no address says that they belong to this source.
    pub inferred_bytes: u64,
    /// Of the bytes: those of or to a path that was closed before it could be looked at, and is
    /// taken for a file because others that went the same way are.
    pub guessed_bytes: u64,
    /// The average length of what went at a time.
    pub portion_bytes: u64,
    /// Names of sources, as examples.
    pub sources: Vec<String>,
    /// There were more.
    pub more_sources: bool,
    /// Names of sinks, as examples.
    pub sinks: Vec<String>,
    /// There were more.
    pub more_sinks: bool,
    /// What it cost and what would be cheaper, in one sentence.
    pub verdict: String,
    /// What would be cheaper.
    pub advice: Option<String>,
}

/// What a device moved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceLine {
    /// Its name, or its numbers.
    pub name: String,
    /// A traced thread was running; else somebody else, or nobody.
    pub by_traced: bool,
    /// Nothing is moved by DMA there: loopback and the like.
    pub is_virtual: bool,
    /// Requests or packets.
    pub operations: u64,
    /// Bytes to the device.
    pub bytes_out: u64,
    /// Bytes from the device.
    pub bytes_in: u64,
    /// Of the bytes out: gathered from page fragments. Packets only.
    pub gathered_bytes: u64,
}

/// What the ledger knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Calls that move data, those that moved most first.
    pub calls: Vec<CallLine>,
    /// Flows, those that moved most first.
    pub flows: Vec<FlowLine>,
    /// Bytes copied by the CPU.
    pub copied: Figure,
    /// Copied on behalf of calls that are not listed.
    pub copied_elsewhere: u64,
    /// Pages read into the page cache: misses.
    pub pages_missed: u64,
    /// Pages added to hold what was written.
    pub pages_written: u64,
    /// Packets, by device.
    pub net: Vec<DeviceLine>,
    /// Requests, by device.
    pub block: Vec<DeviceLine>,
    /// Records that the kernel dropped.
    pub lost: u64,
}

impl<W: World> Ledger<W> {
    /// The account so far.
    pub fn summary(&self) -> Summary {
        let method = if self.is_exact() {
            Method::Exact
        } else {
            Method::ByCall
        };
        let mut calls: Vec<CallLine> = self.call_lines().collect();
        calls.sort_by_key(|line| std::cmp::Reverse((line.bytes, line.calls)));
        let mut flows = self.flows_so_far();
        flows.join_guesses();
        let mut flows: Vec<FlowLine> = flows
            .by_key
            .iter()
            .map(|(key, flow)| flow_line(key.source, key.sink, key.route.calls(), flow, method))
            .collect();
        flows.sort_by_key(|line| std::cmp::Reverse(line.bytes));
        Summary {
            calls,
            flows,
            copied: Figure {
                value: self.sums().copied,
                method,
            },
            copied_elsewhere: self.copied_elsewhere,
            pages_missed: self.pages.missed,
            pages_written: self.pages.written,
            net: self.net_lines(),
            block: self.block_lines(),
            lost: self.sums().lost,
        }
    }

    fn call_lines(&self) -> impl Iterator<Item = CallLine> {
        self.calls.iter().map(|(name, account)| CallLine {
            name: (*name).to_owned(),
            calls: account.calls,
            bytes: (account.unsized_calls == 0).then_some(account.bytes),
            copied_bytes: account.copied,
            would_block: account.would_block,
            errors: account.errors,
        })
    }

    fn net_lines(&self) -> Vec<DeviceLine> {
        let lines = self
            .devices
            .net
            .iter()
            .map(|((name, by_traced), device)| DeviceLine {
                name: name.clone(),
                by_traced: *by_traced,
                is_virtual: is_virtual_net(name),
                operations: device.operations,
                bytes_out: device.bytes_out,
                bytes_in: 0,
                gathered_bytes: device.gathered,
            });
        lines.collect()
    }

    fn block_lines(&self) -> Vec<DeviceLine> {
        let lines = self
            .devices
            .block
            .iter()
            .map(|((numbers, by_traced), device)| DeviceLine {
                name: block_name(*numbers),
                by_traced: *by_traced,
                is_virtual: numbers.0 == LOOP_MAJOR,
                operations: device.operations,
                bytes_out: device.bytes_out,
                bytes_in: device.bytes_in,
                gathered_bytes: 0,
            });
        lines.collect()
    }
}

fn flow_line(
    source: Kind,
    sink: Kind,
    calls: &[&'static str],
    flow: &Flow,
    method: Method,
) -> FlowLine {
    let copies_per_byte = if flow.bytes == 0 {
        0.0
    } else {
        flow.copied as f64 / flow.bytes as f64
    };
    let facts = Facts {
        source,
        sink,
        calls,
        copies_per_byte,
        portion_bytes: flow.bytes / flow.portions.max(1),
        inferred: flow.inferred > 0,
    };
    FlowLine {
        source,
        sink,
        calls: calls.iter().map(|&call| call.to_owned()).collect(),
        bytes: flow.bytes,
        copied_bytes: flow.copied,
        copies_per_byte,
        method,
        inferred_bytes: flow.inferred,
        guessed_bytes: flow.guessed,
        portion_bytes: facts.portion_bytes,
        sources: flow.sources.first.clone(),
        more_sources: flow.sources.more,
        sinks: flow.sinks.first.clone(),
        more_sinks: flow.sinks.more,
        verdict: verdict(&facts),
        advice: advice(&facts).map(str::to_owned),
    }
}

/// A real device has a driver behind it. Without sysfs, only loopback is known.
fn is_virtual_net(name: &str) -> bool {
    let device = std::path::Path::new("/sys/class/net").join(name);
    name == "lo" || (device.exists() && !device.join("device").exists())
}

/// `vda` for 254:0, or the numbers.
fn block_name((major, minor): (u32, u32)) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let name = link
        .ok()
        .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    name.unwrap_or_else(|| format!("{major}:{minor}"))
}

/// `loop`: its requests are reads and writes of a file.
const LOOP_MAJOR: u32 = 7;
