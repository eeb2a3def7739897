//! Which type `llama-quantize` gives each tensor, without an importance matrix.
//!
//! Mirrors `tensor_allows_quantization`, `llama_tensor_get_type_impl` and `tensor_type_fallback` of
//! `src/llama-quant.cpp` (llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161) for the architectures of this crate.

use crate::file_type::FileType;
use crate::shape::{Architecture, Shape};
use crate::tensors::Plain;
use spec::QuantType;

/// What a tensor does, as far as the rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Category {
    Output,
    TokenEmbedding,
    /// V, fused QKV and the joint KV projection of latent attention: the tensors that suffer most.
    AttentionV,
    AttentionK,
    AttentionQ,
    AttentionOutput,
    FeedForwardUp,
    FeedForwardGate,
    FeedForwardDown,
    Other,
}

fn category(name: &str) -> Category {
    const PARTS: [(&str, Category); 9] = [
        ("attn_qkv.weight", Category::AttentionV),
        ("attn_kv_b.weight", Category::AttentionV),
        ("attn_v.weight", Category::AttentionV),
        ("attn_k.weight", Category::AttentionK),
        ("attn_q.weight", Category::AttentionQ),
        ("attn_output.weight", Category::AttentionOutput),
        ("ffn_up", Category::FeedForwardUp),
        ("ffn_gate", Category::FeedForwardGate),
        ("ffn_down", Category::FeedForwardDown),
    ];
    match name {
        "output.weight" => Category::Output,
        "token_embd.weight" | "per_layer_token_embd.weight" => Category::TokenEmbedding,
        _ => PARTS.iter().find(|(part, _)| name.contains(part)).map_or(Category::Other, |(_, category)| *category),
    }
}

/// `tensor_allows_quantization`, as far as this crate has such tensors.
fn quantizable(tensor: &Plain) -> bool {
    let dimensions = tensor.shape.iter().rposition(|&extent| extent > 1).map_or(1, |last| last + 1);
    dimensions >= 2 && tensor.name.ends_with("weight") && !NEVER_QUANTIZED.iter().any(|part| tensor.name.contains(part))
}

/// Parts of the names of tensors that stay as they are.
const NEVER_QUANTIZED: [&str; 20] = [
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
];

/// Counters and figures that the rules read.
struct State {
    file_type: FileType,
    n_layer: u64,
    n_gqa: u64,
    n_expert: u64,
    is_70b: bool,
    tied: bool,
    n_attention_v: u64,
    i_attention_v: u64,
    i_down: u64,
    i_gate: u64,
    i_up: u64,
}

/// The figures of a model that the rules read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) n_layer: u64,
    /// Query heads per key/value head; 0 without attention.
    pub(crate) n_gqa: u64,
    pub(crate) n_expert: u64,
    /// `LLM_TYPE_70B`.
    pub(crate) is_70b: bool,
}

impl Figures {
    pub(crate) fn of(shape: &Shape) -> Self {
        let n_gqa = shape.n_head.checked_div(shape.kv_heads()).unwrap_or(0);
        Self { n_layer: shape.n_layer, n_gqa, n_expert: shape.n_expert, is_70b: is_70b(shape) }
    }
}

/// The type of each tensor, parallel to `tensors`.
pub(crate) fn types(figures: Figures, tensors: &[Plain], file_type: FileType) -> Vec<QuantType> {
    let categories = || tensors.iter().map(|tensor| category(&tensor.name));
    let mut state = State {
        file_type,
        n_layer: figures.n_layer,
        n_gqa: figures.n_gqa,
        n_expert: figures.n_expert,
        is_70b: figures.is_70b,
        tied: !categories().any(|category| category == Category::Output),
        n_attention_v: categories().filter(|category| *category == Category::AttentionV).count() as u64,
        i_attention_v: 0,
        i_down: 0,
        i_gate: 0,
        i_up: 0,
    };
    tensors.iter().map(|tensor| state.choose(tensor)).collect()
}

/// `LLM_TYPE_70B`, set by `load_arch_hparams` of llama and qwen2.
fn is_70b(shape: &Shape) -> bool {
    match shape.architecture {
        Architecture::Llama => shape.n_layer == 80 && shape.n_expert != 8 && shape.n_head != shape.n_head_kv,
        Architecture::Qwen2 => shape.n_layer == 80,
        _ => false,
    }
}

