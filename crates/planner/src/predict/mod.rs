//! PREDICT: a first, simple estimate of speed. Bytes over bandwidth, with wide intervals and their sources.

use footprint::{Requirement, Target};
use spec::{Known, Machine, Model, Settings, TokensPerSec};
use std::time::Duration;

/// What limits a phase most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bottleneck {
    /// Reading weights and cache from memory.
    Bandwidth,
    /// Arithmetic.
    Compute,
    /// Copies between host and GPU.
    Link,
    /// Reading weights from the file because they do not stay in memory.
    Disk,
    /// Fixed cost per layer: launches and synchronisation.
    Launch,
}

/// One part of the time of a phase.
#[derive(Clone, Debug, PartialEq)]
pub struct TimePart {
    /// What takes it: `weights on CUDA0`, `KV cache on host`.
    pub what: String,
    /// The kind of cost.
    pub bottleneck: Bottleneck,
    /// Central estimate of the time per token.
    pub time: Duration,
}

/// Speed of one configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Tokens per second of one sequence while generating, at [`Prediction::depth`].
    pub decode: Known<TokensPerSec>,
    /// Tokens per second while reading a prompt.
    pub prefill: Known<TokensPerSec>,
    /// Tokens in the context for which `decode` holds.
    pub depth: u32,
    /// What limits decode.
    pub decode_bottleneck: Bottleneck,
    /// What limits prefill.
    pub prefill_bottleneck: Bottleneck,
    /// The parts of decode's time per token, largest first.
    pub decode_parts: Vec<TimePart>,
    /// Rates that were assumed rather than known, with their sources.
    pub assumptions: Vec<String>,
}

/// Estimates the speed of `settings` whose requirement is `requirement`, at `depth` tokens of context.
pub fn predict(
    _machine: &Machine,
    _model: &Model,
    _target: &Target,
    _settings: &Settings,
    _requirement: &Requirement,
    depth: u32,
) -> Prediction {
    Prediction {
        decode: Known::unknown("not estimated yet"),
        prefill: Known::unknown("not estimated yet"),
        depth,
        decode_bottleneck: Bottleneck::Bandwidth,
        prefill_bottleneck: Bottleneck::Compute,
        decode_parts: Vec::new(),
        assumptions: Vec::new(),
    }
}
