//! The report as one screen: what it comes down to, then what can be used, then what would change
//! what cannot.
//!
//! A mechanism that simply works is a word on a shared line; the others have a line with the reason.
//! Every status is a mark and a word, so that nothing hangs on a colour.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use zhaul_measure::probe::{
    Device, FileSystem, Finding, Gathering, Group, Judgement, Kernel, Limit, Report, Status,
};

use super::text::{printable, wrap};

/// The report, with colours; whoever prints it strips them where they do not belong.
pub(super) fn page(report: &Report, columns: usize, verbose: bool) -> String {
    let mut page = Page {
        text: String::new(),
        columns,
        verbose,
    };
    page.heading(&title(&report.kernel));
    for sentence in &report.verdict {
        page.paragraph(sentence);
    }
    for (group, heading) in GROUPS {
        if group == Group::Memory {
            for file_system in &report.file_systems {
                page.file_system(file_system);
            }
            page.devices(&report.devices);
        }
        let findings = report.mechanisms.iter().filter(|f| f.group == group);
        page.findings(heading, &findings.collect::<Vec<_>>());
    }
    page.limits(&report.limits);
    page.remedies(report);
    page.footer(report);
    page.text
}

const GROUPS: [(Group, &str); 4] = [
    (Group::ToSocket, "Files and memory to sockets"),
    (Group::FromSocket, "Sockets to sockets and memory"),
    (Group::Memory, "Memory and asynchronous operations"),
    (Group::Proof, "Seeing what the kernel does"),
];

/// `Linux 6.12.41 x86_64, 2 cores, as root`
fn title(kernel: &Kernel) -> String {
    let cores = match kernel.cores {
        1 => "1 core".to_owned(),
        n => format!("{n} cores"),
    };
    let who = match (kernel.uid, &kernel.capabilities) {
        (0, Some(held)) if held.is_empty() => "as root without capabilities".to_owned(),
        (0, _) => "as root".to_owned(),
        (uid, Some(held)) if !held.is_empty() => format!("as user {uid} with {}", held.join(", ")),
        (uid, _) => format!("as user {uid}"),
    };
    let filter = match kernel.seccomp_filter {
        Some(true) => ", under a seccomp filter",
        _ => "",
    };
    let lockdown = match kernel.lockdown.as_deref() {
        Some("none") | None => String::new(),
        Some(mode) => format!(", lockdown={mode}"),
    };
    let (release, machine) = (&kernel.release, &kernel.machine);
    format!("Linux {release} {machine}, {cores}, {who}{filter}{lockdown}")
}

/// A mark, a word and a colour.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Label {
    mark: char,
    word: &'static str,
    colour: AnsiColor,
}

const fn label(mark: char, word: &'static str, colour: AnsiColor) -> Label {
    Label { mark, word, colour }
}

fn of_status(status: Status) -> Label {
    let (mark, colour) = match status {
        Status::Available => ('+', AnsiColor::Green),
        Status::Limited => ('~', AnsiColor::Yellow),
        Status::Missing => ('-', AnsiColor::Red),
        Status::Unknown => ('?', AnsiColor::Magenta),
    };
    label(mark, status.name(), colour)
}

fn of_judgement(judgement: Judgement) -> Label {
    match judgement {
        Judgement::Fine => label('+', "fine", AnsiColor::Green),
        Judgement::Low => label('-', "low", AnsiColor::Red),
        Judgement::Unknown => label('?', "unknown", AnsiColor::Magenta),
    }
}

fn of_gathering(gathering: Gathering) -> Label {
    match gathering {
        Gathering::Gathers => label('+', "gathers", AnsiColor::Green),
        Gathering::PassesOn => label('~', "passes on", AnsiColor::Yellow),
        Gathering::CopiesOnce => label('-', "copies", AnsiColor::Red),
        _ => label('?', "unknown", AnsiColor::Magenta),
    }
}

struct Page {
    text: String,
    columns: usize,
    verbose: bool,
}

impl Page {
    /// On a narrow screen labels have no column of their own.
    fn is_narrow(&self) -> bool {
        self.columns < 60
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        if !self.text.is_empty() {
            self.line("");
        }
        let bold = Style::new().bold();
        for line in wrap(&printable(heading), 0, 0, self.columns) {
            self.line(&format!("{bold}{line}{bold:#}"));
        }
    }

