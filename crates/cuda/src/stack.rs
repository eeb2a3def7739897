//! Whole layers on a GPU: a token's hidden state stays on the device from the first of them to the last.

use crate::arena::{Arena, beyond};
use crate::device::Gpu;
use crate::error::GpuError;
use crate::kernel::{Attend, GATED_COLUMNS, Gated, Kernel, Turn, WIDEST_HEAD};
use crate::linear::{MOST_TOKENS, Norm, Pass, QuantizedLinear};
use crate::memory::{ALIGNMENT, Part};
use bitnet::{Activation, CacheType, Config, Layer, Rope, Weights};
use std::ops::Range;
use std::sync::Arc;
use workspace::{Context, StackBytes, Workspace};

/// Sizes of a context on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens that it holds at most.
    pub n_ctx: usize,
    /// Tokens that are computed together, if there is memory for them.
    pub tokens: usize,
    /// How keys and values are stored: F32 or F16.
    pub cache: CacheType,
}

/// Layers of a model on a device, with their keys and values and what a batch is computed in.
///
/// Given the same tokens in 8 bits, each projection is the CPU's to the bit; norms and attention are floats that are summed in another order.
#[derive(Debug)]
pub struct Stack {
    gpu: Arc<Gpu>,
    layers: Vec<OnDevice>,
    /// None after there was no memory for any.
    batch: Option<Batch>,
    config: Config,
    shape: Shape,
    sizes: Sizes,
}

/// What tokens are computed in together.
#[derive(Debug)]
struct Batch {
    arena: Arena,
    /// Cosines and sines of all positions.
    angles: Part,
}

/// What of the model kernels are told.
#[derive(Clone, Copy, Debug)]
struct Shape {
    n_embd: usize,
    n_ff: u32,
    heads: u32,
    key_heads: u32,
    head: u32,
    eps: f32,
    silu: bool,
    /// Keys and values in 16 bits, else in 32.
    halves: bool,
}

/// What a layer has on the device.
#[derive(Debug)]
struct OnDevice {
    attn_norm: Part,
    attn_sub_norm: Part,
    ffn_norm: Part,
    ffn_sub_norm: Part,
    q: QuantizedLinear,
    k: QuantizedLinear,
    v: QuantizedLinear,
    output: QuantizedLinear,
    gate: QuantizedLinear,
    up: QuantizedLinear,
    down: QuantizedLinear,
    keys: Part,
    values: Part,
}

impl Stack {
    /// Copies layers to the device, in three buffers. Where memory is short, a batch is made of fewer tokens, which is logged; [`Stack::tokens`]
    /// says how many.
    ///
    /// # Errors
    /// Layers that are not there, a cache or heads that kernels do not have, no memory even for one token at a time, a device that is lost.
    pub fn new(gpu: Arc<Gpu>, weights: &Weights, layers: Range<usize>, sizes: Sizes) -> Result<Self, GpuError> {
        let config = weights.config();
        let asked = || GpuError::Size(format!("layers {} to {} of a model of {}", layers.start, layers.end, config.n_layer));
        let chosen = weights.layers().get(layers.clone()).filter(|layers| !layers.is_empty()).ok_or_else(asked)?;
        check(config, sizes)?;
        let stack = Self::shape(config, chosen.len());
        let too_large = || GpuError::Size(format!("a context of {} tokens is beyond any memory", sizes.n_ctx));
        let layer = stack.layer(ALIGNMENT).ok_or_else(too_large)?;
        let kept = stack.kept(ALIGNMENT, context(sizes)).ok_or_else(too_large)?;
        let all = stack.in_three(ALIGNMENT, Context { tokens: 1, ..context(sizes) }).ok_or_else(too_large)?;
        let codes = gpu.buffer("weights", all.weights.get())?;
        let cache = gpu.buffer("keys and values", all.kv_cache.get())?;
        let place = |(i, weights): (usize, &Layer)| {
            let (codes, cache) = (codes.behind(i as u64 * layer.total().get()), cache.behind(i as u64 * kept.total().get()));
            OnDevice::new(weights, &Parts { layer: &layer, codes, kept: &kept, cache })
        };
        let layers = chosen.iter().enumerate().map(place).collect::<Result<Vec<_>, _>>()?;
        let (config, shape) = (config.clone(), Shape::of(config, sizes.cache));
        let mut stack = Self { layers, batch: None, config, shape, sizes, gpu };
        stack.resize(sizes.tokens)?;
        Ok(stack)
    }

