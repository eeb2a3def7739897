//! Detection over recorded machines of every system, any of whose answers may be garbage.
#![no_main]

#[path = "../../crates/probe/tests/garbage/mod.rs"]
mod garbage;

use libfuzzer_sys::fuzz_target;
use probe::Recording;
use std::sync::OnceLock;

fuzz_target!(|data: &[u8]| garbage::check(machines(), data));

/// The machines that the tests of `probe` hold, in the order of their names.
fn machines() -> &'static [Recording] {
    static MACHINES: OnceLock<Vec<Recording>> = OnceLock::new();
    MACHINES.get_or_init(|| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/probe/tests/machines");
        let mut files: Vec<_> = std::fs::read_dir(folder).expect("recordings").map(|entry| entry.expect("a file").path()).collect();
        files.sort();
        files.iter().map(|file| Recording::parse(&std::fs::read_to_string(file).expect("a text")).expect("a recording")).collect()
    })
}
