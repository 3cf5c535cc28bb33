//! What all pages of the server have in common: how text becomes HTML, and the policy under which
//! browsers show them.

/// The value of Content-Security-Policy for listings and built-in error pages. They need nothing
/// but their own style, which is named by its hash; whatever a file name might smuggle in does not
/// run.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
    style-src 'sha256-/XIyD/rUmDlsOWT+6sLXDImy7STsCa1lXLMR5vpR0kQ=' \
    'sha256-o6wY392TgyYPPexPGlMYI+64ELq1mfPIodiaMCLpuZQ='; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'self'";

/// Appends `text` for use as element content or inside a quoted attribute. Bytes that are not
/// UTF-8 become U+FFFD, and so do controls, which have no place in HTML.
pub(crate) fn escape_html(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '&' => out.extend_from_slice(b"&amp;"),
                '<' => out.extend_from_slice(b"&lt;"),
                '>' => out.extend_from_slice(b"&gt;"),
                '"' => out.extend_from_slice(b"&quot;"),
                '\'' => out.extend_from_slice(b"&#39;"),
                _ => {
                    let shown = if is_deceptive(c) {
                        char::REPLACEMENT_CHARACTER
                    } else {
                        c
                    };
                    out.extend_from_slice(shown.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Controls, and the bidirectional overrides that make `gpj.exe` look like `exe.jpg`.
fn is_deceptive(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::{CONTENT_SECURITY_POLICY, escape_html};

    #[test]
    fn markup_and_deceptive_characters_are_disarmed() {
        for (text, expected) in [
            (&b"plain.txt"[..], "plain.txt"),
            (
                b"<script>alert('x')</script>",
                "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;",
            ),
            (b"\"onload=\"", "&quot;onload=&quot;"),
            (b"a&amp;b", "a&amp;amp;b"),
            ("ä\u{202e}gpj.exe".as_bytes(), "ä\u{fffd}gpj.exe"),
            (
                b"a\0\n\x1b\xff\xc0\xafz",
                "a\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}z",
            ),
        ] {
            let mut out = Vec::new();
            escape_html(text, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn the_policy_names_the_styles_by_their_hash() {
        for style in [
            crate::answer::listing::STYLE,
            crate::answer::error_page::STYLE,
        ] {
            let source = format!("'sha256-{}'", base64(&sha256(style.as_bytes())));
            assert!(
                CONTENT_SECURITY_POLICY.contains(&source),
                "expected {source}"
            );
        }
    }

    #[test]
    fn the_hash_is_sha_256() {
        // FIPS 180-4, one block and two.
        assert_eq!(
            base64(&sha256(b"abc")),
            "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
        );
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(
            base64(&sha256(two_blocks)),
            "JI1qYdIGOLjlwCaTDD5gOaM85Flk/yFn9uzt1BnbBsE="
        );
    }

    /// FIPS 180-4 §6.2; here rather than as a dependency, since only this test needs it. The
    /// constants are the fractional digits of roots of primes and are computed as such.
    fn sha256(message: &[u8]) -> [u8; 32] {
        let primes: Vec<u64> = (2..312)
            .filter(|n| (2..*n).all(|d| n % d != 0))
            .take(64)
            .collect();
        let k: Vec<u32> = primes.iter().map(|&p| root_digits(p, 3)).collect();
        let mut state: Vec<u32> = primes[..8].iter().map(|&p| root_digits(p, 2)).collect();
        let mut padded = message.to_vec();
        padded.push(0x80);
        padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
        padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
        for block in padded.chunks(64) {
            let mut w: Vec<u32> = block
                .chunks(4)
                .map(|b| u32::from_be_bytes(b.try_into().unwrap()))
                .collect();
            for t in 16..64 {
                let (x, y) = (w[t - 15], w[t - 2]);
                let s0 = x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3;
                let s1 = y.rotate_right(17) ^ y.rotate_right(19) ^ y >> 10;
                w.push(
                    s1.wrapping_add(w[t - 7])
                        .wrapping_add(s0)
                        .wrapping_add(w[t - 16]),
                );
            }
            let mut v = state.clone();
            for t in 0..64 {
                let (a, e) = (v[0], v[4]);
                let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
                let choice = e & v[5] ^ !e & v[6];
                let t1 = [v[7], s1, choice, k[t], w[t]]
                    .into_iter()
                    .fold(0, u32::wrapping_add);
                let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
                let majority = a & v[1] ^ a & v[2] ^ v[1] & v[2];
                v.rotate_right(1);
                v[4] = v[4].wrapping_add(t1);
                v[0] = t1.wrapping_add(s0).wrapping_add(majority);
            }
            state
                .iter_mut()
                .zip(v)
                .for_each(|(s, v)| *s = s.wrapping_add(v));
        }
        let bytes: Vec<u8> = state.into_iter().flat_map(u32::to_be_bytes).collect();
        bytes.try_into().unwrap()
    }

    /// The first 32 fractional bits of the root of `n`, by bisection.
    fn root_digits(n: u64, degree: u32) -> u32 {
        let target = u128::from(n) << (32 * degree);
        let (mut low, mut high) = (0_u128, 1_u128 << 37);
        while high - low > 1 {
            let middle = u128::midpoint(low, high);
            if middle.pow(degree) <= target {
                low = middle;
            } else {
                high = middle;
            }
        }
        (low & 0xFFFF_FFFF) as u32
    }

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let encode = |chunk: &[u8]| {
            let bits = chunk.iter().chain([0, 0].iter()).take(3);
            let bits = bits.fold(0_usize, |bits, &b| bits << 8 | usize::from(b));
            (0..4)
                .map(move |i| match i <= chunk.len() {
                    true => char::from(DIGITS[bits >> (18 - 6 * i) & 63]),
                    false => '=',
                })
                .collect::<String>()
        };
        bytes.chunks(3).map(encode).collect()
    }
}
