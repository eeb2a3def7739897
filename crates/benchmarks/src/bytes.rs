//! Bytes of a model's parts after `llama-quantize`, from its figures: what a file would hold that is not at hand.

use mixture::{Figures, FileType, Options, Tensor, types};
use roofline::Quant;
use spec::QuantType;

/// The figures of a model, as `models.csv` has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outline {
    /// All weights, the embedding table once.
    pub params: f64,
    /// Those that one token multiplies with.
    pub active: f64,
    pub layers: f64,
    pub width: f64,
    pub vocab: f64,
    /// True where the output matrix is the embedding table.
    pub tied: bool,
    pub query_width: f64,
    pub kv_width: f64,
    /// Layers with attention.
    pub attention_layers: f64,
    /// Experts per layer and how many of them a token uses.
    pub experts: Option<(f64, f64)>,
}

/// Weights of one part, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Part {
    pub elements: f64,
    pub bytes: f64,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Parts {
    /// The embedding table, where it is not the output matrix.
    pub table: Part,
    /// The output matrix.
    pub output: Part,
    /// What every token passes in all layers.
    pub always: Part,
    /// All experts of all layers.
    pub experts: Part,
}

/// What stands for a quantisation: the mixture, the type of what is not experts where it differs, and the class of its kernels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantisation {
    file_type: FileType,
    /// The type of all but experts, where it is not the mixture's.
    beside: Option<QuantType>,
    pub quant: Quant,
}

impl Quantisation {
    /// The same for a model whose experts are in MXFP4 whatever the rest is.
    pub(crate) fn with_experts_kept(self) -> Self {
        let beside = (self.quant == Quant::Float).then(|| self.file_type.default_type());
        Self { file_type: FileType::MXFP4_MOE, beside, quant: Quant::Mx }
    }

    /// Bytes per weight of the type that most weights have.
    pub(crate) fn bytes_per_weight(self) -> f64 {
        self.file_type.default_type().row_bytes(256).map_or(2.0, |bytes| bytes.as_f64() / 256.0)
    }
}

/// A quantisation by the name that tables give it: `UD-Q4_K_XL`, `Q4_K - Medium`, `GGUF MXFP4_MOE`.
pub(crate) fn quantisation(name: &str) -> Option<Quantisation> {
    let name = name.to_uppercase().replace('-', "_").replace(" _ ", "_").replace(' ', "_").replace("_MEDIUM", "_M").replace("_SMALL", "_S");
    // Names that say less than a file type, or that publishers gave to mixtures of their own: the nearest.
    let near = [("MXFP4", "MXFP4_MOE"), ("Q8", "Q8_0"), ("Q6_K", "Q6_K"), ("Q5_K", "Q5_K_M"), ("Q4_K", "Q4_K_M"), ("Q3_K", "Q3_K_M")];
    let near = near.into_iter().chain([("Q2_K", "Q2_K"), ("IQ3_XS", "IQ3_XS"), ("F16", "F16"), ("FP16", "F16")]);
    let has = |text: &str| name.contains(text);
    let exact = FileType::ALL.iter().copied().filter(|ty| has(ty.name())).max_by_key(|ty| ty.name().len());
    let file_type = exact.or_else(|| {
        let (_, wanted) = near.into_iter().find(|(part, _)| has(part))?;
        FileType::ALL.iter().copied().find(|ty| ty.name() == wanted)
    })?;
    Some(Quantisation { file_type, beside: None, quant: class(file_type.default_type()) })
}

/// The class of kernels that read a type.
fn class(ty: QuantType) -> Quant {
    let name = ty.name().to_uppercase();
    match name.as_str() {
        "Q8_0" => Quant::Q8,
        "Q6_K" => Quant::Q6,
        "Q4_K" | "Q5_K" => Quant::Q4K,
        "Q2_K" | "Q3_K" => Quant::Q3K,
        "MXFP4" | "NVFP4" => Quant::Mx,
        "F32" | "F16" | "BF16" => Quant::Float,
        "IQ4_NL" => Quant::Q4,
        _ if name.starts_with("IQ") || name.starts_with("TQ") => Quant::Iq,
        _ => Quant::Q4,
    }
}

