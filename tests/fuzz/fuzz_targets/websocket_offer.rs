#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nave_net::fuzzing::fuzz_offer(data));
