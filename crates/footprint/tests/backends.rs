//! Compute buffers, splits and weights on real backends, recorded from the engine's dry runs: Vulkan on a software device
//! (lavapipe), and Metal's own rules without a device behind them.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test shows what differs, and fails by it")]

mod recorded;

use footprint::compute::dry_run;
use footprint::{context, placement, weights};
use recorded::{Answer, each, places};
use spec::{Bytes, Known};

/// Compares every case of a folder: how many there are, and what differs, by model and arguments.
fn differences(folder: &str) -> (u32, Vec<(String, String)>) {
    let (mut asked, mut wrong) = (0, Vec::new());
    each(folder, |case, host, model, answer| {
        let Answer::Figures(figures) = answer else { return };
        let target = case.target(host);
        let (settings, profile) = case.settings();
        let context = context::resolve(model, &settings, &profile).unwrap();
        let place = placement::place(model, &settings, &target, &profile).unwrap();
        let ours = dry_run(model, &settings, &target, &place, &context);
        let bytes = |known: &Known<Bytes>| known.get().map_or(0, Bytes::get);
        let weights = weights::weights(model, &target, &profile, &place);
        let on_host = weights.host + weights.repacked + weights.pinned;
        let [theirs_host, theirs_device] = places::engines(&target, figures).try_into().unwrap();
        let pairs = [
            (bytes(&ours.host), theirs_host[2]),
            (bytes(&ours.devices[0]), theirs_device[2]),
            (on_host.get(), theirs_host[0]),
            (weights.devices[0].get(), theirs_device[0]),
        ];
        let graph = ours.graph.map_or([-1, -1], |graph| [i64::from(graph.nodes), i64::from(graph.splits)]);
        asked += 1;
        if pairs.iter().any(|(ours, theirs)| ours != theirs) || graph != figures.graph {
            println!("{case:?}\n    host, device: {pairs:?}, graph {graph:?} {:?}", figures.graph);
            wrong.push((case.model.clone(), case.args.clone()));
        }
    });
    (asked, wrong)
}

/// Keys quantised in host memory and attention spelt out: the host buffer comes out 13 % and 0.1 % too small.
const KNOWN: [(&str, &str); 2] = [
    (
        "gpt-oss-20b MXFP4_MOE",
        "--ngl 4 --ctx 8192 --batch 4096 --ubatch 1024 --seqs 2 --kv-unified 1 --fa off --ctk q8_0 --kv-offload 0 --repack 0 --ncmoe 99",
    ),
    (
        "mellum-like Q8_0 n_layer=6",
        "--ngl 1 --ctx 32768 --batch 2048 --ubatch 512 --seqs 2 --kv-unified 0 --outputs 2 --fa off --ctk q5_1 --swa-full 1",
    ),
];

#[test]
fn vulkan_is_the_engines_to_the_byte() {
    let (asked, wrong) = differences("tests/vulkan");
    assert!(asked >= 1600, "{asked} cases");
    let known: Vec<_> = KNOWN.iter().map(|(model, args)| ((*model).to_owned(), (*args).to_owned())).collect();
    assert_eq!(wrong, known, "of {asked} cases");
}

#[test]
fn metal_is_the_engines_to_the_byte() {
    let (asked, wrong) = differences("tests/metal");
    assert!(asked >= 1600, "{asked} cases");
    assert!(wrong.is_empty(), "{} of {asked} differ: {wrong:#?}", wrong.len());
}