/// Multiples of the largest block, so that no row needs another type.
fn rows(extent: f64) -> u64 {
    ((extent / 256.0).round().clamp(1.0, 1e6) as u64) * 256
}

/// Bytes and weights of every part.
pub(crate) fn parts(outline: &Outline, quantisation: Quantisation) -> Parts {
    let &Outline { width, vocab, .. } = outline;
    let table = width * vocab;
    let blocks = (outline.params - if outline.tied { table } else { 2.0 * table }).max(outline.params * 0.1);
    let idle = (outline.params - outline.active).max(0.0);
    let experts = outline.experts.map_or(0.0, |(all, used)| (idle / (1.0 - used / all)).min(blocks));
    let attention = 2.0 * width * (outline.query_width + outline.kv_width) * outline.attention_layers;
    let dense = (blocks - experts - attention).max(0.0);
    let catalogue = catalogue(outline, dense, experts);
    let mut sums = Parts::default();
    let chosen = types_of(outline, &catalogue, quantisation.file_type);
    for ((name, shape), ty) in catalogue.iter().zip(chosen) {
        let ty = if name.contains("exps") { ty } else { quantisation.beside.unwrap_or(ty) };
        let part = match name.as_str() {
            "token_embd.weight" if outline.tied => &mut sums.output,
            "token_embd.weight" => &mut sums.table,
            "output.weight" => &mut sums.output,
            name if name.contains("exps") => &mut sums.experts,
            _ => &mut sums.always,
        };
        part.elements += shape.iter().map(|&extent| extent as f64).product::<f64>();
        part.bytes += ty.tensor_bytes(*shape).map_or(0.0, |bytes| bytes.as_f64());
    }
    // Extents were rounded: as many weights as there are, with as many bits each.
    let scaled =
        |part: Part, elements: f64| Part { elements, bytes: if part.elements > 0.0 { part.bytes / part.elements * elements } else { 0.0 } };
    Parts {
        table: scaled(sums.table, if outline.tied { 0.0 } else { table }),
        output: scaled(sums.output, table),
        always: scaled(sums.always, blocks - experts),
        experts: scaled(sums.experts, experts),
    }
}

fn types_of(outline: &Outline, catalogue: &[(String, [u64; 4])], file_type: FileType) -> Vec<QuantType> {
    let heads = |width: f64| (width / 128.0).round().max(1.0) as u64;
    let figures = Figures {
        architecture: "llama",
        n_layer: outline.layers as u64,
        n_head: heads(outline.query_width),
        n_head_kv: heads(outline.kv_width),
        n_expert: outline.experts.map_or(0, |(all, _)| all as u64),
    };
    let tensors: Vec<Tensor<'_>> = catalogue.iter().map(|(name, shape)| Tensor { name, shape: *shape, ty: QuantType::F16 }).collect();
    types(&figures, &tensors, file_type, &Options { importance_matrix: true, ..Options::default() })
        .unwrap_or_else(|_| vec![file_type.default_type(); catalogue.len()])
}

