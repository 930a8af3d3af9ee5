#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nave_auth::fuzzing::fuzz_sas(data));
