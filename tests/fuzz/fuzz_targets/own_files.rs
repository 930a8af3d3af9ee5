#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nave::fuzzing::fuzz_own_files(data));
