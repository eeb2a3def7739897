//! A corpus of configurations, right and wrong, and the laws of reading and writing.

use super::*;
use footprint::bitnet::Head;
use planner::plan::{DevicePreference, Margin, Power, Priority};
use proptest::prelude::*;
use spec::settings::{FlashAttention, LoadMode, TensorOverride};
use spec::{Bytes, QuantType};
use std::fmt::Write;

const GOOD: &str = r#"
loadmaster = 1
model = "models/m.gguf"
use_case = "long-context"

[workload]
prompt_tokens = 6000
ttft = 2
quality_floor = "q5_1"

[preferences]
device = "gpu"
margin = "2GiB"
priority = "throughput"
power = "saver"

[settings]
n_ctx = 16384
n_gpu_layers = "all"
cache_type_k = "q8_0"
flash_attn = "on"
kv_unified = true
tensor_split = [3, 1.5]
tensor_overrides = ["ffn_.*_exps=CPU"]
threads = -1
"#;

#[test]
fn every_key_is_read() {
    let file = ConfigFile::parse(GOOD).unwrap();
    assert_eq!(file.use_case, Some(UseCase::LongContext));
    let workload = Asked { prompt_tokens: Some(6000), ttft: Some(2.0), quality_floor: Some(QuantType::Q5_1), ..Asked::default() };
    assert_eq!(file.workload, workload);
    assert_eq!(
        file.preferences,
        Preferences {
            device: DevicePreference::Gpu,
            margin: Some(Margin::Size(Bytes::from_gib(2))),
            priority: Priority::Throughput,
            power: Power::Saver,
            disk: planner::plan::DiskPolicy::default(),
        }
    );
    let pins = &file.settings;
    assert_eq!((pins.n_ctx, pins.cache_type_k, pins.kv_unified), (Some(16384), Some(QuantType::Q8_0), Some(true)));
    assert_eq!((pins.flash_attn, pins.n_gpu_layers), (Some(FlashAttention::On), Some(u32::MAX)));
    assert_eq!(pins.tensor_split, Some(vec![3.0, 1.5]));
    assert_eq!(pins.tensor_overrides, Some(vec![TensorOverride { pattern: "ffn_.*_exps".into(), buffer: "CPU".into() }]));
    assert_eq!(pins.threads, None, "-1 leaves it to the plan");
    assert_eq!(file.model_path(Path::new("/etc/loadmaster/a.toml")), Some("/etc/loadmaster/models/m.gguf".into()));
    assert_eq!(ConfigFile { model: Some("/m.gguf".into()), ..file }.model_path(Path::new("a.toml")), Some("/m.gguf".into()));
}

