//! What a loader answers for many machines, what it refuses, what it loads, and what it says of that.

use super::*;
use crate::configure::Observation;
use crate::launch::bundled::{Generation, Prompt};
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, OnceLock};
use synthetic::{Fill, LinearClass};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event as Logged, Metadata, Subscriber};

/// Events of `loadmaster::loader` as text, one line each.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("loadmaster")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Logged<'_>) {
        let mut text = self.0.lock().unwrap();
        let _ = write!(text, "{}", event.metadata().level());
        event.record(&mut Line(&mut text));
        text.push('\n');
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What `run` logs. With one subscriber alone, `tracing` asks the thread that is first to reach an event whether it listens, and goes by that
/// for all threads; with a second one that stays, it asks them all.
fn logged<T>(run: impl FnOnce() -> T) -> (T, String) {
    static SECOND: OnceLock<tracing::Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| tracing::Dispatch::new(Log::default()));
    let log = Log::default();
    let result = tracing::subscriber::with_default(log.clone(), run);
    let text = log.0.lock().unwrap().clone();
    (result, text)
}

fn on(machine: &str) -> ProductionModelLoader {
    ProductionModelLoader::new().on(MachineSource::Description(machine.into()))
}

/// The tiny BitNet model as a file, and as a packed folder.
fn tiny(folder: &Path) -> [std::path::PathBuf; 2] {
    let (file, hub) = (folder.join("m.gguf"), folder.join("hub"));
    let fill = Fill::Random { seed: 1 };
    synthetic::write::write(&synthetic::bitnet("bitnet-b1.58-tiny").unwrap().unwrap(), fill, &file).unwrap();
    let packed = synthetic::packed("bitnet-b1.58-tiny", LinearClass::AutoBitLinear).unwrap();
    synthetic::write::write_folder(&packed, fill, &hub).unwrap();
    [file, hub]
}

#[test]
fn every_segment_of_every_pool_is_counted_and_sums_are_those_of_its_parts() {
    for machine in ["ram=16GiB,cores=8", "ram=32GiB,cores=8,gpu=8GiB", "ram=64GiB,cores=16,gpu=24GiB,gpu=8GiB"] {
        for model in ["qwen3-0.6b", "llama-3.1-8b", "qwen3-30b-a3b"] {
            let loader = on(machine);
            let config = loader.optimal_device_config(model);
            let needs = loader.memory_requirements(model, &config).unwrap();
            assert_eq!(needs.pools.len(), machine.matches("gpu").count() + 1, "{machine} {model}");
            assert_eq!(needs.fits(), Some(true), "{machine} {model}");
            for pool in &needs.pools {
                assert!(!pool.safety_margin.is_zero() && pool.segments.len() == 5, "{machine} {model}");
                let sum: Bytes = pool.segments.iter().map(|segment| segment.peak.get().unwrap()).sum();
                assert_eq!(pool.peak.get(), Some(sum), "{machine} {model} {}", pool.name);
                assert_eq!(pool.segment(Segment::SafetyMargin).peak.get(), Some(pool.safety_margin));
            }
            // The configuration was planned with the same sums.
            for held in &config.memory {
                assert_eq!(needs.pool(&held.pool).unwrap().held.get(), held.needed.get(), "{machine} {model} {}", held.pool);
            }
        }
    }
}

#[test]
fn the_cache_follows_context_and_precision_and_suggestions_save() {
    let loader = on("ram=64GiB,cores=8");
    let mut config = loader.optimal_device_config("llama-3.1-8b");
    (config.settings.n_ctx, config.settings.n_parallel) = (8192, 1);
    let cache = |config: &DeviceConfig| {
        let needs = loader.memory_requirements("llama-3.1-8b", config).unwrap();
        needs.pool("host").unwrap().segment(Segment::KvCache).peak.get().unwrap()
    };
    // 32 layers of 1024 keys and 1024 values in two bytes each.
    assert_eq!(cache(&config), Bytes::new(8192 * 32 * 2 * 1024 * 2));
    config.settings.n_ctx = 16384;
    assert_eq!(cache(&config), Bytes::new(16384 * 32 * 2 * 1024 * 2));
    let needs = loader.memory_requirements("llama-3.1-8b", &config).unwrap();
    assert!(needs.suggestions.iter().any(|saving| saving.total() > 0));
    assert!(needs.recommendation.ram.recommended.unwrap() > needs.recommendation.ram.minimum.get().unwrap());
}

