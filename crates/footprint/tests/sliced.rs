//! Split mode `tensor`: slices of weights and caches, and compute buffers, equal what real loads took.
//!
//! The engine reports the joined devices as one, and of each buffer the largest of what they hold.
#![expect(clippy::disallowed_methods, reason = "a test reads its recordings")]

mod recorded;

use footprint::{DeviceRequirement, dry_run, require};
use recorded::{Answer, Recording};
use spec::model::Mixer;
use spec::{Bytes, Known};
use std::path::Path;

#[test]
fn slices_are_the_engines_to_the_byte() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sliced");
    let (mut asked, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let recording = Recording::parse(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        for (case, answer) in &recording.cases {
            let model = recorded::model::model(&case.model);
            let (settings, profile) = case.settings();
            let ours = require(&model, &settings, &case.target(&recording.host), &profile);
            asked += 1;
            match (ours, answer) {
                (Ok(need), Answer::Figures(figures)) => {
                    let theirs = figures.buffers.iter().find(|(name, _)| name.starts_with("Meta")).map(|(_, sizes)| *sizes).unwrap();
                    let most = |part: fn(&DeviceRequirement) -> Known<Bytes>| {
                        need.devices
                            .iter()
                            .filter_map(|device| part(device).get().filter(|_| part(device).is_exact()))
                            .max()
                            .map(Bytes::get)
                    };
                    let context = most(|d| d.kv_cache.clone()).zip(most(|d| d.state.clone())).map(|(cache, state)| cache + state);
                    let ours = [most(|d| d.weights.clone()), context, most(|d| d.compute.clone())];
                    // Caches of windows and of the whole context are two buffers, whose largest parts may lie on two devices.
                    let two_caches = model.layers.iter().any(|layer| matches!(&layer.mixer, Mixer::Attention(a) if a.window.is_some()));
                    let same = |(i, (ours, theirs)): (usize, (&Option<u64>, &u64))| match ours {
                        Some(ours) if i == 1 && two_caches => ours <= theirs && *theirs <= ours * 2,
                        ours => *ours == Some(*theirs),
                    };
                    if !ours.iter().zip(&theirs).enumerate().all(same) {
                        wrong.push(format!("{} {}\n    {ours:?} instead of {theirs:?}", case.model, case.args));
                    }
                    let host = figures.buffers.get("CPU").map(|sizes| sizes[2]);
                    assert_eq!(need.host.compute.get().map(Bytes::get), host, "{}: compute of the host", case.args);
                }
                (Err(_), Answer::Refused(_)) => {}
                (ours, answer) => wrong.push(format!("{} {}\n    {ours:?}, the engine {answer:?}", case.model, case.args)),
            }
        }
    }
    println!("{asked} cases");
    assert!(asked >= 50, "{asked} cases");
    assert!(wrong.is_empty(), "{} of {asked} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// A dry run tells nothing of slices: it has the joined devices as one, with everything in full.
#[test]
fn a_dry_run_reports_the_joined_devices_in_full() {
    let recording = Recording::parse(include_str!("joined.jsonl")).unwrap();
    assert!(recording.cases.len() >= 9);
    for (case, answer) in &recording.cases {
        let Answer::Figures(figures) = answer else { panic!("{}", case.args) };
        let (settings, profile) = case.settings();
        let ours = dry_run(&recorded::model::model(&case.model), &settings, &case.target(&recording.host), &profile).unwrap();
        let bytes = |known: &Known<Bytes>| known.get().unwrap().get();
        let [device] = ours.devices.as_slice() else { panic!("{}", case.args) };
        let found = [bytes(&device.weights), bytes(&device.kv_cache) + bytes(&device.state), bytes(&device.compute)];
        assert_eq!(found, figures.buffers["Meta()"], "{} {}", case.model, case.args);
        assert_eq!(bytes(&ours.host.compute), figures.buffers["CPU"][2], "{} {}", case.model, case.args);
    }
}
