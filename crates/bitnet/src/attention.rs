//! Softmax attention over the cache, without a table of scores: keys are taken some at a time, and what was summed before is scaled
//! down when a larger score turns up (Milakov and Gimelshein, arXiv 1805.02867).

use crate::cache::Cache;
use crate::config::Config;
use kernels::{ColumnsMut, Kernel, Pool};
use std::ops::Range;

/// Keys taken at a time.
const KEYS: usize = 32;
/// Tokens that use them while they are near.
const TOKENS: usize = 32;
/// Query heads that are taken through the context side by side.
const HEADS: usize = 64;
/// Widest head.
pub(crate) const MAX_HEAD: usize = 256;
/// Most query heads of one key head.
pub(crate) const MAX_GROUP: usize = 16;

/// Where the keys are, and which tokens ask.
pub(crate) struct Attention<'a> {
    pub(crate) config: &'a Config,
    pub(crate) cache: &'a Cache,
    pub(crate) layer: usize,
    /// Position of the first token.
    pub(crate) start: usize,
    /// Queries, token by token.
    pub(crate) queries: &'a [f32],
    pub(crate) kernel: Kernel,
}

/// Largest score so far, and the sum of the exponentials below it.
#[derive(Clone, Copy)]
struct Running {
    largest: f32,
    sum: f32,
}

/// Keys of one head, some at a time, and then their values: half of a first cache, so that there is room for what passes.
struct Near {
    rows: [f32; KEYS * MAX_HEAD],
    /// How many there are.
    count: usize,
    /// Scores of each token's heads, and then their exponentials.
    scores: [[f32; KEYS * MAX_GROUP]; TOKENS],
}

