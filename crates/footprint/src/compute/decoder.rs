//! The graph of a decoder: embedding, layers, head. What differs between families is a [`Decoder`], declared in
//! [`super::arch`]; what a file itself tells (biases, head norms, experts, sinks, fused matrices) is read from its
//! tensors.

use super::blocks::altup;
use super::blocks::attention::{self, AttentionInputs, Style};
use super::blocks::compressed::compressed_attention;
use super::blocks::embedding::{Scaling, embedding, position};
use super::blocks::experts::{self, Dense, Routing, SharedGate, Stack, experts};
use super::blocks::feed_forward::{Activation, Matrices, feed_forward};
use super::blocks::hyper_connection::{self, Connection};
use super::blocks::latent::{latent_attention, whole_heads};
use super::blocks::latent_unmerged::unmerged_attention;
use super::blocks::per_layer;
use super::blocks::pooling::pooled;
use super::blocks::recurrent::{self, RecurrentInputs, recurrent};
use super::blocks::rwkv::rwkv;
use super::builder::{Builder, Missing, Norm};
use super::tensor::{Id, Memory, Op};
use super::weights::{Part, Suffix};
use crate::profile::LatentCache;
use spec::QuantType;
use spec::model::{Experts, FeedForward, Layer, Mixer};
use spec::settings::Pooling;

/// Tokens that stand for pieces of images (src/models/chameleon.cpp, from 4 to 8196).
const CHAMELEON_IMAGE_TOKENS: u64 = 8192;

/// How a family differs from Llama.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder {
    /// How token embeddings are scaled.
    pub(super) embedding: Scaling,
    /// What norms compute.
    pub(super) norm: Norm,
    /// Attention.
    pub(super) attention: Style,
    /// The norm before the feed-forward block.
    pub(super) feed_forward_norm: Part,
    /// Feed-forward blocks without a gate.
    pub(super) activation: Activation,
    /// Experts.
    pub(super) routing: Routing,
    /// How the two blocks join the stream.
    pub(super) residual: Residual,
    /// Both blocks' outputs are scaled before they are added to the stream (Granite).
    pub(super) residual_scale: bool,
    /// Which norms after blocks are computed where the layer is, as all others are.
    pub(super) post_norms: PostNorms,
    /// Further embeddings beside each given one, added after as many of the first layers (Qwen3-VL).
    pub(super) deepstack: u64,
    /// What the stream is.
    pub(super) copies: Copies,
    /// Where rows without wanted logits are dropped.
    pub(super) outputs: Outputs,
    /// Logits come out although nothing is cached (diffusion models).
    pub(super) head_without_cache: bool,
    /// The head uses the token embedding itself and never a second copy (BitNet).
    pub(super) tied_head: bool,
    /// What happens to the logits.
    pub(super) logits: Logits,
}

/// Norms after blocks that are computed where the layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PostNorms {
    /// That after attention.
    Attention,
    /// That after the feed-forward block, too (GLM-4).
    Both,
    /// None: they are spelt out with a limit of their own (Muse Glimmer).
    Neither,
}

/// What passes from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copies {
    /// One stream.
    One,
    /// Several copies, updated in turn (Gemma 3n).
    Alternating,
    /// Several copies, which every block reads and writes (DeepSeek V4).
    HyperConnected,
}

/// Where rows without wanted logits are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outputs {
    /// In the last layer, after attention.
    InLastLayer,
    /// There, after the norm that follows attention (AFMoE).
    AfterPostNorm,
    /// There, after attention is added to the stream (Falcon-H1).
    AfterAttention,
    /// After the last layer (gpt-oss).
    BeforeOutputNorm,
    /// After the last norm (Gemma 4, Qwen3.5).
    AfterOutputNorm,
    /// Nowhere: logits of all tokens are computed (CogVLM).
    All,
}

/// How the outputs of attention and feed-forward block join the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Residual {
    /// One after the other: `y = attention + x`, then `feed_forward + y`. `stream_first` turns either sum around.
    Sequential { stream_first: [bool; 2] },
    /// Both read the stream, the feed-forward block through its own norm or, where the file has none, through attention's;
    /// one sum in this order.
    Parallel([Term; 3]),
    /// One after the other, and each sum is normed (BERT).
    Normed,
    /// One after the other, each added to what it reads, scaled (MiniMax-01).
    ScaledNormed,
}

