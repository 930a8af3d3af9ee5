#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nave_function_routing::fuzzing::fuzz_condition(data));
