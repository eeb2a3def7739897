//! Whole layers on a GPU: a token's hidden state stays on the device from the first of them to the last.

use crate::arena::{Arena, beyond};
use crate::device::Gpu;
use crate::error::GpuError;
use crate::head::Head;
use crate::kernel::{Attend, GATED_COLUMNS, Gated, Kernel, Turn, WIDEST_HEAD};
use crate::linear::{MOST_TOKENS, Norm, Pass, QuantizedLinear};
use crate::memory::{ALIGNMENT, Part};
use bitnet::{Activation, Batches, CacheType, Config, Layer, Rope, Sizes, Weights};
use std::ops::Range;
use std::sync::Arc;
use workspace::{Behind, Context, StackBytes, Workspace};

/// Layers of a model on a device, with their keys and values and what a batch is computed in, and the output head if it is there as well.
///
/// Given the same tokens in 8 bits, each projection is the CPU's to the bit; norms and attention are floats that are summed in another order.
#[derive(Debug)]
pub struct Stack {
    gpu: Arc<Gpu>,
    layers: Vec<OnDevice>,
    head: Option<Head>,
    part: workspace::Stack,
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
    /// Where a head computes.
    logits: Part,
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
    /// Copies layers to the device, of which `n_layer` is the output head ([`Weights::part`]), in three buffers. Where memory is short, a batch is made of fewer tokens, which is logged; [`Stack::tokens`]
    /// says how many.
    ///
    /// # Errors
    /// Layers that are not there, a cache or heads that kernels do not have, no memory even for one token at a time, a device that is lost.
    pub fn new(gpu: Arc<Gpu>, weights: &Weights, layers: Range<usize>, sizes: Sizes) -> Result<Self, GpuError> {
        let config = weights.config();
        let asked = || GpuError::Size(format!("layers {} to {} of a model of {}", layers.start, layers.end, config.n_layer));
        let (chosen, stack) = weights.part(layers.clone()).ok_or_else(asked)?;
        check(config, sizes)?;
        let too_large = || GpuError::Size(format!("a context of {} tokens is beyond any memory", sizes.n_ctx));
        let layer = stack.layer(ALIGNMENT).ok_or_else(too_large)?;
        let kept = stack.kept(ALIGNMENT, sizes.context()).ok_or_else(too_large)?;
        let all = stack.in_three(ALIGNMENT, Context { tokens: 1, ..sizes.context() }).ok_or_else(too_large)?;
        let codes = gpu.buffer("weights", all.weights.get())?;
        let mut layers = Vec::with_capacity(chosen.len());
        if !chosen.is_empty() {
            let cache = gpu.buffer("keys and values", all.kv_cache.get())?;
            for (i, weights) in (0..).zip(chosen) {
                let (codes, cache) = (codes.behind(i * layer.total().get()), cache.behind(i * kept.total().get()));
                layers.push(OnDevice::new(weights, &Parts { layer: &layer, codes, kept: &kept, cache })?);
            }
        }
        // The head lies behind the layers.
        let behind = codes.behind(chosen.len() as u64 * layer.total().get());
        let head = stack.head.map(|head| Head::at(&behind, weights, head)).transpose()?;
        let (config, shape) = (config.clone(), Shape::of(config, sizes.cache));
        let mut on_device = Self { layers, head, part: stack, batch: None, config, shape, sizes, gpu };
        on_device.resize(sizes.tokens)?;
        Ok(on_device)
    }

    /// Computes so many tokens together from now on, or as many as there is memory for, which is logged. Keys and values stay.
    ///
    /// # Errors
    /// No memory even for one token at a time, a device that is lost: then nothing is computed any more.
    pub fn resize(&mut self, tokens: usize) -> Result<(), GpuError> {
        // What is held goes first: there may be no memory for both.
        self.batch = None;
        let batch = batch(&self.gpu, &self.part, Sizes { tokens: tokens.max(1), ..self.sizes })?;
        // A device has the angles of every position.
        let mut table = Rope::new(self.sizes.n_ctx, self.config.head_dim, self.config.rope_base);
        table.go_to(0, self.sizes.n_ctx);
        batch.angles.write(bytemuck::cast_slice(table.angles()))?;
        self.batch = Some(batch);
        Ok(())
    }

