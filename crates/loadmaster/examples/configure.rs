//! How long the calls of `loadmaster::configure` take: `cargo run --release -p loadmaster --no-default-features --example configure
//! [--machine DESCRIPTION] [MODEL...]`. Without a machine: this one, and a described one with two unequal GPUs.

#![allow(clippy::print_stdout, reason = "a program that tells its figures")]

use loadmaster::configure::{Metrics, Observation, adapt, device_config};
use loadmaster::machine::MachineSource;
use loadmaster::planner::plan::{Priority, Request};
use loadmaster::planner::{Preferences, UseCase};
use std::path::Path;
use std::time::{Duration, Instant};

/// Calls of each kind, of which the median and the slowest are told.
const CALLS: usize = 20;

const MODELS: [&str; 7] =
    ["qwen3-0.6b", "llama-3.1-8b", "qwen3-30b-a3b", "llama-3.3-70b", "gpt-oss-120b", "qwen3-235b-a22b", "deepseek-v3"];

const TWO_GPUS: &str = "rtx4090,rtx3060-12gb,ram=192GiB,cpu=ryzen-9-7950x";

fn main() {
    let mut named: Vec<String> = std::env::args().skip(1).collect();
    let mut machines =
        vec![("this machine".to_owned(), MachineSource::Live), (TWO_GPUS.to_owned(), MachineSource::Description(TWO_GPUS.into()))];
    if named.first().is_some_and(|word| word == "--machine") && named.len() > 1 {
        let machine = named.remove(1);
        named.remove(0);
        machines = vec![(machine.clone(), MachineSource::Description(machine))];
    }
    if named.is_empty() {
        named = MODELS.map(str::to_owned).to_vec();
    }
    for (name, machine) in &machines {
        println!("{name}");
        println!("  {:<16} {:<16} {:>10} {:>10}", "model", "call", "median", "slowest");
        for model in &named {
            calls(machine, model);
        }
    }
}

fn calls(machine: &MachineSource, model: &str) {
    let of = |request: &Request| device_config(machine, Path::new(model), request);
    let wishes = Request {
        use_case: UseCase::default(),
        preferences: Preferences { priority: Priority::Latency, ..Preferences::default() },
        ..Request::default()
    };
    let running = of(&Request::default());
    if let Some(why) = &running.fallback {
        println!("  {model:<16} no plan: {why}");
        return;
    }
    told(model, "optimal", || drop(of(&Request::default())));
    told(model, "preferences", || drop(of(&wishes)));
    for (name, pressure) in [("adapt, pressed", 0.95), ("adapt, idle", 0.3)] {
        let seen = Observation { memory_pressure: Some(pressure), ..Observation::default() };
        let metrics = Metrics { running: running.clone(), observations: vec![seen; 3] };
        told(model, name, || drop(adapt(machine, Path::new(model), &metrics)));
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
    println!("  {model:<16} {call:<16} {:>7.1} ms {:>7.1} ms", at(CALLS / 2), at(CALLS - 1));
}
