//! Seconds per unit of work on one processor, with every effect of the speed model resolved to a number: what a search multiplies with.

use super::processor::Processor;
use crate::inventory::Inventory;
use roofline::{Bound, Conditions, Device, Parameters, Quant, Shape, Sum, Switch, Work, decode, prefill};
use spec::{QuantType, Settings};

/// Seconds per unit of work in one phase. Pairs are of the dense weights and of the experts'.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PhaseCosts {
    /// Per byte of weights.
    pub(crate) weights: [f64; 2],
    /// Per operation, a multiply-add being two.
    pub(crate) arithmetic: [f64; 2],
    /// Per operation of attention: without flash attention, and with.
    pub(crate) attention: [f64; 2],
    /// Per byte of cache, the same; prefill reads it in no time of its own.
    pub(crate) cache: [f64; 2],
    /// Per layer and micro-batch.
    pub(crate) launch: f64,
    /// Per token in decode, per prompt in prefill.
    pub(crate) fixed: f64,
}

impl PhaseCosts {
    /// Everything on the device takes so much longer.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        let pair = |costs: [f64; 2]| costs.map(|cost| cost * factor);
        let [weights, arithmetic, attention, cache] = [self.weights, self.arithmetic, self.attention, self.cache].map(pair);
        Self { weights, arithmetic, attention, cache, launch: self.launch * factor, fixed: self.fixed * factor }
    }
}

/// Both phases on one processor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Costs {
    pub(crate) decode: PhaseCosts,
    /// At micro-batches of [`USUAL`] tokens.
    pub(crate) prefill: PhaseCosts,
    /// Prefill's cost per operation goes with this power of the micro-batch over [`USUAL`].
    ubatch: f64,
    /// Costs per operation of decode, prefill, decode's attention and prefill's go with these powers of the cores at work.
    cores: [f64; 4],
}

/// The micro-batch that costs are resolved at, the engine's default.
const USUAL: f64 = 512.0;

impl Costs {
    /// Of a model on a processor.
    pub(crate) fn of(processor: &Processor, inventory: &Inventory, parameters: &Parameters) -> Self {
        let shapes = inventory.quants.map(|ty| shape(inventory, quant(ty)));
        let resolve = |device: &Device, ubatch: f64| {
            let model = Resolver { device, conditions: &processor.conditions, parameters, shapes: &shapes };
            let [decode, prefill] = processor.off.map(|off| off.middle.exp());
            (model.decode().scaled(decode), model.prefill(ubatch).scaled(prefill))
        };
        let one = &processor.device;
        let two = Device { vector: Some(one.vector_rate() * 2.0), ..one.clone() };
        let (decode, prefill) = resolve(one, USUAL);
        let (decode_two, prefill_two) = resolve(&two, USUAL);
        let large = resolve(one, USUAL * 4.0).1;
        let power = |from: f64, to: f64, factor: f64| if from > 0.0 && to > 0.0 { (to / from).ln() / f64::ln(factor) } else { 0.0 };
        Self {
            decode,
            prefill,
            ubatch: power(prefill.arithmetic[0], large.arithmetic[0], 4.0),
            cores: [
                power(decode.arithmetic[0], decode_two.arithmetic[0], 2.0),
                power(prefill.arithmetic[0], prefill_two.arithmetic[0], 2.0),
                power(decode.attention[1], decode_two.attention[1], 2.0),
                power(prefill.attention[1], prefill_two.attention[1], 2.0),
            ],
        }
    }

    /// With this many cores at work, where these costs are those of one.
    pub(crate) fn with_cores(&self, decode: f64, prefill: f64) -> Self {
        let scaled = |costs: [f64; 2], cores: f64, power: f64| costs.map(|cost| cost * cores.powf(power));
        let mut costs = *self;
        costs.decode.arithmetic = scaled(self.decode.arithmetic, decode, self.cores[0]);
        costs.prefill.arithmetic = scaled(self.prefill.arithmetic, prefill, self.cores[1]);
        costs.decode.attention = scaled(self.decode.attention, decode, self.cores[2]);
        costs.prefill.attention = scaled(self.prefill.attention, prefill, self.cores[3]);
        costs
    }

    /// Seconds per operation of prefill in micro-batches of `tokens`.
    pub(crate) fn prefill_arithmetic(&self, tokens: f64) -> [f64; 2] {
        let factor = (tokens.max(1.0) / USUAL).powf(self.ubatch);
        self.prefill.arithmetic.map(|cost| cost * factor)
    }
}

/// The speed model with everything but the amount of work.
struct Resolver<'a> {
    device: &'a Device,
    conditions: &'a Conditions,
    parameters: &'a Parameters,
    shapes: &'a [Shape; 2],
}

/// Tokens of context at which attention is resolved.
const DEPTH: f64 = 2048.0;