/// The first and last eighth of the layers, and every third between.
fn use_more_bits(i: u64, n: u64) -> bool {
    i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
}

impl State {
    fn choose(&mut self, tensor: &Plain) -> QuantType {
        let default = self.file_type.default_type();
        if !quantizable(tensor) {
            return QuantType::F32;
        }
        if !default.is_quantized() {
            return default;
        }
        let columns = tensor.shape.first().copied().unwrap_or(1);
        fallback(self.mixed(tensor, default, columns), columns)
    }

    fn mixed(&mut self, tensor: &Plain, default: QuantType, columns: u64) -> QuantType {
        use FileType as F;
        let category = category(&tensor.name);
        if category == Category::Output || (self.tied && category == Category::TokenEmbedding) {
            return self.output(default, columns);
        }
        if self.file_type == F::MXFP4_MOE {
            let stacked = tensor.shape.get(2).is_some_and(|&extent| extent > 1);
            return if stacked { QuantType::MXFP4 } else { QuantType::Q8_0 };
        }
        if category == Category::TokenEmbedding {
            return match self.file_type {
                F::IQ2_XXS | F::IQ2_XS | F::IQ1_S | F::IQ1_M => QuantType::Q2_K,
                F::IQ2_S | F::IQ2_M | F::IQ3_XXS => QuantType::IQ3_S,
                F::TQ1_0 | F::TQ2_0 | F::Q2_0 => QuantType::Q4_K,
                _ => default,
            };
        }
        if self.tiny() {
            return self.tiny_mixture(category, default);
        }
        match category {
            Category::AttentionV => self.attention_v(default),
            Category::AttentionK | Category::AttentionQ => match self.file_type {
                _ if self.n_expert == 8 && category == Category::AttentionK => QuantType::Q8_0,
                F::IQ3_XS => QuantType::IQ3_XXS,
                F::IQ3_XXS => QuantType::IQ2_S,
                _ => default,
            },
            Category::AttentionOutput => self.attention_output(default),
            Category::FeedForwardDown => self.feed_forward_down(tensor, default),
            Category::FeedForwardGate => {
                let i = self.layer(tensor, self.i_gate);
                self.i_gate += 1;
                self.middle(i, default)
            }
            Category::FeedForwardUp => {
                let i = self.layer(tensor, self.i_up);
                self.i_up += 1;
                self.middle(i, default)
            }
            Category::Output | Category::TokenEmbedding | Category::Other => default,
        }
    }

    /// File types of one and two bits, which have rules of their own.
    fn tiny(&self) -> bool {
        use FileType as F;
        matches!(self.file_type, F::IQ2_XXS | F::IQ2_XS | F::IQ1_S | F::IQ2_S | F::IQ2_M | F::IQ1_M)
    }

    fn output(&self, default: QuantType, columns: u64) -> QuantType {
        if self.file_type == FileType::MXFP4_MOE || !columns.is_multiple_of(default.block().weights) {
            QuantType::Q8_0
        } else if self.tiny() || self.file_type == FileType::IQ3_XXS {
            QuantType::Q5_K
        } else if default == QuantType::Q8_0 {
            default
        } else {
            QuantType::Q6_K
        }
    }

    fn tiny_mixture(&mut self, category: Category, default: QuantType) -> QuantType {
        let small = matches!(self.file_type, FileType::IQ2_S | FileType::IQ2_M);
        let spared = if small { QuantType::IQ3_S } else { QuantType::Q2_K };
        match category {
            Category::AttentionV if self.n_gqa >= 4 || self.n_expert >= 4 => QuantType::Q4_K,
            Category::AttentionV => spared,
            Category::AttentionK if self.n_expert == 8 => QuantType::Q4_K,
            Category::FeedForwardDown => {
                self.i_down += 1;
                if self.i_down - 1 < self.n_layer / 8 { spared } else { default }
            }
            Category::AttentionOutput if self.n_expert == 8 => QuantType::Q5_K,
            Category::AttentionOutput if small => QuantType::IQ3_S,
            Category::AttentionOutput if matches!(self.file_type, FileType::IQ1_S | FileType::IQ1_M) => QuantType::IQ2_XXS,
            _ => default,
        }
    }

