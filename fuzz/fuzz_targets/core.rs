#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| whinchat_fuzz::core::run(data));
