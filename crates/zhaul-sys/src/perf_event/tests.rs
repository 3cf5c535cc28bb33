//! Real events of the calling thread. What the kernel does not permit is skipped.

use super::*;

fn skip(test: &str, error: &io::Error) {
    eprintln!("SKIP {test}: perf_event_open: {error}");
}

fn context_switches() -> io::Result<PerfEvent> {
    let mut attributes = Attributes::counting(Source::Software(software::CONTEXT_SWITCHES));
    attributes.read_format.times = true;
    PerfEvent::open(&attributes, Target::ThisThread)
}

#[test]
fn a_disabled_event_counts_nothing() {
    let event = match context_switches() {
        Ok(event) => event,
        Err(error) => return skip("a_disabled_event_counts_nothing", &error),
    };
    std::thread::sleep(std::time::Duration::from_millis(2));
    let format = ReadFormat {
        times: true,
        lost: false,
    };
    assert_eq!(event.read(format).unwrap(), Count::default());
    event.enable().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2));
    event.disable().unwrap();
    let count = event.read(format).unwrap();
    assert!(
        count.value >= 1 && count.enabled_ns == count.running_ns,
        "{count:?}"
    );
    event.reset().unwrap();
    assert_eq!(event.read(format).unwrap().value, 0);
}
