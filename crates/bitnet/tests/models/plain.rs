//! The forward pass as it is defined, in double precision, with one thing done differently.

use super::{Case, embedding, norm, scale, weights};

/// What is done differently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mistake {
    None,
    /// SiLU for ReLU², and the other way round (microsoft/BitNet issue 588).
    Activation,
    /// Neighbours turn together instead of halves.
    RopeOrder,
    AttentionSubNorm,
    FeedForwardSubNorm,
    /// Divided by the weight scale.
    Scale,
    /// Codes from the lowest bits up.
    BitOrder,
    /// Blocks of 64 for blocks of 128.
    Blocks64,
    /// Layer norm: the mean is taken away.
    Mean,
    /// Activations in floats.
    Floats,
    /// Activations rounded by blocks of 256, as llama.cpp does for its ternary types (`ggml-quants.c:quantize_row_q8_K_ref`).
    Blocks256,
}

/// The forward pass in double precision, all tokens at once, without a cache.
pub struct Plain<'a> {
    pub case: &'a Case,
    pub mistake: Mistake,
}

/// A row per token.
pub type Tokens = Vec<Vec<f64>>;

impl Plain<'_> {
    /// Logits after each token.
    pub fn logits(&self) -> Tokens {
        let case = self.case;
        let table: Vec<f64> = embedding(case.seed, case.n_vocab * case.n_embd).iter().map(|x| f64::from(*x)).collect();
        let row = |token: u32| table[token as usize * case.n_embd..][..case.n_embd].to_vec();
        let mut x: Tokens = case.tokens.iter().map(|token| row(*token)).collect();
        for i in 0..case.n_layer {
            let name = |part: &str| format!("blk.{i}.{part}");
            let h = self.norm(&x, &name("attn_norm"));
            let q = self.turned(self.linear(&h, &name("attn_q"), case.n_head * case.head_dim));
            let k = self.turned(self.linear(&h, &name("attn_k"), case.n_head_kv * case.head_dim));
            let v = self.linear(&h, &name("attn_v"), case.n_head_kv * case.head_dim);
            let mut mixed = self.attention(&q, &k, &v);
            if self.mistake != Mistake::AttentionSubNorm {
                mixed = self.norm(&mixed, &name("attn_sub_norm"));
            }
            add(&mut x, &self.linear(&mixed, &name("attn_output"), case.n_embd));
            let h = self.norm(&x, &name("ffn_norm"));
            let (gate, up) = (self.linear(&h, &name("ffn_gate"), case.n_ff), self.linear(&h, &name("ffn_up"), case.n_ff));
            let gated = |(gate, up): (&Vec<f64>, &Vec<f64>)| gate.iter().zip(up).map(|(gate, up)| self.activation(*gate) * up).collect();
            let mut gated: Tokens = gate.iter().zip(&up).map(gated).collect();
            if self.mistake != Mistake::FeedForwardSubNorm {
                gated = self.norm(&gated, &name("ffn_sub_norm"));
            }
            add(&mut x, &self.linear(&gated, &name("ffn_down"), case.n_embd));
        }
        let x = self.norm(&x, "output_norm");
        let logits = |x: &Vec<f64>| table.chunks(case.n_embd).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect();
        x.iter().map(logits).collect()
    }

    fn norm(&self, x: &Tokens, name: &str) -> Tokens {
        let weight = norm(self.case.seed, name, x[0].len());
        let token = |x: &Vec<f64>| {
            let mean = if self.mistake == Mistake::Mean { x.iter().sum::<f64>() / x.len() as f64 } else { 0.0 };
            let square = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / x.len() as f64;
            let factor = 1.0 / (square + 1e-5).sqrt();
            x.iter().zip(&weight).map(|(x, weight)| (x - mean) * factor * f64::from(*weight)).collect()
        };
        x.iter().map(token).collect()
    }

    /// Weights as this pass reads them out of an `I2_S` tensor.
    fn weights(&self, name: &str, rows: usize, columns: usize) -> Vec<i64> {
        let weights = weights(self.case.seed, name, rows * columns);
        let mut packed = kernels::Layout::Blocks128.pack(weights.into_iter());
        if self.mistake == Mistake::BitOrder {
            let turned = |byte: u8| (byte & 3) << 6 | (byte >> 2 & 3) << 4 | (byte >> 4 & 3) << 2 | byte >> 6;
            packed.iter_mut().for_each(|byte| *byte = turned(*byte));
        }
        let layout = if self.mistake == Mistake::Blocks64 { kernels::Layout::Blocks64 } else { kernels::Layout::Blocks128 };
        (0..rows * columns).map(|i| i64::from(layout.code(&packed, i)) - 1).collect()
    }

    fn linear(&self, x: &Tokens, name: &str, rows: usize) -> Tokens {
        let columns = x[0].len();
        let weights = self.weights(name, rows, columns);
        let scale = f64::from(scale(self.case.seed, name));
        let scale = if self.mistake == Mistake::Scale { 1.0 / scale } else { scale };
        let token = |x: &Vec<f64>| {
            let factor = 127.0 / x.iter().fold(1e-5, |largest: f64, x| largest.max(x.abs()));
            let quantised: Vec<f64> = x.iter().map(|x| (x * factor).round_ties_even()).collect();
            let floats = match self.mistake {
                Mistake::Floats => Some(x.clone()),
                Mistake::Blocks256 => Some(x.chunks(256).flat_map(by_block).collect()),
                _ => None,
            };
            let row = |row: &[i64]| match &floats {
                Some(x) => row.iter().zip(x).map(|(w, x)| *w as f64 * x).sum::<f64>() * scale,
                None => {
                    let codes: i64 = row.iter().zip(&quantised).map(|(w, q)| (w + 1) * *q as i64).sum();
                    let sum: i64 = quantised.iter().map(|q| *q as i64).sum();
                    (codes - sum) as f64 / factor * scale
                }
            };
            weights.chunks(columns).map(row).collect()
        };
        x.iter().map(token).collect()
    }

    fn turned(&self, mut x: Tokens) -> Tokens {
        let d = self.case.head_dim;
        for (position, x) in x.iter_mut().enumerate() {
            for head in x.chunks_mut(d) {
                for j in 0..d / 2 {
                    let (a, b) = if self.mistake == Mistake::RopeOrder { (2 * j, 2 * j + 1) } else { (j, j + d / 2) };
                    let (sin, cos) = (position as f64 * self.case.rope_base.powf(-2.0 * j as f64 / d as f64)).sin_cos();
                    (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
                }
            }
        }
        x
    }

    fn attention(&self, q: &Tokens, k: &Tokens, v: &Tokens) -> Tokens {
        let (d, group) = (self.case.head_dim, self.case.n_head / self.case.n_head_kv);
        let head = |token: usize, head: usize| {
            let query = &q[token][head * d..][..d];
            let part = |x: &Vec<f64>| x[head / group * d..][..d].to_vec();
            let score = |key: &Vec<f64>| part(key).iter().zip(query).map(|(k, q)| k * q).sum::<f64>() / (d as f64).sqrt();
            let weights: Vec<f64> = k[..=token].iter().map(|key| score(key).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mut out = vec![0.0; d];
            for (weight, value) in weights.iter().zip(v) {
                out.iter_mut().zip(part(value)).for_each(|(out, value)| *out += weight * value / sum);
            }
            out
        };
        (0..q.len()).map(|token| (0..self.case.n_head).flat_map(|i| head(token, i)).collect()).collect()
    }

    fn activation(&self, x: f64) -> f64 {
        let relu2 = (self.case.hidden_act == "relu2") != (self.mistake == Mistake::Activation);
        if relu2 { x.max(0.0).powi(2) } else { x / (1.0 + (-x).exp()) }
    }
}

/// 127 steps to the value of the largest magnitude, on its side of zero the negative ones.
fn by_block(x: &[f64]) -> Vec<f64> {
    let largest = x.iter().fold(0.0_f64, |largest, x| if x.abs() > largest.abs() { *x } else { largest });
    let factor = if largest == 0.0 { 1.0 } else { -127.0 / largest };
    x.iter().map(|x| (x * factor).round_ties_even().min(127.0) / factor).collect()
}

fn add(x: &mut Tokens, y: &Tokens) {
    x.iter_mut().zip(y).for_each(|(x, y)| x.iter_mut().zip(y).for_each(|(x, y)| *x += y));
}
