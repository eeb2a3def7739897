//! Which slice of each tensor a device gets.
//!
//! Upstream: `llama_meta_device_get_split_state`, `src/llama-model.cpp:379-900`. A matrix is cut along its rows or its
//! columns so that what follows it needs no exchange: heads of attention and inner columns of a feed-forward block stay
//! together, in whole blocks of the type of the matrix that closes the block (`attn_output`, `ffn_down`, `ssm_out`).

use spec::Model;
use spec::model::{Attention, FeedForward, Mixer, Tensor};
use std::collections::BTreeMap;

/// Architectures whose queries carry a gate, and whose recurrent layers are cut by heads of keys.
const GATED_QUERIES: &[&str] = &["qwen3next", "qwen35", "qwen35moe"];
/// Architectures whose recurrent layers are computed whole on every device.
const WHOLE_STATE: &[&str] = &["lfm2", "lfm2moe"];

/// What closes attention, a recurrence, a feed-forward block.
const ATTENTION: &[&str] = &["attn_output.weight", "ssm_out.weight"];
const RECURRENCE: &[&str] = &["ssm_out.weight"];
const FEED_FORWARD: &[&str] = &["ffn_down.weight", "ffn_down_exps.weight"];

/// A tensor over the devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Slices {
    /// Every device has all of it.
    Whole,
    /// Each device has so much of this dimension.
    Along { axis: usize, widths: Vec<u64> },
}

/// A run of equal parts within a dimension, each cut alike in multiples of `grain`.
#[derive(Clone, Copy, Debug)]
struct Segment {
    width: u64,
    times: u64,
    grain: u64,
}

/// How one model is cut for some devices.
pub(super) struct Slicing<'a> {
    model: &'a Model,
    tensors: BTreeMap<&'a str, &'a Tensor>,
    devices: usize,
    /// Share of each device; all zero for equal shares.
    shares: Vec<f32>,
    /// Of each layer, how many like it come before: by so many devices its slices are turned, which evens out what
    /// rounding leaves over.
    turn: Vec<usize>,
}

impl<'a> Slicing<'a> {
    pub(super) fn new(model: &'a Model, devices: usize, tensor_split: &[f64]) -> Self {
        let kind = |mixer: &Mixer| match mixer {
            Mixer::Attention(a) => (false, a.window.is_some()),
            Mixer::Both(a, _) => (true, a.window.is_some()),
            mixer => (matches!(mixer, Mixer::Recurrent(_)), false),
        };
        let kinds: Vec<_> = model.layers.iter().map(|layer| kind(&layer.mixer)).collect();
        let turn = (0..kinds.len()).map(|i| kinds[..i].iter().filter(|&&before| before == kinds[i]).count()).collect();
        Self {
            model,
            tensors: model.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(),
            devices,
            shares: (0..devices).map(|i| tensor_split.get(i).map_or(0.0, |&share| share as f32)).collect(),
            turn,
        }
    }

    /// The slices of a weight.
    pub(super) fn weight(&self, tensor: &Tensor) -> Result<Slices, String> {
        let Some((layer, suffix)) = in_layer(&tensor.name) else {
            return Ok(match tensor.name.as_str() {
                "output.weight" => self.plain(1, tensor.shape[1]),
                "output.bias" => self.plain(0, tensor.shape[0]),
                _ => Slices::Whole,
            });
        };
        let Some((axis, closing)) = rule(suffix, tensor) else { return Ok(Slices::Whole) };
        let block = self.block(layer, closing)?;
        let width = tensor.shape[axis];
        Ok(Slices::Along { axis, widths: self.cut(layer, &self.segments(layer, suffix, width, block)?) })
    }

    /// Elements of a cached row of one layer on each device.
    pub(super) fn cache(&self, layer: usize, values: bool, width: u64) -> Result<Vec<u64>, String> {
        let block = self.block(layer, &ATTENTION[..1])?;
        let suffix = if values { "cache_v" } else { "cache_k" };
        Ok(self.cut(layer, &self.segments(layer, suffix, width, block)?))
    }

    /// Elements of a row of the convolution's or the recurrence's state of one layer on each device.
    pub(super) fn state(&self, layer: usize, recurrence: bool, width: u64) -> Result<Vec<u64>, String> {
        if WHOLE_STATE.contains(&self.model.architecture.as_str()) {
            return Ok(vec![width; self.devices]);
        }
        let block = self.block(layer, RECURRENCE)?;
        let suffix = if recurrence { "cache_s" } else { "cache_r" };
        Ok(self.cut(layer, &self.segments(layer, suffix, width, block)?))
    }

