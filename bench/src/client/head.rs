//! The head of a response: status and Content-Length. Pure.

use anyhow::{Context as _, bail};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Content-Length; `None` means that the body ends with the connection.
    pub(crate) length: Option<u64>,
    /// Bytes of the head itself.
    pub(crate) size: usize,
}

impl Head {
    /// `None` until the blank line has arrived.
    pub(crate) fn parse(bytes: &[u8]) -> anyhow::Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            if bytes.len() > LONGEST {
                bail!("response head is longer than {LONGEST} bytes");
            }
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes[..end]).context("response head is not text")?;
        let mut lines = text.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .with_context(|| format!("not a status line: {status_line}"))?;
        let mut length = None;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                let value = value.trim();
                length = Some(
                    value
                        .parse()
                        .with_context(|| format!("Content-Length: {value}"))?,
                );
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                bail!("Transfer-Encoding in the answer for a file");
            }
        }
        Ok(Some(Self {
            status,
            length,
            size: end + 4,
        }))
    }
}

const LONGEST: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 206 Partial Content\r\ncontent-length: 12\r\nA: b\r\n\r\nbody";

    #[test]
    fn head_ends_before_the_body() {
        let head = Head::parse(ANSWER).unwrap().unwrap();
        assert_eq!(
            head,
            Head {
                status: 206,
                length: Some(12),
                size: ANSWER.len() - 4
            }
        );
    }

    #[test]
    fn head_cut_anywhere_is_incomplete() {
        for cut in 0..ANSWER.len() - 4 {
            assert_eq!(Head::parse(&ANSWER[..cut]).unwrap(), None, "cut at {cut}");
        }
    }

    #[test]
    fn head_that_cannot_be_trusted_is_an_error() {
        for bad in [
            &b"HTTP/1.0 200 OK\r\n\r\n"[..],
            b"HTTP/1.1 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(
                Head::parse(bad).is_err(),
                "{}",
                String::from_utf8_lossy(bad)
            );
        }
        assert!(Head::parse(&vec![b'x'; LONGEST + 1]).is_err());
    }
}
