//! The two phases as sums of terms. The form is that of the roofline model (Williams, Waterman, Patterson 2009) with launch
//! costs beside it; which effect a term has is data to the fit, so that one function serves it and predictions.

use crate::conditions::{Conditions, Switch};
use crate::device::Device;
use crate::terms::{Bound, Effect, Sum, Term};
use crate::ternary;
use crate::work::{Quant, Work};

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

/// True for effects that only runs of one machine tell of, and a fit to many does not have: kinds of runs on a machine, `prefill/type:q4k/machine=X`.
pub fn one_machine_alone(name: &str) -> bool {
    let kind = name.split_once("/machine=").and_then(|(head, _)| head.split_once('/')).map_or("", |(_, kind)| kind);
    !matches!(kind, "" | "scale" | "launch")
}

/// Names of effects of one term.
struct Effects<'a> {
    phase: Phase,
    bound: Bound,
    /// The bound's word, or that of one of several terms of a bound.
    part: &'static str,
    device: &'a Device,
    list: Vec<Effect>,
}

impl<'a> Effects<'a> {
    /// With the levels that every term has: all devices, maker, class, generation, this device, this machine.
    fn new(phase: Phase, bound: Bound, device: &'a Device) -> Self {
        Self::of_part(phase, bound, bound.as_str(), device)
    }

    fn of_part(phase: Phase, bound: Bound, part: &'static str, device: &'a Device) -> Self {
        let mut effects = Self { phase, bound, part, device, list: Vec::new() };
        effects.push("all", 1.0);
        effects.level("maker", Some(device.class.maker()));
        effects.level("class", Some(device.class.as_str()));
        effects.level("generation", device.generation.as_deref());
        if let Some(identity) = device.identity.as_deref().filter(|_| bound != Bound::Fixed) {
            // What is slow on a device is mostly slow as a whole; only the cost of launches has other causes.
            let scale = if bound == Bound::Launch { "launch" } else { "scale" };
            let (model, _) = identity.split_once('|').unwrap_or((identity, ""));
            effects.list.push(Effect { name: format!("{}/{scale}/device={model}", phase.as_str()), coefficient: 1.0 });
            if model.len() < identity.len() {
                effects.list.push(Effect { name: format!("{}/{scale}/machine={identity}", phase.as_str()), coefficient: 1.0 });
            }
        }
        effects
    }

    fn push(&mut self, key: &str, coefficient: f64) {
        let name = format!("{}/{}/{key}", self.phase.as_str(), self.part);
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
        self.within(self.device.class.maker(), "maker", level, value);
    }

    /// A level within another, where both are known.
    fn within(&mut self, inside: &str, outer: &str, level: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.push(&format!("{outer}×{level}={inside}×{value}"), 1.0);
        }
    }

    fn slope(&mut self, name: &str, value: f64) {
        if value.is_finite() && value != 0.0 {
            self.push(&format!("slope={name}"), value);
        }
    }

    /// What of this machine alone concerns runs of one kind, such as those of one type of weights: a run of another kind tells nothing of it.
    fn own(&mut self, kind: &str, coefficient: f64) {
        if let Some(identity) = self.device.identity.as_deref().filter(|identity| identity.contains('|') && coefficient != 0.0) {
            self.list.push(Effect { name: format!("{}/{kind}/machine={identity}", self.phase.as_str()), coefficient });
        }
    }

    /// Kernels of a type of weights, and those of experts, differ from machine to machine by themselves.
    fn own_weights(&mut self, quant: Quant, experts: bool) {
        if self.device.identity.is_some() {
            self.own(&format!("type:{}", quant.as_str()), 1.0);
            self.own("experts", f64::from(u8::from(experts)));
        }
    }

    /// As do those of attention.
    fn own_attention(&mut self, flash: Switch) {
        if self.device.identity.is_some() {
            self.own(&format!("attention:{}", flash.as_str()), 1.0);
        }
    }

    fn term(self, seconds: f64) -> Term {
        Term { bound: self.bound, seconds, effects: self.list }
    }
}

