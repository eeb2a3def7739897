//! The real engine on small files: dry runs against loads, text, timings, and files that are no models.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail")]

mod models;

use llama::protocol::{Bench, Breakdown, Buffer, ChatMessage, Generate, Load, PretendedDevice, Prompt, Sampling, Stop};
use llama::{Cancel, LlamaError, Session, dry_run};
use models::{Models, tiny};
use spec::settings::{FlashAttention, LoadMode, TensorOverride};
use spec::{Bytes, QuantType, Settings};
use std::path::{Path, PathBuf};
use synthetic::FileType;

fn settings() -> Settings {
    Settings { n_ctx: 512, n_batch: 128, n_ubatch: 64, threads: 2, threads_batch: 2, load_mode: LoadMode::None, ..Settings::default() }
}

fn load(path: &Path, settings: Settings) -> Result<Session, LlamaError> {
    Session::load(&Load { paths: vec![path.to_owned()], settings, warm_up: false }, &Cancel::new(), |_| {})
}

fn greedy(prompt: Prompt) -> Generate {
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    Generate { prompt, n_predict: 16, cache_prompt: false, sampling }
}

fn text(prompt: &str) -> Prompt {
    Prompt::Text(prompt.to_owned())
}

fn gpus(count: usize) -> Vec<PretendedDevice> {
    vec![PretendedDevice { name: None, memory: Bytes::from_gib(8), pipeline: false, host_buffer: false }; count]
}

fn sizes(told: &Breakdown) -> Vec<Buffer> {
    told.buffers.iter().filter(|b| !(b.model + b.context + b.compute).is_zero()).cloned().collect()
}

#[test]
fn a_dry_run_tells_what_a_load_takes() {
    let models = Models::new();
    let mut mixtral = synthetic::preset("mixtral-8x7b").unwrap();
    for (key, value) in [("n_layer", "2"), ("n_embd", "256"), ("n_ff", "512"), ("n_head", "4"), ("n_head_kv", "2"), ("n_vocab", "1000")] {
        mixtral.set(key, value).unwrap();
    }
    let cases = [
        (tiny(), FileType::Q4_K_M, settings()),
        (tiny(), FileType::Q8_0, Settings { repack: false, flash_attn: FlashAttention::Off, ..settings() }),
        (tiny(), FileType::Q4_0, Settings { n_parallel: 3, cache_type_k: QuantType::Q8_0, cache_type_v: QuantType::Q8_0, ..settings() }),
        (mixtral, FileType::Q4_K_M, Settings { n_parallel: 2, kv_unified: true, ..settings() }),
    ];
    for (shape, ty, settings) in cases {
        let path = models.write(&shape, ty);
        let dry = dry_run(std::slice::from_ref(&path), &settings, &[], settings.n_parallel).unwrap();
        let loaded = load(&path, settings.clone()).unwrap().loaded();
        let real = loaded.breakdown;
        assert_eq!(sizes(&dry), sizes(&real), "{} {ty:?}", shape.name);
        assert_eq!((dry.graph, dry.output_buffer, dry.n_ctx_seq), (real.graph, real.output_buffer, real.n_ctx_seq));
        assert_eq!(dry.output_buffer, Some(Bytes::new(u64::from(settings.n_parallel) * 1000 * 4)));
        assert!(dry.graph.nodes_prefill.is_some_and(|nodes| nodes > 10) && dry.graph.splits_decode == Some(1));
        assert!(dry.flash_attention == Some(settings.flash_attn != FlashAttention::Off));
        assert!(cfg!(not(target_os = "linux")) || loaded.memory.anonymous > loaded.memory_before.anonymous);
    }
}

