//! `run`, `plan` and `memory` of BitNet models on our own engine, in builds with and without llama.cpp.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;
#[cfg(feature = "cuda")]
#[path = "../../cuda/tests/pretended/mod.rs"]
mod pretended;

use common::{Folder, finish};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use synthetic::{Fill, Override};

/// A folder with the tiny model of random ternary weights.
fn folder() -> Folder {
    let folder = Folder::new();
    let file = synthetic::bitnet("bitnet-b1.58-tiny").unwrap().unwrap();
    synthetic::write::write(&file, Fill::Random { seed: 1 }, &folder.path().join("m.gguf")).unwrap();
    folder
}

fn json(folder: &Folder, line: &str, schema: &str) -> Value {
    let output = folder.output(&format!("{line} --json"));
    assert_eq!(output.status.code(), Some(0), "{}", folder.show(&output));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas").join(format!("{schema}.json"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let errors: Vec<String> = jsonschema::validator_for(&schema).unwrap().iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    value
}

#[test]
fn a_run_gives_a_text_and_a_receipt_whose_buffers_are_equal_to_the_byte() {
    let folder = folder();
    for cache in ["f16", "q8_0", "f32"] {
        let run = json(&folder, &format!("run m.gguf -n 8 -c 128 -ctk {cache} -ctv {cache} --prompt baba"), "run");
        assert!(!run["text"].as_str().unwrap().is_empty());
        let receipt = &run["receipt"];
        let host = &receipt["places"][0];
        assert_eq!((host["name"].as_str(), host["total"]["relative_error"].as_f64()), (Some("host"), Some(0.0)), "{host:#}");
        for part in host["parts"].as_array().unwrap() {
            assert_eq!(part["planned"]["value"], part["reported"], "{part:#}");
        }
        // <|begin_of_text|> and one word; one token comes from the prompt's own logits.
        assert_eq!((&receipt["prefill"]["tokens"], &receipt["decode"]["tokens"]), (&2.into(), &7.into()));
    }
}

#[test]
fn the_same_seed_gives_the_same_text_with_any_number_of_threads_and_any_micro_batch() {
    let folder = folder();
    let text = |more: &str| json(&folder, &format!("run m.gguf --engine bitnet:file -n 12 --prompt baba {more}"), "run")["text"].clone();
    let one = text("-t 1");
    assert_eq!((text("-t 2"), text("-t 2 -ub 1")), (one.clone(), one));
}

#[test]
fn a_conversation_is_written_by_the_models_own_template() {
    let folder = folder();
    let mut command = folder.command("run m.gguf -n 4 --chat");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"baba\nbebe\n\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", folder.show(&output));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("the plan held"));
}

#[test]
fn a_context_that_is_full_ends_the_text_and_a_longer_prompt_is_refused() {
    let folder = folder();
    let run = json(&folder, "run m.gguf -n 100 -c 16 --prompt baba", "run");
    // Two of the prompt, and the last token is written without being computed.
    assert_eq!(run["receipt"]["decode"]["tokens"], 14);
    let long = "baba ".repeat(40);
    let mut command = folder.command("run m.gguf -c 16");
    command.args(["--prompt", &long]);
    let output = finish(command, "a long prompt");
    assert_eq!(output.status.code(), Some(6), "{}", folder.show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("than the context of 16 holds"), "{}", folder.show(&output));
}

#[test]
fn plans_and_memory_name_the_engine_and_what_it_does_not_have_is_refused() {
    let folder = folder();
    let plan = json(&folder, "plan m.gguf --machine ram=8GiB,cores=4", "plan");
    assert_eq!(plan["engine"], "BitNet engine");
    let settings: Vec<&str> = plan["settings"].as_array().unwrap().iter().map(|choice| choice["name"].as_str().unwrap()).collect();
    assert_eq!(settings, ["n_ctx", "n_ubatch", "cache_type_k", "cache_type_v", "threads", "head_type"]);
    assert_eq!(json(&folder, "memory m.gguf", "memory")["engine_profile"], "BitNet engine");
    for (line, why) in [
        ("memory m.gguf -np 2", "it holds one sequence: n_parallel 2"),
        ("memory m.gguf -ctk q4_0 -ctv q4_0", "keys and values are kept in one type, f32, f16 or q8_0: q4_0 and q4_0"),
        ("memory m.gguf -ctk q8_0", "keys and values are kept in one type, f32, f16 or q8_0: q8_0 and f16"),
    ] {
        let output = folder.output(line);
        assert!(output.status.code() != Some(0) && String::from_utf8_lossy(&output.stderr).contains(why), "{}", folder.show(&output));
    }
}

