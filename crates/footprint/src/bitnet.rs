//! What the BitNet engine of this program allocates (crates `bitnet` and `kernels`): closed sums, equal to a counting allocator to the byte
//! (`crates/bitnet/tests/memory.rs`).
//!
//! It computes one sequence on the CPU, weights in place in the mapped file, and the last `n_gpu_layers` layers, of which the output head is the
//! last one as llama.cpp counts them, on the first device, where that is one of wgpu's or one that our own kernels reach through CUDA. What it does not have (repacking, prompt caches, checkpoints) is nothing.

mod explain;

pub(crate) use explain::steps;

use crate::context;
use crate::error::FootprintError;
use crate::requirement::{DeviceRequirement, HostRequirement, Requirement, ResolvedContext};
use crate::{Backend, Companions, Device, EngineProfile, Rules, Target};
use spec::model::{FeedForward, Mixer, Tensor};
use spec::{Bytes, Known, Model, QuantType, Settings};
use workspace::{Context, Device as Limits, Head as OnDevice, Stack, StackBytes};

/// How the output head is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Head {
    /// As the file has it.
    #[default]
    File,
    /// In `q8_0`: half of the bytes that a token reads of an f16 head, for a copy in memory.
    Q8_0,
}

/// What of the engine decides its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitNet {
    /// How the output head is kept; `None` leaves that to a plan, and without one it is as the file has it.
    pub head: Option<Head>,
    /// The file's `I2_S` codes lie as the kernels read them (in blocks of 128): else they are copied.
    pub in_place: bool,
}

impl Default for BitNet {
    /// The head as a plan chooses it, and the layout of almost all files.
    fn default() -> Self {
        Self { head: None, in_place: true }
    }
}

impl BitNet {
    /// The same with the head kept so.
    pub fn with_head(self, head: Head) -> Self {
        Self { head: Some(head), ..self }
    }
}

/// Its name as an engine, and after a colon what is not by default, with commas between: `bitnet:q8_0,blocks64`.
impl std::fmt::Display for BitNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = self.head.map(|head| match head {
            Head::File => "file",
            Head::Q8_0 => "q8_0",
        });
        let words: Vec<&str> = head.into_iter().chain((!self.in_place).then_some("blocks64")).collect();
        let colon = if words.is_empty() { "" } else { ":" };
        write!(f, "bitnet{colon}{}", words.join(","))
    }
}

/// From what [`BitNet`] is written as.
impl std::str::FromStr for BitNet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is not bitnet, or bitnet: with file, q8_0 or blocks64 after it");
        let words = match text.strip_prefix("bitnet").ok_or_else(wrong)? {
            "" => return Ok(Self::default()),
            words => words.strip_prefix(':').ok_or_else(wrong)?,
        };
        words.split(',').try_fold(Self::default(), |engine, word| match word {
            "file" => Ok(engine.with_head(Head::File)),
            "q8_0" => Ok(engine.with_head(Head::Q8_0)),
            "blocks64" => Ok(Self { in_place: false, ..engine }),
            _ => Err(wrong()),
        })
    }
}

/// Sizes that decide buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Tokens of the vocabulary.
    pub n_vocab: u64,
    /// Width of the residual stream.
    pub n_embd: u64,
    /// Width between gate/up and down.
    pub n_ff: u64,
    /// Query heads.
    pub n_head: u64,
    /// Key and value heads.
    pub n_head_kv: u64,
    /// Width of a head.
    pub head_dim: u64,
    /// Layers.
    pub n_layer: u64,
}

/// Values that a row of the kernels' activations is filled up to.
const BLOCK: u64 = 128;

/// True for the architectures that the engine computes.
pub fn is_bitnet(architecture: &str) -> bool {
    matches!(architecture, "bitnet-b1.58" | "bitnet-25" | "bitnet")
}