#[test]
fn pretended_gpus_take_their_share_and_rules_move_tensors() {
    let models = Models::new();
    let paths = [models.write(&tiny(), FileType::Q4_K_M)];
    let model_on = |told: &Breakdown, name: &str| -> Bytes {
        told.buffers.iter().filter(|buffer| buffer.buffer_type == name).map(|buffer| buffer.model).sum()
    };

    let all = Settings { n_gpu_layers: 99, ..settings() };
    let two = dry_run(&paths, &all, &gpus(2), 1).unwrap();
    assert_eq!((two.devices.as_slice(), two.offloaded_layers), (["GPU0".to_owned(), "GPU1".to_owned()].as_slice(), Some(3)));
    assert!(!model_on(&two, "GPU0").is_zero() && !model_on(&two, "GPU1").is_zero());
    // The embedding is tied and stays on the host as well.
    assert!(!model_on(&two, "CPU").is_zero());

    let one = Settings { tensor_split: vec![1.0, 0.0], ..all.clone() };
    let one = dry_run(&paths, &one, &gpus(2), 1).unwrap();
    assert!(model_on(&one, "GPU1").is_zero() && model_on(&one, "GPU0") > model_on(&two, "GPU0"));

    let rule = TensorOverride { pattern: "ffn_".into(), buffer: "CPU".into() };
    let moved = Settings { tensor_overrides: vec![rule], ..all.clone() };
    let moved = dry_run(&paths, &moved, &gpus(1), 1).unwrap();
    assert!(model_on(&moved, "GPU0") < model_on(&two, "GPU0") + model_on(&two, "GPU1"));
    assert!(moved.graph.splits_prefill > two.graph.splits_prefill);

    let pipeline: Vec<_> = gpus(2).into_iter().map(|gpu| PretendedDevice { pipeline: true, host_buffer: true, ..gpu }).collect();
    let pipelined = dry_run(&paths, &all, &pipeline, 1).unwrap();
    let compute = |told: &Breakdown| told.buffers.iter().map(|buffer| buffer.compute).sum::<Bytes>();
    assert!(compute(&pipelined) > compute(&two));
    assert!(pipelined.buffers.iter().any(|buffer| buffer.buffer_type == "GPU0_Host" && buffer.host));
}

#[test]
fn text_is_the_same_again_and_a_cached_prefix_does_not_change_it() {
    let models = Models::new();
    let mut session = load(&models.write(&tiny(), FileType::Q8_0), settings()).unwrap();
    let mut run = |request: &Generate| {
        let mut said = String::new();
        let done = session.generate(request, |piece| said.push_str(piece)).unwrap();
        (said, done)
    };
    let plain = greedy(text("once upon a time there was a"));
    let (first, done) = run(&plain);
    assert!(done.predicted_n >= 1 && done.predicted_n <= 16 && done.prompt_n > 3 && done.cached_n == 0);
    assert!(done.stop == Stop::Length || done.stop == Stop::EndOfText);
    let cached = Generate { cache_prompt: true, ..plain.clone() };
    let (second, again) = run(&cached);
    assert_eq!(second, first);
    assert_eq!((again.cached_n, again.prompt_n), (done.prompt_n - 1, 1));

    let chosen = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 3 };
    let random = Generate { sampling: chosen.clone(), ..plain.clone() };
    let other = Generate { sampling: Sampling { seed: 4, ..chosen }, ..plain.clone() };
    assert_eq!(run(&random).0, run(&random).0);
    assert_ne!(run(&random).0, run(&other).0);

    let chat = Prompt::Chat(vec![ChatMessage { role: "user".into(), content: "hello".into() }]);
    let (_, done) = run(&greedy(chat));
    assert!(done.prompt_n > 3);
}

