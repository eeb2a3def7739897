//! The analysis against figures that were published or can be counted by hand.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use formats::{Analysis, Limit, analyze, bound, describe, gguf};
use spec::{Bytes, BytesPerSec, OpsPerSec, QuantType};
use std::fmt::Write;
use support::{Build, llama};
use synthetic::{FileType, Options, Vocabulary, preset};

fn analysis(name: &str, file_type: FileType) -> Analysis {
    let options = Options { vocabulary: Vocabulary::None, ..Options::default() };
    let file = synthetic::gguf(&preset(name).unwrap(), file_type, &options).unwrap();
    analyze(&describe(&[gguf::read(&file.header, file.size).unwrap()]).unwrap())
}

#[test]
fn parameters_are_those_of_the_publishers() {
    let mut all = String::new();
    for name in ["llama-3.1-8b", "qwen3-0.6b", "qwen3-30b-a3b", "mixtral-8x7b", "deepseek-v3", "gpt-oss-120b", "gemma3-1b", "mamba-2.8b"] {
        let found = analysis(name, FileType::Q4_K_M);
        let (total, active) = (found.parameters as f64 / 1e9, found.active_parameters as f64 / 1e9);
        let ops = [0, 8192].map(|depth| found.decode_ops(depth) as f64 / 1e9);
        let _ = writeln!(
            all,
            "{name}: {total:.2} G, active {active:.2} G, {:.2} bits, {} of {} read, {:.2} Gop, at 8192 {:.2}",
            found.bits_per_weight(),
            found.active_bytes,
            found.weight_bytes,
            ops[0],
            ops[1],
        );
    }
    insta::assert_snapshot!(all, @r"
    llama-3.1-8b: 8.03 G, active 7.50 G, 4.89 bits, 4.30 GiB of 4.58 GiB read, 15.01 Gop, at 8192 19.30
    qwen3-0.6b: 0.60 G, active 0.60 G, 5.24 bits, 372.65 MiB of 372.65 MiB read, 1.19 Gop, at 8192 3.07
    qwen3-30b-a3b: 30.53 G, active 3.04 G, 4.86 bits, 1.79 GiB of 17.28 GiB read, 6.08 Gop, at 8192 12.53
    mixtral-8x7b: 46.70 G, active 12.75 G, 4.87 bits, 7.35 GiB of 26.49 GiB read, 25.50 Gop, at 8192 29.79
    deepseek-v3: 671.03 G, active 36.63 G, 4.82 bits, 20.76 GiB of 376.71 GiB read, 73.25 Gop, at 8192 212.44
    gpt-oss-120b: 116.83 G, active 5.13 G, 6.01 bits, 3.70 GiB of 81.81 GiB read, 10.27 Gop, at 8192 12.72
    gemma3-1b: 1.00 G, active 1.00 G, 6.40 bits, 762.49 MiB of 762.49 MiB read, 2.00 Gop, at 8192 2.18
    mamba-2.8b: 2.77 G, active 2.77 G, 4.69 bits, 1.51 GiB of 1.51 GiB read, 5.57 Gop, at 8192 5.57
    ");
}

#[test]
fn a_small_model_counted_by_hand() {
    // 64 x 3 embedding (tied: multiplied with), 64 x 64 query, 128 x 64 down; two key/value heads of 16.
    let model = describe(&[llama().read()]).unwrap();
    let found = analyze(&model);
    let weights = 64 * 3 + 64 * 64 + 128 * 64;
    assert_eq!((found.parameters, found.active_parameters), (weights, weights));
    assert_eq!(found.decode_ops(0), 2 * weights);
    assert_eq!(found.decode_ops(10) - found.decode_ops(0), 10 * 2 * 4 * (16 + 16));
    assert_eq!(found.cache_bytes(10, QuantType::F16, QuantType::F16), Bytes::new(10 * 2 * 2 * 16 * 2));
    assert_eq!(found.cache_bytes(10, QuantType::Q8_0, QuantType::F16), Bytes::new(10 * (34 + 64)));
    assert_eq!(found.active_bytes, model.tensor_bytes());
    assert_eq!(found.batch_bytes(64), found.active_bytes);
    assert_eq!((found.parallelism.layers, found.parallelism.head_split), (2, Some(2)));
    let down = &found.matrices[0];
    assert_eq!((down.columns, down.rows, down.stacked, down.count), (128, 64, 1, 1));
    assert!(down.roles.contains("ffn_down"));
}

#[test]
fn tables_that_are_looked_up_count_one_row() {
    let untied = llama().tensor("output.weight", QuantType::F16, &[64, 3]);
    let found = analyze(&describe(&[untied.read()]).unwrap());
    assert_eq!(found.parameters - found.active_parameters, 2 * 64);
}

#[test]
fn layers_that_predict_further_tokens_are_not_active() {
    let build = Build::new("llama")
        .key("block_count", 2_u32)
        .key("nextn_predict_layers", 1_u32)
        .key("context_length", 512_u32)
        .key("embedding_length", 64_u32)
        .key("attention.head_count", 4_u32)
        .tensor("token_embd.weight", QuantType::F16, &[64, 3])
        .tensor("blk.0.attn_q.weight", QuantType::F16, &[64, 64])
        .tensor("blk.1.attn_q.weight", QuantType::F16, &[64, 64]);
    let found = analyze(&describe(&[build.read()]).unwrap());
    assert_eq!(found.parameters - found.active_parameters, 64 * 64);
    assert_eq!(found.decode_ops(1) - found.decode_ops(0), 2 * 4 * 32);
}

#[test]
fn experts_are_read_as_far_as_a_batch_visits_them() {
    let found = analysis("qwen3-30b-a3b", FileType::Q8_0);
    let [group] = found.experts[..] else { panic!("{:?}", found.experts) };
    assert_eq!((group.count, group.used), (128, 8));
    assert_eq!(found.batch_bytes(1), found.active_bytes);
    let rest = found.active_bytes.get() - group.bytes.get() / 16;
    // Two tokens miss an expert with 15/16 squared.
    let two = rest as f64 + group.bytes.as_f64() * (1.0 - (15.0_f64 / 16.0).powi(2));
    assert!((found.batch_bytes(2).as_f64() - two).abs() < 2.0);
    let all = found.batch_bytes(100_000).as_f64();
    assert!((all - rest as f64 - group.bytes.as_f64()).abs() < 2.0);
    assert_eq!(found.parallelism.expert_bytes, group.bytes);
}

#[test]
fn the_break_even_batch_is_where_arithmetic_takes_over() {
    let rate = OpsPerSec::new(2e12).unwrap();
    let bandwidth = BytesPerSec::from_gb(50.0).unwrap();
    for (name, file_type) in [("llama-3.1-8b", FileType::F16), ("llama-3.1-8b", FileType::Q4_K_M), ("qwen3-30b-a3b", FileType::Q4_K_M)] {
        let found = analysis(name, file_type);
        let at = bound(&found, rate, bandwidth, 1);
        let even = at.break_even.unwrap();
        assert_eq!(at.limit, Limit::Memory);
        assert_eq!(bound(&found, rate, bandwidth, even).limit, Limit::Compute, "{name}");
        assert_eq!(bound(&found, rate, bandwidth, even - 1).limit, Limit::Memory, "{name}");
        assert!((at.balance - 40.0).abs() < 1e-9);
    }
    // Half-precision weights do one operation per byte and token: 40 tokens and the row of the embedding.
    let half = bound(&analysis("llama-3.1-8b", FileType::F16), rate, bandwidth, 1);
    assert_eq!(half.break_even, Some(41));
    let slow = bound(&analysis("qwen3-0.6b", FileType::Q4_0), OpsPerSec::new(1e9).unwrap(), bandwidth, 1);
    assert_eq!((slow.limit, slow.break_even), (Limit::Compute, Some(1)));
}
