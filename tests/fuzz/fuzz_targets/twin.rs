#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nave_function_twin::fuzzing::fuzz_twin(data));