#[test]
fn the_content_decides_the_syntax() {
    let json = r#"{"$schema": "x", "loadmaster": 1, "settings": {"n_ctx": 512, "load_mode": "mmap+mlock"}}"#;
    let file = ConfigFile::parse(json).unwrap();
    assert_eq!((file.settings.n_ctx, file.settings.load_mode), (Some(512), Some(LoadMode::MmapMlock)));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let cases = [
        "",
        "model = 3",
        "loadmaster = 2",
        "loadmaster = \"1\"",
        "loadmaster = -1",
        "loadmaster = 1\nmodle = \"m\"",
        "loadmaster = 1\nmodel = \"\"",
        "loadmaster = 1\nn_ctx = 5",
        "loadmaster = 1\n\n[settings]\nn_ctz = 5",
        "loadmaster = 1\n[settings]\nctx-size = 5",
        "loadmaster = 1\n[settings]\nngl = 5",
        "loadmaster = 1\n[settings]\nzzz = 5",
        "loadmaster = 1\n[settings]\npriority = \"latency\"",
        "loadmaster = 1\n[settings]\nn_batch = 1\nn_ctx = -5",
        "loadmaster = 1\n[settings]\nn_ctx = 9999999999",
        "loadmaster = 1\n[settings]\nn_ctx = 9999999999999999999999",
        "loadmaster = 1\n[settings]\nn_ctx = 1.5",
        "loadmaster = 1\n[settings]\nn_ctx = true",
        "loadmaster = 1\n[settings]\nkv_unified = \"yes\"",
        "loadmaster = 1\n[settings]\ncache_type_k = \"q9\"",
        "loadmaster = 1\n[settings]\ntensor_split = [1, -1]",
        "loadmaster = 1\n[settings]\ntensor_overrides = [\"x\"]",
        "loadmaster = 1\nsettings = 4",
        "loadmaster = 1\nuse_case = \"sped\"",
        "loadmaster = 1\n[workload]\nusers = 0",
        "loadmaster = 1\n[workload]\nttft = -1",
        "loadmaster = 1\n[workload]\nquality_floor = \"q9\"",
        "loadmaster = 1\n[settings]\nmin_tps = 4",
        "loadmaster = 1\n[preferences]\nmargin = 0.95",
        "loadmaster = 1\n[preferences]\nmargin = \"2 bananas\"",
        "loadmaster = 1\n[preferences]\npower = 3",
        "loadmaster = 1\n[settings\n",
        "loadmaster = 1\nloadmaster = 1\n",
        "{\"loadmaster\": 1,\n \"settings\": {\"n_ctx\": 5,}}",
        "{\"loadmaster\": 1,\n \"settings\": {\n  \"n_ctz\": 5}}",
        "{\"loadmaster\": 1,\n \"settings\": {\"n_ctx\": 5,\n  \"n_ctx\": 6}}",
        "loadmaster = 1\n[metadata]\nmachin = \"x\"",
        "loadmaster = 1\n[metadata]\nmachine = 3",
        "loadmaster = 1\n[expected]\ndepth = -1",
        "loadmaster = 1\n[expected]\ndecode_tokens_per_s = 3",
        "loadmaster = 1\n[expected.decode_tokens_per_s]\nlow = 3\ntypical = 2\nhigh = 4",
        "loadmaster = 1\n[expected.memory_bytes]\nhost = 4",
        "{\"loadmaster\": 1}\n{}",
        "{\"loadmaster\": 1,\n \"settings\": {\n  \"n_ctx\": null}}",
    ];
    let mut text = String::new();
    for case in cases {
        let error = ConfigFile::parse(case).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        writeln!(text, "{case:?}\n    {error}").unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("model.gguf"), b"GGUF\x03\0\0\0\xff\xff").unwrap();
    std::fs::write(at("typo.toml"), "loadmaster = 1\nmodl = 1\n").unwrap();
    File::create(at("huge.toml")).unwrap().set_len(1 << 30).unwrap();
    for (name, says, code) in [
        ("none.toml", "none.toml: cannot read the configuration", 7),
        ("model.gguf", "model.gguf: no configuration: byte 8 is no UTF-8", 7),
        ("huge.toml", "huge.toml: no configuration: 1073741824 bytes", 7),
        ("typo.toml", "typo.toml: line 2: unknown key modl, did you mean model?", 2),
    ] {
        let error = ConfigFile::read(&at(name)).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.exit_code(), code);
    }
}

use std::fs::File;

#[test]
fn the_draft_version_is_migrated() {
    let draft = "version = 0\nmodel = \"m.gguf\"\nuse_case = \"speed\"\n[pins]\ncontext = 4096\ngpu_layers = 10\nthreads = 4\n";
    let file = ConfigFile::parse(draft).unwrap();
    assert_eq!((file.settings.n_ctx, file.settings.n_gpu_layers, file.settings.threads), (Some(4096), Some(10), Some(4)));
    assert_eq!(
        file.migrated,
        ["migrated from version 0 to 1", "pins.context is now settings.n_ctx", "pins.gpu_layers is now settings.n_gpu_layers"]
    );
    let again = ConfigFile::parse(&file.to_text(Format::Toml)).unwrap();
    assert_eq!(again, ConfigFile { migrated: Vec::new(), ..file });
    let typo = ConfigFile::parse("version = 0\n[pins]\ncontxt = 1\n").unwrap_err();
    assert!(typo.to_string().contains("settings.contxt"), "{typo}");
}