/// What a parallel sum is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Term {
    Stream,
    Attention,
    FeedForward,
}

/// What happens to the logits after the output matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logits {
    /// Nothing.
    Plain,
    /// Multiplied by a constant.
    Scaled,
    /// What they are computed from is multiplied by a constant (MiniCPM3).
    ScaledBefore,
    /// Capped by a tanh.
    SoftCapped,
    /// One after the other (Grok).
    ScaledAndSoftCapped,
    /// Those of image tokens are overwritten (Chameleon).
    WithoutImages,
}

/// The two values that pass from layer to layer.
struct Stream {
    x: Id,
    /// Rows to keep, while they have not been dropped yet.
    outputs: Id,
}

/// What a feed-forward block may read.
#[derive(Clone, Copy)]
struct Streams {
    /// The stream with attention added.
    x: Id,
    /// What attention read.
    normed: Option<Id>,
    /// Of the experts, where they are known already.
    logits: Option<Id>,
}

/// Inputs shared by layers, where there are such layers.
struct Inputs {
    attention: AttentionInputs,
    recurrent: Option<RecurrentInputs>,
    /// Embeddings that each layer has of its own.
    per_layer: Option<Id>,
}

impl Decoder {
    /// Builds the graph of these layers: all, or some in their order for a graph in short ([`super::pieces`]).
    pub(super) fn build(&self, b: &mut Builder<'_>, layers: &[usize]) -> Result<(), Missing> {
        b.norm = self.norm;
        let rows = per_layer::looked_up_first(b);
        let embedded = embedding(b, self.embedding, self.deepstack)?;
        let mut inputs = Inputs { attention: attention::inputs(b, self.attention), recurrent: recurrent::inputs(b), per_layer: None };
        let mut x = position(b, embedded.x, inputs.attention.positions)?;
        inputs.per_layer = per_layer::inputs(b, x, rows)?;
        match self.copies {
            Copies::One => {}
            Copies::Alternating => x = altup::spread(b, x)?,
            Copies::HyperConnected => x = hyper_connection::spread(b, x)?,
        }
        let outputs = b.graph.input(QuantType::I32, [b.batch.n_outputs, 1, 1, 1]);
        let mut stream = Stream { x, outputs };
        let n_layer = b.model.n_layer() as usize;
        let model = b.model;
        b.share(layers);
        for &index in layers {
            let Some(layer) = model.layers.get(index) else { continue };
            b.border(stream.x);
            stream.x = self.layer(b, index, layer, &inputs, &stream, index + 1 == n_layer)?;
            if (index as u64) < self.deepstack {
                let row = b.graph.tensor(embedded.all).nb[1];
                let further = b.graph.view_2d(embedded.all, b.model.n_embd, b.batch.n_tokens, row);
                stream.x = b.graph.add(stream.x, further);
            }
        }
        b.border(stream.x);
        match self.copies {
            Copies::One => {}
            Copies::Alternating => {
                let x = altup::merge(b, stream.x)?;
                stream.x = b.graph.get_rows(x, outputs);
            }
            Copies::HyperConnected => stream.x = hyper_connection::merge(b, stream.x, outputs)?,
        }
        if b.model.encoder && !self.head_without_cache { self.embeddings(b, stream.x) } else { self.head(b, &stream) }
    }

