//! How long the three calls of `loadmaster::configure` take on this machine: `cargo run --release -p loadmaster --no-default-features
//! --example configure [MODEL...]`.

#![allow(clippy::print_stdout, reason = "a program that tells its figures")]

use loadmaster::configure::{Metrics, Observation, adaptive_device_config, optimal_device_config, optimal_device_config_with_preferences};
use loadmaster::planner::Preferences;
use loadmaster::planner::plan::Priority;
use std::time::{Duration, Instant};

/// Calls of each kind, of which the median and the slowest are told.
const CALLS: usize = 20;

fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let models =
        if named.is_empty() { ["qwen3-0.6b", "llama-3.1-8b", "qwen3-30b-a3b", "llama-3.3-70b"].map(str::to_owned).to_vec() } else { named };
    println!("{:<16} {:<16} {:>10} {:>10}", "model", "call", "median", "slowest");
    for model in &models {
        let running = optimal_device_config(model);
        let wishes = Preferences { priority: Priority::Latency, ..Preferences::default() };
        told(model, "optimal", || drop(optimal_device_config(model)));
        told(model, "preferences", || drop(optimal_device_config_with_preferences(model, &wishes)));
        for (name, pressure) in [("adapt, pressed", 0.95), ("adapt, idle", 0.3)] {
            let seen = Observation { memory_pressure: Some(pressure), ..Observation::default() };
            let metrics = Metrics { running: running.clone(), observations: vec![seen; 3] };
            told(model, name, || drop(adaptive_device_config(model, &metrics)));
        }
    }
}

fn told(model: &str, call: &str, mut run: impl FnMut()) {
    let mut times: Vec<Duration> = (0..CALLS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort();
    let at = |index: usize| times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    println!("{model:<16} {call:<16} {:>7.1} ms {:>7.1} ms", at(CALLS / 2), at(CALLS - 1));
}
