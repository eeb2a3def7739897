//! A model that drafts tokens, or the model's own prediction layers.

use super::{Beside, Host};
use crate::error::FootprintError;
use crate::kv_cache::{self, Shapes};
use crate::parts::Component;
use crate::placement::Home;
use crate::profile::Outputs;
use crate::weights::HOST_ALIGNMENT;
use crate::{EngineProfile, process, require};
use spec::model::{FeedForward, MetaValue, Mixer};
use spec::{Bytes, Known, Model, QuantType, Settings};

/// What drafts tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// Another model (`--model-draft`); `None`: the model's own prediction layers (`--spec-type draft-mtp`).
    pub model: Option<Model>,
    /// Layers of the other model on GPUs (`-ngld`); `None`: all, where there is a GPU.
    pub n_gpu_layers: Option<u32>,
    /// Its context (`-cd`, engines before 2026-06); `None`: that of the model.
    pub n_ctx: Option<u32>,
    /// Type of its K cache (`-ctkd`).
    pub cache_type_k: QuantType,
    /// Type of its V cache (`-ctvd`).
    pub cache_type_v: QuantType,
    /// Its micro-batch (`--spec-draft-n-ubatch`, since 0.7.0); `None`: that of the model.
    pub n_ubatch: Option<u32>,
    /// Tokens drafted at once at most (`--draft-max`, `--spec-draft-n-max`).
    pub n_max: u32,
}

impl Draft {
    /// llama-server's defaults: three tokens, caches in F16 (`common/common.h:328-355`).
    pub fn new(model: Option<Model>) -> Self {
        Self {
            model,
            n_gpu_layers: None,
            n_ctx: None,
            n_ubatch: None,
            cache_type_k: QuantType::F16,
            cache_type_v: QuantType::F16,
            n_max: 3,
        }
    }

    /// What speculation changes for the model itself.
    pub(super) fn speculation(&self, model: &Model) -> Speculation {
        // Only drafts by prediction layers roll state back (common/common.h:399-406).
        let rollback = self.model.is_none() && ROLLBACK.contains(&model.architecture.as_str());
        Speculation { n_max: self.n_max, kept_states: if rollback { self.n_max } else { 0 }, reads_stream: self.model.is_none() }
    }
}

/// Architectures whose state can be rolled back by tokens (`src/llama-arch.cpp:1162-1179`).
const ROLLBACK: &[&str] = &[
    "kimi-k3",
    "qwen35",
    "qwen35moe",
    "qwen4exp",
    "deepseek4",
    "glm5-next",
    "nemotron_h",
    "nemotron_h_moe",
    "lfm2",
    "lfm2moe",
    "bailingmoe3",
];

/// What speculation changes for the model whose tokens are drafted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speculation {
    /// Tokens that are checked beside the one that is certain: rows of logits per sequence.
    pub n_max: u32,
    /// Recurrent states kept beside the current one (`n_rs_seq`).
    pub kept_states: u32,
    /// The drafts are made of the model's stream, so that it is computed for every token.
    pub reads_stream: bool,
}

impl Speculation {
    /// No speculation.
    pub const NONE: Self = Self { n_max: 0, kept_states: 0, reads_stream: false };
}

/// What the draft needs.
pub(super) fn draft(host: &Host<'_>, draft: &Draft, beside: &mut Beside) -> Result<(), FootprintError> {
    let refused = |flag| Err(FootprintError::DraftFlag { engine: host.case.profile.name.clone(), flag });
    if draft.n_ctx.is_some() && !host.case.profile.rules.draft_context {
        return refused("--ctx-size-draft");
    }
    if draft.n_ubatch.is_some() && !host.case.profile.rules.draft_micro_batch {
        return refused("--spec-draft-n-ubatch");
    }
    match &draft.model {
        Some(model) => other_model(host, draft, model, beside),
        None => own_layers(host, draft, beside),
    }
}

