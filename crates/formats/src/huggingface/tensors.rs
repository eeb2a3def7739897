//! Tensors of the hub's files, renamed, split and stacked as conversion does it.
//!
//! Mirrors `modify_tensors` and `generate_extra_tensors` of `conversion/*.py` (llama.cpp of 28 September 2026, the source in
//! the npm package node-llama-cpp 3.22.1), as far as extents and types go.

use super::config::Config;
use super::error::HuggingFaceError;
use super::family::{Family, NAMES, OUTSIDE};
use super::keys::rotary_part;
use crate::safetensors::{Entry, Safetensors};
use spec::QuantType;
use std::collections::{BTreeMap, BTreeSet};

/// A tensor of the GGUF file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Converted {
    pub(super) name: String,
    /// Extents, slowest first.
    pub(super) shape: Vec<u64>,
    /// A type that conversion keeps whatever is asked for.
    pub(super) ty: Option<QuantType>,
}

impl Converted {
    /// Extents, fastest first; `None` for more than four.
    pub(super) fn extents(&self) -> Option<[u64; 4]> {
        let mut extents = [1; 4];
        if self.shape.len() > extents.len() {
            return None;
        }
        for (extent, &given) in extents.iter_mut().zip(self.shape.iter().rev()) {
            *extent = given;
        }
        Some(extents)
    }
}

/// A part of a layer under its name on the hub, without `.weight` and `.bias`.
struct Piece<'a> {
    stem: &'a str,
    suffix: &'static str,
    shape: Vec<u64>,
    ty: Option<QuantType>,
}

/// Experts of one layer that are tensors of their own there and one stacked tensor here.
struct Stack {
    found: u64,
    shape: Vec<u64>,
}

/// Every tensor of the GGUF file, generated ones first.
pub(super) fn tensors(config: &Config, family: &Family, parts: &[Safetensors], n_layer: u64) -> Result<Vec<Converted>, HuggingFaceError> {
    let mut list = List { config, family, n_layer, tensors: generated(config, family)?, stacks: BTreeMap::new(), seen: BTreeSet::new() };
    for entry in parts.iter().flat_map(|part| &part.tensors) {
        list.entry(entry)?;
    }
    list.finish()
}

/// Tables of rotary factors, which are figures on the hub and tensors in a GGUF file.
fn generated(config: &Config, family: &Family) -> Result<Vec<Converted>, HuggingFaceError> {
    let table = |name: &str, length: u64| Converted { name: format!("{name}.weight"), shape: vec![length], ty: None };
    Ok(match family.architecture {
        "llama" | "granite" | "granitemoe" if config.rope_type().as_deref() == Some("llama3") => {
            vec![table("rope_freqs", config.head_width()?.div_ceil(2))]
        }
        "phi3" if config.rope("long_factor").and_then(|list| list.as_array()).is_some_and(|list| !list.is_empty()) => {
            let length = rotary_part(config)? / 2;
            vec![table("rope_factors_long", length), table("rope_factors_short", length)]
        }
        _ => Vec::new(),
    })
}

/// Parts of names that belong to another part of a multimodal model (`TextModel.filter_tensors`).
const ELSEWHERE: &[&str] = &["visual.", "vision.", "audio.", "vision_", "audio_", "projector.", "patch_embed", "image_newline"];
/// Ends of names that conversion leaves out: tables that the engine computes, scales that are multiplied in.
const LEFT_OUT: &[&str] = &[".rotary_emb.inv_freq", ".attention.masked_bias", ".weight_scale_inv", ".weight_scale", ".input_scale"];

struct List<'a> {
    config: &'a Config,
    family: &'a Family,
    n_layer: u64,
    tensors: Vec<Converted>,
    stacks: BTreeMap<String, Stack>,
    seen: BTreeSet<String>,
}

