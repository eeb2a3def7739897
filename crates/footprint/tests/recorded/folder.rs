//! The recordings of a folder, and their cases one by one.
#![allow(clippy::disallowed_methods, reason = "a test reads its recordings")]

use super::{Answer, Case, Host, Recording};
use spec::Model;
use std::collections::BTreeMap;
use std::path::Path;

/// What the engine's dry run said.
pub const DRY_RUNS: &str = "tests/oracle";
/// What real loads took.
pub const LOADS: &str = "tests/loads";

/// All recordings of a folder of this crate, in the order of their names.
pub fn recordings(folder: &str) -> Vec<Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let names = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = names.map(|entry| entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    paths.sort();
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Recording::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    paths.iter().map(|path| read(path)).collect()
}

/// Each case with the machine it was asked on, its model as `change` leaves it, and its answer.
pub fn each_changed(folder: &str, change: impl Fn(Model) -> Model, mut visit: impl FnMut(&Case, &Host, &Model, &Answer)) {
    for recording in recordings(folder) {
        let mut models: BTreeMap<&str, Model> = BTreeMap::new();
        for (case, answer) in &recording.cases {
            let model = models.entry(&case.model).or_insert_with(|| change(super::model::model(&case.model)));
            visit(case, &recording.host, model, answer);
        }
    }
}

/// Each case with the machine it was asked on, its model and its answer.
pub fn each(folder: &str, visit: impl FnMut(&Case, &Host, &Model, &Answer)) {
    each_changed(folder, |model| model, visit);
}
