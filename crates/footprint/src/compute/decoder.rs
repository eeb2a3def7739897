//! The graph of a decoder: embedding, layers, head. What differs between families is a [`Decoder`], declared in
//! [`super::arch`]; what a file itself tells (biases, head norms, experts, sinks, fused matrices) is read from its
//! tensors.

use super::blocks::attention::{self, AttentionInputs, Style};
use super::blocks::embedding::{Scaling, embedding};
use super::blocks::experts::{Routing, experts};
use super::blocks::feed_forward::{Matrices, feed_forward};
use super::blocks::latent::latent_attention;
use super::blocks::mamba::{self, StateInputs};
use super::builder::{Builder, Missing};
use super::tensor::Id;
use super::weights::{Part, Suffix};
use spec::QuantType;
use spec::model::{FeedForward, Layer, Mixer};

/// How a family differs from Llama.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder {
    /// How token embeddings are scaled.
    pub(super) embedding: Scaling,
    /// Attention.
    pub(super) attention: Style,
    /// The norm before the feed-forward block.
    pub(super) feed_forward_norm: Part,
    /// Experts.
    pub(super) routing: Routing,
    /// Both blocks' outputs are scaled before they are added to the stream (Granite).
    pub(super) residual_scale: bool,
    /// The feed-forward block's output is added to the stream, not the stream to it: `residual + output` (Phi-3).
    pub(super) residual_first: bool,
    /// Rows without wanted logits are dropped after the last layer instead of within it (gpt-oss).
    pub(super) late_outputs: bool,
    /// The head uses the token embedding itself and never a second copy (BitNet).
    pub(super) tied_head: bool,
    /// What happens to the logits.
    pub(super) logits: Logits,
}

/// What happens to the logits after the output matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logits {
    /// Nothing.
    Plain,
    /// Multiplied by a constant.
    Scaled,
    /// Capped by a tanh.
    SoftCapped,
}

/// The two values that pass from layer to layer.
struct Stream {
    x: Id,
    /// Rows to keep, while they have not been dropped yet.
    outputs: Id,
}

/// Inputs shared by layers, where there are such layers.
struct Inputs {
    attention: AttentionInputs,
    state: Option<StateInputs>,
}

impl Decoder {
    /// Builds the whole graph.
    pub(super) fn build(&self, b: &mut Builder<'_>) -> Result<(), Missing> {
        let x = embedding(b, self.embedding)?;
        let recurrent = b.model.has_recurrent_state();
        let inputs = Inputs { attention: attention::inputs(b), state: recurrent.then(|| mamba::inputs(b)) };
        let outputs = b.graph.input(QuantType::I32, [b.batch.n_outputs, 1, 1, 1]);
        let mut stream = Stream { x, outputs };
        let n_layer = b.model.n_layer() as usize;
        let model = b.model;
        for (index, layer) in model.layers.iter().enumerate().take(n_layer) {
            stream.x = self.layer(b, index, layer, &inputs, &stream, index + 1 == n_layer)?;
        }
        self.head(b, &stream)
    }

    fn layer(&self, b: &mut Builder<'_>, index: usize, layer: &Layer, inputs: &Inputs, stream: &Stream, last: bool) -> Result<Id, Missing> {
        let here = Some(index);
        let normed = b.norm(here, Part::AttnNorm, stream.x, here)?;
        let mut y = self.mixer(b, index, layer, inputs, normed)?;
        let mut residual = stream.x;
        if last && !self.late_outputs {
            y = b.graph.get_rows(y, stream.outputs);
            residual = b.graph.get_rows(residual, stream.outputs);
        }
        if self.feed_forward_norm != Part::AttnPostNorm && b.find(here, Part::AttnPostNorm, Suffix::Weight).is_some() {
            y = b.norm(here, Part::AttnPostNorm, y, here)?;
        }
        if self.residual_scale {
            y = b.graph.scale(y);
        }
        let x = b.graph.add(y, residual);
        if layer.feed_forward == FeedForward::None {
            return Ok(x);
        }
        let normed = b.norm(here, self.feed_forward_norm, x, here)?;
        let mut y = self.transform(b, index, layer, normed)?;
        if b.find(here, Part::FfnPostNorm, Suffix::Weight).is_some() {
            y = b.norm(here, Part::FfnPostNorm, y, None)?;
        }
        if self.residual_scale {
            y = b.graph.scale(y);
        }
        Ok(if self.residual_first { b.graph.add(x, y) } else { b.graph.add(y, x) })
    }

    fn mixer(&self, b: &mut Builder<'_>, index: usize, layer: &Layer, inputs: &Inputs, x: Id) -> Result<Id, Missing> {
        match (&layer.mixer, &inputs.state) {
            (Mixer::Attention(shape), _) => attention::attention(b, index, shape, &inputs.attention, self.attention, x),
            (Mixer::Mla(shape), _) => latent_attention(b, index, shape, &inputs.attention, x),
            (Mixer::Recurrent(shape), Some(state)) if shape.kind == "mamba" => mamba::mamba(b, index, shape, state, x),
            _ => Err(Missing { layer: Some(index), part: Part::AttnOutput }),
        }
    }

    fn transform(&self, b: &mut Builder<'_>, index: usize, layer: &Layer, x: Id) -> Result<Id, Missing> {
        let FeedForward::Experts(shape) = &layer.feed_forward else {
            return feed_forward(b, index, Matrices::DENSE, x);
        };
        let routed = experts(b, index, shape, self.routing, x)?;
        if b.find(Some(index), Part::FfnUpShexp, Suffix::Weight).is_none() {
            return Ok(routed);
        }
        let shared = feed_forward(b, index, Matrices::SHARED, x)?;
        Ok(b.graph.add(routed, shared))
    }

    fn head(&self, b: &mut Builder<'_>, stream: &Stream) -> Result<(), Missing> {
        let mut x = stream.x;
        if self.late_outputs {
            b.graph.tensor_mut(x).output = true;
            x = b.graph.get_rows(x, stream.outputs);
        }
        let x = b.norm(None, Part::OutputNorm, x, None)?;
        b.graph.tensor_mut(x).output = true;
        let matrix = if self.tied_head { b.weight(None, Part::TokenEmbd)? } else { b.output()? };
        let mut logits = b.graph.mul_mat(matrix, x);
        for suffix in [Suffix::Scale, Suffix::Bias] {
            if let Some(operand) = b.find(None, Part::Output, suffix) {
                logits = if suffix == Suffix::Scale { b.graph.mul(logits, operand) } else { b.graph.add(logits, operand) };
            }
        }
        match self.logits {
            Logits::Plain => {}
            Logits::Scaled => logits = b.graph.scale(logits),
            Logits::SoftCapped => {
                logits = b.graph.scale(logits);
                logits = b.graph.unary(logits);
                logits = b.graph.scale(logits);
            }
        }
        b.graph.tensor_mut(logits).output = true;
        b.graph.expand(logits);
        Ok(())
    }
}
