//! What a person asks for: a use case, preferences, and pins.

use crate::workload::{Asked, Demand, UseCase};
use footprint::{Companions, EngineProfile};
use spec::Bytes;
use spec::settings::Pins;
use spec::words;
use std::sync::Arc;

/// A request for a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the model is for.
    pub use_case: UseCase,
    /// What the user says of requests and floors instead of the use case.
    pub asked: Asked,
    /// What matters to the user beyond that.
    pub preferences: Preferences,
    /// Settings that the user has fixed; kept as they are.
    pub pins: Pins,
    /// The memory rules of the engine that will run.
    pub profile: EngineProfile,
    /// What is loaded beside the model. Shared, for a search copies requests.
    pub companions: Arc<Companions>,
    /// Whether what drafts among that is used as it is given.
    pub drafting: Drafting,
}

impl Default for Request {
    /// General use on the bundled engine, nothing pinned.
    fn default() -> Self {
        Self {
            use_case: UseCase::General,
            asked: Asked::default(),
            preferences: Preferences::default(),
            pins: Pins::default(),
            profile: EngineProfile::bundled(),
            companions: Arc::default(),
            drafting: Drafting::default(),
        }
    }
}

impl Request {
    /// Tokens of one request that the user has described; 0 where its shape is the use case's.
    pub(crate) fn described(&self) -> u32 {
        self.asked.described(&self.demand().workload)
    }

    /// What is asked for: the use case's demand, the user's own words over it. Throughput asks for four requests at once at least.
    pub fn demand(&self) -> Demand {
        let mut demand = self.asked.over(self.use_case.demand());
        if self.preferences.priority == Priority::Throughput && self.asked.users.is_none() {
            demand.workload.users = demand.workload.users.max(4);
        }
        demand
    }
}

words! {
    /// Whether what drafts tokens is used.
    #[derive(Default)]
    Drafting {
        /// As it is given: so many tokens at a time, on the side that it names.
        #[default]
        AsGiven = "as-given",
        /// The plan chooses how many tokens at a time, or none.
        Number = "number",
        /// That, and on which side the draft lies.
        Chosen = "chosen",
    }
}

words! {
    /// Which processors the user wants to see working.
    #[derive(Default)]
    DevicePreference {
        /// Whatever is fastest.
        #[default]
        Auto = "auto",
        /// The CPU only.
        Cpu = "cpu",
        /// The GPU; layers left on the CPU count as a downgrade.
        Gpu = "gpu",
    }
}

words! {
    /// What to favour where speed for one and speed for many differ.
    #[derive(Default)]
    Priority {
        /// Neither in particular.
        #[default]
        Balanced = "balanced",
        /// One user's tokens: one slot.
        Latency = "latency",
        /// Several users at once: four slots that share the context.
        Throughput = "throughput",
    }
}

words! {
    /// How much power may be drawn.
    #[derive(Default)]
    Power {
        /// The default.
        #[default]
        Balanced = "balanced",
        /// All that helps.
        Performance = "performance",
        /// Half of the cores.
        Saver = "saver",
    }
}

words! {
    /// Whether a model larger than memory may run from its mapped file.
    #[derive(Default)]
    DiskPolicy {
        /// Where nothing else is left, and half of the weights stay in memory or half a token per second is within the
        /// estimate.
        #[default]
        Auto = "auto",
        /// Where nothing else is left, however slow.
        Allow = "allow",
        /// Never.
        Never = "never",
    }
}

/// Memory to leave free in every pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Margin {
    /// A share of the pool's total, 0 to 0.9.
    Fraction(f64),
    /// A size.
    Size(Bytes),
}

/// What matters to the user beyond the use case.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Preferences {
    /// Processors to use.
    pub device: DevicePreference,
    /// Memory to leave free; `None` takes the defaults that [`crate::plan::Budget`] documents.
    pub margin: Option<Margin>,
    /// One user or many.
    pub priority: Priority,
    /// Power.
    pub power: Power,
    /// Weights that do not stay in memory.
    pub disk: DiskPolicy,
}
