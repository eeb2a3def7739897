//! Whole layers on a GPU: a token's hidden state stays on the device from the first of them to the last.

use crate::arena::{Arena, part};
use crate::device::{Gpu, Held};
use crate::error::GpuError;
use crate::head::Head;
use crate::linear::{Output, QuantizedLinear};
use crate::pipelines::{Constants, LayerPipelines};
use crate::step::{Step, Tokens, Work, encode};
use bitnet::{Activation, Batches, CacheType, Config, Layer, Rope, Sizes, Weights};
use spec::Bytes;
use std::ops::Range;
use std::sync::Arc;
use workspace::{Device, StackBytes, Workspace};

/// Rounds of all loops of a shader together after which Mesa's software driver ends them without a word (`lp_limits.h`,
/// `LP_MAX_TGSI_LOOP_ITERATIONS`).
const SOFTWARE_ROUNDS: usize = 65_535;

/// Keys that a workgroup of attention takes at a time.
const KEYS: usize = 64;

/// Layers of a model on a device, with their keys and values and what a batch is computed in, and the output head if it is there as well.
///
/// Given the same tokens in 8 bits, each projection is the CPU's to the bit; norms, attention and what stands between gate and up are floats
/// that are summed in another order.
#[derive(Debug)]
pub struct Stack {
    gpu: Arc<Gpu>,
    config: Config,
    sizes: Sizes,
    /// Where the norms of a layer lie.
    norms: Workspace,
    layers: Vec<Buffers>,
    head: Option<Head>,
    shape: workspace::Stack,
    /// Cosines and sines of all positions.
    angles: Held,
    pipelines: LayerPipelines,
    /// None after there was no memory for any.
    batch: Option<Batch>,
}

/// What tokens are computed in together, and what every layer computes in it.
#[derive(Debug)]
struct Batch {
    steps: Vec<Vec<Step>>,
    /// From the last token's stream to its logits.
    logits: Vec<Step>,
    arena: Arena,
    results: Held,
}

/// What a layer holds.
#[derive(Debug)]
struct Buffers {
    norms: Held,
    q: QuantizedLinear,
    k: QuantizedLinear,
    v: QuantizedLinear,
    output: QuantizedLinear,
    gate: QuantizedLinear,
    up: QuantizedLinear,
    down: QuantizedLinear,
    keys: Held,
    values: Held,
}

/// What all layers share while they are made.
struct Maker<'a> {
    gpu: &'a Gpu,
    config: &'a Config,
    sizes: Sizes,
    norms: Workspace,
}

impl Stack {
    /// Copies layers to the device, of which `n_layer` is the output head ([`Weights::part`]). Where memory is short, a batch is made of fewer tokens, which is logged; [`Stack::tokens`] says how many.
    ///
    /// # Errors
    /// Layers that are not there, a cache that a device does not keep, no memory even for one token at a time, a device that is lost.
    pub fn new(gpu: Arc<Gpu>, weights: &Weights, layers: Range<usize>, sizes: Sizes) -> Result<Self, GpuError> {
        let config = weights.config();
        let asked = || GpuError::Size(format!("layers {} to {} of a model of {}", layers.start, layers.end, config.n_layer));
        let (chosen, shape) = weights.part(layers.clone()).ok_or_else(asked)?;
        check(&gpu, config, sizes)?;
        let beyond = || GpuError::Size(format!("a context of {} tokens is beyond any memory", sizes.n_ctx));
        let norms = shape.norms(gpu.alignment()).ok_or_else(beyond)?;
        let maker = Maker { gpu: &gpu, config, sizes, norms };
        let buffers = chosen.iter().map(|layer| maker.buffers(layer)).collect::<Result<Vec<_>, _>>()?;
        // A device has the angles of every position.
        let mut table = Rope::new(sizes.n_ctx, config.head_dim, config.rope_base);
        table.go_to(0, sizes.n_ctx);
        let angles = maker.filled("rotary angles", &[(0, table.angles())], size_of_val(table.angles()) as u64)?;
        let pipelines = LayerPipelines::new(&gpu.device, &constants(config, sizes.cache));
        let head = shape.head.map(|head| Head::new(&gpu, weights, head)).transpose()?;
        let (config, norms) = (config.clone(), maker.norms);
        let mut stack = Self { config, sizes, norms, layers: buffers, head, shape, angles, pipelines, batch: None, gpu };
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
        let gpu = Arc::clone(&self.gpu);
        let (arena, results) = batch(&gpu, &self.shape, tokens.max(1))?;
        let maker = Maker { gpu: &gpu, config: &self.config, sizes: self.sizes, norms: self.norms.clone() };
        let steps = self.layers.iter().map(|layer| maker.steps(layer, &arena, &self.angles, &self.pipelines)).collect();
        let logits = self.head.as_ref().map_or_else(Vec::new, |head| head.steps(&gpu, &arena));
        gpu.working()?;
        self.batch = Some(Batch { steps, logits, arena, results });
        Ok(())
    }