impl Figures {
    /// Those of a model of such an architecture.
    fn of(model: &Model) -> Option<Self> {
        let layer = model.layers.first().filter(|_| is_bitnet(&model.architecture))?;
        let (Mixer::Attention(attention), FeedForward::Dense { n_ff }) = (&layer.mixer, &layer.feed_forward) else { return None };
        Some(Self {
            n_vocab: model.n_vocab,
            n_embd: model.n_embd,
            n_ff: *n_ff,
            n_head: attention.n_head.into(),
            n_head_kv: attention.n_head_kv.into(),
            head_dim: attention.head_dim_k.into(),
            n_layer: model.layers.len() as u64,
        })
    }

    fn q_width(&self) -> u64 {
        self.n_head.saturating_mul(self.head_dim)
    }

    fn kv_width(&self) -> u64 {
        self.n_head_kv.saturating_mul(self.head_dim)
    }
}

/// Sizes of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens that it holds at most.
    pub n_ctx: u64,
    /// Tokens of a prompt that are computed together.
    pub n_ubatch: u64,
    /// How keys and values are stored: F32, F16 or Q8_0.
    pub cache: QuantType,
    /// The last layers of the model that are on a device, the output head not counted.
    pub on_device: u64,
    /// The output head is on a device.
    pub head_on_device: bool,
}

/// Memory by what it is for. Buffers are exact to the byte: what the engine allocates when it loads a model and makes a context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// Weights that tokens read where they are in the file: pages that the system can drop and read again. A table of which a token reads
    /// a row at most, no head, is not among them.
    pub weights_mapped: Bytes,
    /// Norms, and weights in another layout than the file's.
    pub weights_copied: Bytes,
    /// Keys and values of the whole context.
    pub kv_cache: Bytes,
    /// What a micro-batch is computed in, with its rotary angles.
    pub compute: Bytes,
    /// Logits of one token, and the stream that they come from, also as a head in `q8_0` takes it.
    pub output: Bytes,
}

impl Buffers {
    /// Everything but what is mapped.
    pub fn anonymous(&self) -> Bytes {
        self.weights_copied + self.kv_cache + self.compute + self.output
    }

    /// Everything.
    pub fn total(&self) -> Bytes {
        self.weights_mapped + self.anonymous()
    }

    /// What a model of these figures takes. Saturates.
    pub fn of(model: &Model, figures: &Figures, engine: BitNet, sizes: &Sizes) -> Self {
        let here = figures.n_layer.saturating_sub(sizes.on_device);
        let (weights_mapped, weights_copied) = weights(model, figures, engine, sizes);
        let floats = |count: u64| Bytes::new(count.saturating_mul(4));
        let (q, kv, embd, ff) = (figures.q_width(), figures.kv_width(), figures.n_embd, figures.n_ff);
        // The stream; queries and what attention gives; keys and values; gate and up.
        let streams = [q, kv, ff].into_iter().fold(embd, |sum, width| sum.saturating_add(width.saturating_mul(2)));
        // Integers of the widest input of a linear layer, their sum and their scale.
        let widest = embd.max(ff).max(q);
        let integers = widest.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX).saturating_add(8);
        // Cosines and sines of each token, and the frequencies that they follow from.
        let half = figures.head_dim / 2;
        let angles = half.saturating_mul(2).saturating_mul(4);
        let token = streams.saturating_mul(4).saturating_add(integers).saturating_add(angles);
        let row = sizes.cache.row_bytes(kv).unwrap_or(Bytes::MAX);
        Self {
            weights_mapped,
            weights_copied,
            kv_cache: row.times(sizes.n_ctx).times(here.saturating_mul(2)),
            compute: Bytes::new(token).times(sizes.n_ubatch.min(sizes.n_ctx)) + floats(half),
            output: floats(figures.n_vocab) + floats(embd) + head_input(model, figures, engine),
        }
    }
}

/// What becomes of a tensor when it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Its bytes are read where the file has them.
    InPlace,
    /// A copy of so many bytes is read instead.
    Copied(Bytes),
    /// It is one number, which the layer keeps.
    Scale,
}