/// The tensors that the mixture looks at, by the names that files give them.
fn catalogue(outline: &Outline, dense: f64, experts: f64) -> Vec<(String, [u64; 4])> {
    let (width, vocab) = (rows(outline.width), rows(outline.vocab));
    let mut all = vec![("token_embd.weight".to_owned(), [width, vocab, 1, 1])];
    if !outline.tied {
        all.push(("output.weight".to_owned(), [width, vocab, 1, 1]));
    }
    let per_layer = |elements: f64| elements / outline.layers.max(1.0) / 3.0 / outline.width;
    let count = outline.experts.map_or(1.0, |(all, _)| all);
    // Recurrent layers have projections of about the same extents as attention's.
    for layer in 0..outline.layers as u64 {
        let mut push = |name: &str, shape: [u64; 4]| all.push((format!("blk.{layer}.{name}.weight"), shape));
        let (query, kv) = (rows(outline.query_width), rows(outline.kv_width));
        push("attn_q", [width, query, 1, 1]);
        push("attn_k", [width, kv, 1, 1]);
        push("attn_v", [width, kv, 1, 1]);
        push("attn_output", [query, width, 1, 1]);
        for (kind, inner, count) in [("", per_layer(dense), 1), ("_exps", per_layer(experts) / count, count as u64)] {
            if inner > 0.0 {
                push(&format!("ffn_gate{kind}"), [width, rows(inner), count, 1]);
                push(&format!("ffn_up{kind}"), [width, rows(inner), count, 1]);
                push(&format!("ffn_down{kind}"), [rows(inner), width, count, 1]);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Llama 3 8B as its publisher states it.
    const LLAMA: Outline = Outline {
        params: 8.030e9,
        active: 8.030e9,
        layers: 32.0,
        width: 4096.0,
        vocab: 128_256.0,
        tied: false,
        query_width: 4096.0,
        kv_width: 1024.0,
        attention_layers: 32.0,
        experts: None,
    };

    fn gib(outline: &Outline, name: &str) -> f64 {
        let parts = parts(outline, quantisation(name).unwrap());
        [parts.table, parts.output, parts.always, parts.experts].iter().map(|part| part.bytes).sum::<f64>() / f64::from(1 << 30)
    }

    #[test]
    fn llama_3_is_as_large_as_its_files() {
        // Sizes that llama-bench prints for the files of Llama 3 8B.
        for (name, size) in [("Q4_K - Medium", 4.58), ("F16", 14.96), ("Q8_0", 7.95), ("Q5_K_M", 5.33), ("IQ2_XXS", 2.23), ("Q6_K", 6.14)] {
            assert!((gib(&LLAMA, name) / size - 1.0).abs() < 0.012, "{name}: {} {size}", gib(&LLAMA, name));
        }
    }

    #[test]
    fn what_experts_leave_is_kept_more_exactly() {
        let gpt_oss = Outline {
            params: 116.829e9,
            active: 5.13e9,
            layers: 36.0,
            width: 2880.0,
            vocab: 201_088.0,
            query_width: 4096.0,
            kv_width: 512.0,
            attention_layers: 36.0,
            experts: Some((128.0, 4.0)),
            ..LLAMA
        };
        assert!((gib(&gpt_oss, "MXFP4") / 59.02 - 1.0).abs() < 0.02, "{}", gib(&gpt_oss, "MXFP4"));
        let parts = parts(&gpt_oss, quantisation("MXFP4").unwrap());
        assert!(parts.always.bytes / parts.always.elements > 1.0 && parts.experts.bytes / parts.experts.elements < 0.54, "{parts:?}");
    }

    #[test]
    fn names_that_tables_use() {
        let name = |text: &str| quantisation(text).map(|found| found.file_type.name());
        assert_eq!(name("UD-Q4_K_XL"), Some("Q4_K_M"));
        assert_eq!(name("llama 7B Q4_K - Medium"), Some("Q4_K_M"));
        assert_eq!(name("GGUF IQ4_NL"), Some("IQ4_NL"));
        assert_eq!(name("BF16"), Some("BF16"));
        let classes = ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q2_K", "Q4_0", "IQ2_XXS", "IQ4_NL", "MXFP4"]
            .map(|name| quantisation(name).unwrap().quant.as_str());
        assert_eq!(classes, ["float", "q8", "q6", "q4k", "q3k", "q4", "iq", "q4", "mx"]);
        assert_eq!(name("nothing"), None);
    }
}