impl Attention<'_> {
    /// Every token over all positions up to its own. `out` is as wide as the queries. Threads share by query heads, so that each has as
    /// many as the others; keys of a head whose queries two threads have are read by both.
    pub(crate) fn attend(&self, pool: &mut Pool, out: &mut [f32]) {
        let head_dim = self.config.head_dim;
        pool.split_columns_evenly([(out, self.config.q_width())], head_dim, |[columns]| {
            let mut near = Near { rows: [0.0; KEYS * MAX_HEAD], count: 0, scores: [[0.0; KEYS * MAX_GROUP]; TOKENS] };
            let end = (columns.first() + columns.width()) / head_dim;
            for first in (columns.first() / head_dim..end).step_by(HEADS) {
                self.heads(columns, first..end.min(first + HEADS), &mut near);
            }
        });
    }

    /// Some query heads, which go through the context together: what it has of them at some positions lies close together in memory.
    fn heads(&self, out: &mut ColumnsMut<'_>, heads: Range<usize>, near: &mut Near) {
        let (head_dim, width) = (self.config.head_dim, self.config.q_width());
        let first = out.first();
        let columns = |heads: Range<usize>| heads.start * head_dim - first..heads.end * head_dim - first;
        let tokens = self.queries.len() / width;
        let (keys, values) = self.cache.layer(self.layer);
        for panel in (0..tokens).step_by(TOKENS) {
            let panel = panel..tokens.min(panel + TOKENS);
            let mut running = [[Running { largest: f32::NEG_INFINITY, sum: 0.0 }; HEADS]; TOKENS];
            panel.clone().for_each(|token| out.row(token)[columns(heads.clone())].fill(0.0));
            let positions = self.start + panel.end;
            for from in (0..positions).step_by(KEYS) {
                near.count = KEYS.min(positions - from);
                let mut rest = heads.clone();
                while let Some((kv_head, group)) = self.next_group(&mut rest) {
                    let seen = |token: usize| (self.start + token + 1).saturating_sub(from).min(KEYS);
                    self.load(keys, kv_head, from, near);
                    for token in panel.clone() {
                        let queries = &self.queries[token * width..][group.start * head_dim..group.end * head_dim];
                        let running = &mut running[token - panel.start][group.start - heads.start..group.end - heads.start];
                        let scores = &mut near.scores[token - panel.start][..group.len() * seen(token)];
                        self.weigh(queries, &near.rows, scores, running, &mut out.row(token)[columns(group.clone())]);
                    }
                    self.load(values, kv_head, from, near);
                    for token in panel.clone() {
                        let weights = &near.scores[token - panel.start][..group.len() * seen(token)];
                        self.kernel.add_weighted(weights, &near.rows, head_dim, &mut out.row(token)[columns(group.clone())]);
                    }
                }
            }
            for token in panel.clone() {
                let outs = out.row(token)[columns(heads.clone())].chunks_exact_mut(head_dim);
                for (out, running) in outs.zip(&running[token - panel.start]) {
                    out.iter_mut().for_each(|out| *out /= running.sum);
                }
            }
        }
    }

    /// Takes the query heads that share a key head from the front: that key head, and them.
    fn next_group(&self, heads: &mut Range<usize>) -> Option<(usize, Range<usize>)> {
        let group = self.config.n_head / self.config.n_head_kv;
        let kv_head = heads.start / group;
        let taken = heads.start..heads.end.min((kv_head + 1) * group);
        heads.start = taken.end;
        (!taken.is_empty()).then_some((kv_head, taken))
    }

    /// Widens what a head has at some positions, and asks for what it has at those after them.
    fn load(&self, all: &[u8], kv_head: usize, from: usize, near: &mut Near) {
        let (head_dim, ty, row) = (self.config.head_dim, self.cache.ty(), self.cache.row_bytes());
        let head = kv_head * ty.bytes(head_dim);
        let bytes = |position: usize| position * row + head..position * row + head + ty.bytes(head_dim);
        for (place, floats) in near.rows.chunks_exact_mut(head_dim).take(near.count).enumerate() {
            all.get(bytes(from + place + KEYS)).into_iter().for_each(kernels::expect);
            ty.load(&all[bytes(from + place)], floats, self.kernel);
        }
    }

    /// Makes weights of keys, the exponentials of their scores below the largest so far, for some heads of a token that sees as many keys as
    /// there is room for; what the heads have summed is scaled to that.
    fn weigh(&self, queries: &[f32], keys: &[f32], weights: &mut [f32], running: &mut [Running], out: &mut [f32]) {
        let head_dim = self.config.head_dim;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let seen = weights.len() / running.len();
        if seen == 0 {
            return;
        }
        self.kernel.scores(queries, keys, head_dim, scale, weights);
        for ((weights, running), out) in weights.chunks_exact_mut(seen).zip(running).zip(out.chunks_exact_mut(head_dim)) {
            let largest = self.kernel.maximum(weights);
            if largest > running.largest {
                let shrink = (running.largest - largest).exp();
                out.iter_mut().for_each(|out| *out *= shrink);
                *running = Running { largest, sum: running.sum * shrink };
            }
            running.sum += self.kernel.exponentials(weights, running.largest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::CacheType;
    use crate::config::Activation;

    fn config(n_head: usize, n_head_kv: usize, head_dim: usize) -> Config {
        Config {
            n_vocab: 1,
            n_embd: n_head * head_dim,
            n_layer: 1,
            n_ff: 1,
            n_head,
            n_head_kv,
            head_dim,
            rope_base: 1e4,
            rms_eps: 1e-5,
            activation: Activation::Relu2,
            n_ctx_train: 1024,
        }
    }

    fn noise(seed: u32, count: usize) -> Vec<f32> {
        let mut state = u64::from(seed) | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// Attention as it is defined, in double precision.
    fn plain(config: &Config, start: usize, queries: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
        let (width, kv, d) = (config.q_width(), config.kv_width(), config.head_dim);
        let mut out = Vec::new();
        for token in 0..queries.len() / width {
            for head in 0..config.n_head {
                let query = &queries[token * width + head * d..][..d];
                let kv_head = head / (config.n_head / config.n_head_kv);
                let row = |rows: &[f32], position: usize, i: usize| f64::from(rows[position * kv + kv_head * d + i]);
                let score = |position| (0..d).map(|i| f64::from(query[i]) * row(keys, position, i)).sum::<f64>() / (d as f64).sqrt();
                let weights: Vec<f64> = (0..=start + token).map(|position| score(position).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let value = |i| weights.iter().enumerate().map(|(position, weight)| weight * row(values, position, i)).sum::<f64>() / sum;
                out.extend((0..d).map(|i| value(i) as f32));
            }
        }
        out
    }

    #[test]
    fn it_is_attention() {
        for (n_head, n_head_kv, d, start, tokens, threads) in [
            (4, 1, 8, 0, 1, 1),
            (4, 2, 16, 5, 3, 2),
            (6, 3, 32, 70, 40, 2),
            (3, 3, 64, 31, 33, 4),
            (20, 5, 128, 100, 2, 3),
            (70, 7, 8, 40, 35, 1),
        ] {
            let config = config(n_head, n_head_kv, d);
            let positions = start + tokens;
            let (keys, values) = (noise(1, positions * config.kv_width()), noise(2, positions * config.kv_width()));
            let queries: Vec<f32> = noise(3, tokens * config.q_width()).iter().map(|q| q * 4.0).collect();
            let mut cache = Cache::new(CacheType::F32, 1, positions, config.kv_width());
            for position in 0..positions {
                let row = position * config.kv_width()..(position + 1) * config.kv_width();
                cache.keep(0, position, &keys[row.clone()], &values[row]);
            }
            let mut out = vec![f32::NAN; tokens * config.q_width()];
            let attention = Attention { config: &config, cache: &cache, layer: 0, start, queries: &queries, kernel: Kernel::best() };
            attention.attend(&mut Pool::new(threads).unwrap(), &mut out);
            let expected = plain(&config, start, &queries, &keys, &values);
            let worst = out.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-6, "{n_head} heads: {worst}");
        }
    }
}
