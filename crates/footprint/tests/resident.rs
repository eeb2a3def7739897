//! Anonymous memory of the host, predicted against measured.
//!
//! Measured 2026-11 on Linux (glibc, x86-64 with AVX-512): `RssAnon` of a program that loads a synthetic model with the
//! bundled engine (mapped, context 4096, micro-batch 512, one sequence, one row of logits), then computes 512 tokens and
//! 16 more; and the runs of `scripts/show shapes`: context 1024, a prompt of some 840 tokens, 32 more.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod recorded;

use footprint::{EngineProfile, HostRequirement, Target, require};
use spec::model::Tokenizer;
use spec::{Bytes, Settings};

struct Run {
    model: &'static str,
    tokenizer: &'static str,
    n_ctx: u32,
    at_load: u64,
    at_peak: u64,
}

const fn run(model: &'static str, tokenizer: &'static str, at_load: u64, at_peak: u64) -> Run {
    Run { model, tokenizer, n_ctx: 4096, at_load, at_peak }
}

/// Of `scripts/show shapes`, in KiB.
const fn shape(model: &'static str, at_load: u64, at_peak: u64) -> Run {
    Run { model, tokenizer: "llama", n_ctx: 1024, at_load: at_load << 10, at_peak: at_peak << 10 }
}

const RUNS: &[Run] = &[
    run("smollm2-135m Q8_0", "llama", 106_758_144, 122_327_040),
    run("smollm2-135m Q8_0", "gpt2", 119_255_040, 134_746_112),
    run("qwen3-0.6b Q4_K_M", "llama", 712_503_296, 742_273_024),
    run("qwen3-0.6b Q4_K_M", "gpt2", 752_984_064, 778_715_136),
    run("llama-3.2-1b Q4_0", "llama", 705_396_736, 774_012_928),
    run("gemma3-1b Q4_K_M", "llama", 161_456_128, 220_758_016),
    run("qwen3-30b-a3b Q4_K_M n_layer=4", "llama", 1_233_899_520, 1_322_319_872),
    run("mamba-130m Q8_0", "llama", 14_704_640, 37_117_952),
    shape("smollm2-135m Q8_0", 36_526, 52_408),
    shape("qwen3-0.6b Q4_K_M", 353_741, 384_215),
    shape("llama-3.2-1b Q4_0", 591_217, 659_517),
    shape("gemma3-1b Q4_K_M", 147_487, 205_947),
    shape("qwen3-30b-a3b Q4_K_M n_layer=4", 1_181_368, 1_269_688),
    shape("mamba-130m Q8_0", 15_565, 37_786),
    shape("gemma2-2b Q4_K_M", 1_095_322, 1_175_255),
    shape("starcoder2-3b Q8_0", 45_332, 97_802),
    shape("phi-3-mini Q4_K_M", 1_923_625, 1_998_643),
    shape("lfm2-1.2b Q4_K_M", 520_950, 589_896),
    shape("qwen3.5-2b Q4_K_M", 694_968, 757_811),
    shape("qwen2.5-7b Q4_K_M", 3_134_945, 3_284_890),
    shape("llama-3.1-8b Q4_K_M", 3_437_588, 3_560_110),
    shape("deepseek-v2-lite Q4_K_M", 5_732_608, 5_818_972),
    shape("gpt-oss-20b MXFP4_MOE", 9_996_216, 10_089_605),
];

fn predicted(run: &Run) -> HostRequirement {
    let mut model = recorded::model::model(run.model);
    let n_tokens = model.n_vocab;
    let n_merges = if run.tokenizer == "gpt2" { n_tokens } else { 0 };
    model.tokenizer = Some(Tokenizer { model: run.tokenizer.into(), n_tokens, n_merges, chat_template: true });
    let features = ["avx2", "avx512f", "avx512_vnni"].map(str::to_owned).into();
    let target = Target { devices: Vec::new(), idle: Vec::new(), cpu_features: features, cpu_arch: "x86_64".into() };
    let settings = Settings { n_ctx: run.n_ctx, ..Settings::default() };
    require(&model, &settings, &target, &EngineProfile::bundled()).unwrap().host
}

/// Our bar is 3 %. Merges were of made-up pieces longer than real ones, of which a string keeps no more than 15 bytes in place; and 512
/// tokens fill an eighth of a context of 4096, and so of its mask.
fn bar(run: &Run) -> f64 {
    match (run.tokenizer, run.n_ctx) {
        ("gpt2", _) => 0.07,
        (_, 4096) => 0.04,
        _ => 0.03,
    }
}

/// What two programs that load the same model differ by.
const NEGLIGIBLE: f64 = 1_048_576.0;

#[test]
fn anonymous_memory_is_within_three_hundredths_of_what_was_measured() {
    let mut wrong = Vec::new();
    for run in RUNS {
        let host = predicted(run);
        for (what, predicted, measured) in
            [("load", host.anonymous_at_load(), run.at_load), ("peak", host.anonymous_in_use(1.0), run.at_peak)]
        {
            let value = predicted.get().map_or(0, Bytes::get) as f64;
            let error = measured as f64 / value - 1.0;
            println!("{:32} {what}: {:+.2} %", run.model, error * 100.0);
            let (low, high) = (predicted.low().copied(), predicted.high().copied());
            let measured = Some(Bytes::new(measured));
            let off = error.abs() > bar(run) && (error * value).abs() > NEGLIGIBLE;
            if off || low > measured || measured > high {
                wrong.push(format!("{} at {what}: {:+.2} %, measured {measured:?}, predicted {predicted}", run.model, error * 100.0));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
