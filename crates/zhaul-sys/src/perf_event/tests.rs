//! Real events of the calling thread. What the kernel does not permit is skipped.

use super::*;

fn skip(test: &str, error: &io::Error) {
    zhaul_untested::skip(test, format_args!("perf_event_open: {error}"));
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

fn recording() -> io::Result<PerfEvent> {
    let mut attributes = Attributes::counting(Source::Software(software::DUMMY));
    attributes.exclude_kernel = true;
    PerfEvent::open(&attributes, Target::ThisThread)
}

#[test]
fn the_records_of_an_event_have_one_place() {
    let opened = (recording(), recording());
    let (first, second) = match opened {
        (Ok(first), Ok(second)) => (first, second),
        (Err(error), _) | (_, Err(error)) => {
            return skip("the_records_of_an_event_have_one_place", &error);
        }
    };
    let busy = |result: io::Result<()>| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EBUSY));
    };
    assert!(Ring::map(&first, 3).is_err(), "no power of two");
    let ring = match Ring::map(&first, 1) {
        Ok(ring) => ring,
        Err(error) => return skip("the_records_of_an_event_have_one_place", &error),
    };
    busy(Ring::map(&first, 1).map(drop));
    busy(first.set_output(&second));
    second.set_output(&first).unwrap();
    busy(Ring::map(&second, 1).map(drop));
    drop(ring);
    busy(Ring::map(&first, 1).map(drop));
}
