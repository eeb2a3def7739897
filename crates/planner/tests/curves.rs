//! Predictions against measured curves over one setting: layers on the GPU, and the micro-batch with experts on the CPU. The curves are
//! rows of `../shared/data/speed/knobs.csv`, each with its source; without that file the tests say that they skip.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that fails panics, and one that skips says so")]

mod common;

use common::{machine, model, native};
use planner::{Prediction, Request, plan, predict};
use spec::settings::Pins;
use std::path::Path;

/// Columns of a row of the table.
struct Row {
    knob: String,
    setup: String,
    values: Vec<f64>,
    results: Vec<f64>,
}

#[expect(clippy::disallowed_methods, reason = "a test reads its data")]
fn rows() -> Option<Vec<Row>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/speed/knobs.csv");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("SKIPPED: no {}", path.display());
        return None;
    };
    // `ub 256/512/2048`, `1 / 1.65 / 2.58 (medians)`: numbers between strokes, words around them.
    let numbers = |cell: &str| -> Vec<f64> {
        let parts = cell.split('/').map(|part| part.split_whitespace().find_map(|word| word.trim_end_matches([';', ',']).parse().ok()));
        parts.flatten().collect()
    };
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows = reader.records().map(Result::unwrap).map(|row| Row {
        knob: row[0].to_owned(),
        setup: row[1].to_owned(),
        values: numbers(&row[2]),
        results: numbers(&row[4]),
    });
    Some(rows.collect())
}

fn predicted(machine: &spec::Machine, model: &spec::Model, pins: Pins) -> Prediction {
    let target = native(machine);
    let plan = plan(machine, model, &target, &Request { pins, ..Request::default() }).unwrap();
    predict(machine, model, &target, &plan.settings, &plan.requirement, 64)
}

/// Seconds per token on the GPU and on the host, hops among the latter.
fn halves(prediction: &Prediction) -> (f64, f64) {
    let sum = |on_gpu: bool| {
        let parts = prediction.decode_parts.iter().filter(|part| part.what.ends_with("CUDA0") == on_gpu);
        parts.map(|part| part.time.as_secs_f64()).sum::<f64>()
    };
    (sum(true), sum(false))
}

/// Layers of a 14B on the GPU, from none to all. The host of the measurement is not known: one with two channels of DDR5 is taken, and every
/// measured speed lies in the interval. With the speeds of both ends given, that of each processor is, and the rest follows from the sum.
#[test]
fn time_adds_up_over_processors_as_layers_move() {
    let Some(rows) = rows() else { return };
    let row = rows.iter().find(|row| row.knob == "-ngl" && row.setup.contains("5060 Ti")).unwrap();
    let (machine, model) = (machine("rtx5060ti-16gb,cores=8,ram=64GiB,bandwidth=60GB/s"), model("qwen2.5-14b", "Q4_K_M"));
    let at = |layers: f64| {
        let pins = Pins { n_gpu_layers: Some((layers as u32).min(49)), n_ctx: Some(4096), ..Pins::default() };
        predicted(&machine, &model, pins)
    };
    let curve: Vec<(f64, Prediction)> = row.values.iter().zip(&row.results).map(|(&layers, &rate)| (rate, at(layers))).collect();
    assert_eq!(curve.len(), 7);
    for (rate, prediction) in &curve {
        let (low, high) = (prediction.decode.low().unwrap().get(), prediction.decode.high().unwrap().get());
        assert!(low < *rate && *rate < high, "{rate} outside {low} to {high}");
    }
    let (first, last) = (&curve[0], &curve[6]);
    let host = 1.0 / first.0 / halves(&first.1).1;
    let gpu = (1.0 / last.0 - halves(&last.1).1 * host) / halves(&last.1).0;
    let errors: Vec<f64> = curve[1..6]
        .iter()
        .map(|(rate, prediction)| {
            let (on_gpu, on_host) = halves(prediction);
            (1.0 / (on_gpu * gpu + on_host * host) / rate - 1.0).abs()
        })
        .collect();
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    assert!(mean < 0.08 && errors.iter().all(|error| *error < 0.15), "{errors:?}");
}

/// Experts on the CPU of a laptop with 8 GB: a larger micro-batch copies them less often. Medians over 93 models; ours is one of them.
#[test]
fn a_larger_micro_batch_pays_where_experts_are_on_the_host() {
    let Some(rows) = rows() else { return };
    let row = rows.iter().find(|row| row.knob.starts_with("ubatch (MoE")).unwrap();
    let (machine, model) = (machine("gpu=8GiB@256GB/s,cores=8,ram=64GiB,bandwidth=80GB/s"), model("qwen3-30b-a3b", "Q4_K_M"));
    let at = |ubatch: f64| {
        let ubatch = Some(ubatch as u32);
        let (layers, experts, n_ctx) = (Some(49), Some(48), Some(8192));
        let pins = Pins { n_gpu_layers: layers, n_cpu_moe: experts, n_ubatch: ubatch, n_batch: Some(4096), n_ctx, ..Pins::default() };
        predicted(&machine, &model, pins).prefill.get().unwrap().get()
    };
    let base = at(row.values[0]);
    for (&ubatch, &measured) in row.values.iter().zip(&row.results) {
        let gain = at(ubatch) / base;
        assert!((gain / measured - 1.0).abs() < 0.45, "micro-batch {ubatch}: x{gain:.2}, measured x{measured}");
    }
}

/// gpt-oss-120b on a 24 GB card, experts of 25 to 28 layers on the host: decode is the host's reading, whatever the micro-batch.
#[test]
fn decode_with_experts_on_the_host() {
    let Some(rows) = rows() else { return };
    let row = rows.iter().find(|row| row.setup.contains("gpt-oss-120b")).unwrap();
    assert_eq!(row.values.first(), Some(&256.0));
    let (machine, model) = (machine("rtx3090,cores=16,ram=128GiB,bandwidth=90GB/s"), model("gpt-oss-120b", "MXFP4_MOE"));
    let pins = Pins { n_gpu_layers: Some(37), n_cpu_moe: Some(26), n_ctx: Some(8192), ..Pins::default() };
    let prediction = predicted(&machine, &model, pins);
    let (low, high) = (prediction.decode.low().unwrap().get(), prediction.decode.high().unwrap().get());
    assert!(low < 32.3 && 32.3 < high, "32.3 outside {low} to {high}");
}