    fn layer(&self, b: &mut Builder<'_>, index: usize, layer: &Layer, inputs: &Inputs, stream: &Stream, last: bool) -> Result<Id, Missing> {
        let here = Some(index);
        let mut x = stream.x;
        match (self.copies, inputs.per_layer) {
            (Copies::Alternating, Some(per_layer)) => {
                return altup::layer(b, index, layer, &inputs.attention, self.attention, per_layer, x);
            }
            (Copies::HyperConnected, _) => return self.hyper_connected(b, index, layer, inputs, x),
            _ => {}
        }
        if let (Mixer::Recurrent(state), Some(inputs)) = (&layer.mixer, &inputs.recurrent)
            && state.kind == "rwkv"
        {
            return rwkv(b, index, state, inputs, x, last.then_some(stream.outputs));
        }
        // A layer may have no norm before its blocks (OLMo 2), or one for each of them (Falcon 40B).
        let mut normed = if b.has_norm(here, Part::AttnNorm) { Some(b.norm(here, Part::AttnNorm, x, here)?) } else { None };
        let own_norm = self.residual != Residual::Normed && !matches!(layer.mixer, Mixer::Recurrent(_));
        let read = if own_norm && b.find(here, Part::AttnNorm2, Suffix::Weight).is_some() {
            b.norm(here, Part::AttnNorm2, x, here)?
        } else {
            normed.unwrap_or(x)
        };
        // The feed-forward block may be the only one, and read what attention would (Nemotron-H).
        let alone = layer.mixer == Mixer::None && !b.has_norm(here, self.feed_forward_norm);
        if layer.mixer == Mixer::None && !alone && b.find(here, Part::AttnOutput, Suffix::Weight).is_none() {
            let x = if last { b.graph.get_rows(x, stream.outputs) } else { x };
            return self.without_mixer(b, index, layer, x);
        }
        let mut logits = if self.routing.reads_stream { Some(experts::router(b, index, x)?) } else { None };
        let mut y = if alone { self.transform(b, index, layer, None, read)? } else { self.mixer(b, index, layer, inputs, [x, read])? };
        let dropped = self.outputs(b);
        let post_normed = dropped == Outputs::AfterPostNorm;
        if post_normed {
            y = self.post_norm(b, index, y)?;
        }
        if last && matches!(dropped, Outputs::InLastLayer | Outputs::AfterPostNorm) {
            y = b.graph.get_rows(y, stream.outputs);
            x = b.graph.get_rows(x, stream.outputs);
            normed = normed.map(|normed| b.graph.get_rows(normed, stream.outputs));
            logits = logits.map(|logits| b.graph.get_rows(logits, stream.outputs));
        }
        if !post_normed {
            y = self.post_norm(b, index, y)?;
        }
        if self.residual_scale {
            y = b.graph.scale(y);
        }
        match self.residual {
            Residual::Sequential { stream_first: [first, second] } => {
                let x_before = x;
                let mut x = if first { b.graph.add(x, y) } else { b.graph.add(y, x) };
                if layer.feed_forward == FeedForward::None || alone {
                    return Ok(x);
                }
                if last && dropped == Outputs::AfterAttention {
                    x = b.graph.get_rows(x, stream.outputs);
                }
                if let (FeedForward::Experts(shape), Dense::First) = (&layer.feed_forward, self.routing.dense) {
                    return self.dense_first(b, index, shape, x_before, x);
                }
                let y = self.feed_forward(b, index, layer, Streams { x, normed, logits })?;
                let x = if second { b.graph.add(x, y) } else { b.graph.add(y, x) };
                let left = (last && dropped == Outputs::InLastLayer).then_some(stream.outputs);
                per_layer::finish(b, index, inputs.per_layer, x, left)
            }
            Residual::Normed => {
                let sum = b.graph.add(y, x);
                let mut y = b.norm(here, Part::AttnOutputNorm, sum, here)?;
                if b.find(here, Part::AttnNorm2, Suffix::Weight).is_some() {
                    let sum = b.graph.add(y, x);
                    y = b.norm(here, Part::AttnNorm2, sum, here)?;
                }
                let z = self.transform(b, index, layer, logits, y)?;
                let sum = b.graph.add(z, y);
                b.norm(here, Part::LayerOutputNorm, sum, here)
            }
            Residual::ScaledNormed => {
                let scaled = b.graph.scale(normed.unwrap_or(x));
                let x = b.graph.add(y, scaled);
                let read = b.norm(here, self.feed_forward_norm, x, here)?;
                let y = self.transform(b, index, layer, None, read)?;
                let scaled = b.graph.scale(read);
                Ok(b.graph.add(y, scaled))
            }
            Residual::Parallel(terms) => {
                let z = self.feed_forward(b, index, layer, Streams { x, normed, logits })?;
                let [first, second, third] = terms.map(|term| match term {
                    Term::Stream => x,
                    Term::Attention => y,
                    Term::FeedForward => z,
                });
                let sum = b.graph.add(first, second);
                Ok(b.graph.add(sum, third))
            }
        }
    }

