//! Reads a request body off a connection and throws it away (RFC 9112 §6, §7.1).
//!
//! The server has no use for a body, but the next request starts behind it. [`BodyDiscard::feed`]
//! is given whatever was received and says how much of it was body; it never takes a byte of what
//! follows. Framing, chunk extensions and trailers count against one limit: a client cannot hold
//! a connection with data that never ends, and on any error the caller closes.
//!
//! Chunked framing is read strictly (RFC 9112 §11.2): hexadecimal digits only, CRLF only, no white
//! space around the size, no bare CR, LF or other control inside extensions and trailers.

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyFraming {
    /// No body.
    #[default]
    None,
    /// Content-Length, at least 1.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
}

/// Why a body cannot be read off; the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Longer than the caller's limit (413).
    #[error("request body larger than the limit")]
    TooLarge,
    /// Not valid chunked framing (400).
    #[error("malformed chunked body")]
    Malformed,
}

/// What [`BodyDiscard::feed`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input that belong to the body; the rest is the next request.
    pub consumed: usize,
    /// Whether the body has ended. If not, all of the input was consumed.
    pub done: bool,
}

/// The state between two reads.
#[derive(Clone, Debug)]
pub struct BodyDiscard {
    state: State,
    /// What may still be consumed.
    allowance: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Bytes of a Content-Length body still to come.
    Length(u64),
    /// In the digits of a chunk size.
    Size {
        size: u64,
        digits: u8,
    },
    /// Between `;` and the end of the line.
    Extension {
        size: u64,
    },
    /// The CR of the size line was seen.
    SizeLf {
        size: u64,
    },
    /// Bytes of a chunk still to come.
    Data(u64),
    /// The chunk is complete, its CRLF is not.
    DataCr,
    DataLf,
    /// At the first byte of a trailer line or of the final empty line.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// The CR of the final empty line was seen.
    FinalLf,
    Done,
}

impl BodyDiscard {
    /// Starts on a body of which at most `limit` bytes, framing included, are read off.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] when the announced length alone is beyond the limit.
    pub fn new(framing: BodyFraming, limit: u64) -> Result<Self, BodyError> {
        let state = match framing {
            BodyFraming::None | BodyFraming::Length(0) => State::Done,
            BodyFraming::Length(length) if length > limit => return Err(BodyError::TooLarge),
            BodyFraming::Length(length) => State::Length(length),
            BodyFraming::Chunked => State::Size { size: 0, digits: 0 },
        };
        Ok(Self {
            state,
            allowance: limit,
        })
    }

    /// Whether the body has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the body's part of `input`, from its front.
    ///
    /// # Errors
    /// The body is malformed or exceeds the limit; the object is of no further use.
    pub fn feed(&mut self, input: &[u8]) -> Result<Fed, BodyError> {
        let mut rest = input;
        while self.state != State::Done && !rest.is_empty() {
            let taken = match self.state {
                State::Length(left) | State::Data(left) => self.skip(left, rest.len()),
                _ => {
                    self.state = self.state.step(rest[0])?;
                    1
                }
            };
            self.allowance = self
                .allowance
                .checked_sub(taken as u64)
                .ok_or(BodyError::TooLarge)?;
            self.refuse_oversized_chunk()?;
            rest = &rest[taken..];
        }
        Ok(Fed {
            consumed: input.len() - rest.len(),
            done: self.is_done(),
        })
    }

    /// Passes over opaque bytes in one go.
    fn skip(&mut self, left: u64, available: usize) -> usize {
        let taken = usize::try_from(left).map_or(available, |left| left.min(available));
        let left = left - taken as u64;
        self.state = match self.state {
            State::Length(_) if left == 0 => State::Done,
            State::Length(_) => State::Length(left),
            _ if left == 0 => State::DataCr,
            _ => State::Data(left),
        };
        taken
    }

    /// Says so at the size line instead of after reading as much as is allowed.
    fn refuse_oversized_chunk(&self) -> Result<(), BodyError> {
        match self.state {
            State::Data(size) if size > self.allowance => Err(BodyError::TooLarge),
            _ => Ok(()),
        }
    }
}

impl State {
    fn step(self, byte: u8) -> Result<Self, BodyError> {
        Ok(match (self, byte) {
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                // Sixteen digits are all that a u64 holds; leading zeros count too.
                if digits == 16 {
                    return Err(BodyError::Malformed);
                }
                Self::Size {
                    size: size << 4 | hex_value(byte),
                    digits: digits + 1,
                }
            }
            (Self::Size { digits: 0, .. }, _) => return Err(BodyError::Malformed),
            (Self::Size { size, .. } | Self::Extension { size }, b'\r') => Self::SizeLf { size },
            (Self::Size { size, .. }, b';') => Self::Extension { size },
            (Self::Extension { .. } | Self::TrailerValue, _) if is_text(byte) => self,
            (Self::SizeLf { size: 0 }, b'\n') => Self::TrailerStart,
            (Self::SizeLf { size }, b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size { size: 0, digits: 0 },
            (Self::TrailerStart, b'\r') => Self::FinalLf,
            (Self::TrailerName, b':') => Self::TrailerValue,
            (Self::TrailerStart | Self::TrailerName, _) if is_token(byte) => Self::TrailerName,
            (Self::TrailerValue, b'\r') => Self::TrailerLf,
            (Self::TrailerLf, b'\n') => Self::TrailerStart,
            (Self::FinalLf, b'\n') => Self::Done,
            _ => return Err(BodyError::Malformed),
        })
    }
}

fn hex_value(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    })
}

/// Anything that may stand in a field value or an extension: no control except HTAB.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7F)
}

