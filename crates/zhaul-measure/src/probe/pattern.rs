//! The bytes that the probes send: every position differs from its neighbours, no page is like
//! another, and they live for ever, so that the kernel may hold on to them.

/// Bytes from the pattern, on a page border.
pub(super) fn bytes(len: usize) -> &'static [u8] {
    &PATTERN.0[..len]
}

/// What most probes send.
pub(super) const FEW: usize = 16 << 10;

/// All there is.
pub(super) const ALL: usize = 64 << 10;

#[repr(align(65536))]
struct Aligned([u8; ALL]);

static PATTERN: Aligned = Aligned(pseudo_random());

/// xorshift32.
const fn pseudo_random() -> [u8; ALL] {
    let mut bytes = [0; ALL];
    let mut state = 0x9e37_79b9_u32;
    let mut at = 0;
    while at < ALL {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes[at] = (state >> 24) as u8;
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_is_like_another_and_none_is_zero() {
        let pages: std::collections::BTreeSet<_> = bytes(ALL).chunks(4096).collect();
        assert_eq!(pages.len(), ALL / 4096);
        assert!(!pages.contains(&[0; 4096][..]));
        assert_eq!(bytes(FEW).as_ptr().addr() % 4096, 0);
    }
}