/// A context of its own with the settings of the model's, where the draft has none itself: one row of logits per sequence
/// (`common/speculative.cpp:2527-2590`).
fn other_model(host: &Host<'_>, draft: &Draft, model: &Model, beside: &mut Beside) -> Result<(), FootprintError> {
    // Older engines translate between vocabularies (pull request 22787).
    if !host.case.profile.rules.draft_context {
        vocabulary(host.case.model, model)?;
    }
    let all = model.n_layer_all().saturating_add(1);
    let settings = Settings {
        n_ctx: draft.n_ctx.unwrap_or(host.case.context.n_ctx),
        n_ubatch: draft.n_ubatch.unwrap_or(host.case.settings.n_ubatch),
        n_gpu_layers: draft.n_gpu_layers.unwrap_or(if host.case.target.devices.is_empty() { 0 } else { all }),
        cache_type_k: draft.cache_type_k,
        cache_type_v: draft.cache_type_v,
        tensor_overrides: Vec::new(),
        n_cpu_moe: 0,
        ..host.case.settings.clone()
    };
    let profile = EngineProfile { outputs: Outputs::PerSequence, prompt_cache: false, ..host.case.profile.clone() };
    let need = require(model, &settings, host.case.target, &profile).map_err(|error| FootprintError::Draft { reason: Box::new(error) })?;
    for (index, device) in need.devices.into_iter().enumerate() {
        beside.fixed(Some(index), Component::DraftWeights, device.weights);
        beside.fixed(Some(index), Component::DraftCache, device.kv_cache.plus(&device.state));
        beside.fixed(Some(index), Component::DraftCompute, device.compute);
    }
    let own = process::runtime(model, &need.context, host.case.target.devices.len());
    let it = need.host;
    beside.fixed(None, Component::DraftMapped, it.weights_mapped);
    beside.fixed(None, Component::DraftWeights, it.weights_anonymous.plus(&it.weights_repacked));
    beside.fixed(None, Component::DraftCache, it.kv_cache.plus(&it.state));
    beside.fixed(None, Component::DraftCompute, it.compute);
    beside.fixed(None, Component::DraftOutput, with_sampling(model, it.output));
    beside.fixed(None, Component::DraftProgram, own);
    Ok(())
}

/// Entries by which vocabularies may differ.
const VOCABULARY_DIFFERENCE: u64 = 128;