impl Use {
    fn of(tensor: &Tensor, engine: BitNet) -> Self {
        let (columns, rows) = (tensor.shape[0], tensor.shape[1]);
        let in_whole_blocks = rows.saturating_mul(columns.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX) / 4);
        match tensor.ty {
            QuantType::I2_S if engine.in_place && columns.is_multiple_of(BLOCK) => Self::InPlace,
            QuantType::I2_S | QuantType::TL1 | QuantType::TL2 | QuantType::TQ1_0 | QuantType::TQ2_0 | QuantType::HF_U2 => {
                Self::Copied(Bytes::new(in_whole_blocks))
            }
            _ if rows == 1 && tensor.name.ends_with("norm.weight") => Self::Copied(Bytes::new(columns.saturating_mul(4))),
            _ if tensor.name.ends_with(".scale") || tensor.name.ends_with(".weight_scale") => Self::Scale,
            _ => Self::InPlace,
        }
    }
}

/// True for tensors of layers behind the first `here`.
fn is_elsewhere(tensor: &Tensor, here: u64) -> bool {
    tensor.layer().is_some_and(|layer| u64::from(layer) >= here)
}

/// Bytes read in place, of what is on no device only, and bytes of copies, which are made of all.
fn weights(model: &Model, figures: &Figures, engine: BitNet, sizes: &Sizes) -> (Bytes, Bytes) {
    let here = figures.n_layer.saturating_sub(sizes.on_device);
    let (mut mapped, mut copied) = (Bytes::ZERO, Bytes::ZERO);
    for tensor in &model.tensors {
        match Use::of(tensor, engine) {
            Use::InPlace
                if is_unread(model, tensor, engine, sizes.head_on_device) || tensor.ty == QuantType::I2_S && is_elsewhere(tensor, here) => {
            }
            Use::InPlace => mapped += tensor.bytes,
            Use::Copied(bytes) => copied += bytes,
            Use::Scale => {}
        }
    }
    let copy = head_copy(model, engine).and_then(|ty| ty.row_bytes(figures.n_embd));
    (mapped, copied + copy.unwrap_or(Bytes::ZERO).times(figures.n_vocab))
}

/// Name of the tensor that logits come from.
fn head(model: &Model) -> &'static str {
    if model.tensor(HEAD).is_some() { HEAD } else { EMBEDDING }
}

/// The type of the file's output head; `None` where it has none.
pub fn head_type(model: &Model) -> Option<QuantType> {
    model.tensor(head(model)).map(|tensor| tensor.ty)
}

/// The type of a copy of the output head that tokens read instead of the file's; `None` where there is no copy.
pub fn head_copy(model: &Model, engine: BitNet) -> Option<QuantType> {
    let wider = head_type(model).is_some_and(|ty| ty != QuantType::Q8_0);
    (wider && engine.head == Some(Head::Q8_0)).then_some(QuantType::Q8_0)
}

/// The model as tokens read it with such a copy, for speeds: the copy is its output head.
pub fn with_copied_head(model: &Model, ty: QuantType) -> Model {
    let mut copied = model.clone();
    let Some(tensor) = model.tensor(head(model)) else { return copied };
    let bytes = ty.tensor_bytes(tensor.shape).unwrap_or(tensor.bytes);
    copied.tensors.retain(|other| other.name != HEAD);
    copied.tensors.push(Tensor { name: HEAD.to_owned(), ty, bytes, ..tensor.clone() });
    copied.tied_embeddings = false;
    copied
}

/// A block of 32 integers of 16 bits with a scale.
const HEAD_BLOCK: Bytes = Bytes::new(32 * 2 + 4);

/// What a token is converted into for a head in `q8_0` (`kernels::DenseScratch`).
fn head_input(model: &Model, figures: &Figures, engine: BitNet) -> Bytes {
    let ty = head_copy(model, engine).or(head_type(model));
    if ty == Some(QuantType::Q8_0) { HEAD_BLOCK.times(figures.n_embd / 32) } else { Bytes::ZERO }
}

const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";
const SUMS: &str = "what the BitNet engine allocates (footprint::bitnet)";
const NONE: &str = "the BitNet engine has none";