/// Seconds per generated token: max(weights ÷ bandwidth, operations ÷ rate) + cache ÷ bandwidth + attention's operations ÷ rate
/// + layers × launch + fixed. On this program's own kernels ([`crate::OWN_KERNELS`]) the same sum, of their rates.
pub fn decode(device: &Device, work: &Work, conditions: &Conditions) -> Sum {
    if conditions.engine.as_deref() == Some(ternary::OWN_KERNELS) {
        return ternary::decode(device, work);
    }
    let shape = &work.attended(conditions);
    let depth = work.depth + work.tokens / 2.0;
    let start = |bound| Effects::new(Phase::Decode, bound, device);
    let class = device.class.as_str();
    let (quant, backend, engine) = (Some(shape.quant.as_str()), conditions.backend.as_deref(), conditions.engine.as_deref());
    let generation = device.generation.as_deref().unwrap_or(class);
    let some = shape.experts.map(|_| "some");

    let mut effects = start(Bound::Weights);
    effects.crossed("quant", quant);
    effects.within(class, "class", "quant", quant);
    effects.crossed("backend", backend);
    if let Some(backend) = backend {
        effects.within(backend, "backend", "quant", quant);
    }
    effects.crossed("engine", engine);
    effects.within(class, "class", "engine", engine);
    effects.crossed("era", conditions.era.as_deref());
    effects.crossed("os", conditions.os.as_deref());
    effects.level("experts", some);
    effects.own_weights(shape.quant, some.is_some());
    let weights = effects.term(shape.active_bytes / device.bandwidth);

    let mut effects = start(Bound::Arithmetic);
    effects.crossed("quant", quant);
    effects.within(generation, "generation", "quant", quant);
    effects.crossed("backend", backend);
    effects.crossed("engine", engine);
    effects.crossed("era", conditions.era.as_deref());
    effects.level("sycl", scattered(conditions, shape.quant).then_some("scattered"));
    effects.own_weights(shape.quant, some.is_some());
    // Blocks are unpacked before they are multiplied, which takes several operations per weight; plain numbers are not.
    let unpacking = if shape.quant == Quant::Float { 2.0 } else { 10.0 };
    let operations = 2.0 * (shape.active_elements + shape.output_elements);
    let arithmetic = effects.term(unpacking * operations / device.vector_rate());

    let mut effects = start(Bound::Cache);
    effects.crossed("flash", Some(conditions.flash_attention.as_str()));
    effects.level("backend", backend);
    effects.crossed("engine", engine);
    effects.own_attention(conditions.flash_attention);
    let cache = effects.term(shape.cache_read(depth) / device.bandwidth);

    // What attention costs in time that more bandwidth does not shorten, but more cores do.
    let mut effects = start(Bound::Attention);
    effects.crossed("flash", Some(conditions.flash_attention.as_str()));
    effects.level("backend", backend);
    effects.own_attention(conditions.flash_attention);
    let attention = effects.term(shape.attention_operations(depth, 1.0) / (device.class.rate_of_one_token() * device.vector_rate()));

    let mut effects = start(Bound::Launch);
    effects.crossed("backend", backend);
    effects.crossed("os", conditions.os.as_deref());
    effects.crossed("engine", engine);
    effects.within(class, "class", "engine", engine);
    effects.crossed("era", conditions.era.as_deref());
    effects.crossed("experts", some);
    effects.level("recurrent", (shape.full_layers + shape.window_layers < shape.layers).then_some("some"));
    let launch = effects.term(shape.layers * 50e-6);

    let mut effects = start(Bound::Fixed);
    effects.level("engine", engine);
    effects.level("os", conditions.os.as_deref());
    let fixed = effects.term(200e-6);
    Sum { groups: vec![vec![weights, arithmetic], vec![cache], vec![attention], vec![launch], vec![fixed]] }
}

/// True where SYCL's kernels read blocks as files have them, scales between weights, and neighbours do not read neighbouring bytes: all of
/// early builds, and types for which no later one orders them anew (llama.cpp PR 12035 for `Q4_0`, PR 13109 for `Q4_K`, PR 13885 for `Q6_K`).
fn scattered(conditions: &Conditions, quant: Quant) -> bool {
    let ordered = matches!(quant, Quant::Float | Quant::Q8 | Quant::Q6 | Quant::Q4K | Quant::Q4);
    conditions.backend.as_deref() == Some("sycl") && quant != Quant::Float && !(ordered && conditions.era.as_deref() == Some("late"))
}