impl List<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<(), HuggingFaceError> {
        if LEFT_OUT.iter().any(|end| entry.name.ends_with(end)) || ELSEWHERE.iter().any(|part| entry.name.contains(part)) {
            return Ok(());
        }
        let name = entry.name.replace("language_model.", "").replace("e_score_correction_bias", "e_score_correction.bias");
        let tied = self.config.flag("tie_word_embeddings") && matches!(self.family.architecture, "deepseek2" | "mamba");
        if name == "lm_head.weight" && (tied || self.family.no_output) {
            return Ok(());
        }
        let (stem, suffix) = split(&name);
        let layered = ["model.layers.", "backbone.layers."].iter().find_map(|prefix| stem.strip_prefix(prefix));
        let Some((layer, rest)) = layered.and_then(|rest| rest.split_once('.')) else {
            let known = OUTSIDE.iter().find(|(theirs, _)| *theirs == stem);
            let (_, ours) = known.ok_or_else(|| self.unknown(entry))?;
            return self.push(Converted { name: format!("{ours}{suffix}"), shape: entry.shape.clone(), ty: None });
        };
        let layer: u64 = layer.parse().map_err(|_| self.unknown(entry))?;
        if layer >= self.n_layer {
            // DeepSeek's layers that only predict further tokens are not converted.
            return if self.family.architecture == "deepseek2" { Ok(()) } else { Err(self.unknown(entry)) };
        }
        let expert = rest.split_once(".experts.").and_then(|(before, after)| Some((before, after.split_once('.')?)));
        if let Some((before, (_, projection))) = expert.filter(|(_, (number, _))| number.bytes().all(|byte| byte.is_ascii_digit())) {
            let ours = self.name(&format!("{before}.experts.{projection}")).ok_or_else(|| self.unknown(entry))?;
            return self.stack(format!("blk.{layer}.{ours}{suffix}"), entry);
        }
        for piece in self.pieces(rest, suffix, entry)? {
            let ours = self.name(piece.stem).ok_or_else(|| self.unknown(entry))?;
            self.push(Converted { name: format!("blk.{layer}.{ours}{}", piece.suffix), shape: piece.shape, ty: piece.ty })?;
        }
        Ok(())
    }

    fn name(&self, stem: &str) -> Option<&'static str> {
        self.family.names.iter().chain(NAMES).find(|(theirs, _)| *theirs == stem).map(|(_, ours)| *ours)
    }

    fn unknown(&self, entry: &Entry) -> HuggingFaceError {
        HuggingFaceError::UnknownTensor { class: self.config.class().to_owned(), tensor: entry.name.clone() }
    }

    fn push(&mut self, tensor: Converted) -> Result<(), HuggingFaceError> {
        if !self.seen.insert(tensor.name.clone()) {
            return Err(HuggingFaceError::DuplicateTensor { tensor: tensor.name });
        }
        self.tensors.push(tensor);
        Ok(())
    }

    fn stack(&mut self, name: String, entry: &Entry) -> Result<(), HuggingFaceError> {
        let expected = self.config.need(&["num_local_experts", "num_experts", "n_routed_experts"])?;
        let stack = self.stacks.entry(name.clone()).or_insert_with(|| Stack { found: 0, shape: entry.shape.clone() });
        if stack.shape != entry.shape {
            let expected = format!("the other experts of its layer, {:?}", stack.shape);
            return Err(HuggingFaceError::BadShape { tensor: entry.name.clone(), shape: entry.shape.clone(), expected });
        }
        stack.found += 1;
        if stack.found < expected {
            return Ok(());
        }
        let shape = std::iter::once(expected).chain(entry.shape.iter().copied()).collect();
        self.stacks.remove(&name);
        self.push(Converted { name, shape, ty: None })
    }

    /// What a tensor of a layer becomes: itself, or its parts.
    fn pieces<'s>(&self, stem: &'s str, suffix: &'static str, entry: &Entry) -> Result<Vec<Piece<'s>>, HuggingFaceError> {
        let shape = entry.shape.as_slice();
        let plain = |stem: &'s str, suffix, shape: &[u64]| Piece { stem, suffix, shape: shape.to_vec(), ty: None };
        let mxfp4 = |stem: &'s str, shape: Vec<u64>| Piece { stem, suffix: ".weight", shape, ty: Some(QuantType::MXFP4) };
        let bad = |expected: &str| HuggingFaceError::BadShape {
            tensor: entry.name.clone(),
            shape: entry.shape.clone(),
            expected: expected.to_owned(),
        };
        // gpt-oss stores the matrices of its experts the other way round.
        let turned = self.family.architecture == "gpt-oss";
        Ok(match (stem, shape) {
            ("mlp.experts.gate_up_proj", &[experts, a, b]) => {
                let (n_embd, both) = if turned { (a, b) } else { (b, a) };
                let half = [experts, both / 2, n_embd];
                vec![plain("mlp.experts.gate_proj", ".weight", &half), plain("mlp.experts.up_proj", ".weight", &half)]
            }
            ("mlp.experts.down_proj", &[experts, a, b]) => {
                let (n_ff, n_embd) = if turned { (a, b) } else { (b, a) };
                vec![plain(stem, ".weight", &[experts, n_embd, n_ff])]
            }
            ("mlp.experts.gate_up_proj_bias", &[experts, both]) => {
                let half = [experts, both / 2];
                vec![plain("mlp.experts.gate_proj", ".bias", &half), plain("mlp.experts.up_proj", ".bias", &half)]
            }
            ("mlp.experts.down_proj_bias", shape) => vec![plain("mlp.experts.down_proj", ".bias", shape)],
            ("mlp.experts.gate_up_proj_blocks", &[experts, both, blocks, 16]) => {
                let half = vec![experts, both / 2, blocks.saturating_mul(32)];
                vec![mxfp4("mlp.experts.gate_proj", half.clone()), mxfp4("mlp.experts.up_proj", half)]
            }
            ("mlp.experts.down_proj_blocks", &[experts, rows, blocks, 16]) => {
                vec![mxfp4("mlp.experts.down_proj", vec![experts, rows, blocks.saturating_mul(32)])]
            }
            ("mlp.experts.gate_up_proj_scales" | "mlp.experts.down_proj_scales", _) => Vec::new(),
            ("block_sparse_moe.input_linear", &[experts, both, n_embd]) => {
                let half = [experts, both / 2, n_embd];
                vec![plain("block_sparse_moe.gate_linear", suffix, &half), plain("block_sparse_moe.up_linear", suffix, &half)]
            }
            ("shared_mlp.input_linear", &[both, n_embd]) => {
                let half = [both / 2, n_embd];
                vec![plain("shared_mlp.gate_linear", suffix, &half), plain("shared_mlp.up_linear", suffix, &half)]
            }
            ("self_attn.kv_b_proj", &[rows, rank]) => {
                let heads = self.config.need(&["num_key_value_heads"])?;
                let (nope, v) = (self.config.need(&["qk_nope_head_dim"])?, self.config.need(&["v_head_dim"])?);
                if heads.checked_mul(nope + v) != Some(rows) {
                    return Err(bad("num_key_value_heads, qk_nope_head_dim and v_head_dim"));
                }
                vec![plain("self_attn.k_b_proj", suffix, &[heads, rank, nope]), plain("self_attn.v_b_proj", suffix, &[heads, v, rank])]
            }
            ("mixer.conv1d", &[inner, 1, kernel]) => vec![plain(stem, suffix, &[inner, kernel])],
            ("self_attn.sinks", shape) => vec![plain(stem, ".weight", shape)],
            (stem, shape) => vec![plain(stem, suffix, shape)],
        })
    }

    fn finish(self) -> Result<Vec<Converted>, HuggingFaceError> {
        let Some((name, stack)) = self.stacks.into_iter().next() else { return Ok(self.tensors) };
        let expected = self.config.need(&["num_local_experts", "num_experts", "n_routed_experts"])?;
        Err(HuggingFaceError::MissingExperts { tensor: name, found: stack.found, expected })
    }
}

fn split(name: &str) -> (&str, &'static str) {
    [".weight", ".bias"].into_iter().find_map(|suffix| Some((name.strip_suffix(suffix)?, suffix))).unwrap_or((name, ""))
}
