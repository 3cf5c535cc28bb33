//! HTTP messages and their parts, pure: bytes in, meaning out, and the other way round.

pub mod body;
pub mod conditional;
pub mod encoding;
pub mod etag;
pub mod field_lines;
pub(crate) mod head;
pub mod multipart;
pub mod range;
pub mod request;
pub(crate) mod status;
pub mod target;
pub mod validators;
