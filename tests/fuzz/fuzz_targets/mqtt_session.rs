#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nave_mqtt::fuzzing::fuzz_session(data));
