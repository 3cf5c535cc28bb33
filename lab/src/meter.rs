//! What the kernel's copy routines copied for one thread, per byte of payload.

use std::cell::RefCell;

use zhaul_measure::Method;
use zhaul_measure::meter::{Copied, Meter, Wanted};

/// Runs `work`, which moves bytes on this thread, and says what was copied for it. Exact, or the
/// test fails.
pub(crate) fn copied_by<T>(work: impl FnOnce() -> T) -> (Copied, T) {
    METER.with_borrow_mut(|meter| {
        let meter = meter.get_or_insert_with(|| {
            Meter::of_this_thread(Wanted {
                copies: true,
                ..Wanted::default()
            })
        });
        assert_eq!(
            meter.copies_method(),
            Some(Method::Exact),
            "missing: {:?}",
            meter.missing()
        );
        meter.start().unwrap();
        let result = work();
        let copied = meter.stop().unwrap().copied.unwrap();
        assert_eq!(copied.lost, 0, "events were lost: {copied:?}");
        (copied, result)
    })
}

/// Gives the breakpoints back, of which a CPU has four.
pub(crate) fn close() {
    METER.take();
}

thread_local! {
    /// Kept from test to test: making it reads the kernel's symbols, which takes seconds here.
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// Copies per byte of payload, in the three directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerByte {
    pub(crate) to_user: f64,
    pub(crate) from_user: f64,
    pub(crate) within: f64,
}

/// What is expected of a route; compared to within one percent of a byte per byte.
pub(crate) const fn per_byte(to_user: f64, from_user: f64, within: f64) -> PerByte {
    PerByte {
        to_user,
        from_user,
        within,
    }
}

#[track_caller]
pub(crate) fn assert_copies(copied: Copied, payload_bytes: usize, expected: PerByte) {
    let by = |bytes: u64| bytes as f64 / payload_bytes as f64;
    let measured = per_byte(by(copied.to_user), by(copied.from_user), by(copied.within));
    let is_near = |measured: f64, expected: f64| (measured - expected).abs() <= 0.01;
    assert!(
        is_near(measured.to_user, expected.to_user)
            && is_near(measured.from_user, expected.from_user)
            && is_near(measured.within, expected.within),
        "CPU copies per byte: {measured:?}, expected {expected:?}"
    );
}