/// Seconds for all tokens of a prompt: per micro-batch max(operations ÷ rate, weights ÷ bandwidth) + attention, which grows with
/// the square of the length, + layers × launch + fixed.
pub fn prefill(device: &Device, work: &Work, conditions: &Conditions) -> Sum {
    if conditions.engine.as_deref() == Some(ternary::OWN_KERNELS) {
        return ternary::prefill(device, work);
    }
    let shape = &work.attended(conditions);
    let ubatch = work.ubatch.min(work.tokens).max(1.0);
    let batches = (work.tokens / ubatch).ceil();
    let start = |bound| Effects::new(Phase::Prefill, bound, device);

    let mut effects = start(Bound::Arithmetic);
    effects.crossed("quant", Some(shape.quant.as_str()));
    effects.crossed("backend", conditions.backend.as_deref());
    effects.crossed("engine", conditions.engine.as_deref());
    effects.within(device.class.as_str(), "class", "engine", conditions.engine.as_deref());
    effects.within(device.generation.as_deref().unwrap_or(device.class.as_str()), "generation", "quant", Some(shape.quant.as_str()));
    if let Some(backend) = conditions.backend.as_deref() {
        effects.within(backend, "backend", "quant", Some(shape.quant.as_str()));
        effects.within(device.generation.as_deref().unwrap_or(device.class.as_str()), "generation", "backend", Some(backend));
    }
    effects.crossed("era", conditions.era.as_deref());
    effects.level("os", conditions.os.as_deref());
    effects.crossed("experts", shape.experts.map(|_| "some"));
    effects.slope("matrix", device.matrix_rate().ln());
    effects.slope("width", (shape.width / 4096.0).ln());
    effects.slope("ubatch", (ubatch / 512.0).ln());
    effects.slope("rate", (device.vector_rate() / 3e13).ln());
    if let Some(watts) = device.watts.filter(|&watts| watts > 0.0) {
        // Clocks fall where all units at work would take more power than there is; what a unit takes is each maker's own.
        effects.push(&format!("maker×power={}", device.class.maker()), (device.vector_rate() / watts / 1.8e11).ln());
    }
    effects.own_weights(shape.quant, shape.experts.is_some());
    effects.own("ubatch", (ubatch / 512.0).ln());
    effects.own("width", (shape.width / 4096.0).ln());
    let operations = 2.0 * (shape.padded_elements(ubatch, device.class.widest_tile()) * work.tokens + shape.output_elements);
    let arithmetic = effects.term(operations / device.vector_rate());

    let mut effects = start(Bound::Weights);
    effects.level("quant", Some(shape.quant.as_str()));
    effects.level("experts", shape.experts.map(|_| "some"));
    let weights = effects.term(batches * shape.batch_bytes(ubatch) / device.bandwidth);

    let mut between = Vec::new();
    if library(device, conditions, shape.quant, ubatch) {
        // Weights are unpacked into memory before a library multiplies with them.
        let effects = Effects::of_part(Phase::Prefill, Bound::Arithmetic, "unpacking", device);
        between.push(vec![effects.term(batches * shape.unpacked_bytes() / device.bandwidth)]);
    }

    if per_expert(device, conditions, ubatch)
        && let Some((all, used)) = shape.experts.filter(|&(all, used)| all > used && used > 0.0)
    {
        // Each expert's three products are started one by one.
        let distinct = all * (1.0 - (1.0 - used / all).powf(ubatch));
        let effects = Effects::of_part(Phase::Prefill, Bound::Launch, "routing", device);
        between.push(vec![effects.term(batches * shape.layers * 3.0 * distinct * 10e-6)]);
    }

    // Between the products, which read and write them too.
    let effects = Effects::of_part(Phase::Prefill, Bound::Arithmetic, "activations", device);
    let activations = effects.term(work.tokens * shape.activation_bytes() / device.bandwidth);

    let mut effects = start(Bound::Attention);
    effects.crossed("flash", Some(conditions.flash_attention.as_str()));
    effects.crossed("backend", conditions.backend.as_deref());
    if conditions.flash_attention == Switch::On {
        effects.slope("matrix", device.matrix_rate().ln());
    }
    effects.own_attention(conditions.flash_attention);
    let mut attention = vec![effects.term(shape.attention_operations(work.depth, work.tokens) / device.vector_rate())];
    if conditions.flash_attention != Switch::On {
        // Scores go through memory where attention is not one kernel.
        let mut effects = Effects::of_part(Phase::Prefill, Bound::Attention, "scores", device);
        effects.crossed("flash", Some(conditions.flash_attention.as_str()));
        effects.crossed("backend", conditions.backend.as_deref());
        effects.own_attention(conditions.flash_attention);
        attention.push(effects.term(shape.score_bytes(work.depth, work.tokens) / device.bandwidth));
    }

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
    let mut groups = vec![vec![arithmetic, weights], vec![activations], attention, vec![launch], vec![fixed]];
    groups.extend(between);
    Sum { groups }
}

/// True where experts' products of a micro-batch are started by the host, one expert after another, which it must know the routes for
/// (`ggml_cuda_mul_mat_id` where there is no kernel for all of them, and `ggml_sycl_mul_mat_id`).
fn per_expert(device: &Device, conditions: &Conditions, ubatch: f64) -> bool {
    library(device, conditions, Quant::Q4, ubatch)
}

