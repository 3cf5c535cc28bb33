//! An Accept-Encoding field; the first byte says what lies on the disk.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zhaul_http::encoding::{Coding, CodingSet, negotiate};
use zhaul_http::field_lines::FieldLines;

fuzz_target!(|input: (u8, &[u8])| {
    let (bits, value) = input;
    let mut available = CodingSet::IDENTITY;
    for (index, coding) in Coding::COMPRESSED.into_iter().enumerate() {
        if bits >> index & 1 == 1 {
            available = available.with(coding);
        }
    }
    let chosen = negotiate(FieldLines::One(value), available);
    assert!(available.contains(chosen));

    // A coding that was chosen was asked for, by name or by the star.
    let text = value.to_ascii_lowercase();
    if let Some(token) = chosen.token() {
        let named = text.windows(token.len()).any(|w| w == token.as_bytes());
        assert!(named || text.contains(&b'*'));
    }

    // What the client refuses by name and nowhere else names is not sent.
    if let Some(token) = chosen.token()
        && !text.windows(token.len()).any(|w| w == token.as_bytes())
    {
        let refusal = [value, b",", token.as_bytes(), b";q=0"].concat();
        assert_ne!(negotiate(FieldLines::One(&refusal), available), chosen);
    }
});
