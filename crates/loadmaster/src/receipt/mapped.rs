//! What an engine means when it reports a mapped buffer.
//!
//! Up to v0.6 llama.cpp reports the whole range of the file from the first to the last tensor that it uses in place
//! (`llama-model-loader.cpp:1449`, v0.6.0-dev, crate llama-cpp-sys-2 0.1.161), tensors between that live elsewhere
//! included: those repacked or on a GPU. Since 0.7 it reports each run of tensors on its own. A plan counts the tensors.

use crate::advise::Advice;
use footprint::placement::{Home, place};
use planner::Tool;
use spec::Bytes;
use std::collections::BTreeMap;

/// The part of the range that the engine reports which is no memory of the plan: bytes between the tensors used in place.
/// Zero for engines that report runs, and where nothing is mapped.
pub(super) fn gaps(advice: &Advice) -> Bytes {
    if !reports_ranges(advice) {
        return Bytes::ZERO;
    }
    let (plan, profile) = (advice.plan.plan(), &advice.engine.rules.profile);
    let Ok(placement) = place(&advice.model, &plan.settings, &advice.target, profile) else { return Bytes::ZERO };
    let tensors = advice.model.tensors.iter().zip(&placement.homes);
    let in_place = tensors.filter(|(_, home)| match home {
        Home::Host => placement.mapped,
        Home::HostLazy => true,
        _ => false,
    });
    // Per file: first byte, last byte, bytes used.
    let mut files: BTreeMap<usize, (u64, u64, u64)> = BTreeMap::new();
    for (tensor, _) in in_place {
        let (first, last, used) = files.entry(tensor.file).or_insert((u64::MAX, 0, 0));
        *first = (*first).min(tensor.offset.get());
        *last = (*last).max((tensor.offset + tensor.bytes).get());
        *used = used.saturating_add(tensor.bytes.get());
    }
    files.values().map(|(first, last, used)| Bytes::new(last.saturating_sub(*first).saturating_sub(*used))).sum()
}

fn reports_ranges(advice: &Advice) -> bool {
    match &advice.engine.external {
        Some(engine) => engine.version.release < Some((0, 7, 0)),
        None => advice.engine.rules.tool == Tool::Bundled,
    }
}
