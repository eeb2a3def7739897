//! How many configurations a second can be predicted: `cargo run --release -p planner --example predictions`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a stopwatch for the terminal")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{machine, model, native};
use planner::predict::{Placement, request_seconds};
use planner::workload::Workload;
use spec::Settings;

#[expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]
fn main() {
    let machine = machine("gpu=24GiB@1008GB/s,gpu=16GiB@600GB/s,ram=128GiB,cores=16,bandwidth=80GB/s");
    let target = native(&machine);
    let workload = Workload { prompt: 2048, output: 256, shared_prefix: 0, users: 1 };
    for (name, ty) in [("llama-3.1-8b", "Q4_K_M"), ("qwen3-30b-a3b", "Q4_K_M"), ("llama-3.1-70b", "Q4_K_M")] {
        let model = model(name, ty);
        let layers = model.layers.len() + 1;
        let candidates: Vec<(Settings, Vec<Option<usize>>)> = (0..50_000_u32)
            .map(|i| {
                let (first, second) = (i as usize % layers, i as usize / layers % layers);
                let home = |layer: usize| (layer >= first.min(second)).then_some(usize::from(layer >= first.max(second)));
                let settings = Settings {
                    n_ctx: 8192,
                    n_ubatch: 512 << (i % 3),
                    n_cpu_moe: i % 7,
                    threads: 16,
                    threads_batch: 16,
                    ..Settings::default()
                };
                (settings, (0..layers).map(home).collect())
            })
            .collect();
        let placements: Vec<Placement<'_>> =
            candidates.iter().map(|(settings, layer_devices)| Placement { settings, layer_devices }).collect();
        let start = std::time::Instant::now();
        let times = request_seconds(&machine, &model, &target, &workload, &placements);
        let took = start.elapsed();
        let best = times.iter().min().unwrap();
        println!("{name}: {:.0} predictions/s, best request {best:?}", times.len() as f64 / took.as_secs_f64());
    }
}
