//! The rules of `llama-quantize`: a type for each tensor of a file type.
//!
//! Mirrors `llama_tensor_get_type`, `llama_tensor_get_type_impl` and `tensor_type_fallback` of `src/llama-quant.cpp`
//! (llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161). Confirmed by `crates/synthetic/tests/quantize.rs` against the
//! program's own dry runs, and by the example `snapshots` against llama.cpp's own tables.

use crate::category::{Category, quantizable};
use crate::file_type::FileType;
use spec::QuantType;

/// The figures of a model that the rules read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures<'a> {
    /// `general.architecture`.
    pub architecture: &'a str,
    /// All layers (llama.cpp's `n_layer_all`).
    pub n_layer: u64,
    /// Query heads of the first layer.
    pub n_head: u64,
    /// Key/value heads of the first layer; 0 without attention.
    pub n_head_kv: u64,
    /// Routed experts; 0 without any.
    pub n_expert: u64,
}

impl Figures<'_> {
    /// Query heads per key/value head (`llama_hparams::n_gqa`).
    fn n_gqa(&self) -> u64 {
        self.n_head.checked_div(self.n_head_kv).unwrap_or(0)
    }

    /// `LLM_TYPE_70B`, as `load_arch_hparams` of `src/models/{llama,qwen2,deci,olmo,jais2}.cpp` sets it.
    fn is_70b(&self) -> bool {
        match self.architecture {
            "llama" | "llama-embed" => self.n_layer == 80 && self.n_expert != 8 && self.n_head != self.n_head_kv,
            "qwen2" | "deci" | "olmo" => self.n_layer == 80,
            "jais2" => self.n_layer == 68,
            _ => false,
        }
    }
}

/// A tensor of the file that is quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor<'a> {
    /// Name.
    pub name: &'a str,
    /// Extents, fastest first; absent dimensions are 1.
    pub shape: [u64; 4],
    /// The type that it has, and keeps where quantisation leaves it alone.
    pub ty: QuantType,
}

/// What may be asked of `llama-quantize` besides the file type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--pure`: no mixture, every tensor of the file type's own type.
    pub pure: bool,
    /// `--leave-output-tensor`: `output.weight` stays as it is.
    pub leave_output: bool,
    /// `--output-tensor-type`.
    pub output: Option<QuantType>,
    /// `--token-embedding-type`.
    pub token_embedding: Option<QuantType>,
    /// True with an importance matrix, which a few rules ask for.
    pub importance_matrix: bool,
}

/// Why `llama-quantize` would stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MixtureError {
    /// A feed-forward tensor of a model with experts that is in no layer.
    #[error("tensor {tensor} is in none of the model's {n_layer} layers")]
    NoLayer {
        /// Name of the tensor.
        tensor: String,
        /// How many layers there are.
        n_layer: u64,
    },
    /// Rows that the type cannot hold, and no smaller type in its place.
    #[error("tensor {tensor} has rows of {columns} weights, which {ty} cannot hold, and llama-quantize has no type in its place")]
    NoFallback {
        /// Name of the tensor.
        tensor: String,
        /// Weights in a row.
        columns: u64,
        /// The type.
        ty: QuantType,
    },
}

/// The type of each tensor after `llama-quantize` to this file type, parallel to `tensors`.
///
/// # Errors
/// Where `llama-quantize` would stop: a tensor in no layer, or rows for which it has no type.
pub fn types(
    figures: &Figures<'_>,
    tensors: &[Tensor<'_>],
    file_type: FileType,
    options: &Options,
) -> Result<Vec<QuantType>, MixtureError> {
    let categories = || tensors.iter().map(|tensor| Category::of(tensor.name));
    let mut state = State {
        figures: *figures,
        file_type,
        options: *options,
        tied: !categories().any(|category| category == Category::Output),
        n_attention_v: categories().filter(|category| *category == Category::AttentionV).count() as u64,
        i_attention_v: 0,
        i_down: 0,
        i_gate: 0,
        i_up: 0,
    };
    // The counters depend on the order in which the loader keeps weights (`weight_name_comparer`).
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&index| tensors.get(index).map(|tensor| (layer(tensor.name), tensor.name)));
    let mut types: Vec<QuantType> = tensors.iter().map(|tensor| tensor.ty).collect();
    for index in order {
        if let (Some(tensor), Some(ty)) = (tensors.get(index), types.get_mut(index)) {
            *ty = state.choose(tensor)?;
        }
    }
    Ok(types)
}