    /// A layer whose blocks each read a mixture of all copies and write to all.
    fn hyper_connected(&self, b: &mut Builder<'_>, index: usize, layer: &Layer, inputs: &Inputs, copies: Id) -> Result<Id, Missing> {
        let here = Some(index);
        let (x, joint) = hyper_connection::before(b, index, Connection::ATTENTION, copies)?;
        let read = b.norm(here, Part::AttnNorm, x, here)?;
        let y = self.mixer(b, index, layer, inputs, [x, read])?;
        let copies = hyper_connection::after(b, index, joint, y);
        let (x, joint) = hyper_connection::before(b, index, Connection::FEED_FORWARD, copies)?;
        joint.expand(b);
        let read = b.norm(here, self.feed_forward_norm, x, here)?;
        let y = self.transform(b, index, layer, None, read)?;
        let copies = hyper_connection::after(b, index, joint, y);
        b.pin(copies, index);
        Ok(copies)
    }

    /// A layer that mixes no tokens (Nemotron's pruned ones).
    fn without_mixer(&self, b: &mut Builder<'_>, index: usize, layer: &Layer, x: Id) -> Result<Id, Missing> {
        if layer.feed_forward == FeedForward::None {
            return Ok(x);
        }
        let y = self.feed_forward(b, index, layer, Streams { x, normed: None, logits: None })?;
        Ok(b.graph.add(y, x))
    }

    /// The norm that follows attention, where the file has one.
    fn post_norm(&self, b: &mut Builder<'_>, index: usize, y: Id) -> Result<Id, Missing> {
        let here = Some(index);
        for part in [Part::AttnPostNorm, Part::AttnOutputNorm] {
            let read_later = self.feed_forward_norm == part || self.residual == Residual::Normed;
            if !read_later && b.find(here, part, Suffix::Weight).is_some() {
                return b.norm(here, part, y, here.filter(|_| self.post_norms != PostNorms::Neither));
            }
        }
        Ok(y)
    }

    /// The feed-forward block with its norms; without one before it, it reads what attention reads, or else `x` itself.
    fn feed_forward(&self, b: &mut Builder<'_>, index: usize, layer: &Layer, streams: Streams) -> Result<Id, Missing> {
        let here = Some(index);
        let mut y = match (&layer.feed_forward, self.routing.dense) {
            (FeedForward::Experts(shape), Dense::OwnNorms) => self.apart(b, index, shape, streams.x)?,
            _ => {
                let read = if b.has_norm(here, self.feed_forward_norm) {
                    b.norm(here, self.feed_forward_norm, streams.x, here)?
                } else {
                    streams.normed.unwrap_or(streams.x)
                };
                self.transform(b, index, layer, streams.logits, read)?
            }
        };
        // Grok's first files call it by another name.
        let other_name = self.routing.dense == Dense::ScaledSum && b.find(here, Part::LayerOutputNorm, Suffix::Weight).is_some();
        let part = if other_name { Part::LayerOutputNorm } else { Part::FfnPostNorm };
        if b.find(here, part, Suffix::Weight).is_some() {
            y = b.norm(here, part, y, here.filter(|_| self.post_norms == PostNorms::Both))?;
        }
        Ok(if self.residual_scale { b.graph.scale(y) } else { y })
    }

    /// What mixes tokens: it reads the normed stream.
    fn mixer(&self, b: &mut Builder<'_>, index: usize, layer: &Layer, inputs: &Inputs, [x, read]: [Id; 2]) -> Result<Id, Missing> {
        match (&layer.mixer, &inputs.recurrent) {
            (Mixer::Mla(shape), _) if b.options.rules.latent == LatentCache::PerHead || b.options.rules.ik.is_some() => {
                unmerged_attention(b, index, shape, &inputs.attention, self.attention, read)
            }
            (Mixer::Attention(shape), _) if b.find(Some(index), Part::AttnKvB, Suffix::Weight).is_some() => {
                whole_heads(b, index, shape, &inputs.attention, self.attention, read)
            }
            (Mixer::Attention(shape), _) => attention::attention(b, index, shape, &inputs.attention, self.attention, read),
            (Mixer::Compressed(shape), _) => compressed_attention(b, index, shape, &inputs.attention, read),
            (Mixer::Mla(shape), _) => latent_attention(b, index, shape, &inputs.attention, self.attention, read),
            // Attention of one head to itself: a matrix (Nemotron's linear layers).
            (Mixer::None, _) => b.linear(Some(index), Part::AttnOutput, read),
            (Mixer::Recurrent(state), Some(inputs)) => recurrent(b, index, state, inputs, read),
            (Mixer::Both(shape, state), Some(of_state)) => {
                let y = attention::attention(b, index, shape, &inputs.attention, self.attention, read)?;
                let read = b.norm(Some(index), Part::AttnNorm, x, Some(index))?;
                let z = recurrent(b, index, state, of_state, read)?;
                Ok(b.graph.add(y, z))
            }
            _ => Err(Missing { layer: Some(index), part: Part::AttnOutput }),
        }
    }

