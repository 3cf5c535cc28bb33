//! What a report comes down to, in a few sentences.

use super::report::{Cause, Device, Finding, Gathering, Judgement, Report, Status};

/// The sentences, the most important first.
pub(super) fn of(report: &Report) -> Vec<String> {
    let mut verdict = vec![sending(report), relaying(report)];
    verdict.extend(devices(&report.devices));
    verdict.extend(not_here(report));
    let low: Vec<_> = report
        .limits
        .iter()
        .filter(|limit| limit.judgement == Judgement::Low)
        .map(|limit| limit.name)
        .collect();
    if !low.is_empty() {
        verdict.push(format!("Low limits: {}.", low.join(", ")));
    }
    verdict
}

/// Those of these mechanisms whose status it is.
fn with_status<'a>(report: &Report, ids: &[&'a str], status: Status) -> Vec<&'a str> {
    let has = |id: &&&str| report.mechanism(id).map(|finding| finding.status) == Some(status);
    ids.iter().filter(has).copied().collect()
}

fn sending(report: &Report) -> String {
    const WAYS: [&str; 2] = ["sendfile", "splice"];
    let available = with_status(report, &WAYS, Status::Available);
    let unknown = with_status(report, &WAYS, Status::Unknown);
    match (&available[..], &unknown[..]) {
        ([], []) => "Files reach a socket here only by copying.".into(),
        ([], unknown) => format!(
            "Whether files can be sent without copying is unknown: {} could not be tried.",
            unknown.join(", ")
        ),
        (available, _) => format!(
            "This machine can send files without copying: {}.",
            available.join(", ")
        ),
    }
}

fn relaying(report: &Report) -> String {
    let status = report
        .mechanism("splice_relay")
        .map(|finding| finding.status);
    match status {
        Some(Status::Available) => "It can relay between sockets without copying: splice.".into(),
        Some(Status::Unknown) => {
            "Whether sockets can be relayed without copying is unknown: splice could not be tried."
                .into()
        }
        _ => "Relaying between sockets takes copies here.".into(),
    }
}

/// What becomes of the pages on the way out.
fn devices(devices: &[Device]) -> Option<String> {
    let names = |gathering| -> Vec<&str> {
        let those = devices
            .iter()
            .filter(|device| device.physical && device.sendfile == gathering);
        those.map(|device| device.name.as_str()).collect()
    };
    let (gathering, copying) = (names(Gathering::Gathers), names(Gathering::CopiesOnce));
    match (gathering.is_empty(), copying.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!(
            "{} can gather pages where they lie.",
            gathering.join(", ")
        )),
        (true, false) => Some(format!("{} cannot gather: one copy.", copying.join(", "))),
        (false, false) => Some(format!(
            "{} can gather pages where they lie, {} cannot: one copy.",
            gathering.join(", "),
            copying.join(", ")
        )),
    }
}

/// What is missing, each with a word why.
fn not_here(report: &Report) -> Vec<String> {
    let missing = |finding: &&Finding| finding.status == Status::Missing;
    let names: Vec<_> = report
        .mechanisms
        .iter()
        .filter(missing)
        .map(|finding| format!("{} ({})", finding.name, why(finding)))
        .collect();
    let mut sentences = Vec::new();
    if !names.is_empty() {
        sentences.push(format!("Not possible here: {}.", names.join(", ")));
    }
    for file_system in &report.file_systems {
        let here = file_system.findings.iter().filter(missing);
        let names: Vec<_> = here.map(|finding| finding.name).collect();
        let sentence = format!(
            "Not possible on {}: {}.",
            file_system.kind,
            names.join(", ")
        );
        if !names.is_empty() && !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    sentences
}

fn why(finding: &Finding) -> &'static str {
    match finding.cause {
        Some(Cause::KernelLacks) => "kernel",
        Some(Cause::NotPermitted) => "not permitted",
        Some(Cause::Configured) => "switched off",
        Some(Cause::DeviceLacks) => "no device",
        Some(Cause::Misbehaves) => "broken",
        _ => "see below",
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::Context;
    use super::super::report::{FileSystem, Group};
    use super::super::seen::{Mechanism, Seen};
    use super::*;

    fn mechanism(id: &'static str) -> Mechanism {
        Mechanism {
            id,
            name: id,
            call: id,
            group: Group::ToSocket,
            since: (1, 0),
            since_text: "1.0",
        }
    }

    fn report(findings: Vec<Finding>) -> Report {
        Report {
            schema: Report::SCHEMA,
            kernel: Context::look().kernel,
            verdict: Vec::new(),
            mechanisms: findings,
            file_systems: Vec::new(),
            devices: Vec::new(),
            limits: Vec::new(),
        }
    }

    #[test]
    fn only_what_is_available_is_praised() {
        let works = |id| Seen::works("").of(&mechanism(id));
        let unknown = |id| Seen::unknown("", "").of(&mechanism(id));
        let lacks = |id| Seen::missing(Cause::KernelLacks, "", "").of(&mechanism(id));
        let verdict = of(&report(vec![works("sendfile"), unknown("splice")]));
        assert_eq!(
            verdict[0],
            "This machine can send files without copying: sendfile."
        );
        assert_eq!(verdict[1], "Relaying between sockets takes copies here.");
        let verdict = of(&report(vec![lacks("sendfile")]));
        assert_eq!(verdict[0], "Files reach a socket here only by copying.");
    }

    #[test]
    fn what_could_not_be_tried_is_neither_praised_nor_denied() {
        let unknown = |id| Seen::unknown("", "").of(&mechanism(id));
        let lacks = |id| Seen::missing(Cause::KernelLacks, "", "").of(&mechanism(id));
        let verdict = of(&report(vec![
            lacks("sendfile"),
            unknown("splice"),
            unknown("splice_relay"),
        ]));
        assert_eq!(
            verdict[..2],
            [
                "Whether files can be sent without copying is unknown: splice could not be tried.",
                "Whether sockets can be relayed without copying is unknown: splice could not be \
                 tried."
            ]
        );
    }

    #[test]
    fn what_is_missing_is_named_with_its_cause_and_the_same_said_once() {
        let ktls = Seen::missing(Cause::KernelLacks, "", "").of(&mechanism("kTLS"));
        let reflink = Seen::missing(Cause::FileSystemLacks, "", "").of(&mechanism("reflink"));
        let on = |path: &str| FileSystem {
            path: path.into(),
            directory: path.into(),
            kind: "ext4".into(),
            mount_point: None,
            not_writable: None,
            read_from: None,
            findings: vec![reflink.clone()],
        };
        let mut report = report(vec![ktls]);
        report.file_systems = vec![on("/a"), on("/b")];
        let verdict = of(&report);
        assert_eq!(
            verdict[2..],
            [
                "Not possible here: kTLS (kernel).",
                "Not possible on ext4: reflink."
            ]
        );
    }
}