/// Whether `llama-quantize` refuses to make this tensor without an importance matrix (`tensor_requires_imatrix`).
///
/// ```
/// use mixture::{FileType, needs_importance_matrix};
/// use spec::QuantType;
/// assert!(needs_importance_matrix("blk.0.ffn_up.weight", QuantType::IQ2_XXS, FileType::IQ2_XXS));
/// assert!(!needs_importance_matrix("blk.0.ffn_up.weight", QuantType::Q2_K, FileType::Q2_K));
/// ```
pub fn needs_importance_matrix(name: &str, ty: QuantType, file_type: FileType) -> bool {
    use QuantType as Q;
    let spared = matches!(Category::of(name), Category::Output | Category::TokenEmbedding);
    !spared
        && match ty {
            Q::IQ3_XXS | Q::IQ2_XXS | Q::IQ2_XS | Q::IQ2_S | Q::IQ1_M | Q::IQ1_S => true,
            Q::Q2_K => file_type == FileType::Q2_K_S,
            _ => false,
        }
}

/// The layer that a name `blk.N.…` states.
fn layer(name: &str) -> Option<u64> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

/// The first and last eighth of the layers, and every third between.
fn use_more_bits(i: u64, n: u64) -> bool {
    i < n / 8 || i >= n.saturating_mul(7) / 8 || (i - n / 8) % 3 == 2
}

/// Counters and figures that the rules read.
struct State<'a> {
    figures: Figures<'a>,
    file_type: FileType,
    options: Options,
    tied: bool,
    n_attention_v: u64,
    i_attention_v: u64,
    i_down: u64,
    i_gate: u64,
    i_up: u64,
}

