//! `inspect`: a model, and what it asks of a machine.

use super::{ModelName, SCHEMA_VERSION, Size, View};
use crate::render::{Align, CAUTION, Cell, DIM, HEADING, Table, Text, grouped, short_count};
use loadmaster::formats::Analysis;
use schemars::JsonSchema;
use serde::Serialize;
use spec::model::{FeedForward, Layer, Mixer, Support, Tokenizer};
use spec::{Machine, Model, QuantType};
use std::collections::BTreeMap;

/// Result of `loadmaster inspect`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InspectView {
    /// Version of this layout.
    pub schema_version: u32,
    /// The model.
    pub model: ModelName,
    /// `described` where layers, cache and state follow the engine's own rules; `generic` where the architecture is not
    /// known and estimates say so.
    pub support: &'static str,
    /// Files, shards in order.
    pub files: Vec<FileView>,
    /// Size of all tensors.
    pub tensor_bytes: Size,
    /// Number of tensors.
    pub tensors: usize,
    /// Tensor types, by size.
    pub types: Vec<TypeView>,
    /// Context that the model was trained for, in tokens.
    pub n_ctx_train: Option<u32>,
    /// Width of the residual stream.
    pub n_embd: u64,
    /// Tokens in the vocabulary.
    pub n_vocab: u64,
    /// Layers, prediction layers not counted.
    pub n_layer: u32,
    /// Trailing layers that only predict further tokens.
    pub n_layer_nextn: u32,
    /// True for encoders.
    pub encoder: bool,
    /// True where the output head reuses the token embedding.
    pub tied_embeddings: bool,
    /// Consecutive layers of the same kind.
    pub layers: Vec<LayersView>,
    /// Tokenizer.
    pub tokenizer: Option<TokenizerView>,
    /// What it computes and reads.
    pub analysis: AnalysisView,
}

/// One file.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FileView {
    /// Its length.
    pub size_bytes: Size,
    /// Where its tensor data begins.
    pub data_offset_bytes: Size,
}

/// Tensors of one type.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TypeView {
    /// ggml's name.
    #[serde(rename = "type")]
    pub ty: &'static str,
    /// How many tensors.
    pub tensors: usize,
    /// Their elements.
    pub elements: u64,
    /// Their size.
    pub size_bytes: Size,
    /// Bits per element of this type.
    pub bits_per_element: f64,
}

/// Consecutive layers of the same kind.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LayersView {
    /// First layer, from 0.
    pub first: usize,
    /// Last layer.
    pub last: usize,
    /// What mixes tokens.
    pub mixer: String,
    /// What transforms each token.
    pub feed_forward: String,
}

/// The tokenizer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TokenizerView {
    /// Its kind.
    pub model: String,
    /// Entries of the token list.
    pub n_tokens: u64,
    /// True where the file has a chat template.
    pub chat_template: bool,
}

/// What a model computes and reads.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AnalysisView {
    /// Weights in all.
    pub parameters: u64,
    /// Weights that one token touches.
    pub active_parameters: u64,
}

impl InspectView {
    /// The view of a model.
    pub fn new(model: &Model, name: ModelName, analysis: AnalysisView) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            model: name,
            support: match model.support {
                Support::Described => "described",
                Support::Generic => "generic",
            },
            files: model
                .files
                .iter()
                .map(|file| FileView { size_bytes: file.size.into(), data_offset_bytes: file.data_offset.into() })
                .collect(),
            tensor_bytes: model.tensor_bytes().into(),
            tensors: model.tensors.len(),
            types: types(model),
            n_ctx_train: model.n_ctx_train,
            n_embd: model.n_embd,
            n_vocab: model.n_vocab,
            n_layer: model.n_layer(),
            n_layer_nextn: model.n_layer_nextn,
            encoder: model.encoder,
            tied_embeddings: model.tied_embeddings,
            layers: layers(&model.layers),
            tokenizer: model.tokenizer.as_ref().map(tokenizer),
            analysis,
        }
    }
}

fn tokenizer(tokenizer: &Tokenizer) -> TokenizerView {
    TokenizerView { model: tokenizer.model.clone(), n_tokens: tokenizer.n_tokens, chat_template: tokenizer.chat_template }
}

/// Tensor types, the largest share first.
fn types(model: &Model) -> Vec<TypeView> {
    let mut by_type: BTreeMap<QuantType, TypeView> = BTreeMap::new();
    for tensor in &model.tensors {
        let block = tensor.ty.block();
        let view = by_type.entry(tensor.ty).or_insert_with(|| TypeView {
            ty: tensor.ty.name(),
            tensors: 0,
            elements: 0,
            size_bytes: Size(0),
            bits_per_element: block.bytes.as_f64() * 8.0 / block.weights as f64,
        });
        view.tensors += 1;
        view.elements = view.elements.saturating_add(tensor.elements());
        view.size_bytes = Size(view.size_bytes.0.saturating_add(tensor.bytes.get()));
    }
    let mut types: Vec<_> = by_type.into_values().collect();
    types.sort_by_key(|view| std::cmp::Reverse(view.size_bytes.0));
    types
}

