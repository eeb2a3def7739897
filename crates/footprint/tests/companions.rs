//! What is loaded beside a model, against figures worked out by hand and the requirement of each part alone.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod recorded;

use footprint::target::Backend;
use footprint::{
    Companions, Component, Device, Draft, EngineProfile, FootprintError, Part, Requirement, Target, require, require_with, savings, totals,
};
use spec::model::Tensor;
use spec::{Attachment, AttachmentKind, Bytes, Known, Model, QuantType, Settings};

fn target() -> Target {
    let gib = Known::exact(Bytes::from_gib(24), "test");
    let device = Device::of_its_own("CUDA0", Backend::cuda(false), gib);
    Target { devices: vec![device], idle: Vec::new(), cpu_features: ["avx2"].map(str::to_owned).into(), cpu_arch: "x86_64".into() }
}

fn tensor(name: &str, ty: QuantType, shape: [u64; 4]) -> Tensor {
    let bytes = ty.row_bytes(shape[0]).unwrap().times(shape[1]);
    Tensor { name: name.into(), ty, shape, bytes, file: 0, offset: Bytes::ZERO }
}

fn attachment(kind: AttachmentKind, architecture: &str, tensors: Vec<Tensor>) -> Attachment {
    Attachment { kind, architecture: architecture.into(), tensors, metadata: [].into() }
}

fn need(model: &Model, settings: &Settings, companions: &Companions) -> Result<Requirement, FootprintError> {
    require_with(model, settings, &target(), &EngineProfile::server_0_7(), companions)
}

fn part(parts: &[Part], component: Component) -> u64 {
    parts.iter().find(|part| part.component == component).map_or(0, |part| part.peak.get().unwrap().get())
}

fn model() -> Model {
    recorded::model::model("qwen3-0.6b Q4_K_M n_layer=4")
}

