//! `recommend`: files at hand, known models and quantisations of one, ranked; and what it says where there is nothing to rank.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use common::{Folder, finish};
use insta::assert_snapshot;
use serde_json::Value;
use synthetic::FileType;

const WORKSTATION: &str = "--machine ram=64GiB,free=60GiB,cores=8,threads=16,bandwidth=60GB/s,features=avx2+fma+f16c,gpu=24GiB";

fn json(folder: &Folder, line: &str) -> Value {
    let output = folder.output(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(view: &Value) -> Vec<String> {
    view["ranked"].as_array().unwrap().iter().map(|ranked| ranked["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn files_at_hand_are_ranked_and_broken_ones_are_named() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    folder.model("models/small.gguf", "llama-3.2-1b", FileType::Q8_0).model("models/large.gguf", "qwen3-14b", FileType::Q4_K_M);
    folder.file("models/broken.gguf", "GGUF and no more").file("list.txt", "models/small.gguf\nqwen3-8b # by name\n");
    let output = folder.output(&format!("recommend --models models --json {WORKSTATION}"));
    let view: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(view["schema"], "loadmaster.recommend/1");
    assert_eq!(names(&view), ["models/large.gguf", "models/small.gguf"]);
    assert_eq!(view["skipped"][0]["name"], "models/broken.gguf");
    assert!(String::from_utf8_lossy(&output.stderr).contains("skipped models/broken.gguf"));
    let first = &view["ranked"][0];
    assert_eq!((&first["verdict"], &first["rank"]), (&Value::from("fits"), &Value::from(1)));
    assert!(first["expected_loss"].as_f64() < view["ranked"][1]["expected_loss"].as_f64());
    assert_eq!(names(&json(&folder, &format!("recommend --models list.txt --json {WORKSTATION}"))), ["qwen3-8b", "models/small.gguf"]);
}

#[test]
fn the_store_of_ollama_is_ranked_by_its_own_names() {
    let folder = Folder::new();
    let (blobs, library) = ("store/blobs", "store/manifests/registry.ollama.ai/library/tiny");
    for path in [blobs, library] {
        std::fs::create_dir_all(folder.path().join(path)).unwrap();
    }
    let digest = "a".repeat(64);
    folder.model(&format!("{blobs}/sha256-{digest}"), "smollm2-135m", FileType::Q8_0);
    let layer = format!(r#"{{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{digest}"}}"#);
    folder.file(&format!("{library}/1b"), format!(r#"{{"layers":[{layer}]}}"#)).file(&format!("{library}/broken"), "{}");
    let line = format!("recommend --models ollama --json {WORKSTATION}");
    let mut command = folder.command(&line);
    command.env("OLLAMA_MODELS", folder.path().join("store"));
    let output = finish(command, &line);
    let view: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(names(&view), ["ollama:tiny:1b"]);
    assert_eq!(view["skipped"][0]["name"], "ollama:tiny:broken");
}

#[test]
fn one_model_is_ranked_in_every_type_and_known_models_without_any() {
    let folder = Folder::new();
    let types = json(&folder, &format!("recommend qwen3-32b --limit 99 --json {WORKSTATION}"));
    assert_eq!(types["candidates"], 11);
    let fast = |ranked: &Value| ranked["plan"]["decode_tokens_per_s"]["value"].as_f64() >= types["needed_tokens_per_s"].as_f64();
    let (first, others) = types["ranked"].as_array().unwrap().split_first().unwrap();
    assert!(first["verdict"] == "fits" && fast(first), "{first}");
    let better = others.iter().filter(|other| other["expected_loss"].as_f64() < first["expected_loss"].as_f64());
    better.for_each(|other| assert!(other["verdict"] != "fits" || !fast(other), "{other}"));
    let known = json(&folder, &format!("recommend --use-case code-completion --limit 3 --json {WORKSTATION}"));
    assert_eq!(known["ranked"].as_array().unwrap().len(), 3);
    assert!(known["candidates"].as_u64() > Some(40));
    assert_eq!(known["needed_tokens_per_s"], 20.0);
    assert!(known["ranked"][0]["plan"]["decode_tokens_per_s"]["value"].as_f64() >= Some(20.0), "{known}");
}

#[test]
fn nothing_to_rank_has_its_own_words() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    folder.file("unknown.txt", "no-such-model-at-all\n");
    assert_snapshot!(folder.run("recommend --models empty"), @r"
    exit 7
    --- stderr
    error: empty: holds no model: no .gguf file, no folder of safetensors, no manifest of Ollama
    ");
    assert_snapshot!(folder.run("recommend --models nowhere"), @r"
    exit 7
    --- stderr
    error: cannot read nowhere: No such file or directory (os error 2)
    ");
    assert!(folder.run("recommend --models empty qwen3-8b").starts_with("exit 2\n"));
    let unknown = folder.run(&format!("recommend --models unknown.txt {WORKSTATION}"));
    assert!(unknown.starts_with("exit 7\n") && unknown.contains("skipped no-such-model-at-all: "), "{unknown}");
    let refused = folder.run("recommend kimi-k2 --disk never --machine ram=8GiB,cores=4");
    assert!(refused.starts_with("exit 3\n"), "{refused}");
}

#[test]
fn the_rules_are_shown() {
    let folder = Folder::new();
    let text = folder.run("validate --rules");
    assert!(text.starts_with("exit 0\n") && text.contains("memory-over-limit: a pool of memory needs more than is free"), "{text}");
    assert!(json(&folder, "validate --rules --json")["rules"].as_array().unwrap().len() >= 45);
}
