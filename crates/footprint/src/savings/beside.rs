//! What less beside the model would save. Adapters and control vectors stay: without them it would be another model.

use super::Change;
use crate::{Companions, Draft, EngineProfile, Target};
use spec::{QuantType, Settings};
use std::fmt::Display;

/// Every change of companions that could save, whether it does or not.
pub(super) fn changes(settings: &Settings, target: &Target, profile: &EngineProfile, now: &Companions) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut add = |setting: &'static str, from: &dyn Display, to: &dyn Display, companions: Companions, cost: &'static str| {
        let companions = Some(companions);
        changes.push(Change { setting, from: from.to_string(), to: to.to_string(), settings: settings.clone(), companions, cost });
    };
    if now.projector.is_some() {
        let then = Companions { projector: None, ..now.clone() };
        add("mmproj", &"loaded", &"none", then, "no images and no sound");
        if !now.projector_on_host && !target.devices.is_empty() {
            let then = Companions { projector_on_host: true, ..now.clone() };
            add("mmproj_offload", &"on", &"off", then, "host memory instead; images and sound are read by the CPU, more slowly");
        }
    }
    if let Some(draft) = &now.draft {
        let mut with = |setting, from: &dyn Display, to: &dyn Display, draft: Option<Draft>, cost| {
            add(setting, from, to, Companions { draft, ..now.clone() }, cost);
        };
        smaller(settings, target, profile, draft, &mut with);
    }
    changes
}

/// Takes the name of a flag, its value now and then, the draft with the change, and what it costs.
type Add<'a> = dyn FnMut(&'static str, &dyn Display, &dyn Display, Option<Draft>, &'static str) + 'a;

fn smaller(settings: &Settings, target: &Target, profile: &EngineProfile, now: &Draft, add: &mut Add<'_>) {
    let slower = "nothing is drafted: answers come one token at a time";
    match &now.model {
        Some(model) => add("model_draft", &model.name.as_deref().unwrap_or(&model.architecture), &"none", None, slower),
        None => add("spec_type", &"draft-mtp", &"none", None, slower),
    }
    let n_ctx = now.n_ctx.unwrap_or(settings.n_ctx);
    if now.model.is_some() && profile.rules.draft_context && n_ctx >= 1024 {
        let then = Draft { n_ctx: Some(n_ctx / 2), ..now.clone() };
        add("ctx_size_draft", &n_ctx, &(n_ctx / 2), Some(then), "beyond that many tokens nothing is drafted");
    }
    let wide = |ty: QuantType| matches!(ty, QuantType::F32 | QuantType::F16 | QuantType::BF16);
    if wide(now.cache_type_k) || wide(now.cache_type_v) {
        let names = format!("{}/{}", now.cache_type_k, now.cache_type_v);
        for (ty, cost) in [
            (QuantType::Q8_0, "hardly any; the model checks every token that is drafted"),
            (QuantType::Q4_0, "fewer drafts are accepted; the model checks every token"),
        ] {
            let then = Draft { cache_type_k: ty, cache_type_v: ty, ..now.clone() };
            add("cache_type_draft", &names, &format!("{ty}/{ty}"), Some(then), cost);
        }
    }
    if now.model.is_some() && !target.devices.is_empty() && now.n_gpu_layers != Some(0) {
        let layers = now.n_gpu_layers.map_or_else(|| "all".to_owned(), |layers| layers.to_string());
        let then = Draft { n_gpu_layers: Some(0), ..now.clone() };
        add("n_gpu_layers_draft", &layers, &0, Some(then), "host memory instead; drafts are computed by the CPU");
    }
    let n_ubatch = now.n_ubatch.unwrap_or(settings.n_ubatch);
    if profile.rules.draft_micro_batch && n_ubatch > 128 {
        let then = Draft { n_ubatch: Some(128), ..now.clone() };
        add("spec_draft_n_ubatch", &n_ubatch, &128, Some(then), "the draft reads prompts more slowly");
    }
    if now.n_max > 1 {
        add("draft_max", &now.n_max, &1, Some(Draft { n_max: 1, ..now.clone() }), "one token is drafted at a time");
    }
}