#[test]
fn the_schema_knows_every_key_that_the_reader_knows() {
    let schema = schema();
    let keys = |pointer: &str| schema.pointer(pointer).unwrap().as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let top: Vec<_> = keys("/properties").into_iter().filter(|key| key != read::SCHEMA_KEY).collect();
    assert_eq!(top, read::TOP);
    assert_eq!(keys("/properties/preferences/properties"), read::PREFERENCES);
    assert_eq!(keys("/properties/metadata/properties"), metadata::keys());
    assert_eq!(keys("/properties/expected/properties"), metadata::EXPECTED);
    let every: Vec<_> = Pins::from(spec::Settings::default()).names().into_iter().map(str::to_owned).collect();
    assert_eq!(keys("/properties/settings/properties"), every);
}

fn settings() -> impl Strategy<Value = Pins> {
    let count = || proptest::option::of(0u32..=i32::MAX as u32);
    let word = |words: &'static [&'static str]| proptest::option::of(proptest::sample::select(words));
    let cache = || word(&["f16", "q8_0", "iq4_nl"]);
    (
        (count(), count(), count(), cache(), cache()),
        (word(&["auto", "on", "off"]), word(&["none", "layer", "row"]), word(&["auto", "dio", "mmap+mlock"])),
        (proptest::option::of(any::<bool>()), proptest::option::of(proptest::collection::vec(0.25f64..100.0, 0..4))),
        proptest::option::of(proptest::collection::vec("[a-z.*\\\\\"]{1,8}", 0..3)),
        (proptest::option::of(proptest::collection::vec(0_u32..512, 0..9)), any::<Option<bool>>(), word(&["none", "isolate"])),
    )
        .prop_map(|((n_ctx, n_gpu_layers, threads, k, v), (flash, split, load), (unified, shares), rules, (cpus, strict, numa))| {
            Pins {
                cpu_mask: cpus.map(|cpus| cpus.into_iter().collect()),
                cpu_strict_batch: strict,
                numa: numa.map(|word| word.parse().unwrap()),
                n_ctx,
                n_gpu_layers,
                threads,
                cache_type_k: k.map(|word| word.parse().unwrap()),
                cache_type_v: v.map(|word| word.parse().unwrap()),
                flash_attn: flash.map(|word| word.parse().unwrap()),
                split_mode: split.map(|word| word.parse().unwrap()),
                load_mode: load.map(|word| word.parse().unwrap()),
                kv_unified: unified,
                tensor_split: shares,
                tensor_overrides: rules
                    .map(|rules| rules.into_iter().map(|pattern| TensorOverride { pattern, buffer: "CPU".into() }).collect()),
                ..Pins::default()
            }
        })
}

prop_compose! {
    fn beside()(
        lora in proptest::collection::vec("[a-z/ü.]{1,9}", 0..3),
        draft in proptest::option::of("[a-z/]{1,9}"),
        own_draft: bool,
        draft_max in proptest::option::of(0_u32..99),
        cache_type_k_draft in proptest::option::of(proptest::sample::select(spec::settings::CACHE_TYPES)),
        projector in proptest::option::of(("[a-z/]{1,9}", any::<Option<bool>>())),
    ) -> Beside {
        let drafts = own_draft || draft.is_some();
        Beside {
            mmproj: projector.as_ref().map(|(path, _)| path.into()),
            mmproj_offload: projector.as_ref().and_then(|(_, offload)| *offload),
            mmproj_device: projector.map(|_| "CUDA1".to_owned()),
            lora: lora.into_iter().map(PathBuf::from).collect(),
            own_draft: own_draft && draft.is_none(),
            model_draft: draft.map(PathBuf::from),
            draft_max: draft_max.filter(|_| drafts),
            cache_type_k_draft: cache_type_k_draft.filter(|_| drafts),
            ..Beside::default()
        }
    }
}

fn interval() -> impl Strategy<Value = Option<Interval>> {
    proptest::option::of(proptest::collection::vec(0_u32..1_000_000, 3)).prop_map(|ends| {
        let mut ends = ends?;
        ends.sort_unstable();
        Some(Interval { low: ends[0].into(), typical: ends[1].into(), high: ends[2].into() })
    })
}