impl State<'_> {
    fn choose(&mut self, tensor: &Tensor<'_>) -> Result<QuantType, MixtureError> {
        let category = Category::of(tensor.name);
        let left = self.options.leave_output && category == Category::Output;
        if left || !quantizable(self.figures.architecture, tensor.name, tensor.shape) {
            return Ok(tensor.ty);
        }
        match (category, self.options) {
            (Category::TokenEmbedding, Options { token_embedding: Some(ty), .. }) => return Ok(ty),
            (Category::Output, Options { output: Some(ty), .. }) => return Ok(ty),
            _ => {}
        }
        let default = self.file_type.default_type();
        if !default.is_quantized() {
            return Ok(default);
        }
        let ty = if self.options.pure { default } else { self.mixed(tensor, category, default)? };
        fallback(tensor, ty)
    }

    fn mixed(&mut self, tensor: &Tensor<'_>, category: Category, default: QuantType) -> Result<QuantType, MixtureError> {
        use FileType as F;
        if self.figures.architecture == "glm5-next"
            && ["attn_q_a", "attn_q_b", "nextn.eh_proj"].iter().any(|part| tensor.name.contains(part))
        {
            return Ok(QuantType::Q8_0);
        }
        if category == Category::Output || (self.tied && category == Category::TokenEmbedding) {
            return Ok(self.options.output.unwrap_or_else(|| self.output(tensor, default)));
        }
        if self.file_type == F::MXFP4_MOE {
            return Ok(self.mxfp4(tensor, category));
        }
        if category == Category::TokenEmbedding {
            return Ok(self.token_embedding(default));
        }
        if self.tiny() {
            return Ok(self.tiny_mixture(category, default));
        }
        Ok(match category {
            Category::AttentionV => self.attention_v(default),
            Category::AttentionK | Category::AttentionQ => match self.file_type {
                _ if self.figures.n_expert == 8 && category == Category::AttentionK => QuantType::Q8_0,
                F::IQ3_XS => QuantType::IQ3_XXS,
                F::IQ3_XXS => QuantType::IQ2_S,
                _ => default,
            },
            Category::AttentionOutput => self.attention_output(default),
            Category::FeedForwardDown => {
                let i = self.layer(tensor, self.i_down)?;
                self.i_down += 1;
                self.feed_forward_down(i, default)
            }
            Category::FeedForwardGate => {
                let i = self.layer(tensor, self.i_gate)?;
                self.i_gate += 1;
                self.middle(i, default)
            }
            Category::FeedForwardUp => {
                let i = self.layer(tensor, self.i_up)?;
                self.i_up += 1;
                self.middle(i, default)
            }
            Category::Output | Category::TokenEmbedding | Category::Other => default,
        })
    }

    /// File types of one and two bits, which have rules of their own.
    fn tiny(&self) -> bool {
        use FileType as F;
        matches!(self.file_type, F::IQ2_XXS | F::IQ2_XS | F::IQ1_S | F::IQ2_S | F::IQ2_M | F::IQ1_M)
    }

    fn is_falcon(&self) -> bool {
        self.figures.architecture == "falcon"
    }

    fn output(&self, tensor: &Tensor<'_>, default: QuantType) -> QuantType {
        let [columns, ..] = tensor.shape;
        if self.file_type == FileType::MXFP4_MOE || self.is_falcon() || !columns.is_multiple_of(default.block().weights) {
            QuantType::Q8_0
        } else if self.tiny() || self.file_type == FileType::IQ3_XXS {
            QuantType::Q5_K
        } else if default == QuantType::Q8_0 {
            default
        } else {
            QuantType::Q6_K
        }
    }

    /// Stacked tensors are experts; Ling 3 also stacks the projections of its latent attention.
    fn mxfp4(&self, tensor: &Tensor<'_>, category: Category) -> QuantType {
        let [_, _, stacked, _] = tensor.shape;
        let expert = stacked > 1 && (self.figures.architecture != "bailingmoe3" || category.is_feed_forward());
        if expert { QuantType::MXFP4 } else { QuantType::Q8_0 }
    }

    fn token_embedding(&self, default: QuantType) -> QuantType {
        use FileType as F;
        match self.file_type {
            F::IQ2_XXS | F::IQ2_XS | F::IQ1_S | F::IQ1_M => QuantType::Q2_K,
            F::IQ2_S | F::IQ2_M | F::IQ3_XXS => QuantType::IQ3_S,
            F::TQ1_0 | F::TQ2_0 | F::Q2_0 => QuantType::Q4_K,
            _ => default,
        }
    }

    fn tiny_mixture(&mut self, category: Category, default: QuantType) -> QuantType {
        let small = matches!(self.file_type, FileType::IQ2_S | FileType::IQ2_M);
        let spared = if small { QuantType::IQ3_S } else { QuantType::Q2_K };
        let eight = self.figures.n_expert == 8;
        match category {
            Category::AttentionV if self.figures.n_gqa() >= 4 || self.figures.n_expert >= 4 => QuantType::Q4_K,
            Category::AttentionV => spared,
            Category::AttentionK if eight => QuantType::Q4_K,
            Category::FeedForwardDown => {
                self.i_down += 1;
                if self.i_down - 1 < self.figures.n_layer / 8 { spared } else { default }
            }
            Category::AttentionOutput if eight => QuantType::Q5_K,
            Category::AttentionOutput if small => QuantType::IQ3_S,
            Category::AttentionOutput if matches!(self.file_type, FileType::IQ1_S | FileType::IQ1_M) => QuantType::IQ2_XXS,
            _ => default,
        }
    }

    fn attention_v(&mut self, default: QuantType) -> QuantType {
        use FileType as F;
        let i = self.i_attention_v;
        self.i_attention_v += 1;
        let grouped = self.figures.n_gqa() >= 4;
        let ty = match self.file_type {
            F::Q2_K | F::Q2_K_S | F::IQ3_XXS | F::IQ3_XS | F::IQ3_S if grouped => QuantType::Q4_K,
            F::Q2_K => QuantType::Q3_K,
            F::IQ3_XXS if !self.options.importance_matrix => QuantType::IQ3_S,
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
            _ if self.figures.n_expert == 8 => QuantType::Q8_0,
            QuantType::Q3_K | QuantType::Q4_K if self.figures.is_70b() => QuantType::Q5_K,
            ty => ty,
        }
    }

    fn attention_output(&self, default: QuantType) -> QuantType {
        use FileType as F;
        let raised = matches!(
            self.file_type,
            F::Q2_K | F::IQ3_XS | F::IQ3_XXS | F::Q3_K_S | F::Q3_K_M | F::IQ4_NL | F::Q4_K_S | F::Q4_K_M | F::IQ3_S | F::IQ3_M | F::IQ4_XS
        );
        match self.file_type {
            F::Q3_K_L if self.is_falcon() => QuantType::Q4_K,
            _ if self.is_falcon() => default,
            _ if self.figures.n_expert == 8 && raised => QuantType::Q5_K,
            _ if self.figures.n_expert == 8 => default,
            F::Q2_K => QuantType::Q3_K,
            F::IQ3_XXS => QuantType::IQ3_S,
            F::Q3_K_M | F::IQ3_M => QuantType::Q4_K,
            F::Q3_K_L => QuantType::Q5_K,
            _ => default,
        }
    }

    fn feed_forward_down(&self, i: u64, default: QuantType) -> QuantType {
        use FileType as F;
        let n = self.figures.n_layer;
        let early = i < n / 8;
        let matrix = self.options.importance_matrix;
        if self.is_falcon() {
            match self.file_type {
                F::Q3_K_M if i >= n / 16 => return if use_more_bits(i, n) { QuantType::Q4_K } else { QuantType::Q3_K },
                F::Q3_K_L => return QuantType::Q4_K,
                F::Q4_K_M if i < n / 16 => return QuantType::Q6_K,
                F::Q4_K_M => return if use_more_bits(i, n) { QuantType::Q5_K } else { QuantType::Q4_K },
                F::Q4_K_S => return default,
                _ => {}
            }
        }
        match self.file_type {
            F::Q2_K => QuantType::Q3_K,
            F::Q2_K_S if early => QuantType::Q4_K,
            F::IQ3_XXS if early && !matrix => QuantType::Q4_K,
            F::IQ3_XXS if !matrix => QuantType::Q3_K,
            F::Q3_K_M if i < n / 16 => QuantType::Q5_K,
            F::Q3_K_M => QuantType::Q4_K,
            F::IQ3_M if early || (self.figures.n_expert == 8 && use_more_bits(i, n)) => QuantType::Q4_K,
            F::Q3_K_L => QuantType::Q5_K,
            F::Q4_K_M | F::Q5_K_M if use_more_bits(i, n) => QuantType::Q6_K,
            F::IQ4_NL | F::IQ4_XS if early && !matrix => QuantType::Q5_K,
            F::Q4_K_S if early => QuantType::Q5_K,
            F::Q4_0 if early && matrix => QuantType::Q4_1,
            F::Q5_0 if early && matrix => QuantType::Q5_1,
            _ => default,
        }
    }

    /// Gate and up projections give bits away in the middle of the model.
    fn middle(&self, i: u64, default: QuantType) -> QuantType {
        let n = self.figures.n_layer;
        let middle = i >= n / 8 && i < n.saturating_mul(7) / 8;
        if self.file_type == FileType::IQ3_XS && middle { QuantType::IQ3_XXS } else { default }
    }

    /// The layer that the rules take a tensor to be in: its own with experts, else how many came before.
    fn layer(&self, tensor: &Tensor<'_>, counter: u64) -> Result<u64, MixtureError> {
        let n_layer = self.figures.n_layer;
        if self.figures.n_expert <= 1 {
            return Ok(counter);
        }
        let stated = layer(tensor.name).filter(|&layer| layer < n_layer);
        stated.ok_or_else(|| MixtureError::NoLayer { tensor: tensor.name.to_owned(), n_layer })
    }
}

