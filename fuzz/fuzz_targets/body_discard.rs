//! A request body; the first values choose its framing, the limit and how it is split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zhaul_http::body::{BodyDiscard, BodyError, BodyFraming};

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (limit, step, bytes) = input;
    let limit = u64::from(limit);
    let framings = [
        BodyFraming::None,
        BodyFraming::Length(u64::from(step) + 1),
        BodyFraming::Chunked,
    ];
    for framing in framings {
        let whole = consume(framing, limit, bytes, usize::MAX);
        assert_eq!(whole, consume(framing, limit, bytes, 1));
        assert_eq!(whole, consume(framing, limit, bytes, usize::from(step) + 1));
        if let Ok((consumed, done)) = whole {
            assert!(consumed as u64 <= limit);
            assert!(done || consumed == bytes.len());
        }
    }
});

/// Bytes consumed and whether the body ended, when fed `step` bytes at a time.
fn consume(
    framing: BodyFraming,
    limit: u64,
    bytes: &[u8],
    step: usize,
) -> Result<(usize, bool), BodyError> {
    let mut body = BodyDiscard::new(framing, limit)?;
    let mut consumed = 0;
    for piece in bytes.chunks(step) {
        let fed = body.feed(piece)?;
        consumed += fed.consumed;
        if fed.done {
            break;
        }
        assert_eq!(fed.consumed, piece.len());
    }
    Ok((consumed, body.is_done()))
}