    /// What [`Stack::new`] holds of a part of a model ([`Weights::part`]), to the byte. `None` where the device's limits do not allow it.
    pub fn bytes(gpu: &Gpu, part: &workspace::Stack, sizes: Sizes) -> Option<StackBytes> {
        let device = Device { alignment: gpu.alignment(), largest: gpu.largest_piece() };
        part.bytes(device, sizes.context())
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
        let (gpu, tokens) = (&*self.gpu, x.len() / self.config.n_embd);
        batch.arena.tell(gpu, tokens, start);
        batch.arena.write(gpu, "stream", bytemuck::cast_slice(x));
        let encoder = || gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut commands = encoder();
        for steps in &batch.steps {
            encode(gpu, steps, tokens, &mut commands);
            if tokens > 1 {
                // Drivers take commands that run for seconds for a hanging device.
                gpu.send(std::mem::replace(&mut commands, encoder()));
            }
        }
        if let (Some(head), Some(logits)) = (&self.head, logits) {
            encode(gpu, &batch.logits, tokens, &mut commands);
            head.told(&mut commands);
            gpu.send(commands);
            return head.read(gpu, logits);
        }
        let stream = batch.arena.region("stream").offset;
        commands.copy_buffer_to_buffer(&batch.arena.buffer, stream, &batch.results, 0, size_of_val(x) as u64);
        gpu.send(commands);
        gpu.read(&batch.results, x)
    }
}

fn constants(config: &Config, cache: CacheType) -> Constants {
    Constants {
        heads: config.n_head,
        key_heads: config.n_head_kv,
        head: config.head_dim,
        ff: config.n_ff,
        eps: config.rms_eps,
        silu: config.activation == Activation::Silu,
        halves: cache == CacheType::F16,
    }
}

/// Whether a device can compute contexts of these sizes.
fn check(gpu: &Gpu, config: &Config, sizes: Sizes) -> Result<(), GpuError> {
    let Sizes { n_ctx, tokens, cache } = sizes;
    if n_ctx == 0 || tokens == 0 || u32::try_from(n_ctx).is_err() {
        return Err(GpuError::Size(format!("a context of {n_ctx} tokens, {tokens} at a time, cannot be")));
    }
    if !matches!(cache, CacheType::F32 | CacheType::F16) {
        return Err(GpuError::Size(format!("a GPU keeps keys and values in F32 or F16, not in {cache:?}")));
    }
    let most = software_context(config.head_dim);
    if gpu.is_software() && n_ctx > most {
        return Err(GpuError::Size(format!("a context of {n_ctx}: {} computes at most {most} tokens rightly", gpu.name())));
    }
    let allowed = gpu.largest_piece();
    let whole = |width: usize| Bytes::new(n_ctx as u64).times(width as u64);
    let pieces = [("keys of a layer", whole(cache.bytes(config.kv_width()))), ("rotary angles", whole(config.head_dim * size_of::<f32>()))];
    match pieces.into_iter().find(|piece| piece.1 > allowed) {
        Some((what, needed)) => Err(GpuError::Limit { what, needed, allowed, name: gpu.name().to_owned() }),
        None => Ok(()),
    }
}

/// The longest context whose attention a software driver computes rightly. Per keys of a workgroup there are the loops over pairs of a
/// key, over those keys for each pair of a value, and of two sums; half of what that allows, for masked lanes go round as well.
fn software_context(head_dim: usize) -> usize {
    let pairs = head_dim.div_ceil(2);
    let rounds = pairs + KEYS * pairs.div_ceil(KEYS) + 2 * KEYS.ilog2() as usize + 4;
    SOFTWARE_ROUNDS / 2 / rounds * KEYS
}