    /// Elements in a block of the matrix that closes what a tensor belongs to; without one the engine ends itself.
    fn block(&self, layer: usize, closing: &[&str]) -> Result<u64, String> {
        let found = closing.iter().find_map(|suffix| self.tensors.get(format!("blk.{layer}.{suffix}").as_str()));
        found.map(|tensor| tensor.ty.block().weights).ok_or_else(|| format!("layer {layer} has no {}", closing.join(" or ")))
    }

    fn plain(&self, axis: usize, width: u64) -> Slices {
        let turn = self.model.n_layer() as usize % self.devices.max(1);
        Slices::Along { axis, widths: self.cut_turned(turn, &[Segment { width, times: 1, grain: 1 }]) }
    }

    fn cut(&self, layer: usize, segments: &[Segment]) -> Vec<u64> {
        self.cut_turned(self.turn.get(layer).copied().unwrap_or(0) % self.devices.max(1), segments)
    }

    /// Cumulative shares in single precision, as they are there.
    fn cut_turned(&self, turn: usize, segments: &[Segment]) -> Vec<u64> {
        let n = self.devices;
        let mut sum = 0.0_f32;
        let scan: Vec<f32> = (0..n)
            .map(|j| {
                sum += self.shares[(j + turn) % n];
                sum
            })
            .collect();
        let mut widths = vec![0_u64; n];
        for segment in segments {
            let mut low = 0;
            for j in 0..n {
                let high = match j + 1 == n {
                    true => segment.width,
                    false if sum == 0.0 => segment.width.saturating_mul(j as u64 + 1) / n as u64,
                    false => (segment.width as f32 * scan[j] / sum) as u64,
                };
                let high = if j + 1 == n { high } else { (high - high % segment.grain.max(1)).max(low) };
                widths[(j + turn) % n] += (high.saturating_sub(low)).saturating_mul(segment.times);
                low = high;
            }
        }
        widths
    }

    fn segments(&self, layer: usize, suffix: &str, width: u64, block: u64) -> Result<Vec<Segment>, String> {
        let mixer = self.model.layers.get(layer).map(|layer| &layer.mixer);
        let recurrent = matches!(mixer, Some(Mixer::Recurrent(_) | Mixer::Both(..)));
        let one = |grain| vec![Segment { width, times: 1, grain }];
        let grain = lcm(block, 128);
        if suffix.starts_with("ffn_") {
            let parts = self.feed_forward_parts(layer, suffix, width);
            return Ok(vec![Segment { width: width / parts, times: parts, grain }]);
        }
        match mixer {
            _ if recurrent => self.recurrent_segments(suffix, width, block),
            Some(Mixer::Attention(a)) => self.attention_segments(a, suffix, width, block),
            _ if suffix.starts_with("cache") => Err(format!("layer {layer} has no heads to cut its cache by")),
            _ => Ok(one(1)),
        }
    }

    /// Gate and value in one matrix are cut alike.
    fn feed_forward_parts(&self, layer: usize, suffix: &str, width: u64) -> u64 {
        let n_ff = match self.model.layers.get(layer).map(|layer| &layer.feed_forward) {
            Some(FeedForward::Dense { n_ff }) => *n_ff,
            Some(FeedForward::Experts(experts)) if suffix.starts_with("ffn_gate_up") => experts.n_ff,
            _ => self.model.arch_uint("feed_forward_length").unwrap_or(0),
        };
        let joined = suffix.starts_with("ffn_gate_up") || (suffix.starts_with("ffn_up") && !self.gated_queries());
        if joined && n_ff > 0 && width == n_ff.saturating_mul(2) { 2 } else { 1 }
    }

    fn gated_queries(&self) -> bool {
        GATED_QUERIES.contains(&self.model.architecture.as_str())
    }

    /// Whole heads of keys with the heads of queries that share them.
    fn attention_segments(&self, a: &Attention, suffix: &str, width: u64, block: u64) -> Result<Vec<Segment>, String> {
        let (head_k, head_v) = (u64::from(a.head_dim_k).max(1), u64::from(a.head_dim_v));
        let group = (u64::from(a.n_head) / u64::from(a.n_head_kv).max(1)).max(1);
        let queries = group * head_k;
        // Larger multiples where every device still gets some.
        let mut block = block;
        while block < 128 && block * (self.devices as u64) < queries {
            block *= 2;
        }
        let q = lcm(queries, block);
        let (heads, keys) = (q / head_k, q / group);
        let values = keys / head_k * head_v;
        let gated = lcm(2 * queries, block);
        let q_rows = if self.gated_queries() { gated } else { q };
        let one = |grain| Ok(vec![Segment { width, times: 1, grain }]);
        match suffix {
            "attn_q.weight" | "attn_q.bias" => one(q_rows),
            "attn_k.weight" | "attn_k.bias" | "cache_k" => one(keys),
            "attn_v.weight" | "attn_v.bias" | "cache_v" => one(values),
            "attn_sinks.weight" => one(heads),
            "attn_output.weight" => one(heads * head_v),
            "attn_gate.weight" => one(if width == u64::from(a.n_head) { heads } else { q }),
            "attn_qkv.weight" | "attn_qkv.bias" => {
                let of = |width, times, grain| Segment { width, times, grain };
                let q_width = u64::from(a.n_head) * head_k * if self.gated_queries() { 2 } else { 1 };
                let (k, v) = (a.k_width(), a.v_width());
                if width != q_width + k + v {
                    return Err(format!("{suffix} has {width} rows instead of {}", q_width + k + v));
                }
                Ok(if k == v {
                    vec![of(q_width, 1, q_rows), of(k, 2, keys)]
                } else {
                    vec![of(q_width, 1, q_rows), of(k, 1, keys), of(v, 1, values)]
                })
            }
            _ => one(1),
        }
    }

