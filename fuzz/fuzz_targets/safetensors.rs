//! The reader of safetensors headers and indices on any bytes, in a file of that length and in one that seems to go on.
#![no_main]

use formats::safetensors::{index, read};
use libfuzzer_sys::fuzz_target;
use spec::Bytes;

fuzz_target!(|data: &[u8]| {
    let _ = index(data);
    for size in [data.len() as u64, data.len() as u64 + (1 << 20), u64::MAX] {
        match read(data, Bytes::new(size)) {
            Ok(header) => assert!(header.data_offset.get() <= data.len() as u64),
            Err(error) => {
                if let Some(at_least) = error.need_more() {
                    assert!(at_least.get() > data.len() as u64 && at_least.get() <= size);
                }
                assert!(error.offset <= data.len() as u64);
            }
        }
    }
    // A fuzzer finds no length that fits: the same bytes as the header of a file.
    let file = [(data.len() as u64).to_le_bytes().as_slice(), data].concat();
    let _ = read(&file, Bytes::new(file.len() as u64 + (1 << 20)));
});
