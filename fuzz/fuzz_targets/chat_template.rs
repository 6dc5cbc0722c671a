#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sharpv::fuzzing::chat_template(bytes));
