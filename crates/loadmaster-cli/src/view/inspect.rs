//! `inspect`: a model, and what it asks of a machine.

use super::plan::bottleneck;
use super::{ModelName, Quantity, Rate, SCHEMA_VERSION, Size, View};
use crate::render::{Align, CAUTION, Cell, DIM, HEADING, Table, Text, grouped, short_count};
use loadmaster::formats::analysis::{Analysis, TypeShare};
use loadmaster::planner::plan::Plan;
use schemars::JsonSchema;
use serde::Serialize;
use spec::model::{Compression, FeedForward, Layer, Mixer, Support, Tokenizer};
use spec::{Model, QuantType};

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
    pub tensors: u64,
    /// Weights in them.
    pub weights: u64,
    /// Their size.
    pub size_bytes: Size,
    /// Bits per weight of this type.
    pub bits_per_weight: f64,
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

/// What a model computes and reads, from its shapes alone.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AnalysisView {
    /// Weights in all.
    pub parameters: u64,
    /// Weights that one token passes.
    pub active_parameters: u64,
    /// Bits per weight over the whole file.
    pub bits_per_weight: f64,
    /// Bytes of weights that one token reads, decoded alone.
    pub active_bytes: Size,
    /// Operations to decode one token into an empty context; a multiply-add counts as two.
    pub decode_ops: u64,
    /// Bytes of cache per token of context, in f16.
    pub cache_bytes_per_token: Size,
    /// Bytes of recurrent state that a token reads and writes, per sequence.
    pub state_bytes: Size,
    /// Operations per byte of weights when one token is decoded.
    pub decode_ops_per_byte: f64,
    /// Operations per byte of weights when a micro-batch of 512 tokens is computed.
    pub prefill_ops_per_byte: f64,
    /// Shapes of weight matrices, those with most weights first.
    pub matrices: Vec<MatrixView>,
    /// What can be divided between devices or computed together.
    pub parallelism: ParallelismView,
    /// What it waits for on this machine; null where that cannot be said.
    pub on_machine: Option<OnMachineView>,
}

/// Matrices of one shape.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MatrixView {
    /// Width of the input.
    pub columns: u64,
    /// Width of the output.
    pub rows: u64,
    /// Matrices in one tensor.
    pub stacked: u64,
    /// Tensors of this shape.
    pub count: u64,
    /// What they are.
    pub roles: Vec<String>,
}

/// What can be divided between devices or computed together.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ParallelismView {
    /// Pieces of a split by layer: layers and the output.
    pub layers: u32,
    /// Routed experts, which can stay in host memory at little cost.
    pub expert_bytes: Size,
    /// Largest number of devices that divide the key/value heads evenly.
    pub head_split: Option<u32>,
    /// True where several sequences can be decoded in one batch.
    pub batched_sequences: bool,
    /// True where all tokens of a prompt are computed at once.
    pub parallel_prompt: bool,
}

/// A model on a machine, with the settings that a general plan would take.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OnMachineView {
    /// `CPU only`, `GPU only`, `hybrid`.
    pub strategy: String,
    /// What decode waits for.
    pub decode_bottleneck: &'static str,
    /// What prefill waits for.
    pub prefill_bottleneck: &'static str,
    /// Tokens per second while generating.
    pub decode_tokens_per_s: Quantity<Rate>,
    /// Tokens per second while reading a prompt.
    pub prefill_tokens_per_s: Quantity<Rate>,
}

impl InspectView {
    /// The view of a model.
    pub fn new(model: &Model, name: ModelName, analysis: &Analysis, plan: Option<&Plan>) -> Self {
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
            types: analysis.types.iter().map(type_share).collect(),
            n_ctx_train: model.n_ctx_train,
            n_embd: model.n_embd,
            n_vocab: model.n_vocab,
            n_layer: model.n_layer(),
            n_layer_nextn: model.n_layer_nextn,
            encoder: model.encoder,
            tied_embeddings: model.tied_embeddings,
            layers: layers(&model.layers),
            tokenizer: model.tokenizer.as_ref().map(tokenizer),
            analysis: AnalysisView::new(analysis, plan),
        }
    }
}

fn type_share(share: &TypeShare) -> TypeView {
    TypeView {
        ty: share.ty.name(),
        tensors: share.tensors,
        weights: share.weights,
        size_bytes: share.bytes.into(),
        bits_per_weight: share.ty.bits_per_weight(),
    }
}

