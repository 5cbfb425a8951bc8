#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| whinchat_fuzz::framing::run(data));