/// The engine refuses a draft whose vocabulary is another: kind, size, first and last token, and the texts of the others, which
/// are not compared here (`common/speculative.cpp:106-170`). Where one of the two is known by its shape alone, sizes are compared.
fn vocabulary(model: &Model, draft: &Model) -> Result<(), FootprintError> {
    let refused = |problem: String| Err(FootprintError::DraftVocabulary { problem });
    let (Some(own), Some(other)) = (&model.tokenizer, &draft.tokenizer) else { return Ok(()) };
    if [own, other].iter().any(|tokenizer| tokenizer.model == "no_vocab") {
        return match model.n_vocab.abs_diff(draft.n_vocab) {
            0..=VOCABULARY_DIFFERENCE => Ok(()),
            _ => refused(format!("it has {} tokens, the model's {}", draft.n_vocab, model.n_vocab)),
        };
    }
    if own.model != other.model {
        return refused(format!("it is of kind {:?}, the model's of {:?}", other.model, own.model));
    }
    if own.n_tokens.abs_diff(other.n_tokens) > VOCABULARY_DIFFERENCE {
        return refused(format!("it has {} tokens, the model's {}", other.n_tokens, own.n_tokens));
    }
    for end in ["bos", "eos"] {
        let of = |model: &Model, key: String| model.metadata.get(&key).cloned();
        let adds = |model| of(model, format!("tokenizer.ggml.add_{end}_token"));
        let is = |model| of(model, format!("tokenizer.ggml.{end}_token_id"));
        match (adds(model), adds(draft)) {
            (Some(own), Some(other)) if own != other => return refused(format!("only one of the two adds a {end} token")),
            (Some(MetaValue::Bool(true)), Some(_)) if is(model).is_some() && is(draft).is_some() && is(model) != is(draft) => {
                return refused(format!("its {end} token is another"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Drafts are sampled by the backend unless it cannot: probabilities and candidates of every output lie beside the logits
/// (`src/llama-context.cpp:2158-2164`).
fn with_sampling(model: &Model, output: Known<Bytes>) -> Known<Bytes> {
    let Some(logits) = output.get() else { return output };
    let rows = logits.get().checked_div(model.n_vocab.saturating_mul(4)).unwrap_or(0);
    let sampled = Bytes::new(model.n_vocab.saturating_mul(3).saturating_add(1).saturating_mul(4)).times(rows);
    Known::estimated(logits + sampled, logits, logits + sampled, "logits of the draft, and what sampling by the backend keeps beside them")
}

/// The model's prediction layers: their weights are loaded, and a context of their own attends over the whole context.
fn own_layers(host: &Host<'_>, draft: &Draft, beside: &mut Beside) -> Result<(), FootprintError> {
    let model = host.case.model;
    if model.n_layer_nextn == 0 {
        return Err(FootprintError::NoPredictionLayers { architecture: model.architecture.clone() });
    }
    let first = model.n_layer();
    let settings = Settings { cache_type_k: draft.cache_type_k, cache_type_v: draft.cache_type_v, ..host.case.settings.clone() };
    let shapes = Shapes::new(model, &settings, &host.case.context);
    let cells = kv_cache::cells_shared(model, &settings, &host.case.context, settings.kv_unified);
    // Some families load single tensors of these layers in any case.
    let skipped = model.tensors.iter().zip(&host.placement.homes).filter(|(_, home)| **home == Home::Unused);
    for (tensor, _) in skipped.filter(|(tensor, _)| tensor.layer().is_some_and(|layer| layer >= first)) {
        let device = tensor.layer().and_then(|layer| host.placement.layer_device(layer));
        match device.and_then(|device| host.case.target.devices.get(device)) {
            Some(on) => {
                let bytes = on.backend.padded(tensor.ty, tensor.shape[0], tensor.bytes);
                beside.fixed(device, Component::DraftWeights, Known::exact(bytes, LAYERS));
            }
            None if host.placement.mapped => beside.fixed(None, Component::DraftMapped, Known::exact(tensor.bytes, LAYERS)),
            None => beside.fixed(None, Component::DraftWeights, Known::exact(tensor.bytes.pad_to(HOST_ALIGNMENT), LAYERS)),
        }
    }
    for (index, layer) in model.layers.iter().enumerate().skip(first as usize) {
        let device = host.placement.layer_devices.get(index).copied().flatten().filter(|_| settings.kv_offload);
        let (k_width, v_width, n_cells) = match (&layer.mixer, shapes.of(&layer.mixer)) {
            // Whole rows of a window, and values beside keys (llama-model.cpp:2590-2617).
            (Mixer::Compressed(attention), _) => (attention.head_dim.into(), attention.head_dim.into(), cells.window),
            (_, Some(shape)) => (shape.k_width, shape.v_width, cells.full),
            (_, None) => continue,
        };
        let rows = u64::from(n_cells) * u64::from(cells.streams);
        let row = |ty: QuantType, width| ty.row_bytes(width).unwrap_or(Bytes::ZERO).times(rows);
        let bytes = row(settings.cache_type_k, k_width) + row(settings.cache_type_v, v_width);
        beside.fixed(
            device,
            Component::DraftCache,
            Known::exact(bytes, "prediction layers over the whole context (llama-kv-cache.cpp:65-250)"),
        );
    }
    let device = host.placement.layer_device(first);
    beside.fixed(device, Component::DraftCompute, prediction_compute(host, draft, u64::from(cells.full)));
    let logits = Bytes::new(model.n_vocab).times(4).times(u64::from(host.case.settings.n_parallel.max(1)));
    beside.fixed(None, Component::DraftOutput, with_sampling(model, Known::exact(logits, "llama-context.cpp:2118-2260")));
    Ok(())
}

const LAYERS: &str = "tensors of the prediction layers, which are skipped without drafts (src/llama-model-loader.cpp, load_mtp)";

/// One layer over a micro-batch, by the closed form of a dense block with flash attention; found on a logged 520.06 MiB.
fn prediction_compute(host: &Host<'_>, draft: &Draft, cells: u64) -> Known<Bytes> {
    let model = host.case.model;
    let widest = model.layers.iter().skip(model.n_layer() as usize).map(|layer| match &layer.feed_forward {
        FeedForward::Dense { n_ff } => *n_ff,
        FeedForward::Experts(e) => e.n_ff.saturating_mul(u64::from(e.used)).max(e.n_ff_shared),
        FeedForward::None => 0,
    });
    let (n_ff, n_embd) = (widest.max().unwrap_or(0) as f64, model.n_embd as f64);
    let n_ubatch = draft.n_ubatch.map_or(host.case.context.n_ubatch, |n_ubatch| n_ubatch.min(host.case.context.n_batch));
    let tokens = f64::from(n_ubatch.min(host.case.context.n_ctx));
    let value = Bytes::from_f64((3.0 * n_ff + 2.0 * n_embd) * tokens * 4.0 + cells as f64 * tokens * 2.0);
    Known::estimated(value, value.scale(0.6), value.scale(1.6), "closed form of one block (3 n_ff + 2 n_embd) × tokens × 4 B, and the mask")
}