/// The requirement of one configuration, as [`crate::require()`] gives it.
pub(crate) fn require(
    model: &Model,
    settings: &Settings,
    target: &Target,
    profile: &EngineProfile,
    companions: &Companions,
    engine: BitNet,
) -> Result<Requirement, FootprintError> {
    let refuse = |reason: String| FootprintError::BitNet { reason };
    let figures =
        Figures::of(model).ok_or_else(|| refuse(format!("it computes bitnet-b1.58, bitnet-25 and bitnet, not {}", model.architecture)))?;
    if !companions.is_empty() {
        return Err(refuse("it loads nothing beside a model".to_owned()));
    }
    let context = context(model, settings, profile)?;
    let cache = settings.cache_type_k;
    let device = target.devices.first().filter(|device| device.backend.is_own()).filter(|_| settings.n_gpu_layers > 0);
    let (on_device, head_on_device) = device.map_or((0, false), |_| on_devices(settings.n_gpu_layers, figures.n_layer));
    let sizes = Sizes { n_ctx: context.n_ctx.into(), n_ubatch: context.n_ubatch.into(), cache, on_device, head_on_device };
    let buffers = Buffers::of(model, &figures, engine, &sizes);
    let none = || Known::exact(Bytes::ZERO, NONE);
    let exact = |bytes: Bytes| Known::exact(bytes, SUMS);
    let files: Bytes = model.files.iter().map(|file| file.size).sum();
    let looked_up = looked_up(model, engine);
    let host = HostRequirement {
        weights_mapped: exact(buffers.weights_mapped),
        mapped_span: exact(buffers.weights_mapped),
        // Headers are read from the mapping, and originals of copies; of a table only the rows that are looked up.
        mapped_touched: Known::estimated(
            files.saturating_sub(looked_up),
            files.saturating_sub(looked_up),
            files,
            "the file (footprint::bitnet)",
        ),
        mapped_shared: none(),
        weights_anonymous: exact(buffers.weights_copied),
        weights_repacked: none(),
        kv_cache: exact(buffers.kv_cache),
        state: none(),
        compute: exact(buffers.compute),
        output: exact(buffers.output),
        output_growth: none(),
        runtime: device.into_iter().fold(runtime(model), |sum, device| sum.plus(&device.backend.runtime_host)),
        in_use: exact(buffers.compute),
        prompt_cache: none(),
        checkpoints: none(),
        weights_rarely_read: none(),
        beside: Vec::new(),
        pinned: none(),
    };
    let mut devices: Vec<_> = target.devices.iter().map(|device| unused(&device.name, device.shares_host)).collect();
    if let (Some(device), Some(used)) = (device, devices.first_mut()) {
        *used = on(device, model, &figures, engine, &sizes).map_err(refuse)?;
    }
    let first = (figures.n_layer - on_device) as usize;
    let layer_devices = (0..=model.layers.len()).map(|layer| (head_on_device && layer >= first).then_some(0)).collect();
    Ok(Requirement {
        devices,
        host,
        notes: notes(model, target),
        graph: None,
        layer_devices,
        context,
        head: head_copy(model, engine),
        own_kernels: true,
        sliced: false,
    })
}

/// Layers on a device of the last so many, and whether the output head is, which is the last of all (llama.cpp, `src/llama-model.cpp:1591`,
/// `load_tensors`: `i_gpu_start = n_layer + 1 - n_gpu_layers`).
pub fn on_devices(n_gpu_layers: u32, n_layer: u64) -> (u64, bool) {
    (n_layer.min(u64::from(n_gpu_layers).saturating_sub(1)), n_gpu_layers > 0)
}