/// The type itself, or the next one that the tensor's rows fill with whole blocks.
fn fallback(tensor: &Tensor<'_>, ty: QuantType) -> Result<QuantType, MixtureError> {
    use QuantType as Q;
    let [columns, ..] = tensor.shape;
    let fits = |ty: QuantType| columns.is_multiple_of(ty.block().weights);
    if fits(ty) {
        return Ok(ty);
    }
    let smaller = match ty {
        Q::IQ1_S | Q::IQ1_M | Q::IQ2_XXS | Q::IQ2_XS | Q::IQ2_S | Q::IQ3_XXS | Q::IQ3_S | Q::IQ4_XS => Q::IQ4_NL,
        Q::Q2_0 | Q::Q2_K | Q::Q3_K | Q::TQ1_0 | Q::TQ2_0 => Q::Q4_0,
        Q::Q4_K => Q::Q5_0,
        Q::Q5_K => Q::Q5_1,
        Q::Q6_K => Q::Q8_0,
        ty if ty.block().weights <= 32 => ty,
        ty => return Err(MixtureError::NoFallback { tensor: tensor.name.to_owned(), columns, ty }),
    };
    Ok(if fits(smaller) { smaller } else { Q::F16 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: Figures<'_> = Figures { architecture: "llama", n_layer: 32, n_head: 32, n_head_kv: 8, n_expert: 0 };

    fn one(figures: &Figures<'_>, name: &str, columns: u64, file_type: FileType, options: &Options) -> Result<QuantType, MixtureError> {
        let tensor = Tensor { name, shape: [columns, 64, 1, 1], ty: QuantType::BF16 };
        types(figures, &[tensor], file_type, options).map(|types| types[0])
    }

    #[test]
    fn options_overrule_the_mixture() {
        let options = Options { output: Some(QuantType::Q8_0), token_embedding: Some(QuantType::Q3_K), ..Options::default() };
        let of = |name, options: &Options| one(&FIGURES, name, 4096, FileType::Q4_K_M, options).unwrap();
        assert_eq!(of("output.weight", &options), QuantType::Q8_0);
        assert_eq!(of("token_embd.weight", &options), QuantType::Q3_K);
        // Without an output head of its own, the embedding is the output head.
        assert_eq!(of("token_embd.weight", &Options { token_embedding: None, ..options }), QuantType::Q8_0);
        assert_eq!(of("output.weight", &Options { leave_output: true, ..options }), QuantType::BF16);
        assert_eq!(of("blk.0.attn_v.weight", &Options { pure: true, ..options }), QuantType::Q4_K);
    }

    #[test]
    fn an_importance_matrix_lifts_a_few_precautions() {
        let with = Options { importance_matrix: true, ..Options::default() };
        for (file_type, without, expected) in [
            (FileType::IQ3_XXS, QuantType::Q4_K, QuantType::IQ3_XXS),
            (FileType::IQ4_XS, QuantType::Q5_K, QuantType::IQ4_XS),
            (FileType::Q4_0, QuantType::Q4_0, QuantType::Q4_1),
            (FileType::Q5_0, QuantType::Q5_0, QuantType::Q5_1),
        ] {
            let of = |options: &Options| one(&FIGURES, "blk.0.ffn_down.weight", 4096, file_type, options);
            assert_eq!((of(&Options::default()), of(&with)), (Ok(without), Ok(expected)), "{file_type}");
        }
    }

    #[test]
    fn what_stops_llama_quantize_stops_us() {
        let options = Options::default();
        let error = one(&FIGURES, "blk.0.ffn_up.weight", 100, FileType::Q1_0, &options).unwrap_err();
        insta::assert_snapshot!(error, @"tensor blk.0.ffn_up.weight has rows of 100 weights, which q1_0 cannot hold, and llama-quantize has no type in its place");
        let experts = Figures { n_expert: 8, ..FIGURES };
        let error = one(&experts, "blk.32.ffn_up_exps.weight", 256, FileType::Q4_K_M, &options).unwrap_err();
        insta::assert_snapshot!(error, @"tensor blk.32.ffn_up_exps.weight is in none of the model's 32 layers");
    }

    #[test]
    fn rows_that_no_block_divides_fall_back() {
        let of = |columns| one(&FIGURES, "blk.9.ffn_up.weight", columns, FileType::Q4_K_M, &Options::default());
        assert_eq!([of(256), of(96), of(80)], [Ok(QuantType::Q4_K), Ok(QuantType::Q5_0), Ok(QuantType::F16)]);
        assert_eq!(one(&FIGURES, "blk.9.ffn_up.weight", 80, FileType::Q8_0, &Options::default()), Ok(QuantType::F16));
    }

    #[test]
    fn falcon_has_rules_of_its_own() {
        let falcon = Figures { architecture: "falcon", n_head_kv: 1, ..FIGURES };
        let names: Vec<String> = (0..32).map(|layer| format!("blk.{layer}.ffn_down.weight")).collect();
        let tensors: Vec<_> = names.iter().map(|name| Tensor { name, shape: [1024, 256, 1, 1], ty: QuantType::F16 }).collect();
        let types = types(&falcon, &tensors, FileType::Q4_K_M, &Options::default()).unwrap();
        let count = |ty| types.iter().filter(|&&other| other == ty).count();
        assert_eq!([QuantType::Q6_K, QuantType::Q5_K, QuantType::Q4_K].map(count), [2, 14, 16]);
    }

    proptest::proptest! {
        #[test]
        fn every_row_is_a_whole_number_of_blocks(columns in 1_u64..2000, index in 0..FileType::ALL.len(), layer in 0_u64..40, n_expert in 0_u64..9) {
            let figures = Figures { n_expert, ..FIGURES };
            for part in ["attn_v", "attn_q", "ffn_down", "ffn_up_exps", "ssm_in"] {
                let name = format!("blk.{layer}.{part}.weight");
                if let Ok(ty) = one(&figures, &name, columns, FileType::ALL[index], &Options::default()) {
                    proptest::prop_assert!(ty.row_bytes(columns).is_some(), "{name} {columns} {ty}");
                }
            }
        }
    }
}
