#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nave_model::fuzzing::fuzz_ids(data));