fn tokenizer(tokenizer: &Tokenizer) -> TokenizerView {
    TokenizerView { model: tokenizer.model.clone(), n_tokens: tokenizer.n_tokens, chat_template: tokenizer.chat_template }
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
            let mut text =
                format!("latent attention, {} heads, {} + {} per token in the cache", mla.n_head, mla.kv_lora_rank, mla.rope_dim);
            if let Some(indexer) = &mla.indexer {
                let whose =
                    if indexer.own_keys { format!("by an indexer of {}", indexer.head_dim) } else { "by an earlier indexer".to_owned() };
                text.push_str(&format!(", over at most {} tokens chosen {whose}", indexer.top_k));
            }
            text
        }
        Mixer::Compressed(attention) => {
            let mut text = format!("attention, {} heads, keys of {}, window {}", attention.n_head, attention.head_dim, attention.window);
            if let Some(Compression { ratio, indexer }) = &attention.beyond {
                let rows = indexer
                    .as_ref()
                    .map_or(String::new(), |indexer| format!(", at most {} chosen by an indexer of {}", indexer.top_k, indexer.head_dim));
                text.push_str(&format!(", beyond it a row per {ratio} tokens{rows}"));
            }
            text
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
            table.row([ty.ty.to_owned(), ty.size_bytes.to_string(), ty.tensors.to_string(), format!("{:.2}", ty.bits_per_weight)]);
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
    fn new(analysis: &Analysis, plan: Option<&Plan>) -> Self {
        let split = &analysis.parallelism;
        Self {
            parameters: analysis.parameters,
            active_parameters: analysis.active_parameters,
            bits_per_weight: analysis.bits_per_weight(),
            active_bytes: analysis.active_bytes.into(),
            decode_ops: analysis.decode_ops(0),
            cache_bytes_per_token: analysis.cache_bytes(1, QuantType::F16, QuantType::F16).into(),
            state_bytes: analysis.state_bytes().into(),
            decode_ops_per_byte: analysis.intensity(1),
            prefill_ops_per_byte: analysis.intensity(512),
            matrices: analysis
                .matrices
                .iter()
                .map(|shape| MatrixView {
                    columns: shape.columns,
                    rows: shape.rows,
                    stacked: shape.stacked,
                    count: shape.count,
                    roles: shape.roles.iter().cloned().collect(),
                })
                .collect(),
            parallelism: ParallelismView {
                layers: split.layers,
                expert_bytes: split.expert_bytes.into(),
                head_split: split.head_split,
                batched_sequences: split.batched_sequences,
                parallel_prompt: split.parallel_prompt,
            },
            on_machine: plan.map(|plan| OnMachineView {
                strategy: plan.strategy.to_string(),
                decode_bottleneck: bottleneck(plan.prediction.decode_bottleneck),
                prefill_bottleneck: bottleneck(plan.prediction.prefill_bottleneck),
                decode_tokens_per_s: Quantity::of(&plan.prediction.decode),
                prefill_tokens_per_s: Quantity::of(&plan.prediction.prefill),
            }),
        }
    }

    fn text(&self, text: &mut Text) {
        text.section("Per token");
        let mut fields = vec![
            ("reads", format!("{} of weights", self.active_bytes)),
            ("computes", format!("{} operations", short_count(self.decode_ops))),
            (
                "intensity",
                format!("{:.1} operations per byte in decode, {:.0} in prefill", self.decode_ops_per_byte, self.prefill_ops_per_byte),
            ),
        ];
        if self.cache_bytes_per_token.0 > 0 {
            fields.push(("cache", format!("{} per token of context in f16", self.cache_bytes_per_token)));
        }
        if self.state_bytes.0 > 0 {
            fields.push(("state", format!("{} read and written per sequence", self.state_bytes)));
        }
        text.fields(fields);
        self.parallelism_text(text);
        text.section("On this machine");
        match &self.on_machine {
            Some(here) => text.fields([
                ("placement", here.strategy.clone()),
                ("decode", format!("{}, limited by {}", text.quantity(&here.decode_tokens_per_s), here.decode_bottleneck)),
                ("prefill", format!("{}, limited by {}", text.quantity(&here.prefill_tokens_per_s), here.prefill_bottleneck)),
            ]),
            None => text.line("  no plan: `loadmaster plan` says why"),
        }
    }

    fn parallelism_text(&self, text: &mut Text) {
        let split = &self.parallelism;
        text.section("Can be divided");
        let mut fields = vec![("by layer", format!("into {} pieces", split.layers))];
        if let Some(most) = split.head_split.filter(|most| *most > 1) {
            fields.push(("by head", format!("over up to {most} devices")));
        }
        if split.expert_bytes.0 > 0 {
            fields.push(("experts", format!("{} can stay in host memory at little cost", split.expert_bytes)));
        }
        fields.push((
            "in batches",
            match (split.batched_sequences, split.parallel_prompt) {
                (true, true) => "several sequences, and all tokens of a prompt",
                (true, false) => "several sequences; a prompt's tokens one after another in recurrent layers",
                (false, true) => "all tokens of a prompt",
                (false, false) => "no",
            }
            .to_owned(),
        ));
        text.fields(fields);
        if text.verbose() {
            text.section("Matrices");
            let mut table = Table::new([Align::Right, Align::Right, Align::Right, Align::Left]);
            table.header(["count", "columns", "rows", "what"]);
            for shape in &self.matrices {
                let count = if shape.stacked > 1 { format!("{} x {}", shape.count, shape.stacked) } else { shape.count.to_string() };
                table.row([count, shape.columns.to_string(), shape.rows.to_string(), shape.roles.join(" ")]);
            }
            text.table(&table);
        }
    }
}