/// True where products of a micro-batch go through a library of half-precision products: rocBLAS and hipBLASLt from RDNA 3 on, from 64
/// tokens (`ggml_cuda_should_use_mmq` of llama.cpp's `mmq.cu`), and oneMKL and oneDNN for SYCL.
fn library(device: &Device, conditions: &Conditions, quant: Quant, ubatch: f64) -> bool {
    /// Tokens from which on it is so.
    const LIBRARY: f64 = 64.0;
    let generation = device.generation.as_deref().unwrap_or("");
    let backend = conditions.backend.as_deref().unwrap_or("");
    let amd = backend.starts_with("rocm") && ["rdna3", "rdna4", "cdna"].iter().any(|name| generation.starts_with(name));
    quant != Quant::Float && ubatch >= LIBRARY && (amd || backend == "sycl")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Class;
    use crate::work::Shape;

    fn device(class: Class, generation: &str) -> Device {
        let generation = Some(generation.to_owned());
        Device { class, generation, bandwidth: 1e12, vector: Some(4e13), matrix: 4.0, watts: None, identity: None }
    }

    fn work(quant: Quant, tokens: f64, experts: Option<(f64, f64)>) -> Work {
        let shape = Shape {
            active_bytes: 2e9,
            all_bytes: if experts.is_some() { 16e9 } else { 2e9 },
            active_elements: 3e9,
            output_elements: 3e8,
            quant,
            layers: 48.0,
            width: 2048.0,
            cache_bytes: 2048.0,
            full_layers: 8.0,
            window_layers: 40.0,
            window: 1024.0,
            query_width: 4096.0,
            experts,
        };
        Work { shape, depth: 0.0, tokens, ubatch: 512.0 }
    }

    fn conditions(backend: &str, era: &str) -> Conditions {
        Conditions { backend: Some(backend.to_owned()), era: Some(era.to_owned()), ..Conditions::default() }
    }

    fn has(sum: &Sum, name: &str) -> bool {
        sum.groups.iter().flatten().flat_map(|term| &term.effects).any(|effect| effect.name.starts_with(name))
    }

    #[test]
    fn libraries_unpack_weights_and_start_experts_one_by_one() {
        let of = |class, generation, backend: &str, quant, tokens| {
            let sum = prefill(&device(class, generation), &work(quant, tokens, Some((128.0, 8.0))), &conditions(backend, "late"));
            [has(&sum, "prefill/unpacking/"), has(&sum, "prefill/routing/")]
        };
        let amd = |quant, tokens| of(Class::AmdGddr, "rdna3", "rocm", quant, tokens);
        assert_eq!([amd(Quant::Q4K, 512.0), amd(Quant::Float, 512.0), amd(Quant::Q4K, 32.0)], [[true, true], [false, true], [false; 2]]);
        assert_eq!(of(Class::AmdGddr, "rdna2", "rocm", Quant::Q4K, 512.0), [false; 2]);
        assert_eq!(of(Class::AmdGddr, "rdna3", "vulkan", Quant::Q4K, 512.0), [false; 2]);
        assert_eq!(of(Class::NvidiaGddr, "ada", "cuda", Quant::Q4K, 512.0), [false; 2]);
        assert_eq!(of(Class::Intel, "xe2", "sycl", Quant::Q4K, 512.0), [true; 2]);
    }

    #[test]
    fn sycl_reads_blocks_in_order_where_it_has_kernels_for_them() {
        let of = |backend: &str, era: &str, quant| {
            has(
                &decode(&device(Class::Intel, "xe2"), &work(quant, 128.0, None), &conditions(backend, era)),
                "decode/arithmetic/sycl=scattered",
            )
        };
        assert_eq!([of("sycl", "middle", Quant::Q4K), of("sycl", "late", Quant::Q4K), of("sycl", "late", Quant::Iq)], [true, false, true]);
        assert!(!of("vulkan", "middle", Quant::Iq) && !of("sycl", "early", Quant::Float));
    }

    #[test]
    fn layers_with_a_window_read_a_micro_batch_more_and_all_in_old_builds() {
        let read = |era: &str, depth: f64| {
            let work = Work { depth, ..work(Quant::Q4K, 2.0, None) };
            let sum = decode(&device(Class::NvidiaGddr, "ada"), &work, &conditions("cuda", era));
            let cache = sum.groups.iter().flatten().find(|term| term.bound == Bound::Cache).unwrap().seconds;
            (cache * 1e12 / 2048.0).round()
        };
        assert_eq!([read("late", 999.0), read("late", 9_999.0)], [48.0 * 1000.0, 8.0 * 10_000.0 + 40.0 * 1536.0]);
        assert_eq!(read("early", 9_999.0), 48.0 * 10_000.0);
    }
}
