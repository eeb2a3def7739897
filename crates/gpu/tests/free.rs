//! What drivers tell of free memory.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot be set up has failed, and says when it is left out")]

use gpu::{Adapter, Kind, Memory, QuantizedLinear};
use kernels::TernaryMatrix;
use spec::Bytes;

/// Adapters whose drivers tell, each with its answer.
fn told() -> Vec<(Adapter, Memory)> {
    let all: Vec<_> = gpu::list().into_iter().filter_map(|adapter| adapter.memory().map(|memory| (adapter, memory))).collect();
    if all.is_empty() {
        eprintln!("SKIPPED: no adapter that tells here; a newer mesa-vulkan-drivers than 22.3 has one in software");
    }
    all
}

#[test]
fn an_open_device_tells_if_its_adapter_does() {
    for adapter in gpu::list() {
        let (tells, driver) = (adapter.memory().is_some(), adapter.driver());
        // Mesa's driver in software has no VK_EXT_memory_budget in 22.3.
        let has_none = adapter.kind() == Kind::Software && driver.contains("Mesa 22.3.");
        assert!(!tells || driver.ends_with("(Vulkan)") && !has_none, "{}, {driver}", adapter.name());
        let gpu = adapter.open().unwrap();
        assert_eq!(gpu.memory().is_some(), tells, "{}, {driver}", adapter.name());
        gpu.lose();
        assert_eq!(gpu.memory().is_some(), tells, "{}, {driver}, lost", adapter.name());
    }
}

#[test]
fn free_memory_is_part_of_all() {
    for (adapter, first) in told() {
        let gpu = adapter.open().unwrap();
        let open = gpu.memory().unwrap();
        gpu.lose();
        // It is the driver that tells, not the device.
        let lost = gpu.memory().unwrap();
        for memory in [first, open, lost] {
            assert!(memory.total > Bytes::ZERO && memory.total == first.total, "{}: {memory:?} after {first:?}", adapter.name());
            assert!(memory.free <= memory.total, "{}: {memory:?}", adapter.name());
            let sum = memory.free + memory.used;
            // Over its budget, a process has more than there is.
            assert!(sum <= memory.total || memory.free.is_zero(), "{}: {memory:?}", adapter.name());
        }
        eprintln!("{}: {} of {} free, {} used", adapter.name(), open.free, open.total, open.used);
    }
}

/// Bytes that Linux has available.
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    1024 * line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
}

/// Mesa's driver in software has what the host has: all that is not available is used.
#[test]
fn software_has_what_the_host_has() {
    /// What may come and go between two questions.
    const NOISE: u64 = 64 << 20;
    for (adapter, _) in told() {
        if adapter.kind() != Kind::Software || !cfg!(target_os = "linux") {
            eprintln!("SKIPPED: {} has memory of its own", adapter.name());
            continue;
        }
        let before = available();
        let memory = adapter.memory().unwrap();
        let after = available();
        let expected = before.min(after).saturating_sub(NOISE)..=before.max(after) + NOISE;
        assert!(expected.contains(&memory.free.get()), "{}: {memory:?}, {before} to {after} available", adapter.name());
        assert_eq!(memory.free + memory.used, memory.total, "{}", adapter.name());
    }
}

/// Each layer that is held besides others is counted, by drivers that count this process at all.
#[test]
fn what_is_held_is_used() {
    const LAYERS: usize = 9;
    let (rows, columns) = (2048, 32768);
    let weights = TernaryMatrix::from_codes(rows, columns, 1.0, |row, column| ((row + column) % 3) as u8).unwrap();
    for (adapter, _) in told() {
        let gpu = adapter.open().unwrap();
        let used = || gpu.memory().unwrap().used.get().cast_signed();
        // What copies take on the way may stay taken from the first one on.
        let first = QuantizedLinear::new(&gpu, &weights).unwrap();
        let one = gpu.held().get().cast_signed();
        let (mut layers, mut grown) = (vec![first], Vec::new());
        for _ in 0..LAYERS {
            let before = used();
            layers.push(QuantizedLinear::new(&gpu, &weights).unwrap());
            grown.push(used() - before);
        }
        grown.sort_unstable();
        eprintln!("{}: {one} bytes a layer, {grown:?} more used", adapter.name());
        let middle = grown[LAYERS / 2];
        if adapter.kind() == Kind::Software || grown.iter().all(|grown| *grown == 0) {
            eprintln!("SKIPPED: {} does not count this process", adapter.name());
        } else {
            assert!((one - one / 4..=one + one / 2).contains(&middle), "{}: {middle} for {one}", adapter.name());
        }
    }
}