    fn paragraph(&mut self, text: &str) {
        self.block("", 0, 2, text);
    }

    /// Text behind a beginning of `first` columns, and under it from column `rest` on.
    fn block(&mut self, beginning: &str, first: usize, rest: usize, text: &str) {
        let lines = wrap(&printable(text), first, rest, self.columns);
        for (number, line) in lines.iter().enumerate() {
            match number {
                0 => self.line(&format!("{beginning}{line}")),
                _ => self.line(&format!("{:rest$}{line}", "")),
            }
        }
    }

    /// A label and what it is about.
    fn labelled(&mut self, label: Label, text: &str) {
        let Label { mark, word, colour } = label;
        let style = Style::new().fg_color(Some(colour.into()));
        if self.is_narrow() {
            let beginning = format!("{style}{mark} {word}{style:#}: ");
            self.block(&beginning, word.len() + 4, 4, text);
        } else {
            let beginning = format!("  {style}{mark} {word:<10}{style:#} ");
            self.block(&beginning, 15, 15, text);
        }
    }

    fn findings(&mut self, heading: &str, findings: &[&Finding]) {
        if findings.is_empty() {
            return;
        }
        self.heading(heading);
        if self.verbose {
            findings.iter().for_each(|finding| self.in_full(finding));
            return;
        }
        let works = |finding: &&&Finding| finding.status == Status::Available;
        let names: Vec<_> = findings.iter().filter(works).map(|f| name(f)).collect();
        if !names.is_empty() {
            self.labelled(of_status(Status::Available), &names.join(", "));
        }
        for status in [Status::Limited, Status::Missing, Status::Unknown] {
            self.troubled(findings, status);
        }
    }

    /// Findings with the same reason share a line.
    fn troubled(&mut self, findings: &[&Finding], status: Status) {
        let mut said: Vec<(Vec<&str>, &str)> = Vec::new();
        for finding in findings.iter().filter(|finding| finding.status == status) {
            let reason = finding.reason.as_deref().unwrap_or("no reason was seen");
            match said.iter_mut().find(|(_, known)| *known == reason) {
                Some((names, _)) => names.push(finding.name),
                None => said.push((vec![finding.name], reason)),
            }
        }
        for (names, reason) in said {
            self.labelled(
                of_status(status),
                &format!("{}: {reason}", names.join(", ")),
            );
        }
    }

    /// Everything about one finding.
    fn in_full(&mut self, finding: &Finding) {
        let what = format!(
            "{} ({}; since Linux {})",
            finding.name, finding.call, finding.since
        );
        self.labelled(of_status(finding.status), &what);
        let indentation = if self.is_narrow() { 4 } else { 15 };
        let mut more = vec![("seen", finding.evidence.clone())];
        more.extend(finding.reason.clone().map(|reason| ("why", reason)));
        more.extend(
            finding
                .remedy
                .clone()
                .map(|remedy| ("to change it", remedy)),
        );
        for (title, text) in more {
            let beginning = format!("{:indentation$}{title}: ", "");
            let first = beginning.len();
            self.block(&beginning, first, indentation + 2, &text);
        }
    }

    fn file_system(&mut self, file_system: &FileSystem) {
        let mount = match &file_system.mount_point {
            Some(point) => format!("{} at {point}", file_system.kind),
            None => file_system.kind.clone(),
        };
        let heading = format!("Files in {} ({mount})", file_system.directory);
        self.findings(&heading, &file_system.findings.iter().collect::<Vec<_>>());
        if let Some(why) = &file_system.not_writable {
            let on_what = match &file_system.read_from {
                Some(name) => format!("; reading was tried on {name}"),
                None => String::new(),
            };
            let note = label('?', "note", AnsiColor::Magenta);
            self.labelled(note, &format!("{why}{on_what}"));
        }
    }

    fn devices(&mut self, devices: &[Device]) {
        if devices.is_empty() {
            return;
        }
        self.heading("Network devices, and the pages that sendfile gives them");
        let (shown, rest): (Vec<_>, Vec<_>) = devices
            .iter()
            .partition(|device| self.verbose || device.physical || device.up);
        for device in shown {
            self.labelled(of_gathering(device.sendfile), &describe(device));
        }
        if !rest.is_empty() {
            let names: Vec<_> = rest.iter().map(|device| device.name.as_str()).collect();
            let text = format!("not up: {}", names.join(", "));
            self.block(if self.is_narrow() { "" } else { "    " }, 4, 4, &text);
        }
    }

