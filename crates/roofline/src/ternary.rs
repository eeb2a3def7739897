//! The two phases on this program's own kernels for ternary weights (crates `kernels`, `gpu` and `cuda`): codes of two bits times integers of 8
//! bits. No table of other people's measurements has them, so that their rates stand here, as parts of what the hardware has; runs on a machine
//! correct them as they do all others.
//!
//! Measured on two cores of an EPYC with Zen 4 and of one with Zen 5 (`cargo run --release -p kernels --example speed 1`,
//! `cargo run --release -p loadmaster --no-default-features --example bitnet FILE`; ACCURACY.md). What was not measured says so.

use crate::device::{Class, Device};
use crate::phase::Phase;
use crate::terms::{Bound, Effect, Sum, Term};
use crate::work::Work;

/// The word for these kernels in [`crate::Conditions::engine`].
pub const OWN_KERNELS: &str = "bitnet";

/// Rates of a processor or GPU, as parts of its vector rate and of its bandwidth.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rates {
    /// Operations with codes of one token, over vector operations.
    one_token: f64,
    /// The same of many tokens.
    many_tokens: f64,
    /// Operations of attention of one token, and of many.
    attention: [f64; 2],
    /// Part of the bandwidth at which a token reads weights.
    read: f64,
    /// Seconds of a layer and micro-batch beside its work: threads that wait for each other, or kernels that are started.
    launch: f64,
}

impl Rates {
    fn of(device: &Device) -> Self {
        let (one_token, many_tokens) = match (device.class, device.generation.as_deref()) {
            // Zen 4: 0.19 and 0.34 · 10¹² operations per core in a layer, whose vector rate is taken as 0.205 · 10¹²; the middle of both
            // processors over whole models.
            (Class::Cpu, Some("avx512-vnni")) => (1.2, 2.1),
            // Zen 4: 0.14 and 0.15 to 0.23.
            (Class::Cpu, Some("avx2")) => (1.4, 1.9),
            // Not measured: twice the products per instruction of AVX2, at its cost of unpacking.
            (Class::Cpu, Some("avx-vnni")) => (1.6, 3.0),
            // Not measured: 64 products a clock of two units, of which the other sets reach half.
            (Class::Cpu, Some("neon-dot")) => (1.5, 3.0),
            // Plain code: 0.004.
            (Class::Cpu, _) => (0.03, 0.03),
            // Not measured: products of four bytes per lane have four times the rate, tiles that are not tuned to the device a quarter of it.
            _ => (0.5, 1.0),
        };
        match device.class {
            Class::Cpu => Self { one_token, many_tokens, attention: ATTENTION_OF_A_CORE, read: 1.0, launch: 30e-6 },
            // Not measured.
            class => Self { one_token, many_tokens, attention: [class.rate_of_one_token(), 0.25], read: 0.6, launch: 60e-6 },
        }
    }
}

/// How far times are off to the short and to the long side, as logarithms for one prediction in ten each: between two processors that were
/// measured, and otherwise as much as nobody knows.
pub fn off_of_own(device: &Device) -> (f64, f64) {
    match (device.class, device.generation.as_deref()) {
        (Class::Cpu, Some("avx512-vnni" | "avx2")) => (-0.35, 0.35),
        (Class::Cpu, _) => (-0.6, 0.8),
        _ => (-0.8, 1.4),
    }
}

/// Operations of attention over vector operations of a core: of one token and of many. 20 and 12 ns per query head of 128, earlier token and core
/// of a Zen 4 with 4,096 earlier tokens and nothing else to do (`cargo run --release -p bitnet --example attention`).
const ATTENTION_OF_A_CORE: [f64; 2] = [1.0 / 8.0, 1.0 / 4.8];

/// Seconds of what a prompt or token costs at all.
const FIXED: f64 = 200e-6;

fn term(phase: Phase, bound: Bound, device: &Device, seconds: f64) -> Term {
    let scale = if bound == Bound::Launch { "launch" } else { "scale" };
    let identity = device.identity.as_deref().filter(|_| bound != Bound::Fixed);
    let name = |identity: &str| format!("{}/{scale}/machine={identity}", phase.as_str());
    let effects = identity.into_iter().map(|identity| Effect { name: name(identity), coefficient: 1.0 }).collect();
    Term { bound, seconds, effects }
}

