//! The two phases as sums of terms. The form is that of the roofline model (Williams, Waterman, Patterson 2009) with launch
//! costs beside it; which effect a term has is data to the fit, so that one function serves it and predictions.

use crate::conditions::{Conditions, Switch};
use crate::device::Device;
use crate::terms::{Bound, Effect, Sum, Term};
use crate::work::Work;

/// What is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Generating tokens, one after another.
    Decode,
    /// Reading a prompt.
    Prefill,
}

impl Phase {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Prefill => "prefill",
        }
    }
}

/// Names of effects of one term.
struct Effects<'a> {
    phase: Phase,
    bound: Bound,
    device: &'a Device,
    list: Vec<Effect>,
}

impl<'a> Effects<'a> {
    /// With the levels that every term has: all devices, class, generation, this device.
    fn new(phase: Phase, bound: Bound, device: &'a Device) -> Self {
        let mut effects = Self { phase, bound, device, list: Vec::new() };
        effects.push("all", 1.0);
        effects.level("maker", Some(device.class.maker()));
        effects.level("class", Some(device.class.as_str()));
        effects.level("generation", device.generation.as_deref());
        let own = match phase {
            Phase::Decode => [Bound::Weights, Bound::Launch],
            Phase::Prefill => [Bound::Arithmetic, Bound::Launch],
        };
        effects.level("device", device.identity.as_deref().filter(|_| own.contains(&bound)));
        effects
    }

    fn push(&mut self, key: &str, coefficient: f64) {
        let name = format!("{}/{}/{key}", self.phase.as_str(), self.bound.as_str());
        self.list.push(Effect { name, coefficient });
    }

    fn level(&mut self, level: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.push(&format!("{level}={value}"), 1.0);
        }
    }

    /// A level, and the same within the maker.
    fn crossed(&mut self, level: &str, value: Option<&str>) {
        self.level(level, value);
        if let Some(value) = value {
            self.push(&format!("maker×{level}={}×{value}", self.device.class.maker()), 1.0);
        }
    }

    /// The same within the class.
    fn within_class(&mut self, level: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.push(&format!("class×{level}={}×{value}", self.device.class.as_str()), 1.0);
        }
    }

    fn slope(&mut self, name: &str, value: f64) {
        if value.is_finite() && value != 0.0 {
            self.push(&format!("slope={name}"), value);
        }
    }

    fn term(self, seconds: f64) -> Term {
        Term { bound: self.bound, seconds, effects: self.list }
    }
}

/// Seconds per generated token: max(weights ÷ bandwidth, operations ÷ rate) + cache ÷ bandwidth + layers × launch + fixed.
pub fn decode(device: &Device, work: &Work, conditions: &Conditions) -> Sum {
    let shape = &work.shape;
    let depth = work.depth + work.tokens / 2.0;
    let start = |bound| Effects::new(Phase::Decode, bound, device);

    let mut effects = start(Bound::Weights);
    effects.crossed("quant", Some(shape.quant.as_str()));
    effects.crossed("backend", conditions.backend.as_deref());
    effects.crossed("engine", conditions.engine.as_deref());
    effects.crossed("era", conditions.era.as_deref());
    effects.level("experts", shape.experts.map(|_| "some"));
    let weights = effects.term(shape.active_bytes / device.bandwidth);

    let mut effects = start(Bound::Arithmetic);
    effects.crossed("quant", Some(shape.quant.as_str()));
    effects.level("engine", conditions.engine.as_deref());
    let arithmetic = effects.term(2.0 * (shape.active_elements + shape.output_elements) / device.vector_rate());

    let mut effects = start(Bound::Cache);
    effects.crossed("flash", Some(conditions.flash_attention.as_str()));
    effects.level("backend", conditions.backend.as_deref());
    let cache = effects.term(shape.cache_read(depth) / device.bandwidth);

    let mut effects = start(Bound::Launch);
    effects.crossed("backend", conditions.backend.as_deref());
    effects.crossed("os", conditions.os.as_deref());
    effects.crossed("engine", conditions.engine.as_deref());
    effects.level("era", conditions.era.as_deref());
    effects.level("experts", shape.experts.map(|_| "some"));
    effects.level("recurrent", (shape.full_layers + shape.window_layers < shape.layers).then_some("some"));
    let launch = effects.term(shape.layers * 50e-6);

    let mut effects = start(Bound::Fixed);
    effects.level("engine", conditions.engine.as_deref());
    effects.level("os", conditions.os.as_deref());
    let fixed = effects.term(200e-6);
    Sum { groups: vec![vec![weights, arithmetic], vec![cache], vec![launch], vec![fixed]] }
}

/// Seconds for all tokens of a prompt: per micro-batch max(operations ÷ rate, weights ÷ bandwidth) + attention, which grows with
/// the square of the length, + layers × launch + fixed.
pub fn prefill(device: &Device, work: &Work, conditions: &Conditions) -> Sum {
    let shape = &work.shape;
    let ubatch = work.ubatch.min(work.tokens).max(1.0);
    let batches = (work.tokens / ubatch).ceil();
    let start = |bound| Effects::new(Phase::Prefill, bound, device);

    let mut effects = start(Bound::Arithmetic);
    effects.crossed("quant", Some(shape.quant.as_str()));
    effects.crossed("backend", conditions.backend.as_deref());
    effects.crossed("engine", conditions.engine.as_deref());
    effects.within_class("engine", conditions.engine.as_deref());
    effects.crossed("era", conditions.era.as_deref());
    effects.level("os", conditions.os.as_deref());
    effects.crossed("experts", shape.experts.map(|_| "some"));
    effects.slope("matrix", device.matrix.max(1.0).ln());
    effects.slope("width", (shape.width / 4096.0).ln());
    effects.slope("ubatch", (ubatch / 512.0).ln());
    effects.slope("rate", (device.vector_rate() / 3e13).ln());
    let operations = 2.0 * (shape.active_elements * work.tokens + shape.output_elements);
    let arithmetic = effects.term(operations / device.vector_rate());

    let mut effects = start(Bound::Weights);
    effects.level("quant", Some(shape.quant.as_str()));
    effects.level("experts", shape.experts.map(|_| "some"));
    let weights = effects.term(batches * shape.batch_bytes(ubatch) / device.bandwidth);

    let mut effects = start(Bound::Attention);
    effects.crossed("flash", Some(conditions.flash_attention.as_str()));
    effects.crossed("backend", conditions.backend.as_deref());
    if conditions.flash_attention == Switch::On {
        effects.slope("matrix", device.matrix.max(1.0).ln());
    }
    let attention = effects.term(shape.attention_operations(work.depth, work.tokens) / device.vector_rate());

    let mut effects = start(Bound::Launch);
    effects.level("backend", conditions.backend.as_deref());
    effects.crossed("os", conditions.os.as_deref());
    effects.level("engine", conditions.engine.as_deref());
    effects.level("experts", shape.experts.map(|_| "some"));
    let launch = effects.term(batches * shape.layers * 50e-6);

    let mut effects = start(Bound::Fixed);
    effects.level("engine", conditions.engine.as_deref());
    effects.level("os", conditions.os.as_deref());
    let fixed = effects.term(1e-3);
    Sum { groups: vec![vec![arithmetic, weights], vec![attention], vec![launch], vec![fixed]] }
}
