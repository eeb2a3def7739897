//! The type in which the converter writes a tensor.

use spec::QuantType;

/// Parts of the names of tensors that stay in F32 whatever is asked for.
///
/// The names behind the list in `ModelBase.prepare_tensors` of `conversion/base.py`, as `gguf-py/gguf/constants.py` gives
/// them (llama.cpp of 28 September 2026, the source in the npm package node-llama-cpp 3.22.1).
const KEPT: &[&str] = &[
    "ffn_gate_inp.",
    "ffn_gate_inp_shexp.",
    "ssm_conv1d.",
    "ssm_conv1d_q.",
    "ssm_conv1d_k.",
    "ssm_conv1d_v.",
    "shortconv.conv.",
    "time_mix_first.",
    "time_mix_w1.",
    "time_mix_w2.",
    "time_mix_decay_w1.",
    "time_mix_decay_w2.",
    "time_mix_lerp_fused.",
    "posnet.",
    "altup_correct_coef.",
    "altup_predict_coef.",
    "indexer.proj.",
];

/// The type of a tensor after conversion to `wanted`, which is F32, F16, BF16 or a quantised type that the converter
/// writes itself.
///
/// Vectors, norms and what the engine computes with in single precision are F32; a row that no block of `wanted` divides
/// makes the tensor F16, as `prepare_tensors` falls back.
///
/// ```
/// use spec::QuantType;
/// assert_eq!(mixture::converted("blk.0.attn_q.weight", [64, 64, 1, 1], 2, QuantType::BF16), QuantType::BF16);
/// assert_eq!(mixture::converted("blk.0.attn_norm.weight", [64, 1, 1, 1], 1, QuantType::BF16), QuantType::F32);
/// ```
pub fn converted(name: &str, shape: [u64; 4], dimensions: usize, wanted: QuantType) -> QuantType {
    let positions = name == "position_embd.weight" || name == "token_types.weight";
    let kept = dimensions <= 1
        || name.ends_with("_norm.weight")
        || !name.ends_with(".weight")
        || positions
        || KEPT.iter().any(|part| name.contains(part));
    let [columns, ..] = shape;
    match wanted {
        _ if kept => QuantType::F32,
        wanted if columns.is_multiple_of(wanted.block().weights) => wanted,
        _ => QuantType::F16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_needs_in_single_precision_stays_so() {
        for (name, shape, dimensions, ty) in [
            ("token_embd.weight", [64, 100, 1, 1], 2, QuantType::F16),
            ("blk.0.ffn_gate_inp.weight", [64, 8, 1, 1], 2, QuantType::F32),
            ("blk.0.ffn_gate_exps.weight", [64, 32, 8, 1], 3, QuantType::F16),
            ("blk.0.attn_q_norm.weight", [64, 8, 1, 1], 2, QuantType::F32),
            ("blk.0.ssm_a", [16, 64, 1, 1], 2, QuantType::F32),
            ("blk.0.ssm_conv1d.weight", [4, 64, 1, 1], 2, QuantType::F32),
            ("token_types.weight", [64, 2, 1, 1], 2, QuantType::F32),
            ("blk.0.attn_q.bias", [64, 1, 1, 1], 1, QuantType::F32),
        ] {
            assert_eq!(converted(name, shape, dimensions, QuantType::F16), ty, "{name}");
        }
        assert_eq!(converted("blk.0.ffn_up.weight", [100, 64, 1, 1], 2, QuantType::Q8_0), QuantType::F16);
    }
}
