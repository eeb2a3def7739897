//! Descriptions: what is said, what the tables say, what is refused.

use super::*;
use proptest::prelude::*;

#[test]
fn what_is_said_is_exact_and_the_rest_unknown() {
    let machine = describe("ram=64GiB, cores=8,gpu=24GiB,gpu=RTX4090:24GiB@1008GB/s").unwrap();
    assert_eq!(machine.facts.memory.total, Known::exact(Bytes::from_gib(64), "description"));
    assert_eq!((machine.effective_cores(), machine.effective_cpus()), (8, 8));
    assert!(machine.facts.cpu.memory_bandwidth.is_unknown() && machine.facts.memory.swap_total.is_unknown());
    assert!(!machine.free.memory.is_exact());
    assert_eq!(machine.effective_memory_available().get(), Some(Bytes::from_gib(64).scale(0.95)));
    let free: Vec<_> = machine.usable_gpus().map(|(_, gpu, free)| (gpu.name.value().cloned(), free.get())).collect();
    assert_eq!(free, [(None, Some(Bytes::from_gib(24))), (Some("RTX4090".to_owned()), Some(Bytes::from_gib(24)))]);
    assert_eq!(machine.facts.gpus[1].memory_bandwidth.get(), BytesPerSec::from_gb(1008.0));
    assert_eq!(machine.origin, "ram=64GiB, cores=8,gpu=24GiB,gpu=RTX4090:24GiB@1008GB/s");
}

#[test]
fn every_key() {
    let machine =
        describe("ram=32GiB,free=30GiB,swap=0,cores=4,threads=8,bandwidth=80GB/s,features=AVX2+avx512f,arch=x86_64,os=windows").unwrap();
    assert_eq!(machine.free.memory, Known::exact(Bytes::from_gib(30), "description"));
    assert_eq!(machine.free.swap.get(), Some(Bytes::ZERO));
    assert_eq!((machine.effective_cores(), machine.effective_cpus()), (4, 8));
    assert_eq!(machine.facts.cpu.features, ["avx2", "avx512f"].map(String::from).into());
    assert_eq!(machine.facts.platform.os, "windows");
    assert_eq!(machine.warnings, [""; 0]);
}

#[test]
fn nothing_said_of_cores_is_nothing_known() {
    let machine = describe("gpu=8GiB").unwrap();
    assert!(machine.facts.cpu.physical_cores.is_unknown() && machine.limits.allowed_cpus.is_unknown());
    assert!(machine.free.memory.is_unknown());
    assert_eq!(describe("threads=6").unwrap().effective_cores(), 6);
}