    /// What [`Stack::new`] holds of a part of a model ([`Weights::part`]), to the byte. `None` beyond 2⁶⁴.
    pub fn bytes(part: &workspace::Stack, sizes: Sizes) -> Option<StackBytes> {
        part.in_three(ALIGNMENT, sizes.context())
    }

    /// Tokens that are computed together; 0 after there was no memory for any.
    pub fn tokens(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| batch.arena.tokens())
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Layers, the head not counted.
    pub fn n_layer(&self) -> usize {
        self.layers.len()
    }

    /// Whether it has the output head.
    pub fn has_head(&self) -> bool {
        self.head.is_some()
    }

    /// Adds to the streams `x` of tokens from position `start` on what these layers add; a head alone adds nothing.
    ///
    /// # Errors
    /// No whole tokens, more than the context holds, a device that is lost. What the context held before `start` stays.
    pub fn add(&mut self, start: usize, x: &mut [f32]) -> Result<(), GpuError> {
        self.passes(start, x, None)
    }

    /// The same, and the logits behind the last of the tokens, as many as the vocabulary has; of the streams nothing is said then.
    ///
    /// # Errors
    /// As [`Stack::add`]; no head, or one of another vocabulary.
    pub fn add_and_tell(&mut self, start: usize, x: &mut [f32], logits: &mut [f32]) -> Result<(), GpuError> {
        self.passes(start, x, Some(logits))
    }

    fn passes(&self, start: usize, x: &mut [f32], mut logits: Option<&mut [f32]>) -> Result<(), GpuError> {
        let batches = Batches {
            n_embd: self.config.n_embd,
            n_ctx: self.sizes.n_ctx,
            n_layer: self.layers.len(),
            n_vocab: self.head.as_ref().map_or(0, Head::n_vocab),
            tokens: self.tokens(),
        };
        let told = logits.as_ref().map(|logits| logits.len());
        for pass in batches.passes(start, x.len(), told).map_err(GpuError::Batch)? {
            let (Some(batch), Some(x)) = (&self.batch, x.get_mut(pass.values)) else { continue };
            self.pass(batch, pass.start, x, logits.take_if(|_| pass.tells))?;
        }
        Ok(())
    }

    /// A batch, and the logits behind it instead of its streams where they are asked for.
    fn pass(&self, batch: &Batch, start: usize, x: &mut [f32], logits: Option<&mut [f32]>) -> Result<(), GpuError> {
        let tokens = x.len() / self.shape.n_embd;
        let pass = Pass { gpu: &self.gpu, arena: &batch.arena, tokens: tokens as u32 };
        batch.arena.tell(tokens, start)?;
        batch.arena.write("stream", bytemuck::cast_slice(x))?;
        for layer in &self.layers {
            self.layer(&pass, &batch.angles, layer)?;
        }
        if let (Some(head), Some(logits)) = (&self.head, logits) {
            return head.tell(&pass, &batch.logits, logits);
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

/// What is computed in, for as many tokens as there is memory for.
fn batch(gpu: &Gpu, stack: &workspace::Stack, sizes: Sizes) -> Result<Batch, GpuError> {
    let of = |tokens: usize| {
        let context = Sizes { tokens, ..sizes }.context();
        let parts = stack.behind(ALIGNMENT, context).zip(stack.in_three(ALIGNMENT, context));
        let Some((Behind { arena, angles, logits }, bytes)) = parts else { return Err(beyond(tokens)) };
        let buffer = gpu.buffer("a batch", bytes.compute.get())?;
        Ok(Batch { angles: buffer.behind(angles), logits: buffer.behind(logits), arena: Arena::of(buffer, arena, tokens)? })
    };
    let mut tokens = stack.together(sizes.tokens.min(MOST_TOKENS) as u64) as usize;
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

    fn has_head(&self) -> bool {
        Self::has_head(self)
    }

    fn add_and_tell(&mut self, start: usize, x: &mut [f32], logits: &mut [f32]) -> Result<(), bitnet::StackError> {
        Self::add_and_tell(self, start, x, logits).map_err(Into::into)
    }
}

#[cfg(test)]
mod tests;
