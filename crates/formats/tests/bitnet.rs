//! Files of the BitNet fork of llama.cpp, whose tensor types share ids with others.

mod support;

use proptest::prelude::*;
use spec::{Bytes, QuantType};
use support::Build;
use synthetic::{FileType, Options, Override, Vocabulary, gguf, preset};

/// A file of two tensors, of which the first states `type_id` and the second begins at `second`.
fn two(type_id: u32, architecture: &str, shape: &[u64], second: u64) -> Result<QuantType, String> {
    let mut build = Build::new(architecture).tensor("a", QuantType::F32, &[8]).tensor("b", QuantType::F32, &[8]);
    build.header.tensors[0].shape = shape.to_vec();
    build.header.tensors[0].type_id = type_id;
    build.header.tensors[1].offset = second;
    let bytes = build.bytes();
    let size = Bytes::new(bytes.len() as u64 + second + 32);
    formats::gguf::read(&bytes, size).map(|file| file.tensors[0].ty).map_err(|error| error.to_string())
}

#[test]
fn the_room_up_to_the_next_tensor_tells_what_an_id_means() {
    let packed = 768 * 2 / 4;
    assert_eq!(two(36, "llama", &[768, 2], packed + 32), Ok(QuantType::I2_S));
    assert_eq!(two(38, "llama", &[768, 2], packed + 32), Ok(QuantType::TL1));
    assert_eq!(two(38, "llama", &[768, 2], packed), Ok(QuantType::TL1), "its scale is a tensor of its own");
    let tl2 = QuantType::TL2.tensor_bytes([2560, 640, 1, 1]).unwrap().get();
    let mxfp4 = QuantType::MXFP4.tensor_bytes([2560, 640, 1, 1]).unwrap().get();
    assert_eq!(two(39, "llama", &[2560, 640], tl2), Ok(QuantType::TL2));
    assert_eq!(two(39, "bitnet-b1.58", &[2560, 640], mxfp4), Ok(QuantType::MXFP4));
    assert_eq!(two(39, "llama", &[2560, 640], mxfp4), Ok(QuantType::MXFP4));
    assert!(two(36, "llama", &[768, 2], 4096).unwrap_err().contains("iq4_nl_4_4"));
    assert!(two(36, "bitnet", &[768, 2], 4096).unwrap_err().contains("should begin at byte 416"));
}

/// The size that a run of the fork logged for bitnet_b1_58-large: 256.56 MiB.
#[test]
fn a_file_of_the_fork_is_described_to_the_byte() {
    let mut shape = preset("bitnet-3b").unwrap();
    for (key, value) in [("n_layer", "24"), ("n_embd", "1536"), ("n_ff", "4096"), ("n_head", "16"), ("n_head_kv", "16")] {
        shape.set(key, value).unwrap();
    }
    let ternary = Override { part: "blk.".into(), ty: QuantType::I2_S };
    let options = Options { vocabulary: Vocabulary::None, overrides: vec![ternary], ..Options::default() };
    let file = gguf(&shape, FileType::F16, &options).unwrap();
    let header = formats::gguf::read(&file.header, file.size).unwrap();
    let model = formats::describe(&[header]).unwrap();
    let total: Bytes = model.tensors.iter().map(|tensor| tensor.bytes).sum();
    assert_eq!(format!("{:.2}", total.as_mib()), "256.56");
    let forked = model.tensors.iter().filter(|tensor| tensor.ty == QuantType::I2_S);
    assert_eq!(forked.count(), 24 * 7);
}

proptest! {
    /// Whatever the shape, a type of the fork that fills its room is read as such, and no shape makes the reader fail.
    #[test]
    fn tensors_of_the_fork_are_read(
        id in 36..=39_u32,
        columns in 1..20_000_u64,
        rows in 1..500_u64,
        far in any::<bool>(),
        gap in 0..100_000_u64,
    ) {
        let ty = QuantType::from_bitnet_fork_id(id).unwrap();
        let Some(bytes) = ty.tensor_bytes([columns, rows, 1, 1]) else {
            prop_assert!(two(id, "bitnet", &[columns, rows], gap * 32).is_err() || id == 39);
            return Ok(());
        };
        let room = bytes.get().next_multiple_of(32);
        prop_assert_eq!(two(id, "bitnet-25", &[columns, rows], room), Ok(ty));
        if far {
            let _ = two(id, "any", &[columns, rows], gap * 32);
            let _ = two(id, "bitnet", &[u64::MAX / columns, rows], gap);
        }
    }
}