/// tchar of RFC 9110 §5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: u64 = 1 << 20;

    fn read_off(framing: BodyFraming, input: &[u8]) -> Result<Fed, BodyError> {
        BodyDiscard::new(framing, LIMIT)?.feed(input)
    }

    fn chunked(input: &[u8]) -> Result<Fed, BodyError> {
        read_off(BodyFraming::Chunked, input)
    }

    #[test]
    fn length_takes_exactly_its_bytes() {
        let body = b"helloGET / HTTP/1.1\r\n";
        let fed = read_off(BodyFraming::Length(5), body).unwrap();
        assert_eq!(
            fed,
            Fed {
                consumed: 5,
                done: true
            }
        );
        let fed = read_off(BodyFraming::Length(50), body).unwrap();
        assert_eq!(
            fed,
            Fed {
                consumed: body.len(),
                done: false
            }
        );
    }

    #[test]
    fn no_body_takes_nothing() {
        for framing in [BodyFraming::None, BodyFraming::Length(0)] {
            assert_eq!(
                read_off(framing, b"GET /"),
                Ok(Fed {
                    consumed: 0,
                    done: true
                })
            );
        }
    }

    #[test]
    fn chunks_extensions_and_trailers_end_before_the_next_request() {
        for body in [
            &b"0\r\n\r\n"[..],
            b"5\r\nhello\r\n0\r\n\r\n",
            b"a\r\n0123456789\r\n0000\r\n\r\n",
            b"A;name=value;q=\"\xff;\"\r\n0123456789\r\n0;x\r\n\r\n",
            b"1\r\n\r\r\n1\r\n\n\r\n0\r\nDigest: x\r\nX-Empty:\r\n\r\n",
        ] {
            let mut stream = body.to_vec();
            stream.extend_from_slice(b"GET / HTTP/1.1\r\n");
            let fed = chunked(&stream).unwrap();
            assert_eq!(
                fed,
                Fed {
                    consumed: body.len(),
                    done: true
                },
                "{}",
                body.escape_ascii()
            );
        }
    }

    #[test]
    fn loose_framing_is_malformed() {
        for body in [
            &b"\r\n"[..],
            b"g\r\n",
            b"0x5\r\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"-1\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\nhello\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhelloX\r\n",
            b"5\rhello",
            b";x\r\n",
            b"5;a\nb\r\nhello",
            b"5;a\rb\r\nhello",
            b"5;a\0\r\nhello",
            b"00000000000000005\r\nhello",
            b"0\r\n folded\r\n\r\n",
            b"0\r\n: no name\r\n\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\nname : x\r\n\r\n",
            b"0\r\nname: a\nb\r\n\r\n",
            b"0\r\n\n",
        ] {
            assert_eq!(
                chunked(body),
                Err(BodyError::Malformed),
                "{}",
                body.escape_ascii()
            );
        }
    }

    #[test]
    fn huge_chunk_is_refused_at_its_size_line() {
        assert_eq!(chunked(b"ffffffffffffffff\r\n"), Err(BodyError::TooLarge));
        assert_eq!(chunked(b"100001\r\n"), Err(BodyError::TooLarge));
        assert!(BodyDiscard::new(BodyFraming::Length(LIMIT + 1), LIMIT).is_err());
        assert!(BodyDiscard::new(BodyFraming::Length(LIMIT), LIMIT).is_ok());
    }

    #[test]
    fn endless_extensions_trailers_and_tiny_chunks_hit_the_limit() {
        for (start, filler) in [
            (&b"1;"[..], &b"x"[..]),
            (b"0\r\n", b"a:b\r\n"),
            (b"", b"1\r\nx\r\n"),
        ] {
            let mut body = BodyDiscard::new(BodyFraming::Chunked, 1000).unwrap();
            body.feed(start).unwrap();
            let error = (0..2000).find_map(|_| body.feed(filler).err());
            assert_eq!(error, Some(BodyError::TooLarge));
        }
    }

    #[test]
    fn a_body_of_exactly_the_limit_is_read_off() {
        let body = b"5\r\nhello\r\n0\r\n\r\n";
        let feed = |limit| {
            BodyDiscard::new(BodyFraming::Chunked, limit)
                .unwrap()
                .feed(body)
        };
        assert!(feed(body.len() as u64).unwrap().done);
        assert_eq!(feed(body.len() as u64 - 1), Err(BodyError::TooLarge));
    }

    /// A valid chunked body from the sizes of its chunks.
    fn encode(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut body = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            body.extend_from_slice(format!("{:x};e=1\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\nT: v\r\n\r\n");
        body
    }

    proptest! {
        #[test]
        fn any_split_consumes_the_same_bytes(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            next in prop::collection::vec(any::<u8>(), 0..20),
            step in 1_usize..17,
        ) {
            let body = encode(&chunks);
            let mut stream = body.clone();
            stream.extend_from_slice(&next);
            let mut discard = BodyDiscard::new(BodyFraming::Chunked, LIMIT).unwrap();
            let mut consumed = 0;
            for piece in stream.chunks(step) {
                let fed = discard.feed(piece).unwrap();
                consumed += fed.consumed;
                if fed.done {
                    break;
                }
                prop_assert_eq!(fed.consumed, piece.len());
            }
            prop_assert!(discard.is_done());
            prop_assert_eq!(consumed, body.len());
        }

        #[test]
        fn arbitrary_bytes_never_panic_nor_exceed_the_limit(
            input in prop::collection::vec(any::<u8>(), 0..400),
            limit in 0_u64..300,
        ) {
            let mut discard = BodyDiscard::new(BodyFraming::Chunked, limit).unwrap();
            if let Ok(fed) = discard.feed(&input) {
                prop_assert!(fed.consumed as u64 <= limit);
                prop_assert!(fed.done || fed.consumed == input.len());
            }
        }
    }
}