fn layers(layers: &[Layer]) -> Vec<LayersView> {
    let mut runs: Vec<LayersView> = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let (mixer, feed_forward) = (mixer(&layer.mixer), feed_forward(&layer.feed_forward));
        match runs.last_mut() {
            Some(run) if run.mixer == mixer && run.feed_forward == feed_forward => run.last = i,
            _ => runs.push(LayersView { first: i, last: i, mixer, feed_forward }),
        }
    }
    runs
}

fn mixer(mixer: &Mixer) -> String {
    match mixer {
        Mixer::Attention(attention) => {
            let width = if attention.head_dim_k == attention.head_dim_v {
                attention.head_dim_k.to_string()
            } else {
                format!("{}/{}", attention.head_dim_k, attention.head_dim_v)
            };
            let mut text = format!("attention, {} heads, {} KV heads of {width}", attention.n_head, attention.n_head_kv);
            if let Some(window) = attention.window {
                text.push_str(&format!(", window {window}"));
            }
            if let Some(layer) = attention.shares_kv_of {
                text.push_str(&format!(", cache of layer {layer}"));
            }
            text
        }
        Mixer::Mla(mla) => {
            format!("latent attention, {} heads, {} + {} per token in the cache", mla.n_head, mla.kv_lora_rank, mla.rope_dim)
        }
        Mixer::Recurrent(state) => format!("{}, state of {} per sequence", state.kind, grouped(state.r_elements + state.s_elements)),
        Mixer::Both(attention, state) => {
            format!("{} beside {}", self::mixer(&Mixer::Attention(attention.clone())), self::mixer(&Mixer::Recurrent(state.clone())))
        }
        Mixer::None => "none".to_owned(),
    }
}

fn feed_forward(block: &FeedForward) -> String {
    match block {
        FeedForward::Dense { n_ff } => format!("dense {n_ff}"),
        FeedForward::Experts(experts) => {
            let shared = if experts.shared > 0 { format!(" and {} shared", experts.shared) } else { String::new() };
            format!("{} of {} experts{shared}, each {}", experts.used, experts.count, experts.n_ff)
        }
        FeedForward::None => "none".to_owned(),
    }
}

impl View for InspectView {
    fn text(&self, text: &mut Text) {
        text.line(format_args!("{}  {}", crate::render::styled(HEADING, &self.model), self.model.architecture));
        if self.support == "generic" {
            text.note(
                CAUTION,
                "!",
                "this architecture is not known by name: tensors are exact, cache and compute are inferred from generic metadata",
            );
        }
        let shards = if self.files.len() > 1 { format!(" in {} files", self.files.len()) } else { String::new() };
        let trained =
            self.n_ctx_train.map_or_else(|| "unknown (the file does not say)".to_owned(), |n| format!("{} tokens", grouped(n.into())));
        let tokenizer = self.tokenizer.as_ref().map_or_else(
            || "none in the file".to_owned(),
            |tokenizer| {
                let template = if tokenizer.chat_template { "with" } else { "without" };
                format!("{}, {} tokens, {template} chat template", tokenizer.model, grouped(tokenizer.n_tokens))
            },
        );
        let prediction =
            if self.n_layer_nextn > 0 { format!(" and {} that predict further tokens", self.n_layer_nextn) } else { String::new() };
        text.section("Model");
        text.fields([
            ("size", format!("{} of tensors{shards}", self.tensor_bytes)),
            ("parameters", self.parameters()),
            ("layers", format!("{}{prediction}, width {}", self.n_layer, self.n_embd)),
            ("trained context", trained),
            ("vocabulary", format!("{}{}", grouped(self.n_vocab), if self.tied_embeddings { ", embedding used as output" } else { "" })),
            ("tokenizer", tokenizer),
        ]);
        text.section("Layers");
        let mut table = Table::new([Align::Left, Align::Left, Align::Left]);
        for run in &self.layers {
            let range = if run.first == run.last { run.first.to_string() } else { format!("{}-{}", run.first, run.last) };
            table.row([Cell::styled(DIM, range), Cell::plain(run.mixer.clone()), Cell::plain(run.feed_forward.clone())]);
        }
        text.table(&table);
        text.section("Quantisation");
        let mut table = Table::new([Align::Left, Align::Right, Align::Right, Align::Right]);
        table.header(["type", "size", "tensors", "bits per weight"]);
        for ty in &self.types {
            table.row([ty.ty.to_owned(), ty.size_bytes.to_string(), ty.tensors.to_string(), format!("{:.2}", ty.bits_per_element)]);
        }
        text.table(&table);
        self.analysis.text(text);
    }
}

impl InspectView {
    fn parameters(&self) -> String {
        let AnalysisView { parameters, active_parameters, .. } = self.analysis;
        if active_parameters == parameters {
            short_count(parameters)
        } else {
            format!("{}, of which a token touches {}", short_count(parameters), short_count(active_parameters))
        }
    }
}

impl AnalysisView {
    /// The view of an analysis on a machine.
    pub fn new(analysis: &Analysis, _machine: &Machine) -> Self {
        Self { parameters: analysis.parameters, active_parameters: analysis.active_parameters }
    }

    fn text(&self, _text: &mut Text) {}
}
