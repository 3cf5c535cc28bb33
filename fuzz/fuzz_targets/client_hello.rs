//! The beginning of a connection that may be TLS: any bytes, in any pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zhaul_proxy::client_hello::{Beginning, MAX_STREAM_BYTES, inspect};

fuzz_target!(|stream: &[u8]| {
    let whole = inspect(stream);
    if let Beginning::Incomplete { more } = whole {
        assert!((1..=MAX_STREAM_BYTES - stream.len()).contains(&more));
    }
    if let Beginning::Hello(hello) = &whole {
        let names = hello.server_name.iter();
        assert!(names.clone().all(|name| !name.is_empty() && name.is_ascii()));
        // More bytes change nothing.
        let more = [stream, b"more"].concat();
        assert_eq!(inspect(&more), whole);
    }
    // A verdict does not come earlier than it can be known, and is never taken back.
    for cut in 0..stream.len().min(64) {
        match inspect(&stream[..cut]) {
            Beginning::Incomplete { more } => {
                let is_whole = matches!(whole, Beginning::Hello(_));
                assert!(!is_whole || cut + more <= stream.len());
            }
            verdict => assert_eq!(verdict, whole),
        }
    }
});