/// The arena and what results are read from, for as many tokens as there is memory for.
fn batch(gpu: &Gpu, shape: &workspace::Stack, tokens: usize) -> Result<(Arena, Held), GpuError> {
    let of = |tokens: usize| {
        let workspace = shape.arena(tokens as u64, gpu.alignment());
        let workspace = workspace.ok_or_else(|| GpuError::Size(format!("a batch of {tokens} tokens is beyond any memory")))?;
        let arena = Arena::of(gpu, workspace, tokens)?;
        let bytes = arena.region("stream").bytes;
        Ok((arena, gpu.buffer("results", bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?))
    };
    // Heads and columns of tokens are workgroups in the second direction.
    let mut tokens = shape.together(tokens.min(gpu.most_groups() as usize) as u64) as usize;
    loop {
        match of(tokens) {
            Err(error @ (GpuError::OutOfMemory { .. } | GpuError::Limit { .. } | GpuError::Size(_))) if tokens > 1 => {
                tracing::warn!(from = tokens, to = tokens / 2, %error, "a smaller batch");
                tokens /= 2;
            }
            other => return other,
        }
    }
}

impl Maker<'_> {
    fn buffers(&self, layer: &Layer) -> Result<Buffers, GpuError> {
        let linear = |linear: &kernels::QuantizedLinear, output| QuantizedLinear::with_output(self.gpu, linear.weights(), output);
        let norms = [&layer.attn_norm, &layer.attn_sub_norm, &layer.ffn_norm, &layer.ffn_sub_norm];
        let places: Vec<(u64, &[f32])> =
            self.norms.regions().iter().zip(norms).map(|(region, norm)| (region.offset, norm.as_slice())).collect();
        let kept = self.sizes.n_ctx as u64 * self.sizes.cache.bytes(self.config.kv_width()) as u64;
        let cache = |what| self.gpu.buffer(what, kept, wgpu::BufferUsages::STORAGE);
        Ok(Buffers {
            norms: self.filled("norms", &places, self.norms.total().get())?,
            q: linear(&layer.q, Output::Replaced)?,
            k: linear(&layer.k, Output::Replaced)?,
            v: linear(&layer.v, Output::Replaced)?,
            output: linear(&layer.output, Output::Added)?,
            gate: linear(&layer.gate, Output::Replaced)?,
            up: linear(&layer.up, Output::Replaced)?,
            down: linear(&layer.down, Output::Added)?,
            keys: cache("keys of a layer")?,
            values: cache("values of a layer")?,
        })
    }

    /// A buffer of so many bytes with floats at these places.
    fn filled(&self, what: &'static str, floats: &[(u64, &[f32])], bytes: u64) -> Result<Held, GpuError> {
        let buffer = self.gpu.buffer(what, bytes, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST)?;
        for (offset, floats) in floats {
            self.gpu.queue.write_buffer(&buffer, *offset, bytemuck::cast_slice(floats));
        }
        self.gpu.flush()?;
        Ok(buffer)
    }

    /// What a layer computes, in order.
    fn steps(&self, layer: &Buffers, arena: &Arena, angles: &Held, pipelines: &LayerPipelines) -> Vec<Step> {
        let (gpu, config) = (self.gpu, self.config);
        let normed = |next: &QuantizedLinear, from: &str, norm: &str| {
            let weights = self.norms.region(norm).map(|region| part(&layer.norms, region));
            next.prepared(gpu, &pipelines.norm, arena, from, weights)
        };
        let linear = |linear: &QuantizedLinear, to: &str| linear.steps(gpu, arena, to);
        let heads = |pipeline, more: &[wgpu::BindingResource<'_>], heads: usize| {
            let kept = [layer.keys.as_entire_binding(), layer.values.as_entire_binding()];
            let resources: Vec<_> = [arena.part("batch"), arena.part("queries")].into_iter().chain(kept).chain(more.to_vec()).collect();
            Step::new(gpu, pipeline, 0, &resources, Work::Heads(heads as u32), Tokens::Any)
        };
        let fresh = [arena.part("keys"), arena.part("values"), angles.as_entire_binding()];
        let gated = [arena.part("gate"), arena.part("up")];
        let mut steps = Vec::new();
        steps.extend(normed(&layer.q, "stream", "attn_norm"));
        steps.extend([(&layer.q, "queries"), (&layer.k, "keys"), (&layer.v, "values")].into_iter().flat_map(|(of, to)| linear(of, to)));
        steps.push(heads(&pipelines.turn, &fresh, config.n_head + config.n_head_kv));
        steps.push(heads(&pipelines.attend, &[arena.part("mixed")], config.n_head));
        steps.extend(normed(&layer.output, "mixed", "attn_sub_norm"));
        steps.extend(linear(&layer.output, "stream"));
        steps.extend(normed(&layer.gate, "stream", "ffn_norm"));
        steps.extend([(&layer.gate, "gate"), (&layer.up, "up")].into_iter().flat_map(|(of, to)| linear(of, to)));
        steps.push(Step::new(gpu, &pipelines.gated, 0, &gated, Work::Columns(config.n_ff as u32), Tokens::Any));
        steps.extend(normed(&layer.down, "gate", "ffn_sub_norm"));
        steps.extend(linear(&layer.down, "stream"));
        steps
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
