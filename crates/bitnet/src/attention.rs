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

/// Keys and values of one head, some at a time, one close behind the other.
struct Near {
    keys: [f32; KEYS * MAX_HEAD],
    values: [f32; KEYS * MAX_HEAD],
    /// How many there are.
    count: usize,
}

impl Attention<'_> {
    /// Every token over all positions up to its own. `out` is as wide as the queries. Threads share by query heads, so that each has as
    /// many as the others; keys of a head whose queries two threads have are read by both.
    pub(crate) fn attend(&self, pool: &mut Pool, out: &mut [f32]) {
        let group = self.config.n_head / self.config.n_head_kv;
        pool.split_columns([(out, self.config.q_width())], self.config.head_dim, |[columns]| {
            let mut near = Near { keys: [0.0; KEYS * MAX_HEAD], values: [0.0; KEYS * MAX_HEAD], count: 0 };
            let end = (columns.first() + columns.width()) / self.config.head_dim;
            let mut head = columns.first() / self.config.head_dim;
            while head < end {
                let next = end.min((head / group + 1) * group);
                self.heads(columns, head..next, head / group, &mut near);
                head = next;
            }
        });
    }

    /// Query heads that share a key head.
    fn heads(&self, out: &mut ColumnsMut<'_>, heads: Range<usize>, kv_head: usize, near: &mut Near) {
        let (head_dim, width) = (self.config.head_dim, self.config.q_width());
        let asked = heads.start * head_dim..heads.end * head_dim;
        let columns = asked.start - out.first()..asked.end - out.first();
        let tokens = self.queries.len() / width;
        for panel in (0..tokens).step_by(TOKENS) {
            let panel = panel..tokens.min(panel + TOKENS);
            let mut running = [[Running { largest: f32::NEG_INFINITY, sum: 0.0 }; MAX_GROUP]; TOKENS];
            panel.clone().for_each(|token| out.row(token)[columns.clone()].fill(0.0));
            let positions = self.start + panel.end;
            for from in (0..positions).step_by(KEYS) {
                near.count = KEYS.min(positions - from);
                self.load(kv_head, from, near);
                for token in panel.clone() {
                    let seen = (self.start + token + 1).saturating_sub(from).min(near.count);
                    let queries = self.queries[token * width..][asked.clone()].chunks_exact(head_dim);
                    let heads = queries.zip(out.row(token)[columns.clone()].chunks_exact_mut(head_dim));
                    for ((query, out), running) in heads.zip(&mut running[token - panel.start]) {
                        self.add(query, near, seen, running, out);
                    }
                }
            }
            for token in panel.clone() {
                let heads = out.row(token)[columns.clone()].chunks_exact_mut(head_dim);
                for (out, running) in heads.zip(&running[token - panel.start]) {
                    out.iter_mut().for_each(|out| *out /= running.sum);
                }
            }
        }
    }

    fn load(&self, kv_head: usize, from: usize, near: &mut Near) {
        let (head_dim, ty, row) = (self.config.head_dim, self.cache.ty(), self.cache.row_bytes());
        let head = kv_head * ty.bytes(head_dim);
        let (all_keys, all_values) = self.cache.layer(self.layer);
        let rows = near.keys.chunks_exact_mut(head_dim).zip(near.values.chunks_exact_mut(head_dim));
        for (place, (key, value)) in rows.take(near.count).enumerate() {
            let place = (from + place) * row + head;
            ty.load(&all_keys[place..place + ty.bytes(head_dim)], key, self.kernel);
            ty.load(&all_values[place..place + ty.bytes(head_dim)], value, self.kernel);
        }
    }

    /// Adds the first `seen` of the keys and their values to what a head has summed.
    fn add(&self, query: &[f32], near: &Near, seen: usize, running: &mut Running, out: &mut [f32]) {
        let head_dim = self.config.head_dim;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let mut scores = [0.0; KEYS];
        let scores = &mut scores[..seen];
        self.kernel.scores(query, &near.keys, head_dim, scale, scores);
        let largest = scores.iter().fold(running.largest, |largest, score| largest.max(*score));
        if largest > running.largest {
            let shrink = (running.largest - largest).exp();
            out.iter_mut().for_each(|out| *out *= shrink);
            *running = Running { largest, sum: running.sum * shrink };
        }
        running.sum += self.kernel.exponentials(scores, running.largest);
        self.kernel.add_weighted(scores, &near.values, head_dim, out);
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
        for (n_head, n_head_kv, d, start, tokens, threads) in
            [(4, 1, 8, 0, 1, 1), (4, 2, 16, 5, 3, 2), (6, 3, 32, 70, 40, 2), (3, 3, 64, 31, 33, 4), (20, 5, 128, 100, 2, 3)]
        {
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