    fn limits(&mut self, limits: &[Limit]) {
        self.heading("Limits");
        for judgement in [Judgement::Low, Judgement::Unknown, Judgement::Fine] {
            let these = limits.iter().filter(|limit| limit.judgement == judgement);
            if self.verbose || judgement == Judgement::Low {
                for limit in these {
                    let mut text = format!("{}: {}", limit.name, limit.text);
                    if let Some(cost) = &limit.cost {
                        let _ = write!(text, "; {cost}");
                    }
                    if self.verbose {
                        let _ = write!(text, " ({})", limit.set_in);
                    }
                    if let Some(capability) = limit.lifted_by {
                        let _ = write!(text, "; {capability} lifts it for this process");
                    }
                    self.labelled(of_judgement(judgement), &text);
                }
                continue;
            }
            let texts: Vec<_> = these
                .map(|limit| format!("{} {}", limit.name, limit.text))
                .collect();
            if !texts.is_empty() {
                self.labelled(of_judgement(judgement), &texts.join("; "));
            }
        }
    }

    /// What would change what is not available; the same remedy is said once.
    fn remedies(&mut self, report: &Report) {
        let of_findings = report
            .findings()
            .filter(|finding| finding.status != Status::Available)
            .filter_map(|finding| Some((finding.name, finding.remedy.as_deref()?)));
        let of_limits = report
            .limits
            .iter()
            .filter_map(|limit| Some((limit.name, limit.remedy.as_deref()?)));
        let mut said: Vec<(Vec<&str>, &str)> = Vec::new();
        for (name, remedy) in of_findings.chain(of_limits) {
            match said.iter_mut().find(|(_, known)| *known == remedy) {
                Some((names, _)) if names.contains(&name) => {}
                Some((names, _)) => names.push(name),
                None => said.push((vec![name], remedy)),
            }
        }
        if said.is_empty() {
            return;
        }
        self.heading("To change it");
        let indentation = if self.is_narrow() { 0 } else { 2 };
        for (names, remedy) in said {
            let text = format!("{}: {remedy}", names.join(", "));
            self.block(
                &" ".repeat(indentation),
                indentation,
                indentation + 4,
                &text,
            );
        }
    }

    fn footer(&mut self, report: &Report) {
        self.line("");
        for unseen in &report.kernel.unseen {
            self.paragraph(&format!("Not seen: {unseen}."));
        }
        if !self.verbose {
            self.paragraph("zhaul doctor -v says what was tried and seen.");
        }
    }
}

/// A name, with what else is worth knowing of it at a glance.
fn name(finding: &Finding) -> String {
    match finding.facts.get("offset_alignment") {
        Some(bytes) => format!("{} (in {bytes} bytes)", finding.name),
        None => finding.name.to_owned(),
    }
}

/// `eth0 (virtio_net): takes pages where they lie; scatter/gather on, ...`
fn describe(device: &Device) -> String {
    let mut text = device.name.clone();
    if let Some(driver) = &device.driver {
        let _ = write!(text, " ({driver}");
        if let Some(speed) = device.speed_mbit {
            let _ = write!(text, ", {speed} Mbit/s");
        }
        text.push(')');
    }
    let _ = write!(text, ": {}", device.reason);
    let features = [
        ("scatter/gather", device.scatter_gather),
        ("checksums", device.tx_checksum),
        ("TSO", device.tso),
        ("GSO", device.gso),
        ("header split", device.header_split),
        ("flow steering", device.flow_steering),
    ];
    let named = |wanted: Option<bool>| -> Vec<&str> {
        let these = features.iter().filter(|(_, on)| *on == wanted);
        these.map(|(name, _)| *name).collect()
    };
    for (state, word) in [(Some(true), "on"), (Some(false), "off"), (None, "unknown")] {
        let names = named(state);
        if !names.is_empty() {
            let _ = write!(text, "; {} {word}", names.join(", "));
        }
    }
    if !device.up {
        text.push_str("; no link");
    }
    text
}
