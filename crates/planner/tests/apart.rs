//! Contexts on the CPU whose caches would lie powers of two apart have a block more.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use planner::plan::Origin;
use planner::{GpuSupport, Plan, Request, UseCase, plan, target};
use spec::Model;
use spec::settings::Pins;

/// Keys and values of a token take 2 KiB each in f16: 64 MiB in a context of 32,768.
fn qwen() -> Model {
    common::model("qwen3-0.6b", "Q4_K_M")
}

fn planned(machine: &str, model: &Model, use_case: UseCase, pins: Pins) -> Plan {
    let machine = common::machine(machine);
    let request = Request { use_case, pins, ..Request::default() };
    plan(&machine, model, &target(&machine, &GpuSupport::Native), &request).unwrap()
}

const CPU: &str = "ram=24GiB,cores=2,bandwidth=30GB/s";

#[test]
fn a_block_more_on_the_cpu_alone_and_that_is_said() {
    let plan = planned(CPU, &qwen(), UseCase::Rag, Pins::default());
    assert_eq!((plan.settings.n_ctx, plan.requirement.context.n_ctx), (33_024, 33_024));
    let choice = plan.choices.iter().find(|choice| choice.setting == "n_ctx").unwrap();
    assert_eq!(choice.origin, Origin::Searched);
    assert!(choice.because.starts_with("rag: 32768 tokens wanted; a block more"), "{}", choice.because);
}

#[test]
fn nothing_more_where_it_is_pinned_elsewhere_or_the_trained_context() {
    let pinned = planned(CPU, &qwen(), UseCase::Rag, Pins { n_ctx: Some(32_768), ..Pins::default() });
    assert_eq!(pinned.settings.n_ctx, 32_768);
    let on_gpu = planned("ram=24GiB,cores=8,gpu=24GiB@900GB/s", &qwen(), UseCase::Rag, Pins::default());
    assert_eq!(on_gpu.settings.n_ctx, 32_768);
    let trained = Model { n_ctx_train: Some(32_768), ..qwen() };
    assert_eq!(planned(CPU, &trained, UseCase::Rag, Pins::default()).settings.n_ctx, 32_768);
    // Rows of 640 bytes are no power of two.
    let other = common::model("smollm2-360m", "Q4_K_M");
    assert_eq!(planned(CPU, &other, UseCase::Rag, Pins::default()).settings.n_ctx % 1024, 0);
    // In eight bits a row has 2,176 bytes.
    let quantised = Pins { cache_type_k: Some(spec::QuantType::Q8_0), cache_type_v: Some(spec::QuantType::Q8_0), ..Pins::default() };
    assert_eq!(planned(CPU, &qwen(), UseCase::Rag, quantised).settings.n_ctx, 32_768);
}