/// The plan takes it where it is faster, as a pin does; where quality is asked for, or a pin says so, the file's own is read.
#[test]
fn a_head_in_eight_bits_is_a_copy_that_is_counted() {
    let folder = folder();
    // 2304 rows of 8 blocks of 34 bytes, and the norms: three layers of three times 256 and 768, and the last of 256.
    let (head, norms) = (2304 * 8 * 34, 4 * (3 * (3 * 256 + 768) + 256));
    for (options, copied) in [
        ("--prompt-tokens 8 --output-tokens 500", head + norms),
        ("--engine bitnet:q8_0", head + norms),
        ("--use-case quality", norms),
        ("--engine bitnet:file", norms),
    ] {
        let run = json(&folder, &format!("run m.gguf {options} -n 4 --prompt baba"), "run");
        let parts = run["receipt"]["places"][0]["parts"].as_array().unwrap();
        let weights = parts.iter().find(|part| part["component"] == "weights").unwrap();
        assert_eq!(weights["reported"], copied, "{options}");
        assert_eq!(weights["planned"]["value"], weights["reported"], "{options}");
    }
    let plan = json(&folder, "plan m.gguf --prompt-tokens 8 --output-tokens 500 --explain", "plan");
    let knob = plan["knobs"].as_array().unwrap().iter().find(|knob| knob["name"] == "head_type").unwrap();
    assert_eq!((&knob["value"], &knob["others"][0]["value"]), (&"q8_0".into(), &"f16".into()), "{knob:#}");
    let command: Vec<&str> = plan["command"]["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    assert!(command.windows(2).any(|pair| pair == ["--engine", "bitnet:q8_0"]), "{command:?}");
}

/// A plan that is written says how the head is kept, and a run of it keeps it so, whatever would be planned now.
#[test]
fn a_written_plan_has_the_head_that_it_was_planned_with() {
    let folder = folder();
    let (head, norms) = (2304 * 8 * 34, 4 * (3 * (3 * 256 + 768) + 256));
    for (options, engine, copied) in
        [("--prompt-tokens 8 --output-tokens 500", "bitnet:q8_0", head + norms), ("--use-case quality", "bitnet:file", norms)]
    {
        json(&folder, &format!("plan m.gguf {options} --output plan.toml"), "plan");
        let written = std::fs::read_to_string(folder.path().join("plan.toml")).unwrap();
        assert!(written.contains(&format!("engine = \"{engine}\"")), "{written}");
        // Other wishes would plan the other head.
        let wish = if engine == "bitnet:q8_0" { "--use-case quality" } else { "--prompt-tokens 8 --output-tokens 500" };
        for line in ["run --config plan.toml -n 2 --prompt baba".to_owned(), format!("run --config plan.toml {wish} -n 2 --prompt baba")] {
            let run = json(&folder, &line, "run");
            let parts = run["receipt"]["places"][0]["parts"].as_array().unwrap();
            assert_eq!(parts.iter().find(|part| part["component"] == "weights").unwrap()["reported"], copied, "{line}");
        }
        // What the command line names comes first.
        let run = json(&folder, "run --config plan.toml --engine bitnet:file -n 2 --prompt baba", "run");
        let parts = run["receipt"]["places"][0]["parts"].as_array().unwrap();
        assert_eq!(parts.iter().find(|part| part["component"] == "weights").unwrap()["reported"], norms);
        assert_eq!(json(&folder, "validate plan.toml", "validate")["engine"], "BitNet engine");
    }
}

/// Codes in blocks of 64 are copied into blocks of 128, which is counted; nothing in a file says which they are.
#[test]
fn codes_of_files_from_arm_are_read_on_request() {
    let folder = folder();
    let weights = |engine: &str| {
        let run = json(&folder, &format!("run m.gguf --engine {engine} -n 8 --prompt baba"), "run");
        let parts = run["receipt"]["places"][0]["parts"].as_array().unwrap().clone();
        let part = parts.iter().find(|part| part["component"] == "weights").unwrap().clone();
        assert_eq!(part["planned"]["value"], part["reported"], "{part:#}");
        part["reported"].as_u64().unwrap()
    };
    // Two bits per weight of three layers: queries and output, keys and values of half their width, gate, up and down.
    let codes = 3 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 768 * 256) / 4;
    assert_eq!(weights("bitnet:file,blocks64"), weights("bitnet:file") + codes);
}