#[test]
fn a_bitnet_model_is_loaded_and_its_segments_are_what_was_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let loader = ProductionModelLoader::new();
    for model in tiny(folder.path()) {
        let config = loader.optimal_device_config(&model);
        assert_eq!(config.fallback, None);
        let host = loader.memory_requirements(&model, &config).unwrap().pools.pop().unwrap();
        let mut session = loader.load(&model, &config).unwrap();
        let sum = |of: &[crate::launch::BufferUse], mapped: bool| -> Bytes {
            let buffers = session.buffers().iter();
            buffers
                .filter(|buffer| of.contains(&buffer.usage) && (buffer.buffer_type == "CPU_Mapped") == mapped)
                .map(|buffer| buffer.size)
                .sum()
        };
        use crate::launch::BufferUse::{Compute, Context, Output, Weights};
        let peak = |segment| host.segment(segment).peak.get().unwrap();
        assert_eq!(peak(Segment::Weights), sum(&[Weights], true));
        assert_eq!(peak(Segment::QuantisationOverhead), sum(&[Weights], false));
        assert_eq!(peak(Segment::KvCache), sum(&[Context], false));
        assert_eq!(peak(Segment::Activations), sum(&[Compute, Output], false));
        let generation = Generation { n_predict: 4, ..Generation::default() };
        let text = session.generate(&Prompt::Text("baba".into()), &generation, &Interrupts::none(), &mut |_| {}).unwrap();
        assert!(!text.text.is_empty());
    }
}

#[test]
fn limits_refuse_before_anything_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let [model, _] = tiny(folder.path());
    let config = ProductionModelLoader::new().optimal_device_config(&model);
    let error = |limits: Limits| ProductionModelLoader::new().with_limits(limits).load(&model, &config).unwrap_err().to_string();
    let small = Some(Bytes::from_kib(64));
    let none = Limits::default();
    assert!(error(Limits { model: small, ..none }).starts_with("the model's files are above the limit of 64.00 KiB: "));
    assert!(error(Limits { memory: small, ..none }).starts_with("memory may be above the limit of 64.00 KiB: "));
    assert_eq!(error(Limits { n_ctx: Some(16), ..none }), format!("the context is above the limit of 16: {}", config.settings.n_ctx));
    let kept = ProductionModelLoader::new().with_limits(Limits { n_ctx: Some(256), ..none }).optimal_device_config(&model);
    assert_eq!(kept.settings.n_ctx, 256);
}

#[test]
fn what_cannot_be_loaded_is_named_and_its_memory_is_told_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("demo.gguf");
    let shape = synthetic::Shape { n_layer: 2, n_vocab: 512, ..synthetic::demo() };
    let file = synthetic::gguf(&shape, synthetic::FileType::Q8_0, &synthetic::Options::default()).unwrap();
    synthetic::write::write(&file, Fill::Zero, &path).unwrap();
    let loader = on("ram=16GiB,cores=4");
    let config = loader.optimal_device_config(&path);
    assert!(loader.memory_requirements(&path, &config).is_ok());
    assert!(matches!(loader.load(&path, &config), Err(LoaderError::NotInProcess { architecture }) if architecture == "qwen3"));
    let (error, log) = logged(|| loader.load("no-such.gguf", &config).unwrap_err());
    assert!(matches!(error, LoaderError::Advice(Error::Open(_))), "{error}");
    assert!(log.contains("WARN message=not loaded") && log.contains("no-such.gguf"), "{log}");
    let broken = DeviceConfig { settings: spec::Settings { n_batch: 0, ..config.settings.clone() }, ..config };
    assert!(!loader.validate(&path, &broken).unwrap().is_valid());
}

#[test]
fn decisions_fallbacks_and_allocations_are_logged() {
    let folder = tempfile::tempdir().unwrap();
    let [model, _] = tiny(folder.path());
    let loader = ProductionModelLoader::new();
    let (config, log) = logged(|| loader.optimal_device_config(&model));
    assert!(log.contains("INFO message=configured") && log.contains("n_ctx="), "{log}");
    let (_, log) = logged(|| loader.load(&model, &config).map(drop).unwrap());
    for segment in ["weights", "kv_cache", "activations", "quantisation_overhead", "system_overhead"] {
        assert!(log.contains(&format!("INFO message=allocation pool=\"host\" segment={segment}")), "{segment}: {log}");
    }
    for event in ["INFO message=limits", "INFO message=memory", "INFO message=loaded"] {
        assert!(log.contains(event), "{event}: {log}");
    }
    let (config, log) = logged(|| loader.optimal_device_config("no-such.gguf"));
    assert!(config.fallback.is_some() && log.contains("WARN message=no plan"), "{log}");
    let seen = Observation { memory_pressure: Some(0.99), ..Observation::default() };
    let metrics = Metrics { running: config, observations: vec![seen; 3] };
    let (_, log) = logged(|| loader.adaptive_device_config(&model, &metrics));
    assert!(log.contains("INFO message=adapted"), "{log}");
}
