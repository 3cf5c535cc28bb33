//! As much HTTP as a floor needs: where requests end, and whether one asks to close.

/// What a buffer of received bytes holds.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Requests {
    pub(super) complete: u32,
    /// Bytes of the complete requests; what follows is the beginning of another.
    pub(super) consumed: usize,
    /// The last complete request is the last on this connection.
    pub(super) close: bool,
}

/// Finds complete requests (GET or HEAD: no body). Stops behind one that asks to close.
pub(super) fn scan(bytes: &[u8]) -> Requests {
    let mut found = Requests::default();
    let mut close = false;
    let mut line_start = 0;
    while let Some(length) = bytes[line_start..].iter().position(|&byte| byte == b'\n') {
        let line = &bytes[line_start..line_start + length];
        line_start += length + 1;
        match line {
            b"\r" => {
                found.complete += 1;
                found.consumed = line_start;
                if close {
                    found.close = true;
                    break;
                }
            }
            // The length test first: it rules out nearly every line at the cost of one comparison.
            _ if line.len() == CLOSE.len() && line.eq_ignore_ascii_case(CLOSE) => close = true,
            _ => {}
        }
    }
    found
}

const CLOSE: &[u8] = b"connection: close\r";

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const CLOSING: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";

    #[test]
    fn one_request_is_one() {
        assert_eq!(
            scan(PLAIN),
            Requests {
                complete: 1,
                consumed: PLAIN.len(),
                close: false
            }
        );
    }

    #[test]
    fn request_cut_anywhere_is_incomplete() {
        for cut in 0..PLAIN.len() {
            assert_eq!(scan(&PLAIN[..cut]), Requests::default(), "cut at {cut}");
        }
    }

    #[test]
    fn pipelined_requests_are_counted_and_the_rest_is_kept() {
        let bytes = [PLAIN, PLAIN, &PLAIN[..9]].concat();
        assert_eq!(
            scan(&bytes),
            Requests {
                complete: 2,
                consumed: 2 * PLAIN.len(),
                close: false
            }
        );
    }

    #[test]
    fn close_ends_the_connection_behind_its_own_request() {
        let bytes = [PLAIN, CLOSING, PLAIN].concat();
        let expected = Requests {
            complete: 2,
            consumed: PLAIN.len() + CLOSING.len(),
            close: true,
        };
        assert_eq!(scan(&bytes), expected);
    }
}
