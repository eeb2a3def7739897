//! Compute buffers, splits and weights on real backends, recorded from the engine's dry runs: Vulkan on a software device
//! (lavapipe), and Metal's own rules without a device behind them.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test reads its recordings, and fails")]

mod recorded;

use footprint::compute::dry_run;
use footprint::{context, placement, weights};
use recorded::{Answer, Recording};
use spec::{Bytes, Model};
use std::collections::BTreeMap;
use std::path::Path;

/// The differences of one folder: equal cases, cases, and what is wrong.
fn differences(folder: &str) -> (u32, u32, Vec<String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let (mut equal, mut asked, mut wrong) = (0, 0, Vec::new());
    for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "jsonl")) {
        let recording = Recording::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut models: BTreeMap<String, Model> = BTreeMap::new();
        for (case, answer) in &recording.cases {
            let Answer::Figures(figures) = answer else { continue };
            let model = models.entry(case.model.clone()).or_insert_with(|| recorded::model::model(&case.model));
            let target = case.target(&recording.host);
            let (settings, profile) = case.settings();
            let context = context::resolve(model, &settings, &profile).unwrap();
            let place = placement::place(model, &settings, &target, &profile).unwrap();
            let ours = dry_run(model, &settings, &target, &place, &context);
            let is_device = |name: &str| target.devices.iter().any(|device| device.name == name);
            let of = |part: usize, of_device: bool| -> u64 {
                figures.buffers.iter().filter(|(name, _)| is_device(name) == of_device).map(|(_, sizes)| sizes[part]).sum()
            };
            let bytes = |known: &spec::Known<Bytes>| known.get().map_or(0, Bytes::get);
            let graph = ours.graph.map_or([-1, -1], |graph| [i64::from(graph.nodes), i64::from(graph.splits)]);
            let weights = weights::weights(model, &target, &profile, &place);
            let on_host = weights.host + weights.repacked + weights.pinned;
            let pairs = [
                (bytes(&ours.host), of(2, false)),
                (bytes(&ours.devices[0]), of(2, true)),
                (on_host.get(), of(0, false)),
                (weights.devices[0].get(), of(0, true)),
            ];
            asked += 1;
            if pairs.iter().all(|(ours, theirs)| ours == theirs) && graph == figures.graph {
                equal += 1;
            } else {
                wrong.push(format!("{case:?}\n    host, device: {pairs:?}, graph {graph:?} {:?}", figures.graph));
            }
        }
    }
    (equal, asked, wrong)
}

/// Two cases with keys quantised in host memory and attention spelt out, whose host buffer comes out up to 13 % too small.
const KNOWN: usize = 2;

#[test]
fn vulkan_is_the_engines_to_the_byte() {
    let (equal, asked, wrong) = differences("vulkan");
    println!("{equal} of {asked}\n{}", wrong.join("\n"));
    assert!(equal >= 1600, "{equal} of {asked}");
    assert!(wrong.len() <= KNOWN, "{} of {asked} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn metal_is_the_engines_to_the_byte() {
    let (equal, asked, wrong) = differences("metal");
    println!("{equal} of {asked}");
    assert!(equal >= 1600, "{equal} of {asked}");
    assert!(wrong.is_empty(), "{} of {asked} differ:\n{}", wrong.len(), wrong.join("\n"));
}
