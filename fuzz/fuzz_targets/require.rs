//! Requirements of models that are nearly right: an architecture's own keys and tensors with some of them changed or gone,
//! under any settings on any machine. Nothing may panic, hang or take memory without bound.
#![no_main]

use footprint::target::Backend;
use footprint::{Companions, Device, Draft, EngineProfile, Requirements, Target, dry_run, require_with};
use formats::{describe, gguf};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use spec::settings::{FlashAttention, LoadMode, SplitMode, TensorOverride};
use spec::{Bytes, Known, QuantType, Settings};
use std::sync::OnceLock;
use synthetic::writer::Value;
use synthetic::{FileType, Options, Outline, Vocabulary, outline, outline_file, outlines};

const FILE_TYPES: &[FileType] = &[FileType::Q4_K_M, FileType::Q8_0, FileType::F16, FileType::IQ2_XS, FileType::MXFP4_MOE];
const CACHE_TYPES: &[QuantType] = &[QuantType::F16, QuantType::F32, QuantType::Q8_0, QuantType::Q4_0, QuantType::IQ4_NL];
const PATTERNS: &[(&str, &str)] = &[("exps", "CPU"), (r"blk\.[01]\.", "CPU"), ("token_embd", "FAKE0"), (".*", "FAKE1"), ("(", "CPU")];

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

/// Every outline, with few layers.
fn models() -> &'static [Outline] {
    static MODELS: OnceLock<Vec<Outline>> = OnceLock::new();
    MODELS.get_or_init(|| outlines().filter_map(outline).map(|outline| outline.shortened(4)).collect())
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut model = u.choose(models())?.clone();
    for _ in 0..u.int_in_range(0..=4)? {
        change(u, &mut model)?;
    }
    let options = Options { vocabulary: Vocabulary::None, ..Options::default() };
    let Ok(file) = outline_file(&model, *u.choose(FILE_TYPES)?, &options) else { return Ok(()) };
    let Ok(header) = gguf::read(&file.header, file.size) else { return Ok(()) };
    let Ok(model) = describe(&[header]) else { return Ok(()) };
    let (mut settings, mut target) = (settings(u)?, target(u)?);
    let mut profile = if u.arbitrary()? { EngineProfile::bundled() } else { EngineProfile::bench_0_7() };
    let companions = rarer(u, &mut settings, &mut target, &mut profile)?;
    let alone = require_with(&model, &settings, &target, &profile, &companions).ok();
    // A search that has seen neighbours says the same.
    let search = Requirements::new(&model, &target, &profile, &companions);
    let _ = search.require(&Settings { n_gpu_layers: settings.n_gpu_layers + 1, ..settings.clone() });
    let _ = search.require(&Settings { n_ctx: settings.n_ctx / 2, ..settings.clone() });
    assert_eq!(search.require(&settings).ok(), alone);
    if let Some(need) = alone {
        assert_eq!(need.devices.len(), target.devices.len());
        for figure in need.devices.iter().map(|device| device.total()).chain([need.host.resident(), need.host.anonymous_at_load()]) {
            if let (Some(low), Some(high)) = (figure.low(), figure.high()) {
                assert!(low <= high, "{figure:?}");
            }
        }
    }
    let _ = dry_run(&model, &settings, &target, &profile);
    Ok(())
}

/// What older inputs do not say: memory of the host's, split modes, older engines, drafts. Nothing of it where they end.
fn rarer(u: &mut Unstructured<'_>, settings: &mut Settings, target: &mut Target, profile: &mut EngineProfile) -> Result<Companions> {
    let mut rare = || -> Result<bool> { Ok(u.arbitrary::<u8>()? > 200) };
    for device in &mut target.devices {
        device.shares_host = rare()?;
    }
    match [rare()?, rare()?] {
        [true, true] => settings.split_mode = SplitMode::Tensor,
        [true, false] => settings.split_mode = SplitMode::Row,
        _ => {}
    }
    let (older, drafts) = (rare()?, rare()?);
    if older {
        let names = EngineProfile::names();
        *profile = EngineProfile::named(u.choose(&names)?).unwrap_or_else(EngineProfile::bundled);
    }
    let draft = drafts.then(|| Draft { n_max: 2, ..Draft::new(None) });
    Ok(Companions { draft, ..Companions::default() })
}