#[test]
fn a_cache_that_has_dropped_its_past_is_not_reused() {
    let models = Models::new();
    // Sliding windows, and a recurrent state.
    let windows = [("n_layer", "6"), ("n_embd", "256"), ("n_ff", "512"), ("n_vocab", "1000"), ("window", "64")];
    let state = [("n_layer", "4"), ("n_embd", "256"), ("d_inner", "512"), ("dt_rank", "16"), ("n_vocab", "1000")];
    for (name, smaller) in [("gemma3-1b", windows), ("mamba-130m", state)] {
        let mut shape = synthetic::preset(name).unwrap();
        for (key, value) in smaller {
            shape.set(key, value).unwrap();
        }
        let settings = Settings { n_ctx: 2048, ..settings() };
        let mut session = load(&models.write(&shape, FileType::Q8_0), settings).unwrap();
        let mut cached = |prompt: &str| {
            session.generate(&Generate { n_predict: 2, cache_prompt: true, ..greedy(text(prompt)) }, |_| {}).unwrap().cached_n
        };
        let start = "it begins with the same words ".repeat(5);
        let long = format!("{start}{}", "and goes on for long ".repeat(40));
        assert_eq!(cached(&long), 0);
        // Back to the start: the window has passed it, the state has forgotten it.
        assert_eq!(cached(&format!("{start} but ends otherwise")), 0, "{name}");
        cached(&long);
        // On from the end: the window still holds what it needs; the state has gone on with the answer.
        let grown = cached(&format!("{long}and on"));
        assert_eq!(grown > 0, name == "gemma3-1b", "{name}: {grown}");
    }
}

#[test]
fn a_full_context_ends_the_text_and_a_longer_prompt_is_refused() {
    let models = Models::new();
    let mut session = load(&models.write(&tiny(), FileType::Q8_0), Settings { n_ctx: 256, ..settings() }).unwrap();
    let n_ctx = session.loaded().breakdown.n_ctx_seq;
    let mut request = Generate { n_predict: 100_000, ..greedy(text("a b c")) };
    // Every token, so that the end of text is rarely chosen; most seeds fill the context.
    request.sampling = Sampling { temperature: 2.0, top_k: 0, top_p: 1.0, seed: 1 };
    let stops: Vec<_> = (0..5)
        .map(|seed| {
            request.sampling.seed = seed;
            let done = session.generate(&request, |_| {}).unwrap();
            assert!(done.prompt_n + done.predicted_n <= n_ctx + 1);
            done.stop
        })
        .collect();
    assert!(stops.contains(&Stop::ContextFull), "{stops:?}");
    let long = greedy(text(&"word ".repeat(2000)));
    assert!(matches!(session.generate(&long, |_| {}), Err(LlamaError::Prompt { .. })));
    assert!(session.generate(&greedy(text("still alive")), |_| {}).is_ok());
}

#[test]
fn a_thrown_switch_stops_a_load_and_a_text() {
    let models = Models::new();
    let path = models.write(&tiny(), FileType::Q8_0);
    let cancel = Cancel::new();
    let request = Load { paths: vec![path], settings: settings(), warm_up: true };
    let mut session = Session::load(&request, &cancel, |_| {}).unwrap();
    let mut pieces = 0;
    let done = session
        .generate(&Generate { n_predict: 200, ..greedy(text("go on")) }, |_| {
            pieces += 1;
            cancel.throw();
        })
        .unwrap();
    assert!(done.stop == Stop::Cancelled && done.predicted_n < 200 && pieces >= 1);
    assert!(matches!(session.generate(&greedy(text("again")), |_| {}), Err(LlamaError::Cancelled)));
    cancel.reset();
    assert!(session.generate(&greedy(text("again")), |_| {}).is_ok());
    cancel.throw();
    assert!(matches!(Session::load(&request, &cancel, |_| {}), Err(LlamaError::Cancelled)));
}

#[test]
fn timings_come_for_each_run_and_fit_the_context() {
    let models = Models::new();
    let mut session = load(&models.write(&tiny(), FileType::Q8_0), Settings { threads_batch: 1, ..settings() }).unwrap();
    let timed = session.bench(&Bench { n_prompt: 200, n_gen: 4, depth: 32, repetitions: 3 }).unwrap();
    assert_eq!((timed.prefill_ms.len(), timed.decode_ms.len()), (3, 3));
    assert!(timed.prefill_ms.iter().chain(&timed.decode_ms).all(|ms| *ms > 0.0));
    let none = session.bench(&Bench { n_prompt: 0, n_gen: 0, depth: 0, repetitions: 2 }).unwrap();
    assert!(none.prefill_ms.is_empty() && none.decode_ms.is_empty());
    let long = Bench { n_prompt: 500, n_gen: 0, depth: 200, repetitions: 1 };
    assert!(matches!(session.bench(&long), Err(LlamaError::Prompt { .. })));
}

