//! PREDICT: the speed of a configuration, from the fitted model of [`roofline`].
//!
//! Each processor has a share of the work by what lies on it: its time is the roofline's, with the effects of its class, generation,
//! backend and system. The processors of a target work one after another, so their times add up; between them lie hops, copies of
//! host weights to the GPU for large batches, and the disk where weights do not stay in memory.

mod alone;
mod busiest;
mod costs;
mod forecast;
mod generation;
mod load;
mod predictor;
mod processor;
mod range;
mod ranking;
mod speculation;
mod state;
mod times;

use crate::inventory::Inventory;
pub use alone::{Alone, alone};
pub use busiest::{Busiest, busiest};
use footprint::{Requirement, Target};
pub use forecast::{Forecast, Question, RequestTimes, SpeedAt, depths, forecast};
pub(crate) use load::{Moved, moved_by_overrides};
pub(crate) use predictor::{Configuration, Predictor};
pub(crate) use processor::{SPREAD_OVER_NODES, fast_cpus, nodes};
pub(crate) use range::Range;
pub use ranking::{Placement, request_seconds};
use spec::{Known, Machine, Model, Settings, TokensPerSec};
pub use speculation::Speculation;
pub(crate) use speculation::{Drafted, DraftedRequest};
pub(crate) use state::HostState;
use std::time::Duration;

const SOURCE: &str = "roofline per processor, fitted to published benchmarks";
/// Of this program's own kernels.
const OWN_SOURCE: &str = "roofline per processor, of our own kernels on two processors";

/// What the rates of a prediction rest on, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// What hardware of that kind usually does; something that matters is not known of this one.
    Prior,
    /// Measurements of other devices of the same class.
    Class,
    /// Runs on this machine.
    Machine,
}

impl Basis {
    /// The words for it: `prior`, `same class`, `this machine`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prior => "prior",
            Self::Class => "same class",
            Self::Machine => "this machine",
        }
    }
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

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
    /// Fixed cost per layer and token: launches and synchronisation.
    Launch,
}

impl Bottleneck {
    /// The word for it: `bandwidth`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bandwidth => "bandwidth",
            Self::Compute => "compute",
            Self::Link => "link",
            Self::Disk => "disk",
            Self::Launch => "launch",
        }
    }
}

impl std::fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
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
    /// Tokens per second over the first micro-batch of a prompt.
    pub prefill: Known<TokensPerSec>,
    /// Tokens in the context for which `decode` holds.
    pub depth: u32,
    /// What the rates rest on.
    pub basis: Basis,
    /// What limits decode.
    pub decode_bottleneck: Bottleneck,
    /// What limits prefill.
    pub prefill_bottleneck: Bottleneck,
    /// The parts of decode's time per token, largest first.
    pub decode_parts: Vec<TimePart>,
    /// Rates that were assumed rather than known, with what the assumption spans.
    pub assumptions: Vec<String>,
}

/// Estimates the speed of `settings`, whose requirement is `requirement`, at `depth` tokens of context.
///
/// Where mapped weights do not fit beside the anonymous memory, they are read from disk: at least the share that is missing, at most all
/// of them, because a cyclic scan evicts what it needs next.
pub fn predict(
    machine: &Machine,
    model: &Model,
    target: &Target,
    settings: &Settings,
    requirement: &Requirement,
    depth: u32,
) -> Prediction {
    let inventory = Inventory::required(model, requirement);
    let moved = moved_by_overrides(model, target, settings);
    let state = HostState::of(crate::plan::pools::room_on_host(machine, None), requirement);
    Predictor::new(machine, target, &inventory).speed(settings, &requirement.layer_devices, &moved, &state, depth)
}