/// Changes a key or a tensor, or takes one out.
fn change(u: &mut Unstructured<'_>, model: &mut Outline) -> Result<()> {
    if u.arbitrary()? {
        let at = u.choose_index(model.keys.len().max(1))?;
        let Some((key, value)) = model.keys.get_mut(at) else { return Ok(()) };
        if u.ratio(1, 8)? && !key.starts_with("general.") {
            model.keys.remove(at);
        } else {
            change_value(u, value)?;
        }
        return Ok(());
    }
    let layer = u.int_in_range(0..=4_u64)?;
    let tensors = model.layers.get_mut(&layer).unwrap_or(&mut model.outside);
    if tensors.is_empty() {
        return Ok(());
    }
    let at = u.choose_index(tensors.len())?;
    match u.int_in_range(0..=2)? {
        0 => {
            tensors.remove(at);
        }
        1 => {
            let extent = u.choose_index(tensors[at].1.len())?;
            tensors[at].1[extent] = u.int_in_range(1..=1 << 14)?;
        }
        _ => {
            let (name, mut shape) = tensors[at].clone();
            shape.reverse();
            tensors[at] = (name, shape);
        }
    }
    Ok(())
}

fn change_value(u: &mut Unstructured<'_>, value: &mut Value) -> Result<()> {
    match value {
        Value::U32(number) => *number = if u.ratio(1, 4)? { u.arbitrary()? } else { u.int_in_range(0..=256)? },
        Value::F32(number) => *number = u.arbitrary()?,
        Value::Bool(flag) => *flag = !*flag,
        Value::Array { items, .. } if !items.is_empty() => {
            let at = u.choose_index(items.len())?;
            change_value(u, &mut items[at])?;
        }
        _ => {}
    }
    Ok(())
}

fn settings(u: &mut Unstructured<'_>) -> Result<Settings> {
    let size = |u: &mut Unstructured<'_>| -> Result<u32> { if u.ratio(1, 10)? { u.arbitrary() } else { u.int_in_range(0..=8192) } };
    let mut settings = Settings {
        n_ctx: size(u)?,
        n_batch: size(u)?,
        n_ubatch: size(u)?,
        n_parallel: u.int_in_range(0..=9)?,
        kv_unified: u.arbitrary()?,
        swa_full: u.arbitrary()?,
        kv_offload: u.arbitrary()?,
        op_offload: u.arbitrary()?,
        repack: u.arbitrary()?,
        n_gpu_layers: u.int_in_range(0..=8)?,
        n_cpu_moe: u.int_in_range(0..=5)?,
        main_gpu: u.int_in_range(0..=3)?,
        cache_type_k: *u.choose(CACHE_TYPES)?,
        cache_type_v: *u.choose(CACHE_TYPES)?,
        flash_attn: *u.choose(&[FlashAttention::Auto, FlashAttention::On, FlashAttention::Off])?,
        split_mode: *u.choose(&[SplitMode::Layer, SplitMode::None])?,
        load_mode: *u.choose(&[LoadMode::Auto, LoadMode::None])?,
        ..Settings::default()
    };
    if u.ratio(1, 4)? {
        let (pattern, buffer) = u.choose(PATTERNS)?;
        settings.tensor_overrides.push(TensorOverride { pattern: (*pattern).into(), buffer: (*buffer).into() });
    }
    if u.ratio(1, 4)? {
        settings.tensor_split = (0..u.int_in_range(0..=4)?).map(|_| u.arbitrary()).collect::<Result<_>>()?;
    }
    Ok(settings)
}

fn target(u: &mut Unstructured<'_>) -> Result<Target> {
    let mut devices = Vec::new();
    for index in 0..u.int_in_range(0..=3)? {
        let memory = Known::exact(Bytes::from_mib(8192), "fuzz");
        let backend = match u.int_in_range(0..=3)? {
            0 => Backend::cuda(false),
            1 => Backend::vulkan(u.arbitrary()?, Some(u.arbitrary()?)),
            2 => Backend::metal(),
            _ => Backend::pretended(u.arbitrary()?),
        };
        devices.push(Device::of_its_own(format!("FAKE{index}"), backend, memory));
    }
    let cpu_features = ["avx2", "avx512f", "amx_int8"].into_iter().take(u.int_in_range(0..=3)?).map(str::to_owned).collect();
    Ok(Target { devices, idle: Vec::new(), cpu_features, cpu_arch: "x86_64".into() })
}
