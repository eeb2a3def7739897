//! What other settings would save, each really evaluated.

mod beside;

use crate::parts::{Component, Part};
use crate::requirement::Requirement;
use crate::{Companions, EngineProfile, Target, require_with};
use spec::model::{FeedForward, Mixer};
use spec::settings::{FlashAttention, LoadMode};
use spec::{Bytes, Known, Model, QuantType, Settings};

/// One change of settings and what it does to memory at peak.
#[derive(Clone, Debug, PartialEq)]
pub struct Saving {
    /// The setting, by its name in [`Settings`]; of what is loaded beside the model, by the name of llama-server's flag.
    pub setting: &'static str,
    /// Its value now.
    pub from: String,
    /// The other value.
    pub to: String,
    /// All settings with the change.
    pub settings: Settings,
    /// What is loaded beside the model, with the change.
    pub companions: Companions,
    /// Bytes freed per device, parallel to [`Requirement::devices`]; below zero where more is needed.
    pub devices: Vec<i64>,
    /// Bytes freed on the host, server caches at their limits; below zero where more is needed.
    pub host: i64,
    /// True where both sides of every difference are exact, or the estimated part does not change.
    pub exact: bool,
    /// What it costs, for people.
    pub cost: &'static str,
}

impl Saving {
    /// The most bytes that it frees in one place; what the list is ordered by.
    pub fn most(&self) -> i64 {
        self.devices.iter().copied().chain([self.host]).max().unwrap_or(0)
    }
    /// Bytes freed in all places together; about zero where memory only moves.
    pub fn total(&self) -> i64 {
        self.devices.iter().fold(self.host, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// Differences below this are not worth a line.
const WORTHWHILE: i64 = 1 << 20;

/// The changes that free memory somewhere, the largest first. `now` is the requirement of `settings`. Changes that the
/// engine refuses are left out.
pub fn savings(
    model: &Model,
    settings: &Settings,
    target: &Target,
    profile: &EngineProfile,
    companions: &Companions,
    now: &Requirement,
) -> Vec<Saving> {
    let of_settings = changes(model, settings).into_iter();
    let of_companions = beside::changes(settings, target, profile, companions).into_iter();
    let mut found: Vec<Saving> = of_settings
        .chain(of_companions)
        .filter_map(|change| {
            let beside = change.companions.unwrap_or_else(|| companions.clone());
            let then = require_with(model, &change.settings, target, profile, &beside).ok()?;
            let (host, host_exact) = freed(now, &then, None)?;
            let devices: Option<Vec<(i64, bool)>> = (0..now.devices.len()).map(|device| freed(now, &then, Some(device))).collect();
            let devices = devices?;
            let exact = host_exact && devices.iter().all(|(_, exact)| *exact);
            let devices = devices.into_iter().map(|(bytes, _)| bytes).collect();
            let Change { setting, from, to, settings, cost, .. } = change;
            Some(Saving { setting, from, to, settings, companions: beside, devices, host, exact, cost })
        })
        .filter(|saving| saving.most() >= WORTHWHILE)
        .collect();
    // The sort is stable: equal savings stay in the order of the table.
    found.sort_by_key(|saving| std::cmp::Reverse(saving.most()));
    found
}

/// Bytes freed at one place at peak, and whether that is exact. A component that one side lacks is nothing there.
fn freed(now: &Requirement, then: &Requirement, device: Option<usize>) -> Option<(i64, bool)> {
    let (now, then) = (now.parts(device), then.parts(device));
    let nothing = Known::exact(Bytes::ZERO, "not there");
    let of =
        |parts: &[Part], component| parts.iter().find(|part| part.component == component).map_or(nothing.clone(), |part| part.peak.clone());
    let (mut sum, mut exact) = (0_i64, true);
    for &component in Component::ALL {
        let (now, then) = (of(&now, component), of(&then, component));
        let signed = |bytes: Bytes| i64::try_from(bytes.get()).unwrap_or(i64::MAX);
        sum = sum.saturating_add(signed(now.get()?).saturating_sub(signed(then.get()?)));
        exact &= (now.is_exact() && then.is_exact()) || now.get() == then.get() || component.grows();
    }
    Some((sum, exact))
}

struct Change {
    setting: &'static str,
    from: String,
    to: String,
    settings: Settings,
    /// `None`: as they are.
    companions: Option<Companions>,
    cost: &'static str,
}

/// Every change of settings that could save, whether it does or not.
fn changes(model: &Model, now: &Settings) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut add =
        |setting: &'static str, from: &dyn std::fmt::Display, to: &dyn std::fmt::Display, settings: Settings, cost: &'static str| {
            changes.push(Change { setting, from: from.to_string(), to: to.to_string(), settings, companions: None, cost });
        };
    if now.n_parallel > 1 {
        let then = Settings { n_parallel: 1, ..now.clone() };
        add("n_parallel", &now.n_parallel, &1, then, "requests wait for each other");
    }
    for n_ubatch in [512, 256, 128].into_iter().filter(|&smaller| smaller < now.n_ubatch) {
        add("n_ubatch", &now.n_ubatch, &n_ubatch, Settings { n_ubatch, ..now.clone() }, "prompts are read more slowly");
    }
    if now.n_ctx >= 2048 {
        let n_ctx = now.n_ctx / 2;
        add("n_ctx", &now.n_ctx, &n_ctx, Settings { n_ctx, ..now.clone() }, "half the tokens of conversation");
    }
    cache_types(now, &mut add);
    if now.flash_attn == FlashAttention::Off {
        let then = Settings { flash_attn: FlashAttention::Auto, ..now.clone() };
        add("flash_attn", &now.flash_attn, &FlashAttention::Auto, then, "nothing where the devices support it");
    }
    if now.swa_full {
        let then = Settings { swa_full: false, ..now.clone() };
        add("swa_full", &"on", &"off", then, "earlier tokens of a window are computed again when a prompt is changed");
    }
    placement(model, now, &mut add);
    host_only(now, &mut add);
    changes
}

/// Takes the name of a setting, its value now and then, the settings with the change, and what it costs.
type Add<'a> = dyn FnMut(&'static str, &dyn std::fmt::Display, &dyn std::fmt::Display, Settings, &'static str) + 'a;

fn cache_types(now: &Settings, add: &mut Add<'_>) {
    let wide = |ty: QuantType| matches!(ty, QuantType::F32 | QuantType::F16 | QuantType::BF16);
    if !wide(now.cache_type_k) && !wide(now.cache_type_v) {
        return;
    }
    let names = format!("{}/{}", now.cache_type_k, now.cache_type_v);
    for (ty, cost) in [
        (QuantType::Q8_0, "hardly any quality; attention over long contexts is somewhat slower"),
        (QuantType::Q4_0, "some quality, more with long contexts"),
    ] {
        // A quantised V cache needs flash attention.
        let flash_attn = if now.flash_attn == FlashAttention::Off { FlashAttention::On } else { now.flash_attn };
        let then = Settings { cache_type_k: ty, cache_type_v: ty, flash_attn, ..now.clone() };
        add("cache_type", &names, &format!("{ty}/{ty}"), then, cost);
    }
}

fn placement(model: &Model, now: &Settings, add: &mut Add<'_>) {
    if now.n_gpu_layers == 0 {
        return;
    }
    let last_experts = model.layers.iter().rposition(|layer| matches!(layer.feed_forward, FeedForward::Experts(_)));
    if let Some(all) = last_experts.and_then(|last| u32::try_from(last + 1).ok()).filter(|&all| all > now.n_cpu_moe) {
        let then = Settings { n_cpu_moe: all, ..now.clone() };
        add("n_cpu_moe", &now.n_cpu_moe, &all, then, "host memory instead; the experts are computed by the CPU");
    }
    if now.kv_offload && model.layers.iter().any(|layer| !matches!(layer.mixer, Mixer::None)) {
        let then = Settings { kv_offload: false, ..now.clone() };
        add("kv_offload", &"on", &"off", then, "host memory instead; attention is computed by the CPU");
    }
    let layers = now.n_gpu_layers.min(model.n_layer_all().saturating_add(1));
    let fewer = layers - layers.div_ceil(4);
    let then = Settings { n_gpu_layers: fewer, ..now.clone() };
    add("n_gpu_layers", &layers, &fewer, then, "host memory instead; a quarter of the layers is computed by the CPU");
    if now.op_offload {
        let then = Settings { op_offload: false, ..now.clone() };
        add("op_offload", &"on", &"off", then, "prompts are read more slowly through layers on the CPU");
    }
}

fn host_only(now: &Settings, add: &mut Add<'_>) {
    if now.repack {
        let then = Settings { repack: false, ..now.clone() };
        add("repack", &"on", &"off", then, "prompts are read more slowly by the CPU");
    }
    if now.cache_ram_mib > 0 {
        let then = Settings { cache_ram_mib: 0, ..now.clone() };
        add("cache_ram_mib", &now.cache_ram_mib, &0, then, "a conversation that left its slot is computed again");
    }
    if now.ctx_checkpoints > 0 {
        let then = Settings { ctx_checkpoints: 0, ..now.clone() };
        add("ctx_checkpoints", &now.ctx_checkpoints, &0, then, "a changed prompt is computed again from its start");
    }
    if matches!(now.load_mode, LoadMode::None | LoadMode::Mlock | LoadMode::DirectIo) {
        let then = Settings { load_mode: LoadMode::Mmap, ..now.clone() };
        add("load_mode", &now.load_mode, &LoadMode::Mmap, then, "no memory is freed, but weights become pages that the system can drop");
    }
}