    /// Whole heads of keys, with the heads of values that share them.
    fn recurrent_segments(&self, suffix: &str, width: u64, block: u64) -> Result<Vec<Segment>, String> {
        let figure = |key: &str| self.model.arch_uint(key).filter(|&n| n > 0).ok_or_else(|| format!("{key} is not stated"));
        let (head, groups, heads, conv) =
            (figure("ssm.state_size")?, figure("ssm.group_count")?, figure("ssm.time_step_rank")?, figure("ssm.conv_kernel")? - 1);
        let (key, value, ratio) = (head * groups, head * heads, heads / groups);
        let rows = lcm(lcm(block, 128), head);
        let of = |width, times, grain| vec![Segment { width, times, grain }];
        let next = self.model.architecture == "qwen3next";
        Ok(match suffix {
            "attn_qkv.weight" | "ssm_conv1d.weight" if next => {
                vec![Segment { width: key, times: 2, grain: rows }, Segment { width: value, times: 1, grain: rows }]
            }
            "attn_qkv.weight" | "ssm_conv1d.weight" => of(key, 2 + ratio, rows),
            "attn_gate.weight" | "ssm_out.weight" if next => of(width, 1, rows),
            "attn_gate.weight" | "ssm_out.weight" => of(key, ratio, rows),
            "ssm_dt.bias" | "ssm_a" | "ssm_alpha.weight" | "ssm_beta.weight" if next => of(width, 1, rows / head),
            "ssm_dt.bias" | "ssm_a" | "ssm_alpha.weight" | "ssm_beta.weight" => of(groups, ratio, rows / head),
            "ssm_ba.weight" => of(width, 1, 2 * (rows / head)),
            "cache_r" if next => {
                let grain = rows * conv;
                vec![Segment { width: key * conv, times: 2, grain }, Segment { width: value * conv, times: 1, grain }]
            }
            "cache_r" => of(key * conv, 2 + ratio, rows * conv),
            "cache_s" if next => of(width, 1, rows * head),
            "cache_s" => of(groups * head * head, ratio, rows * head),
            _ => of(width, 1, 1),
        })
    }
}

/// Along which dimension a tensor of a layer is cut, and what closes the block that it belongs to; `None`: not at all.
fn rule(suffix: &str, tensor: &Tensor) -> Option<(usize, &'static [&'static str])> {
    Some(match suffix {
        "attn_q.weight" | "attn_k.weight" | "attn_v.weight" | "attn_qkv.weight" | "attn_gate.weight" => (1, ATTENTION),
        "attn_q.bias" | "attn_k.bias" | "attn_v.bias" | "attn_qkv.bias" => (0, ATTENTION),
        "attn_q_norm.weight" | "attn_k_norm.weight" if tensor.shape[1] > 1 => (1, &ATTENTION[..1]),
        "attn_sinks.weight" | "attn_output.weight" => (0, &ATTENTION[..1]),
        "ssm_dt.bias" | "ssm_a" | "ssm_out.weight" => (0, RECURRENCE),
        "ssm_alpha.weight" | "ssm_beta.weight" | "ssm_ba.weight" | "ssm_conv1d.weight" => (1, RECURRENCE),
        "ffn_up.weight" | "ffn_up_exps.weight" | "ffn_gate.weight" | "ffn_gate_exps.weight" => (1, FEED_FORWARD),
        "ffn_gate_up.weight" | "ffn_gate_up_exps.weight" => (1, FEED_FORWARD),
        "ffn_up.bias" | "ffn_up_exps.bias" | "ffn_gate.bias" | "ffn_gate_exps.bias" => (0, FEED_FORWARD),
        "ffn_down.weight" | "ffn_down_exps.weight" => (0, FEED_FORWARD),
        _ => return None,
    })
}

fn in_layer(name: &str) -> Option<(usize, &str)> {
    let (layer, suffix) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, suffix))
}

fn lcm(a: u64, b: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a.max(1)
    };
    (a / gcd(a, b)).saturating_mul(b)
}
