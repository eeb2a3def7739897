//! Every recorded answer of the engine, recomputed: weights, caches, state and the buffer of logits must be equal to the
//! byte. Compute buffers are compared in `compute.rs`.

mod recorded;

use footprint::{Requirement, placement, require, weights};
use recorded::{Answer, Case, DRY_RUNS, Figures, Host, each};
use spec::{Bytes, Known, Model};
use std::collections::{BTreeMap, BTreeSet};

/// Weights, caches with state, and compute by buffer type, as the engine's breakdown lists them.
fn breakdown(case: &Case, host: &Host, model: &Model) -> (Requirement, BTreeMap<String, [u64; 3]>) {
    let target = case.target(host);
    let (settings, profile) = case.settings();
    let place = placement::place(model, &settings, &target, &profile).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    let weights = weights::weights(model, &target, &profile, &place);
    let need = require(model, &settings, &target, &profile).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    let bytes = |known: &Known<Bytes>| known.get().map_or(0, Bytes::get);
    // The host computes in what the first device in use offers as pinned memory.
    let pinned = place.devices.first().filter(|_| case.host_buffer).map(|device| format!("FAKE{device}_Host"));
    let computing = pinned.unwrap_or_else(|| "CPU".to_owned());
    let mut rows = vec![
        ("CPU".to_owned(), [weights.host.get(), bytes(&need.host.kv_cache) + bytes(&need.host.state), 0]),
        ("CPU_REPACK".to_owned(), [weights.repacked.get(), 0, 0]),
        (computing, [weights.pinned.get(), 0, bytes(&need.host.compute)]),
    ];
    for device in &need.devices {
        let caches = bytes(&device.kv_cache) + bytes(&device.state);
        rows.push((device.name.clone(), [bytes(&device.weights), caches, bytes(&device.compute)]));
    }
    let mut buffers: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for (name, sizes) in rows {
        let sum = buffers.entry(name).or_default();
        *sum = [sum[0] + sizes[0], sum[1] + sizes[1], sum[2] + sizes[2]];
    }
    (need, buffers)
}

/// Buffer types of either side with what both say of them.
fn pairs<'a>(ours: &'a BTreeMap<String, [u64; 3]>, figures: &'a Figures) -> impl Iterator<Item = (&'a str, [u64; 3], [u64; 3])> {
    let names: BTreeSet<&str> = ours.keys().chain(figures.buffers.keys()).map(String::as_str).collect();
    let of = |buffers: &BTreeMap<String, [u64; 3]>, name| buffers.get(name).copied().unwrap_or_default();
    names.into_iter().map(move |name| (name, of(ours, name), of(&figures.buffers, name)))
}

fn differences(case: &Case, host: &Host, model: &Model, figures: &Figures) -> Vec<String> {
    let (need, buffers) = breakdown(case, host, model);
    let mut differences = Vec::new();
    let context = [need.context.n_ctx, need.context.n_ctx_seq, need.context.n_batch, need.context.n_ubatch];
    if context != figures.context {
        differences.push(format!("context: {context:?} instead of {:?}", figures.context));
    }
    for (name, ours, theirs) in pairs(&buffers, figures) {
        if ours[0] != theirs[0] {
            differences.push(format!("{name} weights: {} instead of {}", ours[0], theirs[0]));
        }
        if ours[1] != theirs[1] {
            differences.push(format!("{name} caches and state: {} instead of {}", ours[1], theirs[1]));
        }
    }
    if need.host.output.get() != Some(Bytes::new(figures.output)) {
        differences.push(format!("output: {} instead of {} B", need.host.output, figures.output));
    }
    differences
}

#[test]
fn weights_caches_state_and_output_are_the_engines_to_the_byte() {
    let (mut asked, mut wrong) = (0, Vec::new());
    each(DRY_RUNS, |case, host, model, answer| {
        asked += 1;
        let found = match answer {
            Answer::Figures(figures) => differences(case, host, model, figures),
            Answer::Refused(reason) => {
                let (settings, profile) = case.settings();
                let taken = require(model, &settings, &case.target(host), &profile).is_ok();
                taken.then(|| format!("the engine refuses: {reason}")).into_iter().collect()
            }
        };
        wrong.extend(found.into_iter().map(|difference| format!("{case:?}\n    {difference}")));
    });
    println!("{asked} cases, {} differences", wrong.len());
    assert!(asked >= 2000, "{asked} cases");
    assert!(wrong.is_empty(), "{} differences in {asked} cases:\n{}", wrong.len(), wrong.join("\n"));
}