#[test]
#[cfg(target_os = "linux")]
fn threads_are_held_to_the_cpus_of_a_mask() {
    // Each thread of this process that may run on this CPU alone.
    let held = |cpu: u32| {
        let allowed = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let only = |status: &String| status.lines().any(|line| line.strip_prefix("Cpus_allowed_list:\t") == Some(cpu.to_string().as_str()));
        std::fs::read_dir("/proc/self/task").unwrap().flatten().map(allowed).filter(only).count()
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap();
    let first: u32 = list.split([',', '-']).next().unwrap().parse().unwrap();
    let models = Models::new();
    let masked = Settings { cpu_mask: [first].into_iter().collect(), cpu_strict: true, threads: 2, threads_batch: 2, ..settings() };
    let before = held(first);
    let mut session = load(&models.write(&tiny(), FileType::Q8_0), masked).unwrap();
    let timed = session.bench(&Bench { n_prompt: 64, n_gen: 4, depth: 0, repetitions: 1 }).unwrap();
    assert_eq!((timed.prefill_ms.len(), timed.decode_ms.len()), (1, 1));
    assert!(held(first) > before || list == first.to_string(), "no thread is held to CPU {first}");
}

#[test]
fn what_is_no_model_is_an_error_with_the_engines_words() {
    let models = Models::new();
    let model = models.write(&tiny(), FileType::Q8_0);
    let whole = std::fs::read(&model).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = model.with_file_name(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let missing = PathBuf::from("/nowhere/at/all.gguf");
    let garbage = write("garbage.gguf", b"this is no model at all, only some bytes");
    let empty = write("empty.gguf", b"");
    let half = write("half.gguf", &whole[..whole.len() / 2]);
    let header = write("header.gguf", &whole[..200]);
    for path in [missing, garbage, empty, half, header] {
        for result in [load(&path, settings()).map(|_| ()), dry_run(std::slice::from_ref(&path), &settings(), &[], 1).map(|_| ())] {
            let Err(error) = result else {
                // A dry run reads no weights, so that half a file is enough for it.
                assert!(path.ends_with("half.gguf"), "{}", path.display());
                continue;
            };
            assert!(matches!(error, LlamaError::Model { .. }), "{}: {error}", path.display());
            assert!(error.to_string().len() > path.to_string_lossy().len() + 20, "{error}");
        }
    }
    assert!(matches!(dry_run(&[], &settings(), &[], 1), Err(LlamaError::Model { .. })));
}

#[test]
fn settings_that_the_engine_would_abort_on_are_refused_by_name() {
    let models = Models::new();
    let path = models.write(&tiny(), FileType::Q8_0);
    let cases = [
        ("n_batch", Settings { n_batch: 0, ..settings() }),
        ("n_parallel", Settings { n_parallel: 1000, ..settings() }),
        ("threads", Settings { threads: 0, ..settings() }),
        ("cache_type_k", Settings { cache_type_k: QuantType::Q2_K, ..settings() }),
        ("n_gpu_layers", Settings { n_gpu_layers: 1, ..settings() }),
        ("tensor_split", Settings { tensor_split: vec![-1.0], ..settings() }),
        (
            "tensor_overrides",
            Settings { tensor_overrides: vec![TensorOverride { pattern: "x".into(), buffer: "GPU7".into() }], ..settings() },
        ),
    ];
    for (name, settings) in cases {
        match dry_run(std::slice::from_ref(&path), &settings, &[], 1) {
            Err(LlamaError::Setting { setting, reason }) => assert_eq!(setting, name, "{reason}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let broken = TensorOverride { pattern: "(".into(), buffer: "CPU".into() };
    let broken = Settings { tensor_overrides: vec![broken], ..settings() };
    assert!(dry_run(std::slice::from_ref(&path), &broken, &[], 1).is_err());
    let no_fa = Settings { cache_type_v: QuantType::Q8_0, flash_attn: FlashAttention::Off, ..settings() };
    assert!(matches!(dry_run(&[path], &no_fa, &[], 1), Err(LlamaError::Context { .. })));
}