/// The context, which is not padded.
fn context(model: &Model, settings: &Settings, profile: &EngineProfile) -> Result<ResolvedContext, FootprintError> {
    let refuse = |reason: String| Err(FootprintError::BitNet { reason });
    let (k, v) = (settings.cache_type_k, settings.cache_type_v);
    if !matches!(k, QuantType::F32 | QuantType::F16 | QuantType::Q8_0) || k != v {
        return refuse(format!("keys and values are kept in one type, f32, f16 or q8_0: {k} and {v}"));
    }
    if settings.n_parallel != 1 {
        return refuse(format!("it holds one sequence: n_parallel {}", settings.n_parallel));
    }
    if settings.embeddings {
        return refuse("it hands out no embeddings".to_owned());
    }
    let context = context::resolve(model, settings, profile)?;
    let n_ctx = if settings.n_ctx == 0 { context.n_ctx } else { settings.n_ctx };
    Ok(ResolvedContext {
        n_ctx,
        n_ctx_seq: n_ctx,
        n_ubatch: context.n_ubatch.min(n_ctx),
        n_outputs: 1,
        flash_attn: true,
        rules: Rules::CURRENT,
        ..context
    })
}

/// Of the mapped file: a table of which a token reads one row, and which is no head.
fn looked_up(model: &Model, engine: BitNet) -> Bytes {
    let own_head = head(model) != EMBEDDING;
    let table = model.tensor(EMBEDDING).filter(|_| own_head && head_copy(model, engine).is_none());
    table.map_or(Bytes::ZERO, |table| table.bytes)
}

/// Of the weights used in place: what tokens do not read but for a row, and what only a copy was made of, here or on a device.
fn is_unread(model: &Model, tensor: &Tensor, engine: BitNet, head_on_device: bool) -> bool {
    let (copied, head) = (head_on_device || head_copy(model, engine).is_some(), head(model));
    if tensor.name == EMBEDDING { copied || head != EMBEDDING } else { copied && tensor.name == head }
}

/// Anonymous memory of a vocabulary per token and per merge, and of everything else: texts and tables of the crate `tokenizers`, and what
/// the reader of the file leaves to the heap.
const TOKEN: Bytes = Bytes::new(230);
const MERGE: Bytes = Bytes::new(72);
const PROGRAM: Bytes = Bytes::from_kib(1280);

fn runtime(model: &Model) -> Known<Bytes> {
    let (tokens, merges) = tokenizer(model);
    let value = TOKEN.times(tokens) + MERGE.times(merges) + PROGRAM;
    Known::estimated(value, value.scale(0.3), value.scale(2.0) + Bytes::from_mib(8), "tables of the tokenizer (footprint::bitnet)")
}

/// What the last layers of a model take on a device: the sums of crate `workspace`, which the device's allocator confirms
/// (`crates/gpu/tests/memory.rs`; of CUDA a pretended one, `crates/cuda/tests/memory.rs`).
fn on(device: &Device, model: &Model, figures: &Figures, engine: BitNet, sizes: &Sizes) -> Result<DeviceRequirement, String> {
    let name = &device.name;
    let element = match sizes.cache {
        QuantType::F32 => 4,
        QuantType::F16 => 2,
        other => return Err(format!("{name} keeps keys and values in f32 or f16, not in {other}")),
    };
    let ty = head_copy(model, engine).or(head_type(model)).filter(|_| sizes.head_on_device);
    let stack = Stack {
        head: ty.map(|ty| OnDevice { n_vocab: figures.n_vocab, n_embd: figures.n_embd, ty }),
        n_layer: sizes.on_device,
        n_embd: figures.n_embd,
        n_ff: figures.n_ff,
        q_width: figures.q_width(),
        kv_width: figures.kv_width(),
        head_dim: figures.head_dim,
    };
    let context = Context { n_ctx: sizes.n_ctx, tokens: sizes.n_ubatch.min(sizes.n_ctx), element };
    let context = Context { tokens: stack.together(context.tokens), ..context };
    let (bytes, scratch) = if device.backend.name == Backend::OWN_CUDA {
        let beyond = || format!("layers of {} tokens are beyond any memory", sizes.n_ctx);
        (stack.in_three(device.backend.alignment, context).ok_or_else(beyond)?, pages())
    } else {
        (in_pieces(device, &stack, context)?, staged(figures, context))
    };
    let exact = |bytes: Bytes| Known::exact(bytes, "what the BitNet engine allocates on a device (workspace::stack)");
    Ok(DeviceRequirement {
        weights: exact(bytes.weights),
        kv_cache: exact(bytes.kv_cache),
        compute: exact(bytes.compute),
        runtime: device.backend.runtime.clone(),
        scratch,
        ..unused(name, device.shares_host)
    })
}

