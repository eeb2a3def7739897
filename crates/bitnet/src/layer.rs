//! One layer over the tokens of a micro-batch.

use crate::attention::Attention;
use crate::cache::Cache;
use crate::config::Config;
use crate::norm::{rms, rms_in_place};
use crate::rope::Rope;
use crate::weights::Layer;
use kernels::{Activations, Kernel, Pool};

/// What a micro-batch is computed in; sized for the largest.
#[derive(Clone, Debug)]
pub(crate) struct Buffers {
    /// The residual stream.
    pub(crate) x: Vec<f32>,
    /// What a norm, or an output projection, gives.
    h: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// What attention gives.
    mixed: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    activations: Activations,
}

impl Buffers {
    pub(crate) fn new(config: &Config, n_ubatch: usize) -> Self {
        let floats = |width: usize| vec![0.0; n_ubatch * width];
        Self {
            x: floats(config.n_embd),
            h: floats(config.n_embd),
            q: floats(config.q_width()),
            k: floats(config.kv_width()),
            v: floats(config.kv_width()),
            mixed: floats(config.q_width()),
            gate: floats(config.n_ff),
            up: floats(config.n_ff),
            activations: Activations::with_room(n_ubatch, Self::widest(config)),
        }
    }

    /// The widest input of a linear layer.
    fn widest(config: &Config) -> usize {
        config.n_embd.max(config.n_ff).max(config.q_width())
    }
}

/// What a layer computes with.
pub(crate) struct Pass<'a> {
    pub(crate) config: &'a Config,
    pub(crate) rope: &'a Rope,
    pub(crate) cache: &'a mut Cache,
    pub(crate) pool: &'a mut Pool,
    /// Position of the first token.
    pub(crate) start: usize,
    pub(crate) tokens: usize,
    pub(crate) kernel: Kernel,
}

impl Pass<'_> {
    /// Adds layer `i` to the residual stream.
    pub(crate) fn layer(&mut self, i: usize, layer: &Layer, buffers: &mut Buffers) {
        self.attention(i, layer, buffers);
        self.feed_forward(layer, buffers);
    }

    fn attention(&mut self, i: usize, layer: &Layer, buffers: &mut Buffers) {
        let (config, tokens) = (self.config, self.tokens);
        let (embd, q_width, kv_width) = (config.n_embd, config.q_width(), config.kv_width());
        let Buffers { x, h, q, k, v, mixed, activations, .. } = buffers;
        let (x, h) = (&mut x[..tokens * embd], &mut h[..tokens * embd]);
        let (q, mixed) = (&mut q[..tokens * q_width], &mut mixed[..tokens * q_width]);
        let (k, v) = (&mut k[..tokens * kv_width], &mut v[..tokens * kv_width]);
        rms(x, &layer.attn_norm, config.rms_eps, h);
        activations.quantize(h, embd);
        layer.q.forward(activations, self.pool, q);
        layer.k.forward(activations, self.pool, k);
        layer.v.forward(activations, self.pool, v);
        for token in 0..tokens {
            let position = self.start + token;
            let (key, value) = (&mut k[token * kv_width..][..kv_width], &v[token * kv_width..][..kv_width]);
            self.rope.turn(&mut q[token * q_width..][..q_width], position);
            self.rope.turn(key, position);
            self.cache.store(i, position, key, value);
        }
        let attention = Attention { config, cache: self.cache, layer: i, start: self.start, queries: q, kernel: self.kernel };
        attention.attend(self.pool, mixed);
        rms_in_place(mixed, &layer.attn_sub_norm, config.rms_eps);
        activations.quantize(mixed, q_width);
        layer.output.forward(activations, self.pool, h);
        add(x, h);
    }

    fn feed_forward(&mut self, layer: &Layer, buffers: &mut Buffers) {
        let (config, tokens) = (self.config, self.tokens);
        let (embd, ff) = (config.n_embd, config.n_ff);
        let Buffers { x, h, gate, up, activations, .. } = buffers;
        let (x, h) = (&mut x[..tokens * embd], &mut h[..tokens * embd]);
        let (gate, up) = (&mut gate[..tokens * ff], &mut up[..tokens * ff]);
        rms(x, &layer.ffn_norm, config.rms_eps, h);
        activations.quantize(h, embd);
        layer.gate.forward(activations, self.pool, gate);
        layer.up.forward(activations, self.pool, up);
        gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = config.activation.apply(*gate) * *up);
        rms_in_place(gate, &layer.ffn_sub_norm, config.rms_eps);
        activations.quantize(gate, ff);
        layer.down.forward(activations, self.pool, h);
        add(x, h);
    }
}

fn add(x: &mut [f32], h: &[f32]) {
    x.iter_mut().zip(h).for_each(|(x, h)| *x += h);
}