    fn transform(&self, b: &mut Builder<'_>, index: usize, layer: &Layer, logits: Option<Id>, x: Id) -> Result<Id, Missing> {
        let here = Some(index);
        let FeedForward::Experts(shape) = &layer.feed_forward else {
            return feed_forward(b, index, Matrices::DENSE, self.activation, x);
        };
        let logits = match logits {
            Some(logits) => logits,
            None => experts::router(b, index, x)?,
        };
        let routed = if b.find(here, Part::FfnLatentDown, Suffix::Weight).is_some() {
            let latent = b.linear(here, Part::FfnLatentDown, x)?;
            let routed = experts(b, index, Stack::ROUTED, shape, self.routing, logits, latent)?;
            b.linear(here, Part::FfnLatentUp, routed)?
        } else {
            experts(b, index, Stack::ROUTED, shape, self.routing, logits, x)?
        };
        let routed = match b.find(here, Part::FfnDownChexps, Suffix::Weight) {
            Some(matrices) => {
                let count = u32::try_from(b.graph.ne(matrices)[2]).unwrap_or(u32::MAX);
                let groups = Experts { count, used: shape.used.min(count), ..shape.clone() };
                let adjusted = experts(b, index, Stack::OF_GROUPS, &groups, self.routing, logits, routed)?;
                let adjusted = b.graph.scale(adjusted);
                b.graph.add(routed, adjusted)
            }
            None => routed,
        };
        if self.routing.dense == Dense::ScaledSum && b.find(here, Part::FfnUp, Suffix::Weight).is_some() {
            let dense = feed_forward(b, index, Matrices::DENSE, self.activation, x)?;
            let sum = b.graph.add(dense, routed);
            return Ok(b.graph.scale(sum));
        }
        if b.find(here, Part::FfnUpShexp, Suffix::Weight).is_none() {
            return Ok(routed);
        }
        let mut shared = feed_forward(b, index, Matrices::SHARED, self.activation, x)?;
        if b.find(here, Part::FfnGateInpShexp, Suffix::Weight).is_some() {
            let gate = b.linear(here, Part::FfnGateInpShexp, x)?;
            let bent = b.graph.unary(gate);
            let gate = if self.routing.shared_gate == SharedGate::Quotient { b.graph.like(Op::Div, &[bent, gate]) } else { bent };
            shared = b.graph.mul(shared, gate);
        }
        let sum = b.graph.add(routed, shared);
        Ok(if self.routing.scaled_sum { b.graph.scale(sum) } else { sum })
    }

    /// What an encoder hands out: the stream, normed where the file says so, and what is made of it for each sequence.
    fn embeddings(&self, b: &mut Builder<'_>, mut x: Id) -> Result<(), Missing> {
        // NeoBERT calls it by another name.
        for part in [Part::OutputNorm, Part::EncOutputNorm] {
            if b.has_norm(None, part) {
                x = b.norm(None, part, x, None)?;
            }
        }
        b.graph.tensor_mut(x).output = true;
        b.graph.expand(x);
        pooled(b, x)?;
        Ok(())
    }

    /// Dense block and experts, each between norms of its own; the router reads a scaled norm of the stream (Gemma 4).
    fn apart(&self, b: &mut Builder<'_>, index: usize, shape: &Experts, x: Id) -> Result<Id, Missing> {
        let here = Some(index);
        let read = b.norm(here, self.feed_forward_norm, x, here)?;
        let dense = feed_forward(b, index, Matrices::DENSE, self.activation, read)?;
        let dense = b.norm(here, Part::FfnPostNorm1, dense, here)?;
        let read = b.norm(here, Part::FfnPreNorm2, x, here)?;
        let routed = b.graph.like(Op::RmsNorm, &[x]);
        let routed = b.graph.scale(routed);
        let scale = b.find(here, Part::FfnGateInp, Suffix::Scale).ok_or(Missing { layer: here, part: Part::FfnGateInp })?;
        let routed = b.graph.mul(routed, scale);
        let matrix = b.weight(here, Part::FfnGateInp)?;
        let logits = b.graph.mul_mat(matrix, routed);
        let routed = experts(b, index, Stack::ROUTED, shape, self.routing, logits, read)?;
        let routed = b.norm(here, Part::FfnPostNorm2, routed, here)?;
        Ok(b.graph.add(dense, routed))
    }