prop_compose! {
    fn planned_for()(
        texts in proptest::collection::vec(proptest::option::of("[a-zA-Z0-9 \"'=,./ü-]{0,12}"), 9),
    ) -> Metadata {
        let mut texts = texts.into_iter();
        let mut text = || texts.next().flatten();
        Metadata {
            written_by: text(),
            machine: text(),
            hardware: text(),
            model: text(),
            file_type: text(),
            assumed: text(),
            precision: text(),
            engine: text(),
            verdict: text(),
        }
    }
}

prop_compose! {
    fn promised()(
        decode in interval(),
        prefill in interval(),
        depth: Option<u32>,
        memory in proptest::collection::btree_map("[a-zA-Z0-9 ]{1,6}", interval(), 0..3),
    ) -> Expected {
        let memory = memory.into_iter().filter_map(|(pool, bytes)| Some((pool, bytes?))).collect();
        Expected { decode, prefill, depth, memory }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        settings in settings(),
        model in proptest::option::of("[a-zA-Z0-9 \"'=\\\\/ü.-]{1,12}"),
        margin in proptest::option::of(prop_oneof![(0.0f64..0.9).prop_map(Margin::Fraction), any::<u64>().prop_map(|n| Margin::Size(Bytes::new(n)))]),
        use_case in proptest::option::of(proptest::sample::select(UseCase::ALL)),
        power in proptest::sample::select(Power::ALL),
        (prompt_tokens, ttft) in (proptest::option::of(1_u32..99999), proptest::option::of(0.01_f64..99.0)),
        beside in beside(),
        engine in proptest::option::of((proptest::sample::select(vec![None, Some(Head::File), Some(Head::Q8_0)]), any::<bool>())),
        metadata in planned_for(),
        expected in promised(),
    ) {
        let file = ConfigFile {
            model: model.map(PathBuf::from),
            use_case,
            engine: engine.map(|(head, in_place)| BitNet { head, in_place }),
            workload: Asked { prompt_tokens, ttft, ..Asked::default() },
            preferences: Preferences { margin, power, ..Preferences::default() },
            beside,
            settings,
            metadata,
            expected,
            migrated: Vec::new(),
        };
        for format in [Format::Toml, Format::Json] {
            let text = file.to_text(format);
            prop_assert_eq!(&ConfigFile::parse(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?, &file);
        }
    }

    #[test]
    fn no_text_breaks_the_reader(text in "(?s)(loadmaster = 1\n|\\{\"loadmaster\": 1)?.{0,200}") {
        let _ = ConfigFile::parse(&text);
    }
}

#[test]
fn masks_are_texts_and_strictness_is_a_switch() {
    let read = |line: &str| ConfigFile::parse(&format!("loadmaster = 1\n[settings]\n{line}"));
    let file = read("cpu_mask = \"0-7,16\"\ncpu_strict = true\nnuma = \"distribute\"").unwrap();
    assert_eq!(file.settings.cpu_mask.as_ref().map(|mask| mask.ranges()).as_deref(), Some("0-7,16"));
    assert_eq!((file.settings.cpu_strict, file.settings.numa), (Some(true), Some(spec::settings::Numa::Distribute)));
    let text = file.to_text(Format::Toml);
    assert!(text.contains("cpu_mask = \"0x100ff\"\n") && text.contains("cpu_strict = true\n"), "{text}");
    for (line, says) in [
        ("cpu_mask = 7", "settings.cpu_mask: 7 is no mask of CPUs"),
        ("cpu_mask = \"fast\"", "settings.cpu_mask: \"fast\" is neither a hexadecimal mask"),
        ("cpu_strict = 1", "settings.cpu_strict: 1 is neither true nor false"),
        ("numa = \"mirror\"", "settings.numa: \"mirror\" is not one of none, distribute, isolate, numactl"),
    ] {
        let error = read(line).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn saving_goes_by_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = ConfigFile { settings: Pins { n_ctx: Some(512), ..Pins::default() }, ..ConfigFile::default() };
    for (name, begins) in [("a.json", "{"), ("a.toml", "loadmaster = 1\n")] {
        let path = folder.path().join(name);
        file.save(&path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with(begins));
        assert_eq!(ConfigFile::read(&path).unwrap(), file);
    }
    let error = file.save(&folder.path().join("no").join("a.toml")).unwrap_err();
    assert!(error.hint().unwrap().contains("create it first"));
}