    fn attention_v(&mut self, default: QuantType) -> QuantType {
        use FileType as F;
        let i = self.i_attention_v;
        self.i_attention_v += 1;
        let grouped = self.n_gqa >= 4;
        let ty = match self.file_type {
            F::Q2_K | F::Q2_K_S | F::IQ3_XXS | F::IQ3_XS | F::IQ3_S if grouped => QuantType::Q4_K,
            F::Q2_K => QuantType::Q3_K,
            F::IQ3_XXS => QuantType::IQ3_S,
            F::IQ3_M => QuantType::Q4_K,
            F::Q3_K_M if i < 2 => QuantType::Q5_K,
            F::Q3_K_M => QuantType::Q4_K,
            F::Q3_K_L => QuantType::Q5_K,
            F::IQ4_NL | F::IQ4_XS if grouped => QuantType::Q5_K,
            F::Q4_K_M | F::Q5_K_M if use_more_bits(i, self.n_attention_v) => QuantType::Q6_K,
            F::Q4_K_S if i < 4 => QuantType::Q5_K,
            _ => default,
        };
        match ty {
            _ if self.n_expert == 8 => QuantType::Q8_0,
            QuantType::Q3_K | QuantType::Q4_K if self.is_70b => QuantType::Q5_K,
            ty => ty,
        }
    }

    fn attention_output(&self, default: QuantType) -> QuantType {
        use FileType as F;
        match self.file_type {
            F::Q2_K
            | F::IQ3_XS
            | F::IQ3_XXS
            | F::Q3_K_S
            | F::Q3_K_M
            | F::IQ4_NL
            | F::Q4_K_S
            | F::Q4_K_M
            | F::IQ3_S
            | F::IQ3_M
            | F::IQ4_XS
                if self.n_expert == 8 =>
            {
                QuantType::Q5_K
            }
            _ if self.n_expert == 8 => default,
            F::Q2_K => QuantType::Q3_K,
            F::IQ3_XXS => QuantType::IQ3_S,
            F::Q3_K_M | F::IQ3_M => QuantType::Q4_K,
            F::Q3_K_L => QuantType::Q5_K,
            _ => default,
        }
    }

    fn feed_forward_down(&mut self, tensor: &Plain, default: QuantType) -> QuantType {
        use FileType as F;
        let i = self.layer(tensor, self.i_down);
        self.i_down += 1;
        let n = self.n_layer;
        let early = i < n / 8;
        match self.file_type {
            F::Q2_K => QuantType::Q3_K,
            F::Q2_K_S if early => QuantType::Q4_K,
            F::IQ3_XXS if early => QuantType::Q4_K,
            F::IQ3_XXS => QuantType::Q3_K,
            F::Q3_K_M if i < n / 16 => QuantType::Q5_K,
            F::Q3_K_M => QuantType::Q4_K,
            F::IQ3_M if early || (self.n_expert == 8 && use_more_bits(i, n)) => QuantType::Q4_K,
            F::Q3_K_L => QuantType::Q5_K,
            F::Q4_K_M | F::Q5_K_M if use_more_bits(i, n) => QuantType::Q6_K,
            F::IQ4_NL | F::IQ4_XS | F::Q4_K_S if early => QuantType::Q5_K,
            _ => default,
        }
    }

    /// Gate and up projections give bits away in the middle of the model.
    fn middle(&self, i: u64, default: QuantType) -> QuantType {
        let n = self.n_layer;
        let middle = i >= n / 8 && i < 7 * n / 8;
        if self.file_type == FileType::IQ3_XS && middle { QuantType::IQ3_XXS } else { default }
    }

    /// The layer that the rules take a tensor to be in: its own with experts, else how many came before.
    fn layer(&self, tensor: &Plain, counter: u64) -> u64 {
        if self.n_expert <= 1 {
            return counter;
        }
        tensor.name.split('.').nth(1).and_then(|layer| layer.parse().ok()).unwrap_or(counter)
    }
}