/// Layers on a device that limits the pieces of memory which a kernel is given.
fn in_pieces(device: &Device, stack: &Stack, context: Context) -> Result<StackBytes, String> {
    let largest = device.backend.max_tensor.unwrap_or(Bytes::MAX);
    let limits = Limits { alignment: device.backend.alignment, largest };
    let beyond = || format!("layers of {} tokens are beyond what {} allows in one piece: {largest}", context.n_ctx, device.name);
    stack.bytes(limits, context).filter(|_| stack.largest_piece(context).is_some_and(|piece| piece <= largest)).ok_or_else(beyond)
}

/// Streams on their way to the device and what wgpu keeps of zeros.
fn staged(figures: &Figures, context: Context) -> Known<Bytes> {
    let staged = Bytes::from_kib(512) + Bytes::new(context.tokens.saturating_mul(figures.n_embd).saturating_mul(4));
    Known::estimated(staged, Bytes::ZERO, staged.scale(2.0), "wgpu's own copies")
}

/// What three buffers of CUDA are filled up to: pages of 2 MiB each (the granularity of `cuMemGetAllocationGranularity` on current GPUs).
fn pages() -> Known<Bytes> {
    Known::estimated(Bytes::from_mib(3), Bytes::ZERO, Bytes::from_mib(6), "three buffers in pages of 2 MiB; no measurement")
}

/// Tokens and merges of its vocabulary.
fn tokenizer(model: &Model) -> (u64, u64) {
    // A folder's `tokenizer.json` is not read for a plan: byte-level vocabularies have about two merges per token at most.
    let tokenizer = model.tokenizer.as_ref().map(|tokenizer| (tokenizer.n_tokens, tokenizer.n_merges));
    tokenizer.unwrap_or_else(|| (model.n_vocab, model.n_vocab.saturating_mul(2)))
}

fn unused(name: &str, shares_host: bool) -> DeviceRequirement {
    let none = || Known::exact(Bytes::ZERO, NONE);
    DeviceRequirement {
        name: name.to_owned(),
        weights: none(),
        weights_mapped: none(),
        kv_cache: none(),
        state: none(),
        compute: none(),
        runtime: none(),
        scratch: none(),
        beside: Vec::new(),
        shares_host,
    }
}

fn notes(model: &Model, target: &Target) -> Vec<String> {
    let copies = model.tensors.iter().any(|tensor| matches!(tensor.ty, QuantType::TQ1_0 | QuantType::TQ2_0 | QuantType::HF_U2));
    let copied = copies.then(|| "ternary weights are copied to the layout of I2_S, which the kernels read".to_owned());
    let idle = match target.devices.split_first() {
        Some((first, others)) if !others.is_empty() => {
            let names: Vec<&str> = others.iter().map(|device| device.name.as_str()).collect();
            Some(format!("the BitNet engine uses one GPU: {}, and not {}", first.name, names.join(", ")))
        }
        _ => None,
    };
    copied.into_iter().chain(idle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_read_as_it_is_written() {
        for head in [None, Some(Head::File), Some(Head::Q8_0)] {
            for in_place in [true, false] {
                let engine = BitNet { head, in_place };
                assert_eq!(engine.to_string().parse(), Ok(engine), "{engine}");
            }
        }
        assert_eq!(BitNet::default().to_string(), "bitnet");
        assert_eq!((BitNet { head: Some(Head::Q8_0), in_place: false }).to_string(), "bitnet:q8_0,blocks64");
        for wrong in ["", "bitnet:", "bitnets", "bitnet:q4_0", "bitnet:file,", "llama"] {
            assert!(wrong.parse::<BitNet>().unwrap_err().starts_with(wrong), "{wrong}");
        }
    }
}
