//! Every recorded answer of the engine, recomputed: weights, caches and state must be equal to the byte.
//!
//! Compute buffers are scored per architecture; the share of exact cases must not fall.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test reads its recordings and fails")]

mod recorded;

use footprint::{Requirement, Target, placement, require, weights};
use recorded::{Answer, Case, Figures, Host, Recording};
use spec::{Bytes, Known, Model};
use std::collections::BTreeMap;
use std::path::Path;

/// All recordings in `tests/oracle`, by file name.
fn recordings() -> BTreeMap<String, Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
    let mut recordings = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "jsonl") {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            recordings.insert(name.clone(), Recording::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}")));
        }
    }
    assert!(!recordings.is_empty(), "no recordings");
    recordings
}

/// Model and context bytes by buffer type, as the engine's breakdown lists them.
fn breakdown(case: &Case, host: &Host, model: &Model) -> (BTreeMap<String, [u64; 2]>, Requirement, Target) {
    let target = case.target(host);
    let (settings, profile) = case.settings();
    let place = placement::place(model, &settings, &target, &profile).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    let weights = weights::weights(model, &target, &profile, &place);
    let need = require(model, &settings, &target, &profile).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    let bytes = |known: &Known<Bytes>| known.get().map_or(u64::MAX, Bytes::get);
    let mut buffers = BTreeMap::new();
    for device in &need.devices {
        buffers.insert(device.name.clone(), [bytes(&device.weights), bytes(&device.kv_cache) + bytes(&device.state)]);
    }
    buffers.insert("CPU".to_owned(), [weights.host.get(), bytes(&need.host.kv_cache) + bytes(&need.host.state)]);
    buffers.insert("CPU_REPACK".to_owned(), [weights.repacked.get(), 0]);
    buffers.insert("FAKE_Host".to_owned(), [weights.pinned.get(), 0]);
    (buffers, need, target)
}

fn differences(case: &Case, host: &Host, model: &Model, figures: &Figures) -> Vec<String> {
    let (buffers, need, _) = breakdown(case, host, model);
    let mut differences = Vec::new();
    let context = [need.context.n_ctx, need.context.n_ctx_seq, need.context.n_batch, need.context.n_ubatch];
    if context != figures.context {
        differences.push(format!("context: {context:?} instead of {:?}", figures.context));
    }
    let names = buffers.keys().chain(figures.buffers.keys()).collect::<std::collections::BTreeSet<_>>();
    for name in names {
        let ours = buffers.get(name).copied().unwrap_or_default();
        let theirs = figures.buffers.get(name).map_or([0, 0], |&[model, context, _]| [model, context]);
        for (what, ours, theirs) in [("weights", ours[0], theirs[0]), ("caches and state", ours[1], theirs[1])] {
            if ours != theirs {
                differences.push(format!("{name} {what}: {ours} instead of {theirs}"));
            }
        }
    }
    differences
}

#[test]
fn weights_caches_and_state_are_the_engines_to_the_byte() {
    let (mut asked, mut wrong) = (0, Vec::new());
    for (name, recording) in recordings() {
        let mut models: BTreeMap<&str, Model> = BTreeMap::new();
        for (case, answer) in &recording.cases {
            let model = models.entry(&case.model).or_insert_with(|| recorded::model::model(&case.model));
            asked += 1;
            match answer {
                Answer::Figures(figures) => {
                    for difference in differences(case, &recording.host, model, figures) {
                        wrong.push(format!("{} {:?} {}\n    {difference}", case.model, case.devices, case.args));
                    }
                }
                Answer::Refused(reason) => {
                    let (settings, profile) = case.settings();
                    if require(model, &settings, &case.target(&recording.host), &profile).is_ok() {
                        wrong.push(format!("{} {:?} {}\n    the engine refuses: {reason}", case.model, case.devices, case.args));
                    }
                }
            }
        }
        assert!(recording.engine.starts_with(|c: char| c.is_ascii_alphanumeric()), "{name}: no engine version");
    }
    println!("{asked} cases, {} differences", wrong.len());
    assert!(wrong.is_empty(), "{} differences in {asked} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// Exact and all cases of compute buffers and graphs.
#[derive(Default)]
struct Score {
    cases: usize,
    simulated: usize,
    exact: usize,
    graphs: usize,
    worst: f64,
}

#[test]
fn compute_buffers_are_scored() {
    let mut scores: BTreeMap<String, Score> = BTreeMap::new();
    for (_, recording) in recordings() {
        let mut models: BTreeMap<&str, Model> = BTreeMap::new();
        for (case, answer) in &recording.cases {
            let model = models.entry(&case.model).or_insert_with(|| recorded::model::model(&case.model));
            let Answer::Figures(figures) = answer else { continue };
            let (_, need, target) = breakdown(case, &recording.host, model);
            let score = scores.entry(model.architecture.clone()).or_default();
            score.cases += 1;
            let pairs = need.devices.iter().map(|device| (device.name.clone(), &device.compute));
            let pairs = pairs.chain(std::iter::once((if case.host_buffer { "FAKE_Host" } else { "CPU" }.to_owned(), &need.host.compute)));
            let mut exact = true;
            let mut simulated = true;
            for (name, ours) in pairs {
                let theirs = figures.buffers.get(&name).map_or(0, |&[_, _, compute]| compute);
                simulated &= ours.is_exact();
                let ours = ours.get().map_or(0, Bytes::get);
                if ours != theirs {
                    exact = false;
                    score.worst = score.worst.max((ours as f64 - theirs as f64).abs() / (theirs.max(1 << 20) as f64));
                    if std::env::var_os("SHOW_COMPUTE").is_some() {
                        println!("{case:?} {name}: {ours} instead of {theirs}");
                    }
                }
            }
            score.simulated += usize::from(simulated);
            score.exact += usize::from(exact);
            let graph = need.graph.map(|graph| [i64::from(graph.nodes), i64::from(graph.splits)]);
            score.graphs += usize::from(graph == Some(figures.graph));
            assert_eq!(target.devices.len(), case.devices.len());
        }
    }
    for (architecture, score) in &scores {
        let Score { cases, simulated, exact, graphs, worst } = score;
        println!(
            "{architecture:10} {exact:4} of {cases} exact, {simulated} simulated, {graphs} graphs equal, worst {:.2} %",
            worst * 100.0
        );
    }
}
