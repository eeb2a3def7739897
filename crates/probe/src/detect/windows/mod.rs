//! A machine under Windows: asks each part in turn and puts the layers together.

mod conditions;
mod cpu;
mod gpus;
mod job;
pub(crate) mod relations;

use crate::detect::{Depth, fields, system};
use crate::host::{Host, Question, WindowsQuestion};
use relations::Relations;
use spec::machine::{Facts, Free, HugePages, Limits, Machine, Memory, MemoryLimit, NumaNode, Platform};
use spec::{Bytes, Known};

const VERSION: &str = "SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion";
const FIRMWARE: &str = "HARDWARE\\DESCRIPTION\\System\\BIOS";
const MEMORY: &str = "GlobalMemoryStatusEx";

pub(super) fn detect(host: &dyn Host, os: String, arch: String, depth: Depth) -> Machine {
    let mut warnings = Vec::new();
    let native = host.text(&Question::Windows(WindowsQuestion::Machine)).ok().filter(|native| *native == "aarch64" && *native != arch);
    let arch = if let Some(native) = native {
        warnings.push("this program was built for other processors and Windows emulates them; an engine built so is several times slower: use the builds for ARM".into());
        native
    } else {
        arch
    };
    let relations = relations::parse(&host.text(&Question::Windows(WindowsQuestion::Processors)).unwrap_or_default());
    let registry = |key: &str, name: &str| host.text(&Question::Registry(format!("{key}\\{name}"))).ok().filter(|text| !text.is_empty());
    let build = registry(VERSION, "CurrentBuildNumber");
    let allowed = cpu::allowed(host, &relations, build.as_deref().and_then(|build| build.trim().parse().ok()));
    let job = job::Job::read(host);
    let cpu = cpu::read(host, &arch, &relations);

    let status = host.text(&Question::Windows(WindowsQuestion::Memory));
    let bytes = |field: &'static str| match &status {
        Ok(text) => Known::from_option(fields::number(text, field).map(Bytes::new), MEMORY, format!("{MEMORY} names no {field}")),
        Err(refusal) => Known::unknown(format!("{MEMORY}: {refusal}")),
    };
    let (total, available) = (bytes("total"), bytes("available"));
    let gpus = gpus::read(host, &total, &available, depth);
    warnings.extend(gpus.warnings);

    let limits = Limits {
        allowed_physical_cores: allowed
            .clone()
            .map(|cpus| u32::try_from(relations.cores.iter().filter(|core| !core.cpus.is_disjoint(&cpus)).count()).unwrap_or(u32::MAX)),
        allowed_cpus: allowed,
        cpu_quota: job.quota(cpu.logical_cpus.get()),
        memory: job.memory().into_iter().chain(commit(&bytes("commit-limit"), &bytes("commit-available"))).collect(),
        visible_gpus: gpus.visible,
    };
    let swap = |all: Known<Bytes>, memory: &Known<Bytes>| match (all.get(), memory.get()) {
        (Some(all), Some(memory)) => Known::exact(all.saturating_sub(memory), "GlobalMemoryStatusEx: commit - memory"),
        _ => all,
    };
    let free = Free { swap: swap(bytes("commit-available"), &available), memory: available, gpu_memory: gpus.free };
    let facts = Facts {
        numa: nodes(&relations, &total),
        npus: if depth > Depth::Static { gpus::npus(host) } else { Vec::new() },
        platform: Platform {
            os,
            arch,
            version: version(build, registry(VERSION, "UBR"), registry(VERSION, "DisplayVersion")),
            inside: inside(&registry(FIRMWARE, "SystemProductName"), &registry(FIRMWARE, "SystemManufacturer"), host),
        },
        cpu,
        memory: Memory {
            swap_total: swap(bytes("commit-limit"), &total),
            page: bytes("page"),
            huge_pages: HugePages::unknown("Windows gives larger pages to programs with a privilege only"),
            modules: Vec::new(),
            total,
        },
        gpus: gpus.gpus,
    };
    let mut conditions = conditions::read(host, facts.gpus.len());
    for (condition, of_nvidia) in conditions.gpus.iter_mut().zip(gpus.conditions) {
        *condition = of_nvidia;
    }
    Machine { origin: host.origin(), facts, limits, free, conditions, warnings }
}

/// What may be promised to programs: memory and page files. Windows refuses an allocation beyond, however much memory is free; pages of
/// a mapped file are promised by the file.
fn commit(limit: &Known<Bytes>, available: &Known<Bytes>) -> Option<MemoryLimit> {
    let (limit, available) = (limit.get()?, available.get()?);
    Some(MemoryLimit {
        source: "commit limit".into(),
        limit,
        used: Known::exact(limit.saturating_sub(available), MEMORY),
        reclaimable: Known::exact(Bytes::ZERO, "promised memory is not taken back"),
        swap: Known::unknown("the limit holds for memory and page files together"),
        mapped_files: false,
    })
}

/// `26100.1742 (24H2)`.
fn version(build: Option<String>, revision: Option<String>, name: Option<String>) -> Known<String> {
    let Some(build) = build else { return Known::unknown("the registry does not name the version") };
    let revision = revision.map_or_else(String::new, |revision| format!(".{revision}"));
    let name = name.map_or_else(String::new, |name| format!(" ({name})"));
    Known::exact(format!("{build}{revision}{name}"), "registry CurrentVersion")
}

/// The processor's own flag says nothing here: Windows runs on its hypervisor on many a desktop.
fn inside(product: &Option<String>, maker: &Option<String>, host: &dyn Host) -> Vec<String> {
    let board = [product, maker].into_iter().flatten().find_map(|text| system::board(text));
    let container = host.text(&Question::Registry("SYSTEM\\CurrentControlSet\\Control\\ContainerType".into())).is_ok();
    board.into_iter().chain(container.then_some("windows container")).map(str::to_owned).collect()
}

/// The nodes; one with everything where Windows knows none.
fn nodes(relations: &Relations, total: &Known<Bytes>) -> Vec<NumaNode> {
    let node = |id: u32, cpus: relations::Cpus, memory: Known<Bytes>| NumaNode { id, cpus, memory, distances: Vec::new(), of_gpu: false };
    if relations.nodes.len() <= 1 {
        return vec![node(relations.nodes.keys().next().copied().unwrap_or(0), relations.cpus(), total.clone())];
    }
    let why = "Windows tells what is free on a node, not what it has";
    relations.nodes.iter().map(|(id, cpus)| node(*id, cpus.clone(), Known::unknown(why))).collect()
}
