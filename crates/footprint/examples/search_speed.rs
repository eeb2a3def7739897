//! How long requirements take: `cargo run --release -p footprint --example search_speed`; with a word behind it, of models with it in
//! their name.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a stopwatch for the terminal")]

#[path = "../tests/recorded/mod.rs"]
mod recorded;

use footprint::target::Backend;
use footprint::{Companions, Device, EngineProfile, Requirements, Target, require};
use spec::{Bytes, Known, Model, QuantType, Settings};
use std::time::{Duration, Instant};

const MODELS: [&str; 5] =
    ["llama-3.1-8b Q4_K_M", "llama-3.1-70b Q4_K_M", "qwen3-30b-a3b Q4_K_M", "gpt-oss-120b MXFP4_MOE", "deepseek-v3 Q4_K_M"];
const ROUNDS: u32 = 200;
/// Searches from nothing, and as many with all known.
const SEARCHES: u32 = 10;

fn main() {
    println!("one core; exact simulation of one configuration, mean of {ROUNDS}; then a search over layers, experts, contexts and caches:");
    println!("cold, from nothing, and warm, all of it once more; means of {SEARCHES}");
    let wanted = std::env::args().nth(1).unwrap_or_default();
    for name in MODELS.into_iter().filter(|name| name.contains(&wanted)) {
        let model = recorded::model::model(name);
        single(name, &model);
        search(name, &model);
    }
}

fn target() -> Target {
    let gib = Known::exact(Bytes::from_gib(24), "24 GiB");
    let device = |index| Device::of_its_own(format!("CUDA{index}"), Backend::cuda(false), gib.clone());
    let features = ["avx2", "avx512f"].map(str::to_owned).into();
    Target { devices: (0..2).map(device).collect(), idle: Vec::new(), cpu_features: features, cpu_arch: "x86_64".into() }
}

/// Mean time of one run on one core: what this thread ran, where the system tells (Linux), so that a busy machine does not
/// count; else the clock's.
#[expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]
fn time(times: u32, mut run: impl FnMut()) -> Duration {
    let ran = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    let (start, before) = (Instant::now(), ran());
    (0..times).for_each(|_| run());
    ran().zip(before).map_or_else(|| start.elapsed(), |(after, before)| after - before) / times
}

fn single(name: &str, model: &Model) {
    let (target, profile) = (target(), EngineProfile::server_0_7());
    for n_gpu_layers in [0, model.n_layer_all() / 2, 999] {
        let settings = Settings { n_gpu_layers, n_ctx: 8192, ..Settings::default() };
        let took = time(ROUNDS, || drop(require(model, &settings, &target, &profile).unwrap()));
        println!("{name}, {} layers, -ngl {n_gpu_layers}: {took:.1?}", model.n_layer_all());
    }
}

/// Every placement by layers and experts, four contexts, two caches: with nothing known, and with all known.
fn search(name: &str, model: &Model) {
    let (target, profile, none) = (target(), EngineProfile::server_0_7(), Companions::default());
    let experts = if model.has_experts() { model.n_layer_all() } else { 0 };
    let mut candidates = Vec::new();
    for n_gpu_layers in 0..=model.n_layer_all() + 1 {
        for n_cpu_moe in (0..=experts).step_by(2) {
            for n_ctx in [4096, 8192, 16384, 32768] {
                for cache in [QuantType::F16, QuantType::Q8_0] {
                    candidates.push(Settings {
                        n_gpu_layers,
                        n_cpu_moe,
                        n_ctx,
                        cache_type_k: cache,
                        cache_type_v: cache,
                        ..Settings::default()
                    });
                }
            }
        }
    }
    let ask = |search: &Requirements<'_>| candidates.iter().for_each(|settings| drop(search.require(settings)));
    let cold = time(SEARCHES, || ask(&Requirements::new(model, &target, &profile, &none)));
    let search = Requirements::new(model, &target, &profile, &none);
    ask(&search);
    for (round, took) in [("cold", cold), ("warm", time(SEARCHES, || ask(&search)))] {
        let rate = candidates.len() as f64 / took.as_secs_f64();
        println!(
            "{name}, {round}: {} candidates in {took:.1?}, {rate:.0}/s, {} graphs simulated in all",
            candidates.len(),
            search.simulations()
        );
    }
}
