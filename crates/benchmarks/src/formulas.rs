//! What others predict decode with, derived anew from what they publish, to stand beside ours on the same rows; used by the
//! evaluation only. All get the same bandwidth and the same shape, which flatters those whose tables differ.

use crate::sample::Sample;
use roofline::{Quant, Shape};

/// A published formula.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formula {
    /// Bandwidth ÷ bytes of all weights.
    BandwidthOverSize,
    /// llmfit (AlexsJones, 3f44fd30a): 0.55 · bandwidth ÷ (parameters · bytes per parameter), of experts the active ones.
    Llmfit,
    /// gguf-parser-go (gpustack), `--device-metric` at its defaults, 4096 tokens of context read four times per step, with the
    /// rate of our tables: (max(2·P·4 ÷ rate, weights ÷ bandwidth) + 4 · KV ÷ bandwidth) · L ÷ (L + 2).
    GgufParser,
}

impl Formula {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::BandwidthOverSize, Self::Llmfit, Self::GgufParser];

    /// What people call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BandwidthOverSize => "bandwidth ÷ size",
            Self::Llmfit => "llmfit's formula",
            Self::GgufParser => "gguf-parser-go's formula",
        }
    }

    /// Tokens per second of decode.
    pub fn speed(self, sample: &Sample) -> Option<f64> {
        let shape = &sample.work.first()?.shape;
        let device = &sample.found.device;
        Some(match self {
            Self::BandwidthOverSize => device.bandwidth / shape.all_bytes,
            Self::Llmfit => 0.55 * device.bandwidth / (elements(shape) * bytes_per_parameter(shape)),
            Self::GgufParser => {
                let compute = 2.0 * elements(shape) * 4.0 / device.vector_rate();
                let weights = shape.active_bytes / device.bandwidth;
                let cache = 4.0 * shape.cache_read(4096.0) / device.bandwidth;
                1.0 / ((compute.max(weights) + cache) * shape.layers / (shape.layers + 2.0))
            }
        })
    }
}

fn elements(shape: &Shape) -> f64 {
    shape.active_elements + shape.output_elements
}

/// llmfit's table of bytes per parameter, by the class of a quantisation, as remembered; not compared with its source.
fn bytes_per_parameter(shape: &Shape) -> f64 {
    match shape.quant {
        Quant::Float => 2.0,
        Quant::Q8 => 1.05,
        Quant::Q6 => 0.80,
        Quant::Q4K | Quant::Q4 | Quant::Mx => 0.58,
        Quant::Q3K => 0.48,
        Quant::Iq => 0.37,
    }
}