    /// The dense block after attention and the experts over the layer's input, both added to the stream (Arctic).
    fn dense_first(&self, b: &mut Builder<'_>, index: usize, shape: &Experts, before: Id, x: Id) -> Result<Id, Missing> {
        let here = Some(index);
        let read = b.norm(here, self.feed_forward_norm, x, here)?;
        let dense = feed_forward(b, index, Matrices::DENSE, self.activation, read)?;
        let dense = b.graph.add(dense, x);
        let read = b.norm(here, Part::FfnNormExps, before, here)?;
        let logits = experts::router(b, index, read)?;
        let routed = experts(b, index, Stack::ROUTED, shape, self.routing, logits, read)?;
        Ok(b.graph.add(routed, dense))
    }

    /// Where rows are dropped under the rules of the engine.
    fn outputs(&self, b: &Builder<'_>) -> Outputs {
        match self.outputs {
            Outputs::BeforeOutputNorm | Outputs::AfterOutputNorm if b.options.rules.early_outputs => Outputs::InLastLayer,
            outputs => outputs,
        }
    }

    fn head(&self, b: &mut Builder<'_>, stream: &Stream) -> Result<(), Missing> {
        let mut x = stream.x;
        let dropped = self.outputs(b);
        if self.outputs == Outputs::BeforeOutputNorm {
            b.graph.tensor_mut(x).output = true;
        }
        if dropped == Outputs::BeforeOutputNorm {
            x = b.graph.get_rows(x, stream.outputs);
        }
        let norm = if b.has_norm(None, Part::OutputNorm) { Part::OutputNorm } else { Part::TokenEmbdNorm };
        x = b.norm(None, norm, x, None)?;
        b.graph.tensor_mut(x).output = true;
        if dropped == Outputs::AfterOutputNorm {
            x = b.graph.get_rows(x, stream.outputs);
            b.graph.tensor_mut(x).output = true;
        }
        let pooling = b.options.pooling;
        if pooling.is_some_and(|pooling| pooling != Pooling::None) && !b.options.rules.logits_beside_pooled {
            return pooled(b, x).map(|_| ());
        }
        let matrix = if self.tied_head { b.weight(None, Part::TokenEmbd)? } else { b.output()? };
        let read = if self.logits == Logits::ScaledBefore { b.graph.scale(x) } else { x };
        let mut logits = b.graph.mul_mat(matrix, read);
        for suffix in [Suffix::Scale, Suffix::Bias] {
            if let Some(operand) = b.find(None, Part::Output, suffix) {
                logits = if suffix == Suffix::Scale { b.graph.mul(logits, operand) } else { b.graph.add(logits, operand) };
            }
        }
        if matches!(self.logits, Logits::Scaled | Logits::ScaledAndSoftCapped) {
            logits = b.graph.scale(logits);
        }
        if matches!(self.logits, Logits::SoftCapped | Logits::ScaledAndSoftCapped) && b.options.rules.ik.is_some() {
            logits = b.graph.fused(&[logits]);
        } else if matches!(self.logits, Logits::SoftCapped | Logits::ScaledAndSoftCapped) {
            logits = b.graph.scale(logits);
            logits = b.graph.function(logits);
            logits = b.graph.scale(logits);
        }
        if self.logits == Logits::WithoutImages {
            let hidden = b.graph.placed(QuantType::F32, [CHAMELEON_IMAGE_TOKENS, 1, 1, 1], Memory::Compute);
            let hidden = b.graph.like(Op::Clamp, &[hidden]);
            logits = b.graph.like(Op::Set, &[logits, hidden]);
        }
        b.graph.tensor_mut(logits).output = true;
        b.graph.expand(logits);
        if pooling.is_some() {
            pooled(b, x)?;
        }
        Ok(())
    }
}