/// Two of the four layers on the GPU: an adapter of a layer there and of one on the host.
#[test]
fn an_adapter_lies_beside_what_it_changes() {
    let pair = |layer: u32| {
        [
            tensor(&format!("blk.{layer}.attn_q.weight.lora_a"), QuantType::F16, [1024, 8, 1, 1]),
            tensor(&format!("blk.{layer}.attn_q.weight.lora_b"), QuantType::F16, [8, 2048, 1, 1]),
        ]
    };
    let settings = Settings { n_gpu_layers: 3, ..Settings::default() };
    let adapter = attachment(AttachmentKind::Lora, "qwen3", [pair(0), pair(3)].concat());
    let found = need(&model(), &settings, &Companions { adapters: vec![adapter.clone()], ..Companions::default() }).unwrap();
    let one = 1024 * 8 * 2 + 8 * 2048 * 2;
    assert_eq!(part(&found.parts(Some(0)), Component::Adapters), one);
    assert_eq!(part(&found.parts(None), Component::Adapters), one);

    let refusal = |change: fn(&mut Attachment)| {
        let mut adapter = adapter.clone();
        change(&mut adapter);
        need(&model(), &settings, &Companions { adapters: vec![adapter], ..Companions::default() }).unwrap_err().to_string()
    };
    insta::assert_snapshot!([
        refusal(|a| a.architecture = "llama".into()),
        refusal(|a| a.tensors.truncate(1)),
        refusal(|a| a.tensors[0].shape[0] = 512),
        refusal(|a| a.tensors.iter_mut().for_each(|t| t.name = t.name.replace("blk.", "blk.9"))),
        refusal(|a| a.tensors[0].name = "blk.0.attn_q.weight".into()),
    ].join("\n"), @r#"
    LoRA adapter: it is made for "llama", the model is "qwen3"
    LoRA adapter: the pair of "blk.0.attn_q.weight" lacks a half
    LoRA adapter: the pair of "blk.0.attn_q.weight" does not fit its shape
    LoRA adapter: the model has no "blk.90.attn_q.weight"
    LoRA adapter: tensor "blk.0.attn_q.weight" is no half of a pair
    "#);
}

#[test]
fn a_control_vector_is_a_row_per_layer_but_the_first() {
    let vector =
        |width| attachment(AttachmentKind::ControlVector, "controlvector", vec![tensor("direction.1", QuantType::F32, [width, 1, 1, 1])]);
    let settings = Settings { n_gpu_layers: 3, ..Settings::default() };
    let with = |files: Vec<Attachment>| need(&model(), &settings, &Companions { control_vectors: files, ..Companions::default() });
    let one = with(vec![vector(1024)]).unwrap();
    assert_eq!(part(&one.parts(Some(0)), Component::ControlVectors), 2 * 4096);
    assert_eq!(part(&one.parts(None), Component::ControlVectors), 4096);
    assert_eq!(with(vec![vector(1024), vector(1024)]).unwrap(), one, "several are summed");
    assert!(matches!(with(vec![vector(512)]), Err(FootprintError::ControlVector { .. })));
}

#[test]
fn a_projector_lies_whole_on_the_first_device_or_on_the_host() {
    let mut projector =
        attachment(AttachmentKind::Projector, "clip", vec![tensor("v.patch_embd.weight", QuantType::Q8_0, [576, 10, 1, 1])]);
    projector.metadata.insert("clip.vision.embedding_length".into(), spec::model::MetaValue::Uint(576));
    let with = |projector_on_host| {
        let companions = Companions { projector: Some(projector.clone()), projector_on_host, ..Companions::default() };
        need(&model(), &Settings { n_gpu_layers: 99, ..Settings::default() }, &companions).unwrap()
    };
    // 612 bytes a row, and one padded row of CUDA's: 14 blocks of 34.
    assert_eq!(part(&with(false).parts(Some(0)), Component::Projector), (6120_u64 + 14 * 34).next_multiple_of(128));
    assert_eq!(part(&with(true).parts(None), Component::Projector), 6144);
    let named = |name: &str| {
        let companions =
            Companions { projector: Some(projector.clone()), projector_device: Some(name.to_owned()), ..Companions::default() };
        need(&model(), &Settings { n_gpu_layers: 0, ..Settings::default() }, &companions)
    };
    assert_eq!(named("CUDA0").unwrap().devices[0].beside, with(false).devices[0].beside, "the model's layers do not matter then");
    assert_eq!(named("CUDA1").unwrap_err().to_string(), "no device is called \"CUDA1\"; there are CUDA0");
    let compute = with(false).devices[0].beside.iter().find(|part| part.component == Component::ProjectorCompute).unwrap().peak.clone();
    assert!(!compute.is_exact() && compute.low() < compute.high());
}

#[test]
fn a_draft_model_takes_what_it_would_alone_and_the_model_checks_more_rows() {
    let (model, settings) = (model(), Settings { n_gpu_layers: 99, n_parallel: 2, n_ctx: 8192, ..Settings::default() });
    let small = recorded::model::model("qwen3-0.6b Q4_K_M n_layer=2");
    let draft = |n_max| Companions { draft: Some(Draft { n_max, ..Draft::new(Some(small.clone())) }), ..Companions::default() };
    let plain = need(&model, &settings, &Companions::default()).unwrap();
    let alone = require(&small, &settings, &target(), &EngineProfile::server_0_7()).unwrap();
    let with = need(&model, &settings, &draft(3)).unwrap();
    let parts = with.parts(Some(0));
    let get = |known: &Known<Bytes>| known.get().unwrap().get();
    assert_eq!(part(&parts, Component::DraftWeights), get(&alone.devices[0].weights));
    assert_eq!(part(&parts, Component::DraftCache), get(&alone.devices[0].kv_cache));
    assert_eq!(part(&parts, Component::DraftCompute), get(&alone.devices[0].compute));
    assert_eq!((with.context.n_outputs, with.context.n_rows), (8, 8));
    assert_eq!(get(&with.host.output) + get(&with.host.output_growth), 4 * get(&plain.host.output));
    assert_eq!(get(&with.host.output), get(&plain.host.output), "it grows when drafts are checked");
    let host = Companions { draft: Some(Draft { n_gpu_layers: Some(0), ..Draft::new(Some(small.clone())) }), ..Companions::default() };
    assert_eq!(part(&need(&model, &settings, &host).unwrap().parts(Some(0)), Component::DraftWeights), 0);
    let wrong = Companions { draft: Some(Draft { cache_type_v: QuantType::Q6_K, ..Draft::new(Some(small)) }), ..Companions::default() };
    assert!(need(&model, &settings, &wrong).unwrap_err().to_string().starts_with("draft model: V cache cannot be of type q6_K"));
}

#[test]
fn a_model_without_prediction_layers_cannot_draft_for_itself() {
    let own = Companions { draft: Some(Draft::new(None)), ..Companions::default() };
    let refusal = need(&model(), &Settings::default(), &own).unwrap_err().to_string();
    assert_eq!(refusal, "a model of qwen3 in this file has no prediction layers to draft with; name a --model-draft");
}

/// Everything that can be less, and that each says what the requirement without it says.
#[test]
fn suggestions_about_companions_are_what_they_say() {
    let (model, settings) = (model(), Settings { n_gpu_layers: 99, n_ctx: 8192, ..Settings::default() });
    let patch = tensor("v.patch_embd.weight", QuantType::F16, [1 << 12, 1 << 10, 1, 1]);
    let companions = Companions {
        projector: Some(attachment(AttachmentKind::Projector, "clip", vec![patch])),
        draft: Some(Draft::new(Some(recorded::model::model("qwen3-0.6b Q4_K_M n_layer=2")))),
        ..Companions::default()
    };
    let mut known = companions;
    known.projector.as_mut().unwrap().metadata.insert("clip.vision.embedding_length".into(), spec::model::MetaValue::Uint(1024));
    let about = |companions: &Companions, profile: &EngineProfile| {
        let need = |settings: &Settings, beside: &Companions| require_with(&model, settings, &target(), profile, beside).unwrap();
        let now = need(&settings, companions);
        let mut lines = Vec::new();
        for saving in savings(&model, &settings, &target(), profile, companions, &now) {
            if saving.companions == *companions {
                continue;
            }
            let then = need(&saving.settings, &saving.companions);
            let peak = |need: &Requirement, device| totals(&need.parts(device)).peak.get().unwrap().get() as i64;
            assert_eq!(saving.host, peak(&now, None) - peak(&then, None), "{}", saving.setting);
            assert_eq!(saving.devices, [peak(&now, Some(0)) - peak(&then, Some(0))], "{}", saving.setting);
            lines.push(format!("{} {} -> {}", saving.setting, saving.from, saving.to));
        }
        lines.join("\n")
    };
    insta::assert_snapshot!(about(&known, &EngineProfile::server_0_7()), @r"
    model_draft synthetic qwen3-0.6b -> none
    n_gpu_layers_draft all -> 0
    mmproj loaded -> none
    mmproj_offload on -> off
    spec_draft_n_ubatch 512 -> 128
    cache_type_draft f16/f16 -> q4_0/q4_0
    cache_type_draft f16/f16 -> q8_0/q8_0
    draft_max 3 -> 1
    ");
    insta::assert_snapshot!(about(&known, &EngineProfile::named("llama.cpp-2026-03").unwrap()), @r"
    model_draft synthetic qwen3-0.6b -> none
    n_gpu_layers_draft all -> 0
    mmproj loaded -> none
    mmproj_offload on -> off
    cache_type_draft f16/f16 -> q4_0/q4_0
    ctx_size_draft 8192 -> 4096
    cache_type_draft f16/f16 -> q8_0/q8_0
    draft_max 3 -> 1
    ");
}

/// Flags that only some engines have are refused for the others, not counted.
#[test]
fn flags_of_drafts_that_an_engine_lacks_are_refused() {
    let draft = |n_ctx, n_ubatch| Companions {
        draft: Some(Draft { n_ctx, n_ubatch, ..Draft::new(Some(recorded::model::model("qwen3-0.6b Q4_K_M n_layer=2"))) }),
        ..Companions::default()
    };
    let with = |profile: &EngineProfile, beside: &Companions| require_with(&model(), &Settings::default(), &target(), profile, beside);
    let old = EngineProfile::named("llama.cpp-2026-03").unwrap();
    assert!(with(&old, &draft(Some(1024), None)).is_ok() && with(&EngineProfile::server_0_7(), &draft(None, Some(64))).is_ok());
    let refusals = [with(&EngineProfile::server_0_7(), &draft(Some(1024), None)), with(&old, &draft(None, Some(64)))];
    let refusals = refusals.map(|refused| refused.unwrap_err().to_string());
    insta::assert_snapshot!(refusals.join("\n"), @r"
    llama-server 0.7.0 has no flag --ctx-size-draft; leave it out, or name another engine
    llama.cpp-2026-01 (2026-03) has no flag --spec-draft-n-ubatch; leave it out, or name another engine
    ");
}

#[test]
fn a_draft_of_another_vocabulary_is_refused_as_the_engine_does() {
    let draft = |change: fn(&mut Model)| {
        let mut small = recorded::model::model("qwen3-0.6b Q4_K_M n_layer=2");
        small.tokenizer = Some(spec::model::Tokenizer { model: "gpt2".into(), n_tokens: 151_936, n_merges: 151_387, chat_template: false });
        let mut model = model();
        model.tokenizer = small.tokenizer.clone();
        for of in [&mut model, &mut small] {
            of.metadata.insert("tokenizer.ggml.add_bos_token".into(), spec::model::MetaValue::Bool(true));
            of.metadata.insert("tokenizer.ggml.bos_token_id".into(), spec::model::MetaValue::Uint(1));
        }
        change(&mut small);
        (model, Companions { draft: Some(Draft::new(Some(small))), ..Companions::default() })
    };
    let with = |(model, beside): (Model, Companions), profile: &EngineProfile| {
        require_with(&model, &Settings::default(), &target(), profile, &beside).map(|_| ()).map_err(|error| error.to_string())
    };
    let (now, old) = (EngineProfile::server_0_7(), EngineProfile::named("llama.cpp-2026-03").unwrap());
    assert_eq!(with(draft(|_| ()), &now), Ok(()));
    assert_eq!(with(draft(|m| m.tokenizer.as_mut().unwrap().n_tokens += 128), &now), Ok(()));
    let wrong: [fn(&mut Model); 4] = [
        |m| m.tokenizer.as_mut().unwrap().n_tokens += 129,
        |m| m.tokenizer.as_mut().unwrap().model = "llama".into(),
        |m| drop(m.metadata.insert("tokenizer.ggml.add_bos_token".into(), spec::model::MetaValue::Bool(false))),
        |m| drop(m.metadata.insert("tokenizer.ggml.bos_token_id".into(), spec::model::MetaValue::Uint(2))),
    ];
    // One that is known by its shape alone has no tokens to compare, but a number of them.
    let by_shape: fn(&mut Model) = |m| {
        m.tokenizer = Some(spec::model::Tokenizer { model: "no_vocab".into(), n_tokens: 0, n_merges: 0, chat_template: false });
    };
    assert_eq!(with(draft(by_shape), &now), Ok(()));
    let (mut large, beside) = draft(by_shape);
    large.n_vocab += 129;
    let said = with((large, beside), &now).unwrap_err();
    assert_eq!(said, "the draft's vocabulary does not go with the model's: it has 151936 tokens, the model's 152065");
    wrong.iter().for_each(|&change| assert_eq!(with(draft(change), &old), Ok(())));
    insta::assert_snapshot!(wrong.map(|change| with(draft(change), &now).unwrap_err()).join("\n"), @r#"
    the draft's vocabulary does not go with the model's: it has 152065 tokens, the model's 151936
    the draft's vocabulary does not go with the model's: it is of kind "llama", the model's of "gpt2"
    the draft's vocabulary does not go with the model's: only one of the two adds a bos token
    the draft's vocabulary does not go with the model's: its bos token is another
    "#);
}

/// Compute buffers that llama-mtmd-cli 0.7.0 reserved for synthetic projectors on a CPU, in MiB of two decimals: kind, width,
/// inner width, patch, image, heads, projected width.
const PROJECTORS: &[(&str, [u64; 6], f64)] = &[
    ("gemma3", [1152, 4304, 14, 896, 16, 1152], 121.25),
    ("gemma3", [1152, 1152, 14, 896, 16, 512], 90.00),
    ("gemma3", [768, 3072, 14, 448, 12, 512], 21.00),
    ("gemma3", [1024, 2048, 16, 512, 16, 512], 20.00),
    ("gemma3", [1024, 2048, 16, 512, 16, 2560], 25.00),
    ("gemma3", [1024, 4096, 14, 336, 16, 512], 15.75),
    ("idefics3", [768, 3072, 16, 512, 12, 576], 21.00),
    ("idefics3", [768, 768, 16, 512, 12, 512], 15.00),
    ("idefics3", [1152, 4304, 14, 364, 16, 512], 20.01),
    ("internvl", [1024, 4096, 14, 448, 16, 896], 28.03),
    ("mlp", [1024, 4096, 14, 336, 16, 512], 19.32),
    ("mlp", [1024, 4096, 14, 336, 16, 4096], 21.55),
    ("mlp", [1024, 1024, 14, 336, 16, 4096], 21.55),
    ("mlp", [1024, 4096, 14, 336, 16, 5120], 26.05),
    ("mlp", [768, 3072, 32, 224, 12, 512], 1.31),
];

#[test]
fn reservations_of_projectors_are_within_their_intervals() {
    let keys = ["embedding_length", "feed_forward_length", "patch_size", "image_size", "attention.head_count", "projection_dim"];
    let mut equal = 0;
    for (kind, figures, reserved) in PROJECTORS {
        let class = matches!(*kind, "internvl" | "mlp").then(|| tensor("v.class_embd", QuantType::F32, [figures[0], 1, 1, 1]));
        let mut file = attachment(AttachmentKind::Projector, "clip", class.into_iter().collect());
        file.metadata.insert("clip.projector_type".into(), spec::model::MetaValue::Text((*kind).into()));
        for (key, figure) in keys.iter().zip(figures) {
            file.metadata.insert(format!("clip.vision.{key}"), spec::model::MetaValue::Uint(*figure));
        }
        let companions = Companions { projector: Some(file), projector_on_host: true, ..Companions::default() };
        let parts = need(&model(), &Settings::default(), &companions).unwrap().parts(None);
        let compute = parts.iter().find(|part| part.component == Component::ProjectorCompute).unwrap().peak.clone();
        let [value, low, high] = [compute.get().unwrap(), *compute.low().unwrap(), *compute.high().unwrap()].map(|bytes| bytes.as_mib());
        assert!((low - 0.005..=high + 0.005).contains(reserved), "{kind} {figures:?}: {low:.2} to {high:.2}, recorded {reserved}");
        assert!(high <= 3.0 * low, "{kind} {figures:?}: {low:.2} to {high:.2}");
        equal += usize::from((value - reserved).abs() < 0.006);
    }
    assert!(equal >= 9, "{equal} of {} are the central value", PROJECTORS.len());
}

type AdapterLoad = (u32, QuantType, u64, &'static str, bool, [f64; 2], [f64; 2]);

/// Loads of llama-completion 0.7.0 with synthetic adapters (`-c 1024`, one pretended GPU of 8 GiB) over Llama 3.2 1B of four layers and
/// 2048 tokens, so that a block and not the logits decides: layers on the GPU, type, rank, what is adapted, whether a control vector was
/// loaded too; "LoRA buffer size" of GPU and host in MiB of two decimals, and "compute buffer size is" of both in MiB.
const ADAPTERS: &[AdapterLoad] = &[
    (2, QuantType::F16, 0, "", false, [0.0, 0.0], [73.2539, 17.0195]),
    (2, QuantType::F16, 0, "", true, [0.0, 0.0], [73.2539, 17.0195]),
    (2, QuantType::F16, 16, "blk.0.attn_q blk.3.ffn_down", false, [0.31, 0.12], [73.2539, 17.0195]),
    (2, QuantType::F32, 64, "blk.1.ffn_gate blk.2.ffn_up", true, [0.0, 5.0], [73.2539, 17.0195]),
    (2, QuantType::F16, 512, "blk.3.ffn_down", false, [10.0, 0.0], [73.2539, 17.0195]),
    (2, QuantType::F16, 256, "blk.1.ffn_gate", false, [0.0, 5.0], [73.2539, 17.0195]),
    (2, QuantType::F16, 32, "all", true, [2.69, 8.06], [73.2539, 17.0195]),
    (2, QuantType::F16, 512, "all", false, [43.0, 129.0], [77.2539, 17.0195]),
    (99, QuantType::F16, 0, "", false, [0.0, 0.0], [65.0156, 17.0195]),
    (99, QuantType::F16, 0, "", true, [0.0, 0.0], [65.0156, 17.0195]),
    (99, QuantType::F16, 16, "blk.0.attn_q blk.3.ffn_down", false, [0.44, 0.0], [65.0156, 17.0195]),
    (99, QuantType::F32, 64, "blk.1.ffn_gate blk.2.ffn_up", true, [5.0, 0.0], [65.0156, 17.0195]),
    (99, QuantType::F16, 512, "blk.3.ffn_down", false, [10.0, 0.0], [65.0156, 17.0195]),
    (99, QuantType::F16, 256, "blk.1.ffn_gate", false, [5.0, 0.0], [65.0156, 17.0195]),
    (99, QuantType::F16, 32, "all", true, [10.75, 0.0], [65.0156, 17.0195]),
    (99, QuantType::F16, 512, "all", false, [172.0, 0.0], [65.0156, 17.0195]),
    (0, QuantType::F16, 0, "", false, [0.0, 0.0], [73.2539, 17.0195]),
    (0, QuantType::F16, 0, "", true, [0.0, 0.0], [73.2539, 17.0195]),
    (0, QuantType::F16, 16, "blk.0.attn_q blk.3.ffn_down", false, [0.0, 0.44], [73.2539, 17.0195]),
    (0, QuantType::F32, 64, "blk.1.ffn_gate blk.2.ffn_up", true, [0.0, 5.0], [73.2539, 17.0195]),
    (0, QuantType::F16, 512, "blk.3.ffn_down", false, [0.0, 10.0], [73.2539, 17.0195]),
    (0, QuantType::F16, 256, "blk.1.ffn_gate", false, [0.0, 5.0], [73.2539, 17.0195]),
    (0, QuantType::F16, 32, "all", true, [0.0, 10.75], [73.2539, 17.0195]),
    (0, QuantType::F16, 512, "all", false, [0.0, 172.0], [77.2539, 17.0195]),
];

#[test]
fn recorded_loads_with_adapters_and_control_vectors_take_what_is_computed() {
    let name = "llama-3.2-1b Q8_0 n_layer=4 n_vocab=2048";
    let model = recorded::model::model(name);
    let gib = Known::exact(Bytes::from_gib(8), "recorded");
    let devices = vec![Device::of_its_own("GPU0", Backend::pretended(false), gib)];
    let features = ["avx2", "avx512f", "avx512_vnni"].map(str::to_owned).into();
    let target = Target { devices, idle: Vec::new(), cpu_features: features, cpu_arch: "x86_64".into() };
    let (mut wrong, mut equal) = (Vec::new(), 0);
    for &(n_gpu_layers, ty, rank, what, control, loaded, computed) in ADAPTERS {
        let adapted = |tensor: &&Tensor| {
            tensor.layer().is_some() && tensor.shape[1] > 1 && (what == "all" || what.split(' ').any(|part| tensor.name.contains(part)))
        };
        let half = |tensor: &Tensor, end: &str, shape| self::tensor(&format!("{}.lora_{end}", tensor.name), ty, shape);
        let pair = |t: &Tensor| [half(t, "a", [t.shape[0], rank, 1, 1]), half(t, "b", [rank, t.shape[1], 1, 1])];
        let tensors: Vec<Tensor> = model.tensors.iter().filter(adapted).flat_map(pair).collect();
        let vector =
            attachment(AttachmentKind::ControlVector, "controlvector", vec![tensor("direction.1", QuantType::F32, [2048, 1, 1, 1])]);
        let companions = Companions {
            adapters: if rank > 0 { vec![attachment(AttachmentKind::Lora, "llama", tensors)] } else { Vec::new() },
            control_vectors: if control { vec![vector] } else { Vec::new() },
            ..Companions::default()
        };
        let settings = Settings { n_ctx: 1024, n_gpu_layers, ..Settings::default() };
        let need = require_with(&model, &settings, &target, &EngineProfile::bench_0_7(), &companions).unwrap();
        for (place, parts) in [need.parts(Some(0)), need.parts(None)].iter().enumerate() {
            let mib = |component| Bytes::new(part(parts, component)).as_mib();
            let (adapters, own) = (mib(Component::Adapters), mib(Component::Compute));
            let more = parts.iter().find(|part| part.component == Component::AdapterCompute);
            let most = own + more.and_then(|part| part.peak.high()).map_or(0.0, |most| most.as_mib());
            equal += usize::from((own - computed[place]).abs() < 0.0001);
            if (adapters - loaded[place]).abs() > 0.006 || !(own - 0.0001..=most + 0.0001).contains(&computed[place]) {
                wrong.push(format!(
                    "{n_gpu_layers} {ty} {rank} {what:?} {control}, {place}: {adapters:.2} {own:.4} instead of {loaded:?} {computed:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Adapters of rank 512 on every matrix took one product more than the model alone.
    assert_eq!(equal, 2 * ADAPTERS.len() - 2);
}