/// The next type that a row of `columns` weights fills with whole blocks.
fn fallback(ty: QuantType, columns: u64) -> QuantType {
    use QuantType as Q;
    let fits = |ty: QuantType| columns.is_multiple_of(ty.block().weights);
    if fits(ty) {
        return ty;
    }
    let smaller = match ty {
        Q::IQ1_S | Q::IQ1_M | Q::IQ2_XXS | Q::IQ2_XS | Q::IQ2_S | Q::IQ3_XXS | Q::IQ3_S | Q::IQ4_XS => Q::IQ4_NL,
        Q::Q2_0 | Q::Q2_K | Q::Q3_K | Q::TQ1_0 | Q::TQ2_0 => Q::Q4_0,
        Q::Q4_K => Q::Q5_0,
        Q::Q5_K => Q::Q5_1,
        Q::Q6_K => Q::Q8_0,
        ty => ty,
    };
    if fits(smaller) { smaller } else { Q::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::preset;
    use crate::tensors::tensors;
    use std::fmt::Write;

    /// Types as one line per distinct tensor name, layers in ranges.
    fn summary(name: &str, file_type: FileType) -> String {
        let shape = preset(name).unwrap();
        let list = tensors(&shape);
        let mut lines: Vec<(String, QuantType, Vec<u64>)> = Vec::new();
        for (tensor, ty) in list.iter().zip(types(Figures::of(&shape), &list, file_type)).filter(|(tensor, _)| quantizable(tensor)) {
            let (stem, layer) = match tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
                Some((layer, stem)) => (stem, layer.parse().ok()),
                None => (tensor.name.as_str(), None),
            };
            match lines.iter_mut().find(|(known, known_ty, _)| known == stem && *known_ty == ty) {
                Some((_, _, layers)) => layers.extend(layer),
                None => lines.push((stem.to_owned(), ty, layer.into_iter().collect())),
            }
        }
        lines.iter().fold(String::new(), |mut text, (stem, ty, layers)| {
            let _ = match layers.len() as u64 {
                0 => writeln!(text, "{stem} {ty}"),
                n if n == shape.n_layer => writeln!(text, "{stem} {ty} in all layers"),
                n => writeln!(text, "{stem} {ty} in {n} layers from {}", layers.first().copied().unwrap_or(0)),
            };
            text
        })
    }

    #[test]
    fn the_common_mixture_gives_more_bits_to_v_and_down() {
        insta::assert_snapshot!(summary("llama-3.1-8b", FileType::Q4_K_M), @r"
        token_embd.weight q4_K
        output.weight q6_K
        attn_q.weight q4_K in all layers
        attn_k.weight q4_K in all layers
        attn_v.weight q6_K in 16 layers from 0
        attn_output.weight q4_K in all layers
        ffn_gate.weight q4_K in all layers
        ffn_up.weight q4_K in all layers
        ffn_down.weight q6_K in 16 layers from 0
        attn_v.weight q4_K in 16 layers from 4
        ffn_down.weight q4_K in 16 layers from 4
        ");
    }

    #[test]
    fn experts_are_told_by_their_own_layer() {
        insta::assert_snapshot!(summary("mixtral-8x7b", FileType::Q3_K_M), @r"
        token_embd.weight q3_K
        output.weight q6_K
        attn_q.weight q3_K in all layers
        attn_k.weight q8_0 in all layers
        attn_v.weight q8_0 in all layers
        attn_output.weight q5_K in all layers
        ffn_gate_exps.weight q3_K in all layers
        ffn_down_exps.weight q5_K in 2 layers from 0
        ffn_up_exps.weight q3_K in all layers
        ffn_down_exps.weight q4_K in 30 layers from 2
        ");
    }

    #[test]
    fn rows_that_no_block_divides_fall_back() {
        insta::assert_snapshot!(summary("smollm2-135m", FileType::Q4_K_M), @r"
        token_embd.weight q8_0
        attn_q.weight q5_0 in all layers
        attn_k.weight q5_0 in all layers
        attn_v.weight q8_0 in 14 layers from 0
        attn_output.weight q5_0 in all layers
        ffn_gate.weight q5_0 in all layers
        ffn_up.weight q5_0 in all layers
        ffn_down.weight q6_K in 14 layers from 0
        attn_v.weight q5_0 in 16 layers from 3
        ffn_down.weight q4_K in 16 layers from 3
        ");
        assert_eq!(fallback(QuantType::Q4_K, 80), QuantType::F16);
    }
}