impl Resolver<'_> {
    /// Seconds of the terms of a bound per unit of an amount of work.
    fn per(&self, sum: &Sum, bound: Bound, amount: f64) -> f64 {
        let terms = sum.groups.iter().flatten().filter(|term| term.bound == bound);
        terms.map(|term| term.time(self.parameters)).sum::<f64>() / amount
    }

    /// The shapes with every layer reaching over the whole context: costs per unit are the same, and the amount at [`DEPTH`] is plain.
    fn whole(&self) -> [Shape; 2] {
        self.shapes.clone().map(|shape| Shape { full_layers: shape.full_layers + shape.window_layers, window_layers: 0.0, ..shape })
    }

    fn flash(&self, on: bool) -> Conditions {
        Conditions { flash_attention: if on { Switch::On } else { Switch::Off }, ..self.conditions.clone() }
    }

    fn decode(&self) -> PhaseCosts {
        let work = |shape: &Shape| Work { shape: shape.clone(), depth: DEPTH, tokens: 2.0, ubatch: USUAL };
        let sum = |shape: &Shape, flash: bool| decode(self.device, &work(shape), &self.flash(flash));
        let [dense, experts] = &self.whole();
        let each = |bound, amount: &dyn Fn(&Shape) -> f64| [dense, experts].map(|shape| self.per(&sum(shape, true), bound, amount(shape)));
        PhaseCosts {
            weights: each(Bound::Weights, &|shape| shape.active_bytes),
            arithmetic: each(Bound::Arithmetic, &|shape| 2.0 * (shape.active_elements + shape.output_elements)),
            attention: [false, true]
                .map(|flash| self.per(&sum(dense, flash), Bound::Attention, dense.attention_operations(DEPTH + 1.0, 1.0))),
            cache: [false, true].map(|flash| self.per(&sum(dense, flash), Bound::Cache, dense.cache_read(DEPTH + 1.0))),
            launch: self.per(&sum(dense, true), Bound::Launch, dense.layers),
            fixed: self.per(&sum(dense, true), Bound::Fixed, 1.0),
        }
    }

    fn prefill(&self, ubatch: f64) -> PhaseCosts {
        let work = |shape: &Shape| Work { shape: shape.clone(), depth: 0.0, tokens: ubatch, ubatch };
        let sum = |shape: &Shape, flash: bool| prefill(self.device, &work(shape), &self.flash(flash));
        let [dense, experts] = &self.whole();
        let each = |bound, amount: &dyn Fn(&Shape) -> f64| [dense, experts].map(|shape| self.per(&sum(shape, true), bound, amount(shape)));
        let attention = dense.attention_operations(0.0, ubatch);
        PhaseCosts {
            weights: each(Bound::Weights, &|shape| shape.batch_bytes(ubatch)),
            arithmetic: each(Bound::Arithmetic, &|shape| 2.0 * (shape.active_elements * ubatch + shape.output_elements)),
            attention: [false, true].map(|flash| self.per(&sum(dense, flash), Bound::Attention, attention)),
            cache: [0.0; 2],
            launch: self.per(&sum(dense, true), Bound::Launch, dense.layers),
            fixed: self.per(&sum(dense, true), Bound::Fixed, 1.0),
        }
    }
}

/// Types that engines read at similar speed, as the speed model groups them.
pub(super) fn quant(ty: QuantType) -> Quant {
    use QuantType as T;
    match ty {
        T::F32 | T::F16 | T::BF16 | T::F64 => Quant::Float,
        T::Q8_0 | T::Q8_1 | T::Q8_K | T::I8 | T::I16 | T::I32 | T::I64 => Quant::Q8,
        T::Q6_K => Quant::Q6,
        T::Q4_K | T::Q5_K => Quant::Q4K,
        T::Q2_K | T::Q3_K => Quant::Q3K,
        T::Q4_0 | T::Q4_1 | T::Q5_0 | T::Q5_1 | T::IQ4_NL => Quant::Q4,
        T::MXFP4 | T::NVFP4 => Quant::Mx,
        // Code books, and the types of the forks, which are unpacked like them.
        _ => Quant::Iq,
    }
}

/// The whole model as if it lay on one processor; amounts of nothing are one, so that costs per unit stay finite.
pub(super) fn shape(inventory: &Inventory, quant: Quant) -> Shape {
    let settings = Settings::default();
    let computed = || inventory.layers.iter().filter(|layer| layer.computed);
    let some = |amount: f64| if amount > 0.0 { amount } else { 1.0 };
    let attending = || computed().filter(|layer| layer.k_width > 0 || layer.query_width > 0);
    let windows = attending().filter(|layer| layer.window.is_some()).count() as f64;
    let full = attending().count() as f64 - windows;
    let routing = computed().find_map(|layer| layer.routing);
    let rows: f64 = attending().map(|layer| layer.cache_row(&settings).as_f64()).sum();
    let elements = |layer: &crate::inventory::LayerLoad| layer.dense_elements as f64 + layer.expert_elements as f64 * layer.expert_share();
    let bytes = |layer: &crate::inventory::LayerLoad| layer.dense.as_f64() + layer.experts.as_f64() * layer.expert_share();
    let output = inventory.output.as_f64();
    let widest = attending().map(|layer| layer.query_width).max().unwrap_or(0);
    Shape {
        active_bytes: some(computed().map(bytes).sum::<f64>() + output),
        all_bytes: some(computed().map(|layer| (layer.dense + layer.experts).as_f64()).sum::<f64>() + output),
        active_elements: some(computed().map(elements).sum()),
        output_elements: inventory.output_elements as f64,
        quant,
        layers: some(computed().count() as f64),
        width: some(inventory.width as f64),
        cache_bytes: some(rows / (full + windows).max(1.0)),
        full_layers: if full + windows > 0.0 { full } else { 1e-3 },
        window_layers: windows,
        window: attending().find_map(|layer| layer.window).map_or(0.0, f64::from),
        query_width: some(widest as f64),
        experts: routing.filter(|&(used, count)| count > used && used > 0).map(|(used, count)| (f64::from(count), f64::from(used))),
    }
}