    /// Computes so many tokens together from now on, or as many as there is memory for, which is logged. Keys and values stay.
    ///
    /// # Errors
    /// No memory even for one token at a time, a device that is lost: then nothing is computed any more.
    pub fn resize(&mut self, tokens: usize) -> Result<(), GpuError> {
        // What is held goes first: there may be no memory for both.
        self.batch = None;
        let shape = Self::shape(&self.config, self.layers.len());
        let (arena, angles) = batch(&self.gpu, &shape, Sizes { tokens: tokens.max(1), ..self.sizes })?;
        // A device has the angles of every position.
        let mut table = Rope::new(self.sizes.n_ctx, self.config.head_dim, self.config.rope_base);
        table.go_to(0, self.sizes.n_ctx);
        angles.write(bytemuck::cast_slice(table.angles()))?;
        self.batch = Some(Batch { arena, angles });
        Ok(())
    }

    /// What [`Stack::new`] holds for so many layers of a model, to the byte. `None` beyond 2⁶⁴.
    pub fn bytes(config: &Config, n_layer: usize, sizes: Sizes) -> Option<StackBytes> {
        Self::shape(config, n_layer).in_three(ALIGNMENT, context(sizes))
    }

    /// What `workspace` knows of so many layers of a model.
    pub fn shape(config: &Config, n_layer: usize) -> workspace::Stack {
        let count = |number: usize| number as u64;
        workspace::Stack {
            n_layer: count(n_layer),
            n_embd: count(config.n_embd),
            n_ff: count(config.n_ff),
            q_width: count(config.q_width()),
            kv_width: count(config.kv_width()),
            head_dim: count(config.head_dim),
        }
    }

    /// Tokens that are computed together; 0 after there was no memory for any.
    pub fn tokens(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| batch.arena.tokens())
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Layers.
    pub fn n_layer(&self) -> usize {
        self.layers.len()
    }

    /// Adds to the streams `x` of tokens from position `start` on what these layers add.
    ///
    /// # Errors
    /// No whole tokens, more than the context holds, a device that is lost. What the context held before `start` stays.
    pub fn add(&mut self, start: usize, x: &mut [f32]) -> Result<(), GpuError> {
        let (width, n_ctx) = (self.shape.n_embd, self.sizes.n_ctx);
        let tokens = x.len() / width;
        if tokens * width != x.len() || start.checked_add(tokens).is_none_or(|end| end > n_ctx) {
            let values = x.len();
            return Err(GpuError::Size(format!("{values} values from position {start} in a context of {n_ctx}")));
        }
        let batch = self.batch.as_ref().ok_or_else(|| GpuError::Size("there was no memory for any batch".into()))?;
        let together = batch.arena.tokens();
        for (i, x) in x.chunks_mut(together * width).enumerate() {
            self.pass(batch, start + i * together, x)?;
        }
        Ok(())
    }

    fn pass(&self, batch: &Batch, start: usize, x: &mut [f32]) -> Result<(), GpuError> {
        let tokens = x.len() / self.shape.n_embd;
        let pass = Pass { gpu: &self.gpu, arena: &batch.arena, tokens: tokens as u32 };
        batch.arena.tell(tokens, start)?;
        batch.arena.write("stream", bytemuck::cast_slice(x))?;
        for layer in &self.layers {
            self.layer(&pass, &batch.angles, layer)?;
        }
        batch.arena.part("stream")?.read(bytemuck::cast_slice_mut(x))
    }

