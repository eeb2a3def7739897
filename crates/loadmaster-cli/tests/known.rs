//! Models without a file: by name, by size, in a type that the use case chooses, and written as a configuration.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use common::Folder;
use insta::assert_snapshot;
use serde_json::Value;
use synthetic::FileType;

const WORKSTATION: &str = "--machine ram=64GiB,free=60GiB,cores=8,threads=16,bandwidth=60GB/s,features=avx2+fma+f16c,gpu=24GiB";

fn json(folder: &Folder, line: &str) -> Value {
    let output = folder.output(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_name_and_a_size_are_planned_without_a_file() {
    let folder = Folder::new();
    let by_name = json(&folder, &format!("plan qwen3-8b --json {WORKSTATION}"));
    assert_eq!(by_name["verdict"], "fits");
    assert_eq!(by_name["model"]["assumed"], "Qwen/Qwen3-8B");
    assert_eq!(by_name["precision"]["file_type"], "Q4_K_M");
    assert_eq!(json(&folder, &format!("plan --model-size 8B --json {WORKSTATION}")), by_name);
    let quality = json(&folder, &format!("plan Qwen/Qwen3-8B --use-case quality --json {WORKSTATION}"));
    assert_eq!(quality["model"]["file_type"], "Q8_0");
    let named = json(&folder, &format!("plan qwen3-8b --quant Q6_K --json {WORKSTATION}"));
    assert_eq!((&named["model"]["file_type"], &named["precision"]["named"]), (&Value::from("Q6_K"), &Value::from(true)));
    let text = folder.run(&format!("plan qwen3-8b {WORKSTATION}"));
    assert!(text.contains("no file was read: shape of Qwen/Qwen3-8B; Q4_K_M is the best type that general asks for"), "{text}");
}

#[test]
fn memory_and_inspect_take_them_too() {
    let folder = Folder::new();
    let of_file = {
        folder.model("m.gguf", "llama-3.1-8b", FileType::Q4_K_M);
        json(&folder, &format!("memory m.gguf --json {WORKSTATION}"))
    };
    let of_name = json(&folder, &format!("memory llama-3.1-8b --json {WORKSTATION}"));
    let weights = |view: &Value| view["devices"][1]["parts"].clone();
    assert_eq!(weights(&of_name), weights(&of_file), "a shape has the memory of its file");
    let inspected = json(&folder, &format!("inspect --model-size 30B-A3B --json {WORKSTATION}"));
    assert_eq!(inspected["model"]["name"], "qwen3-30b-a3b");
}

#[test]
fn what_is_not_known_names_its_neighbours() {
    let folder = Folder::new();
    assert_snapshot!(folder.run("plan qwen3-9b"), @r"
    exit 7
    --- stderr
    error: qwen3-9b: no such file or folder, and no known model of that name
    hint: known are qwen3.5-9b, qwen3-4b, qwen3-8b
    ");
    assert_snapshot!(folder.run("plan --model-size 3T"), @r"
    exit 2
    --- stderr
    error: no typical shape of 3T
    hint: the nearest known model is llama-3.1-405b
    ");
    assert_snapshot!(folder.run("plan --model-size large"), @r#"
    exit 2
    --- stderr
    error: invalid value 'large' for '--model-size <SIZE>': no size of a model: "large"; write 8B, 350M or 30B-A3B

    For more information, try '--help'.
    "#);
    assert_snapshot!(folder.run("plan qwen3-8b --model-size 8B"), @r"
    exit 2
    --- stderr
    error: the argument '[MODEL]' cannot be used with '--model-size <SIZE>'

    Usage: loadmaster plan <MODEL>

    For more information, try '--help'.
    ");
    assert_snapshot!(folder.run("run qwen3-8b --dry-run --machine ram=8GiB,cores=4"), @r"
    exit 7
    --- stderr
    error: qwen3-8b: a known shape, not a file on this machine
    hint: fetch a GGUF file of Qwen/Qwen3-8B, then name the file; `memory` and `plan` work without
    ");
    assert_snapshot!(folder.run("plan none.gguf"), @r"
    exit 7
    --- stderr
    error: none.gguf: no such file
    hint: check the spelling of the path
    ");
}

#[test]
fn a_plan_without_a_file_is_written_and_read_back() {
    let folder = Folder::new();
    folder.model("m.gguf", "qwen3-8b", FileType::Q4_K_M).model("other.gguf", "qwen3-8b", FileType::Q8_0);
    let wrote = folder.run(&format!("plan qwen3-8b --use-case general -o plan.json {WORKSTATION}"));
    assert!(wrote.starts_with("exit 0\n"), "{wrote}");
    let config: Value = serde_json::from_slice(&std::fs::read(folder.path().join("plan.json")).unwrap()).unwrap();
    assert_eq!(config.get("model"), None, "no file was read");
    let metadata = &config["metadata"];
    for (key, value) in [("model", "qwen3-8b"), ("file_type", "Q4_K_M"), ("assumed", "Qwen/Qwen3-8B"), ("verdict", "fits")] {
        assert_eq!(metadata[key], value);
    }
    assert!(metadata["machine"].as_str().unwrap().starts_with("ram=64GiB"), "{metadata}");
    let decode = &config["expected"]["decode_tokens_per_s"];
    assert!(decode["low"].as_f64() < decode["high"].as_f64(), "{decode}");
    assert!(config["expected"]["memory_bytes"]["CUDA0"]["typical"].as_f64() > Some(4e9));

    let valid = folder.run(&format!("validate plan.json {WORKSTATION}"));
    assert!(valid.starts_with("exit 0\n--- stdout\nvalid  plan.json for qwen3-8b Q4_K_M"), "{valid}");
    assert!(!valid.contains("planned for another"), "{valid}");
    let elsewhere = folder.run("validate plan.json --machine ram=64GiB,free=60GiB,cores=8,gpu=16GiB");
    assert!(elsewhere.contains("warning: planned for another machine: 8 cores, 64.00 GiB, GPU 24.00 GiB"), "{elsewhere}");
    let nothing = folder.run(&format!("run --config plan.json --dry-run {WORKSTATION}"));
    assert!(nothing.starts_with("exit 2\n") && nothing.contains("loadmaster run MODEL.gguf --config FILE"), "{nothing}");
    let again = json(&folder, &format!("run m.gguf --config plan.json --dry-run --engine bundled --json {WORKSTATION}"));
    let of_plan = json(&folder, &format!("plan qwen3-8b --json {WORKSTATION}"));
    let placed = |view: &Value| view["settings"].as_array().unwrap().iter().map(|s| s["value"].clone()).collect::<Vec<_>>();
    assert_eq!(placed(&again), placed(&of_plan));
    let other = folder.run(&format!("run other.gguf --config plan.json --dry-run --engine bundled {WORKSTATION}"));
    assert!(other.contains("planned for another file type: Q4_K_M; here it is Q8_0"), "{other}");
}

#[test]
fn a_plan_is_drawn_among_its_alternatives_and_every_setting_explained() {
    let folder = Folder::new();
    let shown = json(&folder, &format!("plan llama-3.1-70b --quant Q4_K_M --explain --svg plan.svg --json {WORKSTATION}"));
    let alternatives = shown["alternatives"].as_array().unwrap();
    assert!(!alternatives.is_empty() && shown["merits"]["request_s"].as_f64().unwrap() > 0.0);
    let picture = std::fs::read_to_string(folder.path().join("plan.svg")).unwrap();
    assert!(picture.starts_with("<svg ") && picture.matches("<polyline").count() == alternatives.len() + 1, "{picture}");
    let knobs = shown["knobs"].as_array().unwrap();
    assert_eq!(knobs.len(), shown["settings"].as_array().unwrap().len());
    let costs: Vec<&Value> = knobs.iter().flat_map(|knob| knob["others"].as_array().unwrap()).collect();
    let predicted = |cost: &&&Value| cost["request_s"]["low"].as_f64() < cost["request_s"]["high"].as_f64();
    assert!(costs.len() > 20 && costs.iter().filter(predicted).count() > 10, "{costs:?}");
    assert!(folder.run(&format!("plan qwen3-8b --svg none/plan.svg --quiet {WORKSTATION}")).starts_with("exit 7"));
}

#[test]
fn a_refusal_is_of_the_type_that_its_figures_are_of() {
    let folder = Folder::new();
    let refusal = |line: &str, code: i32| -> Value {
        let output = folder.output(&format!("{line} --json"));
        assert_eq!(output.status.code(), Some(code), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let little = "--machine ram=64GiB,free=100MiB,cores=8,gpu=24GiB";
    for command in ["plan", "predict"] {
        let view = refusal(&format!("{command} qwen3-8b {little}"), 3);
        assert_eq!((&view["model"]["file_type"], &view["precision"]["file_type"]), (&Value::from("Q2_K"), &Value::from("Q2_K")), "{view}");
        assert_eq!(view["precision"]["passed_over"].as_array().map(Vec::len), Some(5));
        let nearest = view["nearest"].to_string();
        assert!(nearest.contains("free on host") && !nearest.contains("smaller quantisation"), "all weights lie on the GPU: {nearest}");
        let named = refusal(&format!("{command} qwen3-8b --quant Q6_K {little}"), 3);
        assert_eq!((&named["model"]["file_type"], &named["precision"]["named"]), (&Value::from("Q6_K"), &Value::from(true)));
        // The engine refuses these of any type: the first stands for all.
        let settings = refusal(&format!("{command} qwen3-8b -b 0 {WORKSTATION}"), 2);
        assert_eq!(settings["model"]["file_type"], "Q4_K_M");
    }
}

#[test]
fn what_no_context_holds_is_said() {
    let folder = Folder::new();
    let refused = folder.run(&format!("plan qwen3-8b --min-context 100000 {WORKSTATION}"));
    assert!(refused.starts_with("exit 3\n"), "{refused}");
    for part in
        ["no plan for qwen3-8b Q4_K_M", "more than the 40960 that the model was trained for", "--min-context 40960", "--ctx-size 100096"]
    {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let refused = folder.run(&format!("predict qwen3-8b --prompt-tokens 4000000000 {WORKSTATION}"));
    assert!(refused.starts_with("exit 3\n") && refused.contains("--prompt-tokens 40704"), "{refused}");
    for command in ["plan", "predict"] {
        let told = folder.run(&format!("{command} qwen3-8b -c 1024 {WORKSTATION}"));
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.starts_with("exit 0 ") && told.contains("do not fit into the 1024 of a slot"), "{told}");
    }
}

/// A device's parts are its total, whatever computes in it and whatever is loaded beside the model.
#[test]
fn parts_of_a_device_add_up_and_a_prompt_cache_is_never_told_to_grow() {
    let folder = Folder::new();
    let view = |line: &str| -> Value { serde_json::from_slice(&folder.output(&format!("{line} --json")).stdout).unwrap() };
    let bytes = |part: &Value| part.get("value").unwrap_or(part).as_u64().unwrap();
    for line in ["plan qwen3-8b --machine rtx-4090-24gb", "plan qwen3-8b --model-draft qwen3-0.6b --machine rtx-4090-24gb"] {
        let view = view(line);
        for device in view["requirement"]["devices"].as_array().unwrap() {
            let parts = device.as_object().unwrap().iter().filter(|(name, _)| name.ends_with("_bytes") && *name != "total_bytes");
            let sum: u64 = parts.map(|(_, part)| bytes(part)).sum();
            assert_eq!(sum, bytes(&device["total_bytes"]), "{line}: {device}");
        }
    }
    let tight = "plan gpt-oss-120b --quant Q8_0 --machine rtx3090,gpu=8GiB,ram=128GiB,cores=12 --use-case batch";
    let told = folder.run(tight).split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, told) = told.split_once("prompt cache (").unwrap_or_else(|| panic!("{told}"));
    let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap();
    let now = number(told);
    let advised = told.split_once("take -cram ").map(|(_, value)| number(value));
    assert!(advised.is_none_or(|advised| advised < now), "{told}");
    assert!(advised.is_some() || told.contains("take fewer checkpoints (-ctxcp), or -cram 0"), "{told}");
}
