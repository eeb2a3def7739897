//! What holds for every input: no bytes make the reader panic, and what was written is what is read.

mod support;

use formats::gguf::{self, Value as Read};
use formats::{analyze, describe};
use proptest::prelude::*;
use spec::model::MetaValue;
use spec::{Bytes, QuantType};
use support::{Build, llama};
use synthetic::writer::Value;

/// Everything that a file goes through, whatever its bytes.
fn all_of_it(bytes: &[u8], size: u64) {
    match gguf::read(bytes, Bytes::new(size)) {
        Ok(header) => {
            if let Ok(model) = describe(&[header]) {
                let analysis = analyze(&model);
                assert!(analysis.active_parameters <= analysis.parameters);
                let _ = (analysis.decode_ops(1 << 40), analysis.intensity(7), analysis.state_bytes());
            }
        }
        Err(error) => {
            assert!(error.offset <= size.max(bytes.len() as u64));
            assert!(error.need_more().is_none_or(|at_least| at_least.get() > bytes.len() as u64 && at_least.get() <= size));
            assert!(!error.to_string().is_empty());
            let _ = error.hint();
        }
    }
}

#[derive(Clone, Debug)]
enum Mutation {
    Byte(usize, u8),
    Word(usize, u64),
    Cut(usize),
    Repeat(usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let extreme = prop_oneof![
        Just(0_u64),
        Just(1),
        Just(u64::from(u32::MAX)),
        Just(1 << 63),
        Just(u64::MAX),
        Just((1 << 63) - 1),
        Just(1 << 32),
        any::<u64>(),
    ];
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Byte(at, byte)),
        4 => (any::<usize>(), extreme).prop_map(|(at, word)| Mutation::Word(at, word)),
        1 => any::<usize>().prop_map(Mutation::Cut),
        1 => (any::<usize>(), 1..64_usize).prop_map(|(at, length)| Mutation::Repeat(at, length)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match *mutation {
        Mutation::Byte(at, byte) => bytes[at % length] = byte,
        Mutation::Word(at, word) => {
            let at = at % length;
            let end = (at + 8).min(length);
            bytes[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
        }
        Mutation::Cut(at) => bytes.truncate(at % length),
        Mutation::Repeat(at, count) => {
            let at = at % length;
            let part = bytes[at..(at + count).min(length)].to_vec();
            bytes.splice(at..at, part);
        }
    }
}

/// Valid headers to start from: a transformer, a hybrid with lists per layer, a split part.
fn seeds() -> Vec<Build> {
    let hybrid = Build::new("jamba")
        .key("block_count", 2_u32)
        .key("context_length", 64_u32)
        .key("embedding_length", 32_u32)
        .key("attention.head_count", 4_u32)
        .key("attention.head_count_kv", Value::array([0_u32, 4]))
        .key("expert_count", 4_u32)
        .key("expert_used_count", 2_u32)
        .key("ssm.conv_kernel", 4_u32)
        .key("ssm.inner_size", 64_u32)
        .key("ssm.state_size", 16_u32)
        .key("ssm.time_step_rank", 2_u32)
        .tensor("token_embd.weight", QuantType::F32, &[32, 8])
        .tensor("blk.1.ffn_down_exps.weight", QuantType::Q4_0, &[32, 32, 4]);
    let latent = Build::new("deepseek2")
        .key("block_count", 1_u32)
        .key("context_length", 64_u32)
        .key("embedding_length", 32_u32)
        .key("attention.head_count", 4_u32)
        .key("attention.kv_lora_rank", 16_u32)
        .key("attention.key_length", 24_u32)
        .key("attention.key_length_mla", 12_u32)
        .key("attention.value_length_mla", 8_u32)
        .tensor("token_embd.weight", QuantType::F32, &[32, 8]);
    vec![llama(), hybrid, latent, llama().raw("split.count", 2_u16).raw("split.no", 0_u16).raw("split.tensors.count", 6_i32)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn mutated_headers_never_panic(seed in 0..4_usize, mutations in prop::collection::vec(mutation(), 1..6), size in any::<u64>()) {
        let build = &seeds()[seed];
        let mut bytes = build.bytes();
        mutations.iter().for_each(|mutation| mutate(&mut bytes, mutation));
        for size in [bytes.len() as u64, build.file_size().get(), 1 << 40, size, u64::MAX] {
            all_of_it(&bytes, size.max(bytes.len() as u64));
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
        if magic {
            bytes.splice(0..0, *b"GGUF\x03\0\0\0");
        }
        all_of_it(&bytes, bytes.len() as u64);
        all_of_it(&bytes, u64::MAX);
    }
}

fn scalar() -> impl Strategy<Value = (Value, MetaValue)> {
    prop_oneof![
        any::<u8>().prop_map(|v| (v.into(), MetaValue::Uint(v.into()))),
        any::<i8>().prop_map(|v| (v.into(), MetaValue::Int(v.into()))),
        any::<u16>().prop_map(|v| (v.into(), MetaValue::Uint(v.into()))),
        any::<i16>().prop_map(|v| (v.into(), MetaValue::Int(v.into()))),
        any::<u32>().prop_map(|v| (v.into(), MetaValue::Uint(v.into()))),
        any::<i32>().prop_map(|v| (v.into(), MetaValue::Int(v.into()))),
        any::<u64>().prop_map(|v| (v.into(), MetaValue::Uint(v))),
        any::<i64>().prop_map(|v| (v.into(), MetaValue::Int(v))),
        any::<f32>().prop_map(|v| (v.into(), MetaValue::Float(v.into()))),
        any::<f64>().prop_map(|v| (v.into(), MetaValue::Float(v))),
        any::<bool>().prop_map(|v| (v.into(), MetaValue::Bool(v))),
        ".{0,40}".prop_map(|v| (v.clone().into(), MetaValue::Text(v))),
    ]
}

fn value() -> impl Strategy<Value = (Value, Read)> {
    prop_oneof![
        4 => scalar().prop_map(|(written, read)| (written, Read::Scalar(read))),
        1 => prop::collection::vec(any::<i16>(), 0..50).prop_map(|items| {
            let numbers = items.iter().map(|&item| item.into()).collect();
            let element = if items.is_empty() { gguf::ElementType::U32 } else { gguf::ElementType::I16 };
            let array = gguf::Array { element, length: items.len() as u64, numbers: Some(numbers) };
            (Value::array(items), Read::Array(array))
        }),
        1 => prop::collection::vec(".{0,9}", 1..20).prop_map(|items| {
            let array = gguf::Array { element: gguf::ElementType::Text, length: items.len() as u64, numbers: None };
            (Value::array(items), Read::Array(array))
        }),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        values in prop::collection::btree_map("[a-z.]{1,20}", value(), 0..12),
        tensors in prop::collection::btree_map("[a-z0-9.]{1,63}", (0..QuantType::ALL.len(), 0..4_u64, 1..4_u64), 0..12),
        power in 0..9_u32,
    ) {
        let alignment = 1_u32 << power;
        let mut build = Build::new("any").raw("general.alignment", alignment);
        build.header.alignment = alignment.into();
        for (key, (written, _)) in &values {
            build = build.raw(key, written.clone());
        }
        for (name, &(ty, blocks, rows)) in &tensors {
            let ty = QuantType::ALL[ty];
            build = build.tensor(name, ty, &[blocks * ty.block().weights, rows]);
        }
        let header = build.read();
        for (key, (_, read)) in &values {
            match (&header.metadata[key], read) {
                // Not a number equals nothing, itself included.
                (Read::Scalar(MetaValue::Float(a)), Read::Scalar(MetaValue::Float(b))) => prop_assert_eq!(a.to_bits(), b.to_bits()),
                (found, read) => prop_assert_eq!(found, read),
            }
        }
        prop_assert_eq!(header.metadata.len(), values.len() + 2);
        prop_assert_eq!(header.data_offset, Bytes::new(build.bytes().len() as u64));
        for (tensor, entry) in header.tensors.iter().zip(&build.header.tensors) {
            prop_assert_eq!(&tensor.name, &entry.name);
            prop_assert_eq!((tensor.ty.id(), tensor.offset.get()), (entry.type_id, entry.offset));
            prop_assert_eq!([tensor.shape[0], tensor.shape[1]], entry.shape.as_slice());
        }
        prop_assert_eq!(header.tensors.len(), tensors.len());
    }
}
