//! A PROXY header from whoever is trusted to send one: any bytes, in any pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zhaul_proxy::config::ProxyVersion;
use zhaul_proxy::proxy_header::{MAX_BYTES, Parsed, parse, write};

fuzz_target!(|stream: &[u8]| {
    match parse(stream) {
        Parsed::Header(introduction, bytes) => {
            assert!(bytes <= stream.len() && bytes <= MAX_BYTES);
            // What is behind it does not matter, and what is cut off is missed.
            let header = &stream[..bytes];
            assert_eq!(parse(header), Parsed::Header(introduction.clone(), bytes));
            for cut in 0..bytes {
                let Parsed::Incomplete { more } = parse(&header[..cut]) else {
                    panic!("the first {cut} bytes are no beginning of it");
                };
                assert!((1..=bytes - cut).contains(&more));
            }
            // What is passed on says the same.
            let again = write(ProxyVersion::V2, &introduction);
            let Parsed::Header(read, length) = parse(&again) else {
                panic!("it cannot be read again: {again:?}");
            };
            assert_eq!(length, again.len());
            assert_eq!(read.tlvs, introduction.tlvs);
        }
        Parsed::Incomplete { more } => assert!(stream.len() + more <= MAX_BYTES),
        Parsed::Malformed(why) => assert!(!why.is_empty()),
    }
});
