//! What the engine does with each tensor, from its name: which layer it belongs to and which operation reads it.
//!
//! Upstream: the table `LLM_TENSOR_INFOS`, `src/llama-arch.cpp:749-1104`, and the loaders in `src/models/`.

use spec::model::Tensor;
use spec::{Model, QuantType};

/// The part of the model that a tensor belongs to, which decides its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Read once per token before the first layer; always on the host.
    Input,
    /// A layer's own.
    Layer(u32),
    /// Shared by all layers; one copy per buffer in which a layer's copy lands.
    EveryLayer,
    /// Read after the last layer.
    Output,
}

/// The operation that reads a tensor, as far as it decides the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Rows are looked up.
    GetRows,
    /// A matrix is multiplied with activations.
    MulMat,
    /// The same, but the engine takes it for a stack of this many.
    Stack { matrices: u64 },
    /// Some of the stacked matrices are multiplied with activations.
    MulMatId,
    /// Decays of a selective scan over heads of `d_inner` together and this many states.
    Scan { d_inner: u64, d_state: u64 },
    /// Element-wise and other operations, which every backend supports on the types in use.
    Other,
    /// The engine does not load the tensor.
    Skipped,
}

/// What the engine does with one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    /// What decides its device.
    pub(crate) part: Part,
    /// What reads it.
    pub(crate) used: Use,
    /// It is one of a layer's own, of which whole batches are seen.
    pub(crate) in_layer: bool,
    /// The layer whose routed experts it is part of: what `--n-cpu-moe` moves.
    pub(crate) experts_of: Option<u32>,
}

/// The roles of a model's tensors, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Roles {
    roles: Vec<Role>,
    /// Some tensor has a type of the BitNet fork.
    pub(crate) bitnet_fork: bool,
    /// Some tensor has a type of ik_llama.cpp.
    pub(crate) ik_fork: bool,
}

impl Roles {
    /// Reads the names.
    pub(crate) fn of(model: &Model) -> Self {
        let role = |tensor: &Tensor| {
            let (part, used) = role(model, &tensor.name);
            Role { part, used, in_layer: tensor.layer().is_some(), experts_of: experts_of(&tensor.name) }
        };
        let some = |fork: fn(QuantType) -> bool| model.tensors.iter().any(|tensor| fork(tensor.ty));
        Self {
            roles: model.tensors.iter().map(role).collect(),
            bitnet_fork: some(QuantType::is_bitnet_fork),
            ik_fork: some(QuantType::is_ik_fork),
        }
    }

    /// That of one tensor.
    pub(crate) fn get(&self, tensor: usize) -> Option<&Role> {
        self.roles.get(tensor)
    }

    /// One per tensor.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Role> {
        self.roles.iter()
    }
}

/// Looked-up tables inside layers.
const ROW_TABLES: &[&str] = &["attn_compressor_ape", "indexer_compressor_ape", "ffn_gate_tid2eid", "nextn.embed_tokens", "attn_rel_b"];

/// Families whose decays are multiplied with instead of scanned (`LLM_TENSOR_SSM_A_NOSCAN`).
const DELTA_NETS: &[&str] = &["bailingmoe3", "glm5-next", "kimi-k3", "kimi-linear", "qwen3next", "qwen35", "qwen35moe", "qwen4exp"];

/// The part and the use of a tensor by its name.
fn role(model: &Model, name: &str) -> (Part, Use) {
    if let Some((index, suffix)) = layer_of(name) {
        return (Part::Layer(index), use_in_layer(model, index, suffix));
    }
    let stem = stem(name);
    match stem {
        "token_embd" | "position_embd" | "token_types" | "per_layer_token_embd" => (Part::Input, Use::GetRows),
        "masked_embd_centroids" | "masked_embd_ordering" => (Part::Input, Use::Skipped),
        "rope_freqs" | "rope_factors_long" | "rope_factors_short" => (Part::EveryLayer, Use::Other),
        // LFM2 calls its output norm by this name (`LLM_TENSOR_OUTPUT_NORM_LFM2`); elsewhere it is the first layer's.
        "token_embd_norm" if model.architecture.starts_with("lfm2") => (Part::Output, Use::Other),
        "token_embd_norm" | "per_layer_proj_norm" => (Part::Layer(0), Use::Other),
        "per_layer_model_proj" => (Part::Layer(0), Use::MulMat),
        _ if name.ends_with(".bias") || stem.ends_with("norm") => (Part::Output, Use::Other),
        _ => (Part::Output, Use::MulMat),
    }
}