    /// What a layer computes, in order.
    fn layer(&self, pass: &Pass<'_>, angles: &Part, layer: &OnDevice) -> Result<(), GpuError> {
        let norm = |part: &Part| Some(Norm { weights: part.at(), eps: self.shape.eps });
        layer.q.prepare(pass, "stream", norm(&layer.attn_norm))?;
        layer.q.multiply(pass, "queries")?;
        layer.k.multiply(pass, "keys")?;
        layer.v.multiply(pass, "values")?;
        self.attention(pass, angles, layer)?;
        layer.output.prepare(pass, "mixed", norm(&layer.attn_sub_norm))?;
        layer.output.multiply(pass, "stream")?;
        layer.gate.prepare(pass, "stream", norm(&layer.ffn_norm))?;
        layer.gate.multiply(pass, "gate")?;
        layer.up.multiply(pass, "up")?;
        self.gated(pass)?;
        layer.down.prepare(pass, "gate", norm(&layer.ffn_sub_norm))?;
        layer.down.multiply(pass, "stream")
    }

    /// Turns queries and keys, keeps keys and values, and mixes values.
    fn attention(&self, pass: &Pass<'_>, angles: &Part, layer: &OnDevice) -> Result<(), GpuError> {
        let (keys, values) = (&layer.keys, &layer.values);
        let (arena, Shape { heads, key_heads, head, halves, .. }) = (pass.arena, self.shape);
        let turn = Turn {
            batch: arena.at("batch")?,
            queries: arena.at("queries")?,
            keys: arena.at("keys")?,
            values: arena.at("values")?,
            kept_keys: keys.at(),
            kept_values: values.at(),
            angles: angles.at(),
            heads,
            key_heads,
            head,
            unused: 0,
        };
        pass.gpu.launch(if halves { Kernel::TurnF16 } else { Kernel::TurnF32 }, (heads + key_heads, pass.tokens), &turn)?;
        let attend = Attend {
            batch: arena.at("batch")?,
            queries: arena.at("queries")?,
            keys: keys.at(),
            values: values.at(),
            mixed: arena.at("mixed")?,
            heads,
            key_heads,
            head,
            unused: 0,
        };
        pass.gpu.launch(if halves { Kernel::AttendF16 } else { Kernel::AttendF32 }, (heads, pass.tokens), &attend)
    }

    fn gated(&self, pass: &Pass<'_>) -> Result<(), GpuError> {
        let (width, silu) = (self.shape.n_ff, u32::from(self.shape.silu));
        let gated = Gated { gate: pass.arena.at("gate")?, up: pass.arena.at("up")?, width, silu };
        pass.gpu.launch(Kernel::Gated, (width.div_ceil(GATED_COLUMNS), pass.tokens), &gated)
    }
}

/// Where a layer lies.
struct Parts<'a> {
    layer: &'a Workspace,
    codes: Part,
    kept: &'a Workspace,
    cache: Part,
}

impl Parts<'_> {
    fn part(&self, name: &str) -> Result<Part, GpuError> {
        let missing = || GpuError::Size(format!("a layer has no {name}"));
        let codes = self.layer.region(name).map(|region| self.codes.region(region));
        codes.or_else(|| self.kept.region(name).map(|region| self.cache.region(region))).ok_or_else(missing)
    }
}

