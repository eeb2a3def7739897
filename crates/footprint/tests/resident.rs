//! Anonymous memory of the host, predicted against measured.
//!
//! Measured 2026-11 on Linux (glibc, x86-64 with AVX-512): `RssAnon` of a program that loads a synthetic model with the
//! bundled engine (mapped, context 4096, micro-batch 512, one sequence, one row of logits), then computes 512 tokens and
//! 16 more.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod recorded;

use footprint::{EngineProfile, HostRequirement, Target, require};
use spec::model::Tokenizer;
use spec::{Bytes, Settings};

struct Run {
    model: &'static str,
    tokenizer: &'static str,
    at_load: u64,
    at_peak: u64,
}

const RUNS: &[Run] = &[
    Run { model: "smollm2-135m Q8_0", tokenizer: "llama", at_load: 106_758_144, at_peak: 122_327_040 },
    Run { model: "smollm2-135m Q8_0", tokenizer: "gpt2", at_load: 119_255_040, at_peak: 134_746_112 },
    Run { model: "qwen3-0.6b Q4_K_M", tokenizer: "llama", at_load: 712_503_296, at_peak: 742_273_024 },
    Run { model: "qwen3-0.6b Q4_K_M", tokenizer: "gpt2", at_load: 752_984_064, at_peak: 778_715_136 },
    Run { model: "llama-3.2-1b Q4_0", tokenizer: "llama", at_load: 705_396_736, at_peak: 774_012_928 },
    Run { model: "gemma3-1b Q4_K_M", tokenizer: "llama", at_load: 161_456_128, at_peak: 220_758_016 },
    Run { model: "qwen3-30b-a3b Q4_K_M n_layer=4", tokenizer: "llama", at_load: 1_233_899_520, at_peak: 1_322_319_872 },
    Run { model: "mamba-130m Q8_0", tokenizer: "llama", at_load: 14_704_640, at_peak: 37_117_952 },
];

fn predicted(run: &Run) -> HostRequirement {
    let mut model = recorded::model::model(run.model);
    let n_tokens = model.n_vocab;
    model.tokenizer = Some(Tokenizer { model: run.tokenizer.into(), n_tokens, chat_template: true });
    let features = ["avx2", "avx512f", "avx512_vnni"].map(str::to_owned).into();
    let target = Target { devices: Vec::new(), idle: Vec::new(), cpu_features: features, cpu_arch: "x86_64".into() };
    require(&model, &Settings::default(), &target, &EngineProfile::bundled()).unwrap().host
}

#[test]
fn anonymous_memory_is_within_a_tenth_of_what_was_measured() {
    for run in RUNS {
        let host = predicted(run);
        for (what, predicted, measured) in [("load", host.anonymous_at_load(), run.at_load), ("peak", host.anonymous(), run.at_peak)] {
            let value = predicted.get().map_or(0, Bytes::get) as f64;
            let error = value / measured as f64 - 1.0;
            println!("{:32} {what}: {:+.1} %", run.model, error * 100.0);
            assert!(error.abs() < 0.10, "{} at {what}: {value} predicted, {measured} measured", run.model);
            let (low, high) = (predicted.low().copied(), predicted.high().copied());
            let measured = Some(Bytes::new(measured));
            assert!(low <= measured && measured <= high, "{} at {what}: outside {predicted}", run.model);
        }
    }
}