/// Seconds per generated token, as [`crate::decode`] has them.
pub(crate) fn decode(device: &Device, work: &Work) -> Sum {
    let (rates, shape) = (Rates::of(device), &work.shape);
    let depth = work.depth + work.tokens / 2.0;
    let operations = 2.0 * (shape.active_elements + shape.output_elements);
    let of = |bound, seconds| term(Phase::Decode, bound, device, seconds);
    let weights = of(Bound::Weights, shape.active_bytes / (rates.read * device.bandwidth));
    let arithmetic = of(Bound::Arithmetic, operations / (rates.one_token * device.vector_rate()));
    let cache = of(Bound::Cache, shape.cache_read(depth) / (rates.read * device.bandwidth));
    let attention = of(Bound::Attention, shape.attention_operations(depth, 1.0) / (rates.attention[0] * device.vector_rate()));
    let groups = vec![
        vec![weights, arithmetic],
        vec![cache],
        vec![attention],
        vec![of(Bound::Launch, shape.layers * rates.launch)],
        vec![of(Bound::Fixed, FIXED)],
    ];
    Sum { groups }
}

/// Seconds for all tokens of a prompt, as [`crate::prefill`] has them.
pub(crate) fn prefill(device: &Device, work: &Work) -> Sum {
    let (rates, shape) = (Rates::of(device), &work.shape);
    let ubatch = work.ubatch.min(work.tokens).max(1.0);
    let batches = (work.tokens / ubatch).ceil();
    let operations = 2.0 * (shape.active_elements * work.tokens + shape.output_elements);
    let of = |bound, seconds| term(Phase::Prefill, bound, device, seconds);
    let attention = shape.attention_operations(work.depth, work.tokens) / (rates.attention[1] * device.vector_rate());
    let groups = vec![
        vec![
            of(Bound::Arithmetic, operations / (rates.many_tokens * device.vector_rate())),
            of(Bound::Weights, batches * shape.active_bytes / (rates.read * device.bandwidth)),
        ],
        vec![of(Bound::Attention, attention)],
        vec![of(Bound::Launch, batches * shape.layers * rates.launch)],
        vec![of(Bound::Fixed, FIXED)],
    ];
    Sum { groups }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::Conditions;
    use crate::parameters::Parameters;
    use crate::work::{Quant, Shape};

    /// BitNet b1.58 2B-4T, with so many bytes that a token reads.
    fn work(active_bytes: f64, depth: f64, tokens: f64) -> Work {
        let shape = Shape {
            active_bytes,
            all_bytes: active_bytes,
            active_elements: 2.084e9,
            output_elements: 128_256.0 * 2560.0,
            quant: Quant::Iq,
            layers: 30.0,
            width: 2560.0,
            cache_bytes: 2560.0,
            full_layers: 30.0,
            window_layers: 0.0,
            window: 0.0,
            query_width: 2560.0,
            experts: None,
        };
        Work { shape, depth, tokens, ubatch: 128.0 }
    }

    fn device(class: Class, generation: &str, bandwidth: f64, vector: f64) -> Device {
        Device { class, generation: Some(generation.to_owned()), bandwidth, vector: Some(vector), matrix: 1.0, watts: None, identity: None }
    }

    fn own() -> Conditions {
        Conditions { engine: Some(OWN_KERNELS.to_owned()), ..Conditions::default() }
    }

    #[test]
    fn two_processors_run_as_they_were_measured() {
        // Medians of ACCURACY.md: GB/s that memory gave, then tokens per second with 870 and 1,178 MB per token, and of 128 tokens of a prompt.
        for (gb, decoded, read) in [(32.5, [34.4, 26.5], 152.1), (63.5, [61.0, 47.6], 259.5)] {
            let device = device(Class::Cpu, "avx512-vnni", gb * 1e9, 2.0 * 204.8e9);
            let (low, high) = off_of_own(&device);
            let within = |predicted: f64, measured: f64| {
                let off = (predicted / measured).ln();
                assert!((low..=high).contains(&off), "{gb} GB/s: {predicted:.1} predicted, {measured} measured");
            };
            for (bytes, measured) in [870e6, 1178e6].into_iter().zip(decoded) {
                within(1.0 / crate::decode(&device, &work(bytes, 0.0, 32.0), &own()).time(Parameters::fitted()), measured);
            }
            within(128.0 / crate::prefill(&device, &work(870e6, 0.0, 128.0), &own()).time(Parameters::fitted()), read);
        }
    }

    #[test]
    fn no_parameter_of_other_engines_is_asked_and_a_machines_own_are() {
        let identity = Some("this machine|host".to_owned());
        for device in [device(Class::Cpu, "avx2", 5e10, 4e11), device(Class::NvidiaGddr, "ada", 1e12, 8e13)] {
            let device = Device { identity: identity.clone(), ..device };
            for sum in [crate::decode(&device, &work(9e8, 10.0, 1.0), &own()), crate::prefill(&device, &work(9e8, 0.0, 64.0), &own())] {
                let effects: Vec<&Effect> = sum.groups.iter().flatten().flat_map(|term| &term.effects).collect();
                assert!(
                    !effects.is_empty() && effects.iter().all(|effect| effect.name.ends_with("/machine=this machine|host")),
                    "{effects:?}"
                );
            }
        }
    }
}