impl OnDevice {
    /// Copies a layer.
    fn new(layer: &Layer, parts: &Parts<'_>) -> Result<Self, GpuError> {
        let norm = |name: &str, weights: &[f32]| {
            let part = parts.part(name)?;
            part.write(bytemuck::cast_slice(weights))?;
            Ok(part)
        };
        let linear = |name: &str, linear: &kernels::QuantizedLinear, adds| QuantizedLinear::at(parts.part(name)?, linear.weights(), adds);
        Ok(Self {
            attn_norm: norm("attn_norm", &layer.attn_norm)?,
            attn_sub_norm: norm("attn_sub_norm", &layer.attn_sub_norm)?,
            ffn_norm: norm("ffn_norm", &layer.ffn_norm)?,
            ffn_sub_norm: norm("ffn_sub_norm", &layer.ffn_sub_norm)?,
            q: linear("q", &layer.q, false)?,
            k: linear("k", &layer.k, false)?,
            v: linear("v", &layer.v, false)?,
            output: linear("output", &layer.output, true)?,
            gate: linear("gate", &layer.gate, false)?,
            up: linear("up", &layer.up, false)?,
            down: linear("down", &layer.down, true)?,
            keys: parts.part("keys")?,
            values: parts.part("values")?,
        })
    }
}

impl Shape {
    fn of(config: &Config, cache: CacheType) -> Self {
        Self {
            n_embd: config.n_embd,
            n_ff: config.n_ff as u32,
            heads: config.n_head as u32,
            key_heads: config.n_head_kv as u32,
            head: config.head_dim as u32,
            eps: config.rms_eps,
            silu: config.activation == Activation::Silu,
            halves: cache == CacheType::F16,
        }
    }
}

fn context(sizes: Sizes) -> Context {
    Context { n_ctx: sizes.n_ctx as u64, tokens: sizes.tokens as u64, element: sizes.cache.bytes(1) as u64 }
}

/// Whether the kernels can compute contexts of these sizes.
fn check(config: &Config, sizes: Sizes) -> Result<(), GpuError> {
    let Sizes { n_ctx, tokens, cache } = sizes;
    if n_ctx == 0 || tokens == 0 || u32::try_from(n_ctx).is_err() {
        return Err(GpuError::Size(format!("a context of {n_ctx} tokens, {tokens} at a time, cannot be")));
    }
    if !matches!(cache, CacheType::F32 | CacheType::F16) {
        return Err(GpuError::Size(format!("a GPU keeps keys and values in F32 or F16, not in {cache:?}")));
    }
    if config.head_dim > WIDEST_HEAD {
        return Err(GpuError::Size(format!("heads of {} elements: the kernels have {WIDEST_HEAD} at most", config.head_dim)));
    }
    let counted = [config.n_ff, config.n_embd, config.q_width(), config.kv_width()].into_iter().all(|width| u32::try_from(width).is_ok());
    if counted { Ok(()) } else { Err(GpuError::Size("widths beyond what kernels count".to_owned())) }
}

/// The arena and where the rotary angles lie behind it, for as many tokens as there is memory for.
fn batch(gpu: &Gpu, stack: &workspace::Stack, sizes: Sizes) -> Result<(Arena, Part), GpuError> {
    let of = |tokens: usize| {
        let workspace = stack.arena(tokens as u64, ALIGNMENT);
        let angles = stack.angles(sizes.n_ctx as u64);
        let total = workspace.as_ref().and_then(|workspace| workspace.total().get().checked_add(angles?));
        let (Some(workspace), Some(total)) = (workspace, total) else { return Err(beyond(tokens)) };
        let buffer = gpu.buffer("a batch", total)?;
        let angles = buffer.behind(workspace.total().get());
        Ok((Arena::of(buffer, workspace, tokens)?, angles))
    };
    let mut tokens = sizes.tokens.min(MOST_TOKENS);
    loop {
        match of(tokens) {
            Err(error @ (GpuError::OutOfMemory { .. } | GpuError::Size(_))) if tokens > 1 => {
                tracing::warn!(from = tokens, to = tokens / 2, %error, "a smaller batch");
                tokens /= 2;
            }
            other => return other,
        }
    }
}

impl bitnet::Stack for Stack {
    fn n_layer(&self) -> usize {
        Self::n_layer(self)
    }

    fn add(&mut self, start: usize, x: &mut [f32]) -> Result<(), bitnet::StackError> {
        Self::add(self, start, x).map_err(Into::into)
    }
}

#[cfg(test)]
mod tests;