fn use_in_layer(model: &Model, index: u32, suffix: &str) -> Use {
    // Next-token-prediction layers are skipped unless a draft context asks for them (`load_mtp`, off by default), e.g.
    // src/models/deepseek2.cpp:62-96.
    if model.n_layer_nextn > 0 && index >= model.n_layer() && !loaded_anyway(&model.architecture, suffix) {
        return Use::Skipped;
    }
    if suffix.starts_with("cross_attn_rel_b") {
        return Use::Skipped;
    }
    let stem = stem(suffix);
    if suffix.ends_with(".bias") || stem.ends_with("norm") {
        Use::Other
    } else if stem.contains("_exps") || stem.contains("_chexps") {
        Use::MulMatId
    } else if stem == "ssm_a" && !DELTA_NETS.contains(&model.architecture.as_str()) {
        let of = |key| model.arch_uint(key).unwrap_or(0);
        Use::Scan { d_inner: of("ssm.inner_size"), d_state: of("ssm.state_size") }
    } else if ROW_TABLES.contains(&stem) {
        Use::GetRows
    } else if stem == "attn_output_a" {
        // `TENSOR_ALLOW_RESHAPE`, src/models/deepseek4.cpp:120-123.
        Use::Stack { matrices: model.arch_uint("attention.output_group_count").unwrap_or(1).max(1) }
    } else {
        Use::MulMat
    }
}

/// True for tensors of prediction layers that are loaded although nothing asks for these layers: some families leave the
/// flag for skipping off what a file may lack (src/models/deepseek32.cpp:121, glm-dsa.cpp:155, hy-v3.cpp:62-105,
/// step35.cpp:130-170).
fn loaded_anyway(architecture: &str, suffix: &str) -> bool {
    let stem = stem(suffix);
    let feed_forward = stem.starts_with("ffn_") && stem != "ffn_norm";
    let further = ["nextn.embed_tokens", "nextn.shared_head_head", "nextn.shared_head_norm"].contains(&stem);
    match architecture {
        "deepseek32" | "glm-dsa" => stem == "exp_probs_b",
        "hy_v3" => feed_forward || further || stem == "exp_probs_b",
        "step35" => feed_forward || further || ["exp_probs_b", "attn_q_norm", "attn_k_norm", "attn_gate"].contains(&stem),
        _ => false,
    }
}

/// Layer number and the rest of the name of `blk.N.rest`, `enc.blk.N.rest`, `dec.blk.N.rest`.
fn layer_of(name: &str) -> Option<(u32, &str)> {
    let rest = name.strip_prefix("enc.").or_else(|| name.strip_prefix("dec.")).unwrap_or(name).strip_prefix("blk.")?;
    let (index, suffix) = rest.split_once('.')?;
    Some((index.parse().ok()?, suffix))
}

/// The name without what it is a part of: `attn_q` of `attn_q.weight`.
fn stem(name: &str) -> &str {
    [".weight", ".bias", ".input_scale", ".scale"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// The layer of a tensor of routed experts, as `--n-cpu-moe` knows them.
///
/// Upstream: the patterns `blk\.N\.ffn_(up|down|gate|gate_up)_(ch|)exps`, `common/common.h:1224-1245`.
pub(crate) fn experts_of(name: &str) -> Option<u32> {
    let (index, suffix) = layer_of(name)?;
    let kind = suffix.strip_prefix("ffn_")?;
    let rest = ["gate_up_", "up_", "down_", "gate_"].iter().find_map(|prefix| kind.strip_prefix(prefix))?;
    (rest.starts_with("exps") || rest.starts_with("chexps")).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expert_names() {
        for (name, layer) in [
            ("blk.0.ffn_up_exps.weight", 0),
            ("blk.11.ffn_gate_up_exps.weight", 11),
            ("blk.3.ffn_down_chexps.weight", 3),
            ("blk.2.ffn_gate_exps.bias", 2),
        ] {
            assert_eq!(experts_of(name), Some(layer), "{name}");
        }
        for name in ["blk.0.ffn_up_shexp.weight", "blk.0.ffn_up.weight", "output.weight", "blk.x.ffn_up_exps"] {
            assert_eq!(experts_of(name), None, "{name}");
        }
    }

    #[test]
    fn names_lose_their_ends() {
        assert_eq!(layer_of("enc.blk.7.attn_q.weight"), Some((7, "attn_q.weight")));
        assert_eq!(stem("attn_q.input_scale"), "attn_q");
        assert_eq!(stem("ssm_a"), "ssm_a");
    }
}
