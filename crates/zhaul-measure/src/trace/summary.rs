//! The account in the form in which it is printed: with the method of each figure, and sentences.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::blind::{Blind, asynchronous};
use super::calls::{self, Role};
use super::fit::{Fit, fits};
use super::flows::{Amount, Flow};
use super::ledger::Ledger;
use super::object::Kind;
use super::route::Route;
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
    /// Bytes that the CPU copied in it; by the method of [`Summary::copied`]. `None` if that is not
    /// known.
    pub copied_bytes: Option<u64>,
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
    /// Of these: what completions of `MSG_ZEROCOPY` sends say that the kernel copied after the call.
    #[serde(default)]
    pub copied_later_bytes: u64,
    /// The quotient of both. `None` if the kernel may have copied later: with `MSG_ZEROCOPY`, unless
    /// all completions that were seen say that it did, or all that it did not.
    pub copies_per_byte: Option<f64>,
    /// How the copies were found.
    pub method: Method,
    /// Of the bytes: those of which no address says that they belong to this source.
    pub inferred_bytes: u64,
    /// Of the bytes: those of or to a path that was closed before it could be looked at, and is
    /// taken for a file because others that went the same way are.
    pub guessed_bytes: u64,
    /// The bytes arrived as they left: they did not pass through the program's memory, or samples of
    /// both files were compared. `None` if nobody can tell.
    pub unchanged: Option<bool>,
    /// The average length of what went at a time.
    pub portion_bytes: u64,
    /// Names of sources, those of most bytes first.
    pub sources: Vec<String>,
    /// There were more.
    pub more_sources: bool,
    /// Names of sinks, those of most bytes first.
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
    /// Bytes of flows of which one end is not known: what went out of a buffer that had gone out
    /// before, or of and to descriptors that could not be looked at.
    pub unknown_bytes: u64,
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
    /// What happened and is in none of these figures.
    pub blind: Vec<Blind>,
}

impl Summary {
    /// Bytes were moved or copied that are in no figure: sums are lower bounds.
    pub fn hides_bytes(&self) -> bool {
        self.blind.iter().any(|blind| blind.hides_bytes)
    }
}

impl<W: World> Ledger<W> {
    /// The account so far.
    pub fn summary(&mut self) -> Summary {
        let method = if self.is_exact() {
            Method::Exact
        } else {
            Method::ByCall
        };
        let mut calls: Vec<CallLine> = self.call_lines().collect();
        calls.sort_by_key(|line| std::cmp::Reverse((line.bytes, line.calls)));
        let flows = self.flow_lines(method);
        let unknown = flows
            .iter()
            .filter(|flow| flow.source == Kind::Unknown || flow.sink == Kind::Unknown);
        let after: u64 = flows.iter().map(|flow| flow.copied_later_bytes).sum();
        let mut blind = self.blind();
        if flows.iter().any(|flow| flow.copies_per_byte.is_none()) {
            blind.push(Blind {
                what: "what the kernel copied of MSG_ZEROCOPY sends after the calls".to_owned(),
                times: None,
                hides_bytes: true,
            });
        }
        Summary {
            unknown_bytes: unknown.map(|flow| flow.bytes).sum(),
            calls,
            flows,
            copied: Figure {
                value: self.sums().copied + after,
                method,
            },
            copied_elsewhere: self.copied_elsewhere,
            pages_missed: self.pages.missed,
            pages_written: self.pages.written,
            net: self.net_lines(),
            block: self.block_lines(),
            lost: self.sums().lost,
            blind,
        }
    }

    fn blind(&self) -> Vec<Blind> {
        let mut blind = Vec::new();
        for call in calls::all() {
            let Some(account) = self.calls.get(call.name) else {
                continue;
            };
            match call.role {
                Role::Elsewhere => blind.push(asynchronous((call.name, account.calls))),
                Role::Messages if account.unsized_calls > 0 => blind.push(Blind {
                    what: format!("the bytes and flows of {}", call.name),
                    times: Some(account.unsized_calls),
                    hides_bytes: true,
                }),
                _ => {}
            }
        }
        if self.shared_mappings > 0 {
            blind.push(Blind {
                what: "what the program read and wrote through mappings of files".to_owned(),
                times: Some(self.shared_mappings),
                hides_bytes: false,
            });
        }
        blind
    }

