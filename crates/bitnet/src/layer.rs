//! One layer over the tokens of a micro-batch.

use crate::attention::Attention;
use crate::cache::Cache;
use crate::config::{Activation, Config};
use crate::rope::Rope;
use crate::weights::Layer;
use kernels::{Activations, Kernel, Pool, QuantizedLinear, Table};

/// What a micro-batch is computed in; sized for the largest.
#[derive(Clone, Debug)]
pub(crate) struct Buffers {
    /// The residual stream.
    pub(crate) x: Vec<f32>,
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
        let (config, tokens, kernel) = (self.config, self.tokens, self.kernel);
        let (q_width, kv_width) = (config.q_width(), config.kv_width());
        let Buffers { x, q, k, v, mixed, activations, .. } = buffers;
        let x = &mut x[..tokens * config.n_embd];
        let (q, mixed) = (&mut q[..tokens * q_width], &mut mixed[..tokens * q_width]);
        let (k, v) = (&mut k[..tokens * kv_width], &mut v[..tokens * kv_width]);
        activations.quantize_norm(x, &layer.attn_norm, config.rms_eps, kernel, self.pool);
        let projections = [(&layer.q, &mut *q), (&layer.k, &mut *k), (&layer.v, &mut *v)];
        QuantizedLinear::forward_each(projections, activations, self.pool, |_| ());
        let (start, rope, ty) = (self.start, self.rope, self.cache.ty());
        let queries_and_keys = (Table::new(q, q_width), Table::new(k, kv_width));
        let kept = self.cache.rows_mut(i, start..start + tokens);
        self.pool.each_row((queries_and_keys, kept), |token, ((q, key), (kept_key, kept_value))| {
            rope.turn(q, token, kernel);
            rope.turn(key, token, kernel);
            ty.store(key, kept_key);
            ty.store(&v[token * kv_width..][..kv_width], kept_value);
        });
        Attention { config, cache: self.cache, layer: i, start, queries: q, kernel }.attend(self.pool, mixed);
        activations.quantize_norm(mixed, &layer.attn_sub_norm, config.rms_eps, kernel, self.pool);
        layer.output.forward_add(activations, self.pool, x);
    }

    fn feed_forward(&mut self, layer: &Layer, buffers: &mut Buffers) {
        let (config, tokens, kernel) = (self.config, self.tokens, self.kernel);
        let Buffers { x, gate, up, activations, .. } = buffers;
        let x = &mut x[..tokens * config.n_embd];
        let (gate, up) = (&mut gate[..tokens * config.n_ff], &mut up[..tokens * config.n_ff]);
        activations.quantize_norm(x, &layer.ffn_norm, config.rms_eps, kernel, self.pool);
        let projections = [(&layer.gate, &mut *gate), (&layer.up, up)];
        QuantizedLinear::forward_each(projections, activations, self.pool, |[gate, up]| {
            for token in 0..tokens {
                match config.activation {
                    Activation::Relu2 => kernel.relu2_times(gate.row(token), up.row(token)),
                    Activation::Silu => kernel.silu_times(gate.row(token), up.row(token)),
                }
            }
        });
        activations.quantize_norm(gate, &layer.ffn_sub_norm, config.rms_eps, kernel, self.pool);
        layer.down.forward_add(activations, self.pool, x);
    }
}
