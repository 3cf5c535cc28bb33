//! Writing the head of an answer (RFC 9112 §4, §5).

use crate::message::status::reason;
use crate::message::validators::DATE_BYTES;

/// Where the Date value stands in a head that [`begin`] began with status 200.
pub(crate) const OK_DATE_AT: usize = "HTTP/1.1 200 OK\r\nDate: ".len();

/// Writes the status line, Date and Server.
pub(crate) fn begin(out: &mut Vec<u8>, status: u16, date: &[u8; DATE_BYTES]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, status.into());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\nServer: zhaul\r\n");
}

/// Writes one field line.
pub(crate) fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes Content-Length.
pub(crate) fn content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

/// Writes what a client has to know about the connection's future, and ends the head.
pub(crate) fn end(out: &mut Vec<u8>, keep_alive: bool, version_minor: u8) {
    if !keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if version_minor == 0 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_stands_where_it_is_said_to() {
        let mut head = Vec::new();
        begin(&mut head, 200, b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&head[OK_DATE_AT..][..3], b"Sun");
        assert_eq!(&head[OK_DATE_AT + DATE_BYTES..][..2], b"\r\n");
    }
}