    /// Flows between the same kinds of things by the same calls, of which the same is to be said.
    fn flow_lines(&mut self, method: Method) -> Vec<FlowLine> {
        let flows = self.flows_so_far();
        let mut flows: Vec<Flow<'_>> = flows.iter().collect();
        flows.sort_by_key(|flow| std::cmp::Reverse(flow.amount.bytes));
        let fits = fits(&flows, &self.refusals, &mut self.world);
        let mut lines: BTreeMap<Key, Line> = BTreeMap::new();
        for (flow, fit) in flows.iter().zip(fits) {
            let key = Key {
                source: flow.source.kind(),
                sink: flow.sink.kind(),
                route: flow.route,
                fit,
            };
            lines.entry(key).or_default().add(flow);
        }
        join_guesses(&mut lines);
        let mut lines: Vec<FlowLine> = lines
            .iter()
            .map(|(key, line)| flow_line(key, line, method))
            .collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.bytes));
        lines
    }

    fn call_lines(&self) -> impl Iterator<Item = CallLine> {
        self.calls.iter().map(|(name, account)| CallLine {
            name: (*name).to_owned(),
            calls: account.calls,
            bytes: (account.unsized_calls == 0).then_some(account.bytes),
            copied_bytes: (account.unsized_calls == 0).then_some(account.copied),
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

/// What lines are told apart by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    source: Kind,
    sink: Kind,
    route: Route,
    fit: Fit,
}

impl Key {
    fn has_guess(&self) -> bool {
        self.source == Kind::Opened || self.sink == Kind::Opened
    }

    /// Whether the other's ends are what the guess is likely to be.
    fn is_like(&self, other: &Self) -> bool {
        let taken = |kind| match kind {
            Kind::Opened => Kind::File,
            kind => kind,
        };
        let ends = (taken(self.source), taken(self.sink));
        self.route == other.route && ends == (other.source, other.sink)
    }
}

#[derive(Default)]
struct Line {
    amount: Amount,
    /// Bytes of or to a path that was not looked at in time, and that is taken for a file because
    /// others that went the same way are.
    guessed: u64,
    sources: Names,
    sinks: Names,
    /// Of the sinks.
    completions: (u64, u64),
}

impl Line {
    fn add(&mut self, flow: &Flow<'_>) {
        self.amount.add(flow.amount);
        self.sources.add(flow.source.name(), flow.amount.bytes);
        self.sinks.add(flow.sink.name(), flow.amount.bytes);
        let (completed, copied) = flow.sink.completions();
        self.completions.0 += completed;
        self.completions.1 += copied;
    }

    fn join(&mut self, guess: Self) {
        self.amount.add(&guess.amount);
        self.guessed += guess.amount.bytes;
        self.sources.join(guess.sources);
        self.sinks.join(guess.sinks);
    }
}

/// Names, and how many bytes went to or came from each.
#[derive(Default)]
struct Names(HashMap<String, u64>);

impl Names {
    fn add(&mut self, name: Option<String>, bytes: u64) {
        if let Some(name) = name {
            *self.0.entry(name).or_default() += bytes;
        }
    }

    fn join(&mut self, more: Self) {
        for (name, bytes) in more.0 {
            self.add(Some(name), bytes);
        }
    }

    /// Those with most bytes, and whether there are more.
    fn first(&self) -> (Vec<String>, bool) {
        let mut names: Vec<(&String, &u64)> = self.0.iter().collect();
        names.sort_by_key(|&(name, bytes)| (std::cmp::Reverse(bytes), name));
        let more = names.len() > NAMES_AT_MOST;
        let first = names.into_iter().take(NAMES_AT_MOST);
        (first.map(|(name, _)| name.clone()).collect(), more)
    }
}

const NAMES_AT_MOST: usize = 3;
/// How such sends are called in routes.
pub(super) const ZEROCOPY: &str = "send(MSG_ZEROCOPY)";

/// Paths that were not looked at in time go with the files, if there are files that went the same
/// way.
fn join_guesses(lines: &mut BTreeMap<Key, Line>) {
    let guesses = lines.keys().filter(|key| key.has_guess());
    for guess in guesses.copied().collect::<Vec<Key>>() {
        let alike = lines.iter().filter(|(key, _)| guess.is_like(key));
        let largest = alike.max_by_key(|(_, line)| line.amount.bytes);
        let Some(key) = largest.map(|(&key, _)| key) else {
            continue;
        };
        if let (Some(guess), Some(line)) = (lines.remove(&guess), lines.get_mut(&key)) {
            line.join(guess);
        }
    }
}

fn flow_line(key: &Key, line: &Line, method: Method) -> FlowLine {
    let amount = &line.amount;
    let zerocopy = key.route.calls().contains(&ZEROCOPY);
    let completions = if zerocopy { line.completions } else { (0, 0) };
    // The copies that a completion tells of are made after the call, one of each byte.
    let after = match completions {
        _ if !zerocopy => Some(0),
        (0, _) => None,
        (_, 0) => Some(0),
        (completed, copied) => (completed == copied).then_some(amount.bytes),
    };
    let copied_bytes = amount.copied + after.unwrap_or(0);
    let copies_per_byte = after.map(|_| match amount.bytes {
        0 => 0.0,
        bytes => copied_bytes as f64 / bytes as f64,
    });
    let facts = Facts {
        source: key.source,
        sink: key.sink,
        calls: key.route.calls(),
        copies_per_byte,
        completions,
        portion_bytes: amount.bytes / amount.portions.max(1),
        inferred: amount.inferred > 0,
        fit: key.fit,
    };
    let (sources, more_sources) = line.sources.first();
    let (sinks, more_sinks) = line.sinks.first();
    FlowLine {
        source: key.source,
        sink: key.sink,
        calls: facts.calls.iter().map(|&call| call.to_owned()).collect(),
        bytes: amount.bytes,
        copied_bytes,
        copied_later_bytes: after.unwrap_or(0),
        copies_per_byte,
        method,
        inferred_bytes: amount.inferred,
        guessed_bytes: line.guessed,
        unchanged: key.fit.unchanged,
        portion_bytes: facts.portion_bytes,
        sources,
        more_sources,
        sinks,
        more_sinks,
        verdict: verdict(&facts),
        advice: advice(&facts),
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
