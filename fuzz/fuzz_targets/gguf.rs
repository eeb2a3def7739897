//! The reader of headers on any bytes, in a file of that length and in one that seems to go on.
#![no_main]

use formats::{GgufErrorKind, analyze, describe, gguf};
use libfuzzer_sys::fuzz_target;
use spec::Bytes;

fuzz_target!(|data: &[u8]| {
    for size in [data.len() as u64, data.len() as u64 + (1 << 20), u64::MAX] {
        match gguf::read(data, Bytes::new(size)) {
            Ok(header) => {
                if let Ok(model) = describe(&[header]) {
                    let analysis = analyze(&model);
                    assert!(analysis.active_parameters <= analysis.parameters);
                }
            }
            Err(error) => {
                if let GgufErrorKind::NeedMore { at_least } = error.kind {
                    assert!(at_least.get() > data.len() as u64 && at_least.get() <= size);
                }
                assert!(error.offset <= data.len() as u64);
            }
        }
    }
});