/// A model in TL1 is run with the tiles that stand beside it, and without them the file that is missing is named.
#[test]
fn tiles_are_taken_from_the_file_beside_a_model() {
    let folder = Folder::new();
    let sizes = synthetic::preset("bitnet-2b").unwrap();
    let shape = synthetic::Shape { n_layer: 1, n_embd: 256, n_ff: 768, n_head: 4, n_head_kv: 2, n_vocab: 2304, n_ctx: 1024, ..sizes };
    let overrides = vec![Override { part: "blk.".into(), ty: spec::QuantType::TL1 }];
    let options = synthetic::Options { overrides, vocabulary: synthetic::Vocabulary::ByteLevel, ..Default::default() };
    let file = synthetic::gguf(&shape, synthetic::FileType::F16, &options).unwrap();
    synthetic::write::write(&file, Fill::Random { seed: 1 }, &folder.path().join("m.gguf")).unwrap();
    let fails = |config: Option<&str>| {
        if let Some(text) = config {
            std::fs::write(folder.path().join("kernel_config.ini"), text).unwrap();
        }
        let output = folder.output("run m.gguf -n 2 --prompt baba");
        assert_eq!(output.status.code(), Some(6), "{}", folder.show(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = fails(None);
    assert!(said.contains("blk.0.attn_q.weight is tl1, whose tiles no model file states: put the kernel_config.ini"), "{said}");
    let said = fails(Some("[Kernels_0]\nm = 256\n"));
    assert!(said.contains("kernel_config.ini: section [Kernels_0] does not state k"), "{said}");
    let section = |(m, k): (u32, u32)| format!("[{m}x{k}]\nm = {m}\nk = {k}\nbm = 128\nbk = 128\nbmm = 32\n");
    let some: String = [(256, 256), (128, 256), (768, 256)].into_iter().map(section).collect();
    let said = fails(Some(&some));
    assert!(said.contains("a section with m = 256 and k = 768 is needed"), "{said}");
    std::fs::write(folder.path().join("kernel_config.ini"), some + &section((256, 768))).unwrap();
    let run = json(&folder, "run m.gguf --engine bitnet:file -n 2 --prompt baba", "run");
    let parts = run["receipt"]["places"][0]["parts"].as_array().unwrap();
    for part in parts {
        assert_eq!(part["planned"]["value"], part["reported"], "{part:#}");
    }
}

/// No server computes these models: that is said before one is looked for, with what to do instead.
#[test]
fn a_server_for_ternary_weights_is_refused_with_what_runs_them() {
    let folder = folder();
    for (line, code, said) in [
        ("serve m.gguf", 5, "llama.cpp cannot load tensor blk.0.attn_q.weight: it is of type i2_s of the BitNet fork"),
        ("serve m.gguf --dry-run", 5, "llama.cpp cannot load tensor"),
        ("serve m.gguf --engine bitnet", 2, "our own engine for BitNet models is no server"),
        ("serve m.gguf --engine bitnet:q8_0 --dry-run", 2, "our own engine for BitNet models is no server"),
    ] {
        let output = folder.output(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", folder.show(&output));
        assert!(stderr.contains(said) && stderr.contains("loadmaster run"), "{line}: {stderr}");
    }
}

#[test]
fn a_model_that_is_packed_otherwise_goes_to_another_engine() {
    let folder = Folder::new();
    let shape = synthetic::Shape { n_layer: 1, n_vocab: 512, ..synthetic::preset("bitnet-2b").unwrap() };
    let options =
        synthetic::Options { overrides: vec![Override { part: "token_embd".into(), ty: spec::QuantType::Q6_K }], ..Default::default() };
    let file = synthetic::gguf(&shape, synthetic::FileType::TQ2_0, &options).unwrap();
    synthetic::write::write(&file, Fill::Zero, &folder.path().join("m.gguf")).unwrap();
    let memory = json(&folder, "memory m.gguf", "memory");
    assert!(memory["engine_profile"].as_str().unwrap().starts_with("llama"), "{memory:#}");
}

/// Packed safetensors with a `tokenizer.json`, both directions of the scale.
fn packed(class: synthetic::LinearClass) -> Folder {
    let folder = Folder::new();
    let packed = synthetic::packed("bitnet-b1.58-tiny", class).unwrap();
    synthetic::write::write_folder(&packed, Fill::Random { seed: 1 }, &folder.path().join("hub")).unwrap();
    folder
}

#[test]
fn a_folder_of_packed_safetensors_runs_as_it_is_and_its_copies_are_counted() {
    for class in [synthetic::LinearClass::AutoBitLinear, synthetic::LinearClass::BitLinear] {
        let folder = packed(class);
        let run = json(&folder, "run hub -n 8 -c 128 --prompt baba", "run");
        assert!(!run["text"].as_str().unwrap().is_empty());
        assert_eq!(run["receipt"]["prefill"]["tokens"], 2, "the text begins with its mark, and baba is one token");
        for part in run["receipt"]["places"][0]["parts"].as_array().unwrap() {
            assert_eq!(part["planned"]["value"], part["reported"], "{part:#}");
        }
        let memory = json(&folder, "memory hub/model.safetensors", "memory");
        assert_eq!(memory["engine_profile"], "BitNet engine");
        let plan = json(&folder, "plan hub --machine ram=8GiB,cores=4", "plan");
        assert_eq!(plan["engine"], "BitNet engine");
        json(&folder, "predict hub --machine ram=8GiB,cores=4", "predict");
    }
}

#[test]
fn a_folder_is_spoken_to_by_its_own_template_and_refused_by_other_engines_and_types() {
    let folder = packed(synthetic::LinearClass::AutoBitLinear);
    let mut command = folder.command("run hub -n 4 --chat");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"baba\n\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", folder.show(&output));
    for (line, code, why) in [
        ("plan hub --engine bundled", 5, "of type hf_u2 of packed safetensors"),
        ("plan hub --quant Q4_K_M", 7, "its weights are ternary and packed already"),
    ] {
        let output = folder.output(line);
        assert_eq!(output.status.code(), Some(code), "{}", folder.show(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{}", folder.show(&output));
    }
    std::fs::remove_file(folder.path().join("hub/tokenizer.json")).unwrap();
    let output = folder.output("run hub -n 4 --prompt baba");
    assert_eq!(output.status.code(), Some(6), "{}", folder.show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("tokenizer.json: no such file"), "{}", folder.show(&output));
}

/// What the process takes on top of what it had, for a context of which the sums are most: the tables of the tokenizer are an estimate.
#[test]
#[cfg(target_os = "linux")]
fn memory_of_the_process_is_within_three_percent_after_load_and_at_peak() {
    let folder = folder();
    let hub = packed(synthetic::LinearClass::AutoBitLinear);
    for (folder, model) in [(&folder, "m.gguf"), (&hub, "hub")] {
        for head in ["file", "q8_0"] {
            let run = json(folder, &format!("run {model} --engine bitnet:{head} -n 4 -c 32768 -ctk f32 -ctv f32 --prompt baba"), "run");
            let process = &run["receipt"]["process"];
            for line in ["anonymous_at_load", "anonymous"] {
                let off = process[line]["relative_error"].as_f64().unwrap();
                assert!(off.abs() <= 0.03, "{model}, {head}, {line}: {off}: {process:#}");
            }
        }
    }
}

#[test]
fn layers_for_a_gpu_that_nobody_named_are_computed_here_and_that_is_said() {
    let folder = folder();
    let output = folder.output("run m.gguf -n 4 -c 64 -ngl 2 --prompt baba");
    assert_eq!(output.status.code(), Some(0), "{}", folder.show(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no GPU for 2 layers of a BitNet model: "), "{}", folder.show(&output));
    assert!(said.contains("; the CPU computes all layers"), "{}", folder.show(&output));
}

/// Unpinned, a batch is what was measured on the device to be worth it, and never more than planned; all else is equal to the byte.
#[cfg(any(feature = "gpu", feature = "cuda"))]
fn a_batch_is_measured(run: &Value, device: &str) {
    let receipt = &run["receipt"];
    let (_, told) = receipt["engine"]["name"].as_str().unwrap().split_once(&format!(" on {device}, ")).unwrap();
    let tokens: u64 = told.split(' ').next().unwrap().parse().unwrap();
    assert!((1..=128).contains(&tokens) && told.ends_with(" tokens at a time)"), "{told}");
    let place = receipt["places"].as_array().unwrap().iter().find(|place| place["name"] == device).unwrap();
    for part in place["parts"].as_array().unwrap() {
        let (planned, reported) = (part["planned"]["value"].as_u64().unwrap(), part["reported"].as_u64().unwrap());
        assert!(reported == planned || part["component"] == "compute" && tokens < 128 && reported < planned, "{part:#}");
    }
    let said = format!("{device}: {tokens} tokens of a prompt at a time, of 128 that the plan leaves memory for, so that it computes in ");
    let notes = receipt["notes"].as_array().unwrap();
    assert_eq!(notes.iter().any(|note| note.as_str().unwrap().starts_with(&said)), tokens < 128, "{notes:#?}");
}

/// Software counts as a GPU when it is named: all layers on it, the output head with the last one, and the head alone.
#[cfg(feature = "gpu")]
#[test]
fn layers_on_a_named_device_are_counted_there_to_the_byte() {
    let folder = folder();
    let known = folder.output("run m.gguf -n 1 --device wgpu99 --prompt baba");
    assert_ne!(known.status.code(), Some(0));
    if !String::from_utf8_lossy(&known.stderr).contains("wgpu0") {
        eprintln!("SKIPPED: no adapter here; mesa-vulkan-drivers has one in software");
        return;
    }
    let line = "run m.gguf -n 8 -c 128 -ctk f32 -ctv f32 --device wgpu0 --prompt baba";
    for layers in [1, 2, 99] {
        let run = json(&folder, &format!("{line} -ub 128 -ngl {layers}"), "run");
        assert!(!run["text"].as_str().unwrap().is_empty());
        let places = run["receipt"]["places"].as_array().unwrap();
        assert!(places.iter().any(|place| place["name"] == "wgpu0"), "{places:#?}");
        for part in places.iter().flat_map(|place| place["parts"].as_array().unwrap()) {
            assert_eq!(part["planned"]["value"], part["reported"], "{part:#}");
        }
    }
    a_batch_is_measured(&json(&folder, &format!("{line} -ngl 99"), "run"), "wgpu0");
    let here = folder.output("detect --json");
    let here: Value = serde_json::from_slice(&here.stdout).unwrap();
    if !here["gpus"].as_array().unwrap().is_empty() {
        eprintln!("SKIPPED: this machine has a GPU, and wgpu0 may be it");
        return;
    }
    // Of software nobody knows the speed: by itself a plan puts no layer there, and says so.
    let plan = json(&folder, "plan m.gguf -c 128 -ctk f32 -ctv f32 --device wgpu0", "plan");
    assert!(plan["settings"].as_array().unwrap().iter().all(|setting| setting["name"] != "n_gpu_layers"), "{plan:#}");
    let said = "wgpu0 is no GPU that is known of this machine, nor its speed: it gets layers only with -ngl";
    assert!(plan["warnings"].as_array().unwrap().iter().any(|warning| warning == said), "{plan:#}");
}

/// The same through CUDA, on a driver without a GPU: its kernels are this program's own, compiled for the CPU.
#[cfg(feature = "cuda")]
#[test]
fn layers_through_cuda_are_counted_to_the_byte_and_come_back_to_the_cpu() {
    let folder = folder();
    let line = "run m.gguf --engine bitnet:file -n 8 -c 128 -ub 128 -ctk f32 -ctv f32 --prompt baba --json";
    let run = |more: &str, libraries: &Path, environment: &[(&str, &str)]| {
        let mut command = folder.command(&format!("{line} {more}"));
        command.env("LD_LIBRARY_PATH", libraries).envs(environment.iter().copied());
        finish(command, line)
    };
    let value = |output: &std::process::Output| -> Value {
        assert_eq!(output.status.code(), Some(0), "{}", folder.show(output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let here = value(&run("", Path::new("/nowhere"), &[]));
    let Some(driver) = pretended::driver() else { return };
    let driver = driver.path();
    for layers in [1, 2, 99] {
        let run = value(&run(&format!("--device cuda0 -ngl {layers}"), driver, &[]));
        assert_eq!(run["text"], here["text"]);
        let places = run["receipt"]["places"].as_array().unwrap();
        assert!(places.iter().any(|place| place["name"] == "cuda0"), "{places:#?}");
        for part in places.iter().flat_map(|place| place["parts"].as_array().unwrap()) {
            assert_eq!(part["planned"]["value"], part["reported"], "{part:#}");
        }
    }
    let mut open = folder.command(&format!("{} --device cuda0 -ngl 99", line.replace(" -ub 128", "")));
    open.env("LD_LIBRARY_PATH", driver);
    let open = value(&finish(open, line));
    assert_eq!(open["text"], here["text"]);
    a_batch_is_measured(&open, "cuda0");
    // Too old, and lost in the middle: the CPU computes, or goes on, with the same text.
    let old = run("--device cuda0 -ngl 99", driver, &[("PRETENDED_CAPABILITY", "52")]);
    assert_eq!(value(&old)["text"], here["text"]);
    let on_cpu = value(&old);
    let places = on_cpu["receipt"]["places"].as_array().unwrap();
    assert!(places.len() == 1 && on_cpu["receipt"]["disagreements"].as_array().unwrap().is_empty(), "{places:#?}");
    for part in places[0]["parts"].as_array().unwrap() {
        assert_eq!(part["planned"]["value"], part["reported"], "{part:#}");
    }
    let words = "cuda0: pretended CUDA device has compute capability 5.2; the kernels need 6.1 or newer (products of four bytes); the CPU computes all layers";
    assert!(said(&old).contains(words), "{}", folder.show(&old));
    let lost = run("--device cuda0 -ngl 99", driver, &[("PRETENDED_FAILS_AFTER", "200")]);
    assert_eq!(value(&lost)["text"], here["text"]);
    assert!(said(&lost).contains("pretended CUDA device is lost: an illegal instruction was encountered"), "{}", folder.show(&lost));
    assert!(said(&lost).contains("; the CPU goes on with all layers"), "{}", folder.show(&lost));
    // Memory that the plan counts on and the driver does not have: what is told of the device is more than there is.
    let none = run("--device cuda0 -ngl 99", driver, &[("PRETENDED_TAKEN", "1073000000")]);
    assert_eq!(value(&none)["text"], here["text"]);
    assert!(said(&none).contains("cuda0: pretended CUDA device has no memory for "), "{}", folder.show(&none));
    // A driver without NVRTC beside it.
    let alone = tempfile::tempdir().unwrap();
    std::fs::copy(driver.join("libcuda.so"), alone.path().join("libcuda.so")).unwrap();
    let uncompiled = run("--device cuda0 -ngl 99", alone.path(), &[]);
    assert_eq!(value(&uncompiled)["text"], here["text"]);
    if !said(&uncompiled).is_empty() {
        let words =
            "cuda0: the kernels cannot be compiled for pretended CUDA device: libnvrtc is not there; it comes with the CUDA toolkit";
        assert!(said(&uncompiled).contains(words), "{}", folder.show(&uncompiled));
    }
}

/// Without a driver the build starts as any other, and a device that is named is none.
#[cfg(feature = "cuda")]
#[test]
fn without_a_driver_a_device_of_cuda_is_unknown() {
    let folder = folder();
    let none = folder.output("run m.gguf -n 1 --device cuda77 --prompt baba");
    assert_ne!(none.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&none.stderr).contains("cuda77"), "{}", folder.show(&none));
}
