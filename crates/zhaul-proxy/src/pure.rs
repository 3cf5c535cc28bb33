//! What decides and computes: from what is known to what follows. No descriptor, no thread, no clock;
//! time is a reading of the caller's.

pub(crate) mod addresses;
pub mod balance;
pub mod client_hello;
pub(crate) mod departed;
pub mod health;
pub mod proxy_header;
pub(crate) mod route;
pub(crate) mod termination;
pub(crate) mod timers;
