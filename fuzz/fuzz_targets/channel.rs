//! A peer of a channel that says and writes anything: messages, descriptors, counters, words of rings.
#![no_main]

#[path = "../../crates/zhaul/tests/channel_hostile/peer.rs"]
mod peer;
#[path = "../../crates/zhaul/tests/channel_hostile/script.rs"]
mod script;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    script::against_receiver(input);
    script::against_sender(input);
});
