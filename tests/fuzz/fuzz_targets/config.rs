#![no_main]

#[allow(dead_code)]
#[path = "../text_properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::config(data));
