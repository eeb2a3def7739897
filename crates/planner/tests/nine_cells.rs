//! The nine cells that the first issue asks for: three large models on three machines, each verdict with its argument.

mod common;

use common::{model, planned, text};
use planner::Request;

const MACHINES: [&str; 3] = ["gpu=24GiB,ram=64GiB", "gpu=24GiB,gpu=24GiB,ram=128GiB", "gpu=8GiB,ram=32GiB"];

fn cells(name: &str, file_type: &str) -> String {
    let model = model(name, file_type);
    let cells = MACHINES.map(|machine| format!("## {machine}\n{}", text(&planned(machine, &model, &Request::default()))));
    cells.join("\n")
}

#[test]
fn llama_3_1_70b() {
    insta::assert_snapshot!(cells("llama-3.1-70b", "Q4_K_M"));
}

#[test]
fn deepseek_v3() {
    insta::assert_snapshot!(cells("deepseek-v3", "Q4_K_M"));
}

#[test]
fn gpt_oss_120b() {
    insta::assert_snapshot!(cells("gpt-oss-120b", "MXFP4_MOE"));
}
