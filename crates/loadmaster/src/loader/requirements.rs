//! Memory by segments, as a program asks for it.

use footprint::parts::{Component, Part};
use footprint::{EngineProfile, Recommendation, Requirement, Saving};
use planner::plan::Budget;
use spec::{Bytes, Known};

spec::words! {
    /// What memory is for, in six words.
    Segment {
        /// Weights as the file has them, in place or read into memory; those of what is loaded beside the model too.
        Weights = "weights",
        /// Attention caches and recurrent state, at the precision of the settings.
        KvCache = "kv_cache",
        /// What a micro-batch is computed in, and logits: 32-bit floats, and the 8-bit inputs of quantised layers among them.
        Activations = "activations",
        /// Copies that quantisation costs: weights rearranged for kernels, tables and norms turned into another type.
        QuantisationOverhead = "quantisation_overhead",
        /// The program, drivers, and the server's caches of prompts.
        SystemOverhead = "system_overhead",
        /// Left free on purpose.
        SafetyMargin = "safety_margin",
    }
}

/// A segment of one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentUse {
    /// What it is for.
    pub segment: Segment,
    /// Right after loading.
    pub load: Known<Bytes>,
    /// The most that it becomes.
    pub peak: Known<Bytes>,
}

/// What one pool of memory has to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolRequirement {
    /// `host`, or the engine's name of a GPU.
    pub name: String,
    /// A GPU whose memory is the host's: what it holds counts there, too.
    pub shares_host: bool,
    /// All segments but the margin, in their order.
    pub segments: Vec<SegmentUse>,
    /// Left free on purpose.
    pub safety_margin: Bytes,
    /// Sum of the segments right after loading, pages of mapped files included.
    pub load: Known<Bytes>,
    /// The same at peak.
    pub peak: Known<Bytes>,
    /// What of the peak cannot be given back: all but pages of mapped files.
    pub held: Known<Bytes>,
    /// What can be taken now.
    pub free: Known<Bytes>,
    /// Whether the upper end of what is held stays below what is free less the margin; `None` where that is not known.
    pub fits: Option<bool>,
}

/// What a model needs with a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryRequirements {
    /// Devices in the order of the machine, then the host.
    pub pools: Vec<PoolRequirement>,
    /// What a machine should have: least and recommended memory, and what may lie in swap.
    pub recommendation: Recommendation,
    /// What would take less, with what each change saves and costs, the largest first.
    pub suggestions: Vec<Saving>,
}

impl MemoryRequirements {
    /// From what footprint counts and planner leaves free.
    pub(super) fn new(requirement: &Requirement, budgets: &[Budget], suggestions: Vec<Saving>, profile: &EngineProfile) -> Self {
        let devices = requirement.devices.len();
        let pool = |(index, budget): (usize, &Budget)| {
            let parts = requirement.parts((index < devices).then_some(index));
            // The BitNet engine holds no weights of its own but copies.
            let copied = (index == devices && profile.bitnet.is_some()).then_some(&requirement.host.weights_anonymous);
            let segments = segments(&parts, copied);
            let sum = |of: fn(&SegmentUse) -> &Known<Bytes>| {
                segments.iter().fold(Known::exact(Bytes::ZERO, "sum of the segments"), |sum, segment| sum.plus(of(segment)))
            };
            PoolRequirement {
                name: budget.pool.to_string(),
                shares_host: budget.shares_host,
                safety_margin: budget.margin,
                load: sum(|segment| &segment.load),
                peak: sum(|segment| &segment.peak),
                held: budget.needed.clone(),
                free: budget.free.clone(),
                fits: budget.limit.and(budget.needed.high()).map(|_| budget.holds()),
                segments,
            }
        };
        Self { pools: budgets.iter().enumerate().map(pool).collect(), recommendation: footprint::recommend(requirement), suggestions }
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&PoolRequirement> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// Whether every pool is large enough; `None` where that is not known of one.
    pub fn fits(&self) -> Option<bool> {
        self.pools.iter().try_fold(true, |all, pool| Some(all && pool.fits?))
    }
}

impl PoolRequirement {
    /// A segment; zero where the pool has nothing of it.
    pub fn segment(&self, segment: Segment) -> SegmentUse {
        let none = || Known::exact(Bytes::ZERO, "nothing of it here");
        match self.segments.iter().find(|found| found.segment == segment) {
            Some(found) => found.clone(),
            None if segment == Segment::SafetyMargin => {
                let margin = Known::exact(self.safety_margin, "left free on purpose");
                SegmentUse { segment, load: margin.clone(), peak: margin }
            }
            None => SegmentUse { segment, load: none(), peak: none() },
        }
    }
}

/// Parts of one place by segment, with what of the weights are `copied`.
fn segments(parts: &[Part], copied: Option<&Known<Bytes>>) -> Vec<SegmentUse> {
    let counted = [Segment::Weights, Segment::KvCache, Segment::Activations, Segment::QuantisationOverhead, Segment::SystemOverhead];
    let one = |segment: Segment| {
        let none = Known::exact(Bytes::ZERO, "sum of its parts");
        let of = parts.iter().filter(|part| segment_of(part.component) == segment);
        let (mut load, mut peak) = of.fold((none.clone(), none), |(load, peak), part| (load.plus(&part.load), peak.plus(&part.peak)));
        if let Some(copied) = copied {
            let take = |whole: Known<Bytes>| match copied.get() {
                Some(copied) => whole.map(|whole| whole.saturating_sub(copied)),
                None => whole,
            };
            match segment {
                Segment::Weights => (load, peak) = (take(load), take(peak)),
                Segment::QuantisationOverhead => (load, peak) = (load.plus(copied), peak.plus(copied)),
                _ => {}
            }
        }
        SegmentUse { segment, load, peak }
    };
    counted.into_iter().map(one).collect()
}

/// Where a component of footprint belongs.
fn segment_of(component: Component) -> Segment {
    use Component as C;
    match component {
        C::Weights | C::Projector | C::Adapters | C::ControlVectors | C::DraftMapped | C::DraftWeights => Segment::Weights,
        C::KvCache | C::State | C::DraftCache => Segment::KvCache,
        C::Compute | C::Output | C::ProjectorCompute | C::AdapterCompute | C::DraftCompute | C::DraftOutput => Segment::Activations,
        C::Repacked => Segment::QuantisationOverhead,
        C::Program | C::Driver | C::DraftProgram | C::PromptCache | C::Checkpoints => Segment::SystemOverhead,
    }
}
