//! What a worker reports, as often as is good for anybody.

use std::cell::RefCell;

use zhaul_service::Trouble;

use crate::answer::response::Complaint;

/// Messages of one worker, of which those that clients can cause are bounded.
#[derive(Debug, Default)]
pub(crate) struct Reports(RefCell<Trouble>);

impl Reports {
    /// Reports what goes wrong, as far as clients may make it be reported.
    pub(crate) fn warn(&self, what: impl FnOnce() -> String) {
        self.0.borrow_mut().warn(what);
    }

    /// Reports what the machine does wrong.
    pub(crate) fn error(&self, what: impl FnOnce() -> String) {
        self.0.borrow_mut().error(what);
    }

    /// Reports what came to light when an answer was decided.
    pub(crate) fn complain(&self, complaints: &[Complaint]) {
        for complaint in complaints {
            if complaint.is_of_machine() {
                self.error(|| complaint.to_string());
            } else {
                self.warn(|| complaint.to_string());
            }
        }
    }
}
