//! What the operator asked for, what follows from it for answers, and the time of day.

pub(crate) mod clock;
pub(crate) mod config;
pub mod mime;
pub mod rules;
pub(crate) mod site;
