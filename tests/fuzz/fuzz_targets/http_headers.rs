#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nave_http::fuzzing::fuzz_headers(data));
