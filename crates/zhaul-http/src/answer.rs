//! From a request to its response. No socket, no task, no worker: whoever runs a connection asks
//! [`decide`], and does what it says.

pub(crate) mod content;
pub(crate) mod decide;
pub(crate) mod directory;
pub mod error_page;
pub(crate) mod failure;
pub(crate) mod html;
pub mod listing;
pub(crate) mod response;
