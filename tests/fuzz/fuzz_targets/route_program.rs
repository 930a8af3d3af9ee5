#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nave_routing::fuzzing::fuzz_program(data));
