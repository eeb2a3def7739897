//! The parts of a plan: verdict, budgets, choices, and what would change them.

use spec::{Bytes, Known, Settings, TokensPerSec};
use std::fmt;

/// A memory that can run out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pool {
    /// A GPU by its place in [`footprint::Target::devices`].
    Device {
        /// Its place.
        index: usize,
        /// The engine's name of it.
        name: String,
    },
    /// All GPUs together, where a sum over them decides.
    AllDevices,
    /// Host memory.
    Host,
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { name, .. } => f.pad(name),
            Self::AllDevices => f.pad("all GPUs"),
            Self::Host => f.pad("host"),
        }
    }
}

/// One pool of memory under a plan.
///
/// Left free unless the user says otherwise: on a GPU 3 % of its memory and at least 384 MiB, because drivers and
/// scratch pools take more at peak than right after load; on the host 5 % of its memory, at least 512 MiB (an eighth on
/// small machines) and at most 4 GiB, for the rest of the system.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Which pool.
    pub pool: Pool,
    /// Memory in all.
    pub total: Known<Bytes>,
    /// Memory that can be taken now.
    pub free: Known<Bytes>,
    /// Left free on purpose.
    pub margin: Bytes,
    /// Free less margin; `None` where free memory is not known, and nothing is enforced.
    pub limit: Option<Bytes>,
    /// What the plan takes and cannot give back: on the host, anonymous memory.
    pub needed: Known<Bytes>,
    /// Weights read in place from the mapped file: page cache on top of `needed`. Zero on a GPU.
    pub mapped: Known<Bytes>,
    /// A GPU whose memory is the host's: what it needs is part of what the host needs, and both limits hold.
    pub shares_host: bool,
    /// Of `needed` on the host: what GPUs hold that share its memory, weights that they read from the mapped file included.
    pub of_devices: Known<Bytes>,
}

impl Budget {
    /// Upper end of what is needed, over free memory; `None` where either is unknown.
    pub fn share(&self) -> Option<f64> {
        let free = self.free.get()?.as_f64();
        let needed = self.needed.high()?.as_f64();
        (free > 0.0).then_some(needed / free)
    }
    /// What is left under the limit; `None` where the limit is not known.
    pub fn left(&self) -> Option<Bytes> {
        Some(self.limit?.saturating_sub(*self.needed.high()?))
    }
    /// True where the upper end of what is needed stays under the limit, or no limit is known.
    pub fn holds(&self) -> bool {
        match (self.limit, self.needed.high()) {
            (Some(limit), Some(needed)) => *needed <= limit,
            _ => true,
        }
    }
}

/// Whether the request is met in full.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// All that the use case asks for.
    Fits,
    /// With something given up, in the order in which it was.
    FitsAfterDowngrade(Vec<Downgrade>),
}

impl Verdict {
    /// The steps; empty where it simply fits.
    pub fn downgrades(&self) -> &[Downgrade] {
        match self {
            Self::Fits => &[],
            Self::FitsAfterDowngrade(steps) => steps,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fits => "fits",
            Self::FitsAfterDowngrade(_) => "fits after downgrade",
        })
    }
}

/// Something given up so that the model fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Downgrade {
    /// The setting; `residency` where weights no longer stay in memory, `ttft` and `min_tps` where a bound on speed is not met.
    pub setting: &'static str,
    /// What the use case asks for.
    pub from: String,
    /// What the plan has.
    pub to: String,
    /// Why.
    pub why: String,
    /// What the step saves, and where.
    pub saves: Option<(Pool, Bytes)>,
    /// What it costs in speed or quality; `None` where that is what `to` says.
    pub costs: Option<String>,
}

impl fmt::Display for Downgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} instead of {}: {}", self.setting, self.to, self.from, self.why)?;
        let saves = self.saves.as_ref().map(|(pool, bytes)| format!("saves {bytes} on {pool}"));
        let costs = self.costs.as_ref().map(|costs| format!("costs {costs}"));
        match (saves, costs) {
            (None, None) => Ok(()),
            (saves, costs) => write!(f, " ({})", saves.into_iter().chain(costs).collect::<Vec<_>>().join("; ")),
        }
    }
}

