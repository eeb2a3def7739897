//! The devices that an engine sees, from its `--list-devices`.

use super::{Engine, EngineError};
use planner::ListedDevice;
use spec::{Bytes, Known};
use std::time::Duration;

/// Asks an engine for its devices and their free memory; never cached, free memory is a thing of the moment. Empty for
/// a build without GPU support, and for one too old to list. `servers` are those of remote devices (`HOST:PORT`), which come
/// first, as the engine orders them for itself (`src/llama.cpp:268-269`).
///
/// # Errors
/// The engine fails or hangs.
pub fn list_devices(engine: &Engine, servers: &[String], deadline: Duration) -> Result<Vec<ListedDevice>, EngineError> {
    const QUESTION: &str = "--list-devices";
    if !engine.flags.accepts(QUESTION) {
        return Ok(Vec::new());
    }
    let servers = servers.join(",");
    // In this order: the engine lists when it reads the word.
    let said = match servers.as_str() {
        "" => super::question(&engine.path, QUESTION, deadline)?,
        servers => super::asked(&engine.path, &["--rpc", servers, QUESTION], QUESTION, deadline)?,
    };
    if said.status.success() { Ok(remote_first(parse(&said.text))) } else { Err(super::failed(&engine.path, QUESTION, &said)) }
}

fn remote_first(mut devices: Vec<ListedDevice>) -> Vec<ListedDevice> {
    devices.sort_by_key(|device| !device.name.starts_with("RPC"));
    devices
}

/// `  CUDA0: NVIDIA GeForce RTX 4090 (24080 MiB, 23666 MiB free)` after `Available devices:`. CPU-like entries (BLAS) have
/// no memory of their own and hold no layers.
fn parse(output: &str) -> Vec<ListedDevice> {
    let list = output.lines().skip_while(|line| line.trim() != "Available devices:").skip(1);
    list.take_while(|line| line.starts_with("  ")).filter_map(device).collect()
}

fn device(line: &str) -> Option<ListedDevice> {
    let (name, rest) = line.trim().split_once(':')?;
    let (description, memory) = rest.rsplit_once('(')?;
    let (total, free) = memory.strip_suffix(" MiB free)")?.split_once(" MiB, ")?;
    let (total, free): (u64, u64) = (total.parse().ok()?, free.parse().ok()?);
    let known = |mib| Known::exact(Bytes::from_mib(mib), "--list-devices");
    let (name, description) = (name.to_owned(), description.trim().to_owned());
    (total > 0).then(|| ListedDevice { name, description, total: known(total), free: known(free) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_with_memory_are_listed_in_order() {
        let output = "load_backend: loaded CPU\nAvailable devices:\n  CUDA0: NVIDIA GeForce RTX 4090 (Ti) (24080 MiB, 23666 MiB free)\n  \
                      FAKE1: pretended (8192 MiB, 8000 MiB free)\n  BLAS: OpenBLAS (0 MiB, 0 MiB free)\ndone\n  X: y (1 MiB, 1 MiB free)\n";
        let devices = parse(output);
        assert_eq!(devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["CUDA0", "FAKE1"]);
        assert_eq!(devices[0].description, "NVIDIA GeForce RTX 4090 (Ti)");
        assert_eq!(devices[0].free.get(), Some(Bytes::from_mib(23666)));
        assert!(parse("Available devices:\n").is_empty() && parse("").is_empty());
    }
}