#[test]
fn errors_name_the_part_and_the_way_out() {
    let error = |text: &str| describe(text).unwrap_err().to_string();
    insta::assert_snapshot!(
        ["", "ram", "64GiB", "core=8", "vram=24GiB", "colour=red", "ram=64", "ram=64GiB,ram=32GiB", "cores=0", "cores=-1", "cores=99999999999", "gpu=big", "gpu=RTX4090:", "gpu=24GiB@fast", "arch=z80", "cores=8,threads=4", "ram=8GiB,free=9GiB", "bandwidth=0GB/s"]
            .map(|text| format!("{text}: {}", error(text))).join("\n"), @r#"
        : the description is empty; write for example rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x or ram=64GiB,cores=8,gpu=24GiB
        ram: "ram" is not KEY=VALUE; the keys are cpu, ram, free, swap, cores, threads, bandwidth, gpu, features, arch, os; did you mean ram=?
        64GiB: "64GiB" is not KEY=VALUE; the keys are cpu, ram, free, swap, cores, threads, bandwidth, gpu, features, arch, os
        core=8: no such key: "core"; the keys are cpu, ram, free, swap, cores, threads, bandwidth, gpu, features, arch, os; did you mean cores?
        vram=24GiB: no such key: "vram"; the keys are cpu, ram, free, swap, cores, threads, bandwidth, gpu, features, arch, os; did you mean gpu?
        colour=red: no such key: "colour"; the keys are cpu, ram, free, swap, cores, threads, bandwidth, gpu, features, arch, os
        ram=64: "ram=64": 64 B is too small; write the unit, e.g. 64GiB
        ram=64GiB,ram=32GiB: ram= stands twice; only gpu= may be repeated
        cores=0: "cores=0": not a number from 1 to 8192
        cores=-1: "cores=-1": not a number from 1 to 8192
        cores=99999999999: "cores=99999999999": not a number from 1 to 8192
        gpu=big: "gpu=big": not a size: "big"; write a number and B, KiB, MiB, GiB or TiB (KB, MB, GB, TB are powers of ten) (a GPU is [NAME:]SIZE[@RATE], e.g. RTX4090:24GiB@1008GB/s)
        gpu=RTX4090:: "gpu=RTX4090:": not a size: ""; write a number and B, KiB, MiB, GiB or TiB (KB, MB, GB, TB are powers of ten) (a GPU is [NAME:]SIZE[@RATE], e.g. RTX4090:24GiB@1008GB/s)
        gpu=24GiB@fast: "gpu=24GiB@fast": not a rate; write for example 80GB/s
        arch=z80: "arch=z80": must be x86_64 or aarch64
        cores=8,threads=4: "threads=4": fewer than cores=8
        ram=8GiB,free=9GiB: "free=9.00 GiB": more than ram=8.00 GiB
        bandwidth=0GB/s: "bandwidth=0GB/s": not a rate; write for example 80GB/s
        "#);
}

#[test]
fn names_of_the_tables() {
    let line = |text: &str| match describe(text) {
        Ok(machine) => summary(&machine),
        Err(error) => format!("error: {error}"),
    };
    let asked = [
        "rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x",
        "rtx4090, i9-13900k, ram=64GiB",
        "gpu=rtx4090,ram=64GiB,cores=8",
        "gpu=h100-sxm-80gbx8,cpu=xeon-8480+x2,ram=2TiB",
        "mi300x8,cpu=epyc-9654x2,ram=1.5TiB",
        "rtx 4060 laptop,i7-13650hx,ram=16GiB",
        "m3-max-40c-64gb",
        "m4-10c-16gb",
        "m3-ultra-80c,ram=512GiB",
        "jetson-agx-orin-64gb",
        "gb10",
        "strix-halo 128GB",
        "ryzen-7-7840u,780m,ram=32GiB",
        "cpu=epyc-9654,ram=384GiB",
        "raspberry-pi-5,ram=8GiB",
        "rtx3060,ram=16GiB",
        "rtx4091",
        "gpu=rtx4091",
        "m3-max-40c",
        "cpu=rtx4090",
        "cpu=ryzen-9-7950y",
        "m4-10c-16gb,gb10",
        "gb10x2",
        "banana",
        "i7-12700k,i9-13900k",
        "rtx-580-8gb",
        "rx580",
    ];
    let told: Vec<String> = asked.iter().map(|text| format!("{text}\n    {}", line(text))).collect();
    insta::assert_snapshot!(told.join("\n"));
}

/// One line: processor, memory and GPUs with their intervals.
fn summary(machine: &Machine) -> String {
    let facts = &machine.facts;
    let gpus: Vec<String> = facts
        .gpus
        .iter()
        .zip(&machine.free.gpu_memory)
        .map(|(gpu, free)| {
            let name = gpu.name.value().map_or("unnamed", String::as_str);
            let shared = if gpu.unified_memory { ", shared" } else { "" };
            format!("{name}{shared}: {} free {free}, {}, {}", gpu.memory_total, gpu.memory_bandwidth, gpu.compute)
        })
        .collect();
    let mut lines: Vec<String> = Vec::new();
    for gpu in &gpus {
        let count = gpus.iter().filter(|other| *other == gpu).count();
        if !lines.iter().any(|line| line.ends_with(gpu.as_str())) {
            lines.push(format!("{count} x {gpu}"));
        }
    }
    format!(
        "{} {} {}: {} cores, {} threads, {}, ram {}; {}",
        facts.platform.os,
        facts.platform.arch,
        facts.cpu.model,
        facts.cpu.physical_cores,
        facts.cpu.logical_cpus,
        facts.cpu.memory_bandwidth,
        facts.memory.total,
        lines.join("; ")
    )
}

#[test]
fn what_comes_from_a_table_says_so() {
    let machine = describe("rtx4090,ram=64GiB,cpu=i9-13900k").unwrap();
    let gpu = &machine.facts.gpus[0];
    assert_eq!(gpu.memory_bandwidth.source().as_str(), "table row GeForce RTX 4090 24 GiB");
    assert_eq!(machine.facts.cpu.model.source().as_str(), "table row Core i9-13900K");
    assert_eq!(gpu.compute_capability.get(), Some((8, 9)));
    assert!(!machine.free.gpu_memory[0].is_exact() && !gpu.memory_total.is_exact());
    let kinds: Vec<(&str, u32, usize)> =
        machine.facts.cpu.core_kinds.iter().map(|kind| (kind.name.as_str(), kind.physical_cores, kind.cpus.len())).collect();
    assert_eq!(kinds, [("performance", 8, 16), ("efficiency", 16, 16)]);
    assert_eq!((machine.effective_cpus(), machine.effective_cores()), (32, 24));
}

#[test]
fn what_is_said_goes_before_the_tables() {
    let machine = describe("gb10,ram=100GiB,cores=4,bandwidth=200GB/s").unwrap();
    assert_eq!(machine.facts.memory.total, Known::exact(Bytes::from_gib(100), "description"));
    assert_eq!((machine.effective_cores(), machine.effective_cpus()), (4, 4));
    assert_eq!(machine.facts.cpu.memory_bandwidth.source().as_str(), "description");
    assert_eq!(machine.facts.gpus[0].memory_total.get(), Some(Bytes::from_gib(100)));
}

proptest! {
    #[test]
    fn names_and_counts_are_a_machine_or_an_error(text in "((cpu|gpu)=)?(rtx ?[0-9]{4}|m[1-5]-(pro|max)-[0-9]{2}c|gb10|a100|i7-12700k|[a-z0-9]{1,9})(-[0-9]{1,3}gb)?(x[0-9]{0,3})?(,ram=64GiB)?") {
        if let Ok(machine) = describe(&text) {
            prop_assert!(machine.facts.gpus.len() <= 64 && machine.effective_cpus() >= 1);
            prop_assert_eq!(machine.facts.gpus.len(), machine.free.gpu_memory.len());
            for (gpu, free) in machine.facts.gpus.iter().zip(&machine.free.gpu_memory) {
                for known in [&gpu.memory_total, free] {
                    if let (Some(low), Some(value), Some(high)) = (known.low(), known.value(), known.high()) {
                        prop_assert!(low <= value && value <= high, "{}: {} {} {}", text, low, value, high);
                    }
                }
            }
        }
    }

    #[test]
    fn any_text_is_a_machine_or_an_error(text in "((ram|free|swap|cores|threads|gpu|bandwidth|features|arch|x)=?[0-9a-zA-Z.:@/+-]{0,8},?){0,4}") {
        if let Ok(machine) = describe(&text) {
            prop_assert!(machine.effective_cpus() >= 1 && machine.effective_cores() >= 1);
            prop_assert_eq!(machine.facts.gpus.len(), machine.free.gpu_memory.len());
        }
    }
}
