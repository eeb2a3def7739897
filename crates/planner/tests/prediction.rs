//! Predictions against measured speeds, and their direction.
//!
//! Measured: llama-bench rows of github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference at aa72e0ec8 (May 2024, CUDA, whole
//! model on the GPU, tg1024).

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{machine, model, native};
use planner::plan::{Margin, Preferences, pareto};
use planner::predict::{Bottleneck, Question, forecast};
use planner::{Prediction, Request, plan, predict};
use roofline::Parameters;
use spec::Bytes;
use spec::settings::Pins;

fn predicted(description: &str, name: &str, depth: u32, pins: Pins) -> Prediction {
    let (machine, model) = (machine(description), model(name, "Q4_K_M"));
    let target = native(&machine);
    let plan = plan(&machine, &model, &target, &Request { pins, ..Request::default() }).unwrap();
    predict(&machine, &model, &target, &plan.settings, &plan.requirement, depth)
}

fn decode(description: &str, name: &str, depth: u32) -> f64 {
    predicted(description, name, depth, Pins::default()).decode.get().unwrap().get()
}

#[test]
fn measured_speeds_lie_inside_the_interval_and_near_its_middle() {
    let rows = [
        ("cores=16,ram=64GiB,gpu=24GiB@1008GB/s", "llama-3.1-8b", 127.74),
        ("cores=16,ram=64GiB,gpu=12GiB@912.4GB/s", "llama-3.1-8b", 106.71),
        ("cores=16,ram=64GiB,gpu=24GiB@1008GB/s,gpu=24GiB@1008GB/s", "llama-3.1-70b", 19.06),
    ];
    for (description, name, measured) in rows {
        let prediction = predicted(description, name, 512, Pins::default());
        let (low, middle, high) =
            (prediction.decode.low().unwrap().get(), prediction.decode.get().unwrap().get(), prediction.decode.high().unwrap().get());
        assert!(low < measured && measured < high, "{description} {name}: {measured} outside {low} to {high}");
        // Rows of May 2024, and GPUs of which only size and bandwidth are described: the middle is their class's, 30 % above the second row.
        // Why was not found out; later builds are one guess.
        assert!((middle / measured - 1.0).abs() < 0.35, "{description} {name}: {middle} for {measured}");
    }
}

/// A plan's times are those of its own settings: where weights come from disk as well, and whatever is left to others.
#[test]
fn a_plan_is_predicted_as_it_was_chosen() {
    let margins = [None, Some(Margin::Fraction(0.2)), Some(Margin::Size(Bytes::from_mib(1)))];
    let machines = [
        ("cores=8,ram=64GiB", "llama-3.1-8b"),
        ("cores=8,ram=32GiB", "llama-3.1-70b"),
        ("cores=8,ram=16GiB,gpu=12GiB", "llama-3.1-70b"),
        ("cores=8,ram=16GiB", "gpt-oss-20b"),
        ("cores=6,ram=16GiB,gpu=6GiB", "qwen3-32b"),
    ];
    let mut from_disk = 0;
    for ((description, name), margin) in machines.into_iter().flat_map(|case| margins.map(|margin| (case, margin))) {
        let (machine, model) = (machine(description), model(name, "Q4_K_M"));
        let target = native(&machine);
        let preferences = Preferences { margin, ..Preferences::default() };
        let request = Request { preferences, ..Request::default() };
        let Ok(plan) = plan(&machine, &model, &target, &request) else { continue };
        from_disk += usize::from(plan.prediction.decode_bottleneck == Bottleneck::Disk);
        let workload = plan.request.demand().workload;
        let question = Question { workload, depths: Vec::new(), draft: None, margin, parameters: Parameters::fitted() };
        let found = forecast(&machine, &model, &target, &plan.settings, &plan.requirement, &question).request;
        let merits = pareto(&machine, &model, &target, &plan).chosen;
        for (known, planned) in [(&found.whole, merits.seconds), (&found.first_token, merits.first_token)] {
            let seconds = known.get().unwrap().as_secs_f64();
            assert!((seconds / planned - 1.0).abs() < 1e-6, "{description} {name} {margin:?}: {seconds}, planned {planned}");
        }
    }
    assert!(from_disk > 3, "{from_disk}");
}

#[test]
fn decode_follows_bandwidth_depth_and_place() {
    let fast = decode("cores=8,ram=64GiB,gpu=24GiB@1008GB/s", "llama-3.1-8b", 512);
    let slow = decode("cores=8,ram=64GiB,gpu=24GiB@300GB/s", "llama-3.1-8b", 512);
    let deep = decode("cores=8,ram=64GiB,gpu=24GiB@1008GB/s", "llama-3.1-8b", 16000);
    let host = decode("cores=8,ram=64GiB", "llama-3.1-8b", 512);
    let disk = decode("cores=8,ram=32GiB", "llama-3.1-70b", 512);
    let memory = decode("cores=8,ram=64GiB", "llama-3.1-70b", 512);
    assert!(fast > slow && fast > deep && slow > host, "{fast} {slow} {deep} {host}");
    assert!(memory > 2.0 * disk, "{memory} {disk}");
}

#[test]
fn cores_share_attention_of_a_token_and_memory_does_not_grow_with_them() {
    // Seconds per token of context, of the CPU alone.
    let slope = |cores: u32| {
        let at = |depth| 1.0 / decode(&format!("cores={cores},ram=64GiB"), "llama-3.1-8b", depth);
        (at(16_000) - at(2_000)) / 14_000.0
    };
    let [two, four, sixteen] = [2, 4, 16].map(slope);
    assert!(two > 1.4 * four && four > 1.3 * sixteen && two < 8.0 * sixteen, "{two} {four} {sixteen}");
    // 32 heads of 32 layers; two cores of Zen 4 took 19 to 33 ns per head and token (llama-bench 0.7.0).
    let measured = 19e-9 * 1024.0..33e-9 * 1024.0;
    assert!(measured.start / 1.5 < two && two < measured.end * 1.5, "{two} for {measured:?}");
}

#[test]
fn an_assumption_is_named_and_a_known_rate_is_none() {
    let assumed = predicted("cores=8,ram=64GiB,gpu=24GiB", "llama-3.1-8b", 512, Pins::default());
    assert!(assumed.assumptions.iter().any(|text| text.contains("bandwidth of CUDA0 not known")), "{:?}", assumed.assumptions);
    let known = predicted("cores=8,ram=64GiB,gpu=24GiB@1008GB/s", "llama-3.1-8b", 512, Pins::default());
    assert!(known.assumptions.is_empty(), "{:?}", known.assumptions);
}

#[test]
fn experts_moved_by_pattern_cost_what_they_cost_by_count() {
    let machine = "cores=8,ram=64GiB,gpu=24GiB@1008GB/s";
    let by_count = Pins { n_gpu_layers: Some(49), n_cpu_moe: Some(48), n_ubatch: Some(512), ..Pins::default() };
    let rule = spec::settings::TensorOverride { pattern: "ffn_(up|down|gate)_exps".into(), buffer: "CPU".into() };
    let by_pattern =
        Pins { n_gpu_layers: Some(49), n_cpu_moe: Some(0), n_ubatch: Some(512), tensor_overrides: Some(vec![rule]), ..Pins::default() };
    let count = predicted(machine, "qwen3-30b-a3b", 512, by_count).prefill.get().unwrap().get();
    let pattern = predicted(machine, "qwen3-30b-a3b", 512, by_pattern).prefill.get().unwrap().get();
    assert!((count / pattern - 1.0).abs() < 0.01, "{count} {pattern}");
}
