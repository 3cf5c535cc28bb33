//! A configuration file of the proxy: it is read, or every mistake has its words.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zhaul_proxy::config::file::parse;

fuzz_target!(|text: &str| {
    // Names of hosts to listen on are looked up, which a fuzzer is not to do a million times.
    if text.contains("listen") && text.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        let literal = text
            .split(['"', '\''])
            .all(|part| !part.contains(':') || part.starts_with(|c: char| c.is_ascii_digit()));
        if !literal {
            return;
        }
    }
    match parse("p.toml", text) {
        Ok(config) => {
            assert!(!config.listeners.is_empty());
            for listener in config.listeners.values() {
                assert!(listener.to.iter().all(|to| config.pools.contains_key(to)));
            }
        }
        Err(problems) => {
            assert!(!problems.list.is_empty());
            assert!(problems.to_string().starts_with("p.toml"));
        }
    }
});
