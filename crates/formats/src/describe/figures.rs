//! The figures that all architectures share, with llama.cpp's own defaults.
//!
//! Mirrors `llama_model_base::load_hparams` of `src/llama-model.cpp` (llama.cpp v0.6.0-dev, crate llama-cpp-sys-2
//! 0.1.161).

use super::error::DescribeError;
use super::keys::Keys;

/// `LLAMA_MAX_LAYERS`, `src/llama-hparams.h`.
pub(super) const MAX_LAYERS: u32 = 512;
/// `LLAMA_MAX_EXPERTS`, `src/llama-hparams.h`.
const MAX_EXPERTS: u32 = 1024;

/// Figures of a model, per layer where they may differ.
pub(super) struct Figures {
    pub(super) n_ctx_train: Option<u32>,
    pub(super) n_embd: u32,
    /// Layers, next-token-prediction layers included.
    pub(super) n_layer_all: u32,
    pub(super) n_layer_nextn: u32,
    pub(super) n_expert_used: Vec<u32>,
    pub(super) n_ff: Vec<u32>,
    pub(super) n_head: Vec<u32>,
    pub(super) n_head_kv: Vec<u32>,
    /// Width of K and V heads in layers that see everything.
    pub(super) head_full: (u32, u32),
    /// Width of K and V heads in layers with a window.
    pub(super) head_window: (u32, u32),
}

impl Figures {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self, DescribeError> {
        let n_embd = keys.need_within("embedding_length", 1, u32::MAX)?;
        let n = keys.need_within("block_count", 1, MAX_LAYERS)?;
        let n_layer_nextn = keys.count("nextn_predict_layers")?.unwrap_or(0);
        check(keys, "nextn_predict_layers", n_layer_nextn, n)?;
        let n_expert = keys.count("expert_count")?.unwrap_or(0);
        check(keys, "expert_count", n_expert, MAX_EXPERTS)?;
        let zeros = || vec![0; n as usize];
        let n_expert_used = keys.per_layer("expert_used_count", n)?.unwrap_or_else(zeros);
        let most_used = n_expert_used.iter().copied().max().unwrap_or(0);
        check(keys, "expert_used_count", most_used, n_expert)?;
        if n_expert > 0 && most_used == 0 {
            return Err(DescribeError::MissingKey { key: keys.full("expert_used_count") });
        }
        let n_head = keys.per_layer("attention.head_count", n)?.unwrap_or_else(zeros);
        let n_head_kv = keys.per_layer("attention.head_count_kv", n)?.unwrap_or_else(|| n_head.clone());
        let first = n_head.first().copied().unwrap_or(0);
        let even = n_embd.checked_div(first).unwrap_or(0);
        // PLaMo 2 states the widths although its first layer, a recurrent one, has no heads.
        let any = first > 0 || keys.architecture == "plamo2";
        let width = |key: &str| keys.count(key).map(|width| if any { width.unwrap_or(even) } else { 0 });
        let head_full = (width("attention.key_length")?, width("attention.value_length")?);
        let window = |key: &str, full: u32| keys.count(key).map(|width| width.unwrap_or(full));
        let head_window = (window("attention.key_length_swa", head_full.0)?, window("attention.value_length_swa", head_full.1)?);
        Ok(Self {
            n_ctx_train: keys.count("context_length")?,
            n_embd,
            n_layer_all: n,
            n_layer_nextn,
            n_expert_used,
            n_ff: keys.per_layer("feed_forward_length", n)?.unwrap_or_else(zeros),
            n_head,
            n_head_kv,
            head_full,
            head_window,
        })
    }

    /// Layers without the trailing next-token-prediction ones.
    pub(super) fn n_layer(&self) -> u32 {
        self.n_layer_all - self.n_layer_nextn
    }

    /// Query heads of the first layer, which llama.cpp takes where one number must do.
    pub(super) fn n_head_first(&self) -> u32 {
        self.n_head.first().copied().unwrap_or(0)
    }
}

fn check(keys: &Keys<'_>, key: &str, value: u32, high: u32) -> Result<(), DescribeError> {
    if value <= high {
        return Ok(());
    }
    Err(DescribeError::OutOfRange { key: keys.full(key), low: 0, high: high.into(), value: value.into() })
}
