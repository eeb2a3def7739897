//! How long a plan takes: `cargo run --release -p planner --example speed`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a stopwatch for the terminal")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{machine, model, native};
use planner::{Request, plan};
use std::cell::Cell;
use std::time::Duration;

#[expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]
fn main() {
    for (name, ty) in [("llama-3.1-70b", "Q4_K_M"), ("deepseek-v3", "Q4_K_M"), ("gpt-oss-120b", "MXFP4_MOE"), ("llama-3.1-8b", "Q4_K_M")] {
        let model = model(name, ty);
        for description in ["gpu=24GiB,ram=64GiB", "gpu=24GiB,gpu=24GiB,ram=128GiB", "gpu=8GiB,ram=32GiB", "ram=16GiB,cores=8"] {
            let machine = machine(description);
            let target = native(&machine);
            let request = Request::default();
            let start = std::time::Instant::now();
            let result = plan(&machine, &model, &target, &request);
            let took = start.elapsed();
            let (count, inside) = (Cell::new(0), Cell::new(Duration::ZERO));
            let again = planner::plan_with(&machine, &model, &target, &request, &|settings| {
                count.set(count.get() + 1);
                let start = std::time::Instant::now();
                let requirement = footprint::require(&model, settings, &target, &request.profile);
                inside.set(inside.get() + start.elapsed());
                requirement
            });
            assert_eq!(result, again);
            println!("{name} {description}: {took:?}, {} requirements in {:?}", count.get(), inside.get());
        }
    }
}