/// Which processors compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// All layers on the CPU.
    CpuOnly,
    /// All layers on GPUs.
    GpuOnly,
    /// Layers, or the experts of some layers, on both.
    Hybrid,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CpuOnly => "CPU only",
            Self::GpuOnly => "GPU only",
            Self::Hybrid => "hybrid",
        })
    }
}

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Fixed by the user.
    Pinned,
    /// Found by the search over memory and speed.
    Searched,
    /// Follows from a rule over machine, model or use case.
    Rule,
    /// The engine's default, written out.
    EngineDefault,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pinned => "pinned",
            Self::Searched => "searched",
            Self::Rule => "rule",
            Self::EngineDefault => "engine default",
        })
    }
}

/// One setting and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The setting's name in [`Settings`].
    pub setting: &'static str,
    /// Its value, as text.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Why.
    pub because: String,
}

/// What stands in the way of a better plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// A memory.
    Memory(Pool),
    /// The trained context.
    TrainedContext,
    /// What the use case asks for: more would fit.
    UseCase,
    /// The user's pins.
    Pins(Vec<&'static str>),
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(pool) => write!(f, "memory of {pool}"),
            Self::TrainedContext => f.pad("trained context"),
            Self::UseCase => f.pad("what the use case needs"),
            Self::Pins(names) => write!(f, "pinned {}", names.join(", ")),
        }
    }
}

/// A change of machine or request, and what the plan would be then.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What changes: `3.20 GiB more on CUDA0`.
    pub what: String,
    /// What follows: `all layers on the GPU, decode ~41 instead of ~9 tok/s`.
    pub then: String,
    /// Decode speed then.
    pub decode: Known<TokensPerSec>,
}

/// What plans can be better or worse in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// Time of a typical request.
    Speed,
    /// Time to its first token.
    FirstToken,
    /// Tokens of context.
    Context,
    /// Precision of the KV cache.
    Quality,
    /// Memory left on devices; where there are none, on the host.
    MemoryLeft,
    /// Processors kept at work, times the time of a request: what can be said of energy without knowing watts.
    Power,
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Speed => "speed",
            Self::FirstToken => "speed to the first token",
            Self::Context => "context",
            Self::Quality => "quality",
            Self::MemoryLeft => "memory left",
            Self::Power => "requests per processor and second",
        })
    }
}

/// What a plan is worth in each aspect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Merits {
    /// Seconds of a typical request.
    pub seconds: f64,
    /// Seconds of a typical request to its first token.
    pub first_token: f64,
    /// Tokens of context.
    pub n_ctx: u32,
    /// Bits of one element of the KV cache, the mean of K and V.
    pub cache_bits: f64,
    /// Share of the devices' memory, or without devices of the host's, that is left, 0 to 1.
    pub memory_left: f64,
    /// Processors kept at work times the seconds of a typical request: energy goes with it, and watts are not known.
    pub processor_seconds: f64,
}

impl Merits {
    /// The worth in one aspect; more is better.
    pub fn of(&self, aspect: Aspect) -> f64 {
        match aspect {
            Aspect::Speed => 1.0 / self.seconds,
            Aspect::FirstToken => 1.0 / self.first_token,
            Aspect::Context => f64::from(self.n_ctx),
            Aspect::Quality => self.cache_bits,
            Aspect::MemoryLeft => self.memory_left,
            Aspect::Power => 1.0 / self.processor_seconds,
        }
    }
}

/// A plan among those that no other one beats in everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Pareto {
    /// What the plan is worth.
    pub chosen: Merits,
    /// The others.
    pub others: Vec<Alternative>,
}

/// Another plan that fits, better than the chosen one in something.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// What it is: `CPU only`, `KV cache in q8_0`.
    pub what: String,
    /// In what it is better.
    pub better: Vec<Aspect>,
    /// In what it is worse.
    pub worse: Vec<Aspect>,
    /// Its settings.
    pub settings: Settings,
    /// Its decode speed.
    pub decode: Known<TokensPerSec>,
    /// What it is worth.
    pub merits: Merits,
    /// By how much it is better and worse.
    pub why_not: String,
}
