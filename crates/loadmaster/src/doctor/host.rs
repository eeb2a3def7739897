//! Findings about processor, memory, power and the limits of this process.

use super::{Finding, Severity};
use spec::{Bytes, Machine};

/// Little of the memory is free below this share: other programs hold the rest.
const LITTLE_FREE: f64 = 0.25;

/// Huge pages set aside by number above this share of the memory are missed by everything that does not ask for them.
const MUCH_RESERVED: f64 = 0.05;

/// Swap below this is what systems put aside at their leisure.
const MUCH_SWAP: Bytes = Bytes::from_mib(512);

pub(super) fn findings(machine: &Machine, found: &mut Vec<Finding>) {
    instruction_sets(machine, found);
    power(machine, found);
    memory(machine, found);
    swap(machine, found);
    limits(machine, found);
    surroundings(machine, found);
}

fn instruction_sets(machine: &Machine, found: &mut Vec<Finding>) {
    let cpu = &machine.facts.cpu;
    if machine.facts.platform.arch == "x86_64" && !cpu.features.is_empty() && !cpu.features.contains("avx2") {
        found.push(
            Finding::new(
                "no-avx2",
                Severity::Caution,
                "the processor offers no AVX2: models compute several times slower on it",
                format!("instruction sets: {}", cpu.features.iter().cloned().collect::<Vec<_>>().join(" ")),
            )
            .fix("in a virtual machine, pass the host's processor through (QEMU: -cpu host)"),
        );
    }
}

fn power(machine: &Machine, found: &mut Vec<Finding>) {
    let now = &machine.conditions;
    if let Some(left) = machine.on_battery() {
        found.push(
            Finding::new(
                "battery",
                Severity::Caution,
                format!("the machine runs on its battery, {left} % left: processor and GPU are slowed down"),
                now.power.source().to_string(),
            )
            .fix("plug it in"),
        );
    }
    if let Some((profile, source)) = machine.saving_profile() {
        found.push(
            Finding::new("power-profile", Severity::Caution, format!("the power profile is {profile:?}"), source.to_string())
                .fix("powerprofilesctl set performance"),
        );
    }
    if let Some((governor, source)) = machine.saving_governor() {
        found.push(
            Finding::new("governor", Severity::Caution, format!("the processor is told to save power: {governor}"), source.to_string())
                .fix("cpupower set --epp performance, or choose another power profile"),
        );
    }
    if let Some(degrees) = machine.hot() {
        found.push(
            Finding::new(
                "hot",
                Severity::Caution,
                format!("the processor has {degrees:.0} °C and will slow down"),
                now.cpu_temperature_c.source().to_string(),
            )
            .fix("clean or improve its cooling"),
        );
    }
    if now.cpu_throttled.get() == Some(true) {
        found.push(
            Finding::new(
                "throttled",
                Severity::Caution,
                "the frequency of the processor is capped below what it reaches",
                now.cpu_throttled.source().to_string(),
            )
            .fix("look for a power profile, a thermal service or a setting of the firmware that caps it"),
        );
    }
}

fn memory(machine: &Machine, found: &mut Vec<Finding>) {
    let memory = &machine.facts.memory;
    if let [only] = memory.modules.as_slice()
        && only.kind.value().is_some_and(|kind| kind.starts_with("DDR"))
    {
        found.push(
            Finding::new(
                "one-memory-module",
                Severity::Caution,
                "one memory module is fitted: a second channel would double the rate at which models are read",
                format!("{}: {}", only.slot, only.size),
            )
            .fix("fit a second module of the same kind in the slot that the board's manual names"),
        );
    }
    let (pages, total) = (&memory.huge_pages, memory.total.get());
    if let (Some(count), Some(size), Some(total)) = (pages.reserved.get(), pages.size.get(), total)
        && size.times(count).as_f64() > total.as_f64() * MUCH_RESERVED
    {
        found.push(
            Finding::new(
                "huge-pages-reserved",
                Severity::Caution,
                format!("{} of the memory are set aside as huge pages, which no engine here asks for", size.times(count)),
                format!("{count} pages of {size}, {}", pages.reserved.source()),
            )
            .fix("sysctl vm.nr_hugepages=0, unless another program needs them"),
        );
    }
    if pages.transparent.value().is_some_and(|choice| choice == "never") {
        found.push(
            Finding::new(
                "huge-pages-off",
                Severity::Note,
                "transparent huge pages are off: weights that are read into memory cost more address translations",
                pages.transparent.source().to_string(),
            )
            .fix("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
        );
    }
    if let (Some(free), Some(total)) = (machine.free.memory.get(), total)
        && free.as_f64() < total.as_f64() * LITTLE_FREE
    {
        found.push(
            Finding::new(
                "little-memory-free",
                Severity::Caution,
                format!("{free} of {total} are free: other programs hold the rest"),
                machine.free.memory.source().to_string(),
            )
            .fix("end programs that are not needed"),
        );
    }
}

fn swap(machine: &Machine, found: &mut Vec<Finding>) {
    if let Some(used) = machine.swap_used().filter(|used| *used >= MUCH_SWAP) {
        found.push(
            Finding::new(
                "swap-in-use",
                Severity::Note,
                format!("{used} of programs lie in swap: what they wake up for comes back to memory"),
                machine.free.swap.source().to_string(),
            )
            .fix("end programs that are not needed before a large model is loaded"),
        );
    }
}

fn limits(machine: &Machine, found: &mut Vec<Finding>) {
    let limits = &machine.limits;
    if let Some(quota) = limits.cpu_quota.get() {
        found.push(Finding::new(
            "cpu-quota",
            Severity::Note,
            format!("this process gets the time of {quota:.1} CPUs: {} threads are planned", machine.effective_cores()),
            limits.cpu_quota.source().to_string(),
        ));
    }
    if let (Some(allowed), Some(all)) = (limits.allowed_cpus.value(), machine.facts.cpu.logical_cpus.get())
        && (allowed.len() as u64) < u64::from(all)
    {
        found.push(Finding::new(
            "cpu-set",
            Severity::Note,
            format!("this process may run on {} of {all} CPUs", allowed.len()),
            limits.allowed_cpus.source().to_string(),
        ));
    }
    if let Some(limit) = limits.memory.iter().min_by_key(|limit| limit.headroom()) {
        found.push(
            Finding::new(
                "memory-limit",
                Severity::Note,
                format!("this process may use {} of memory, {} of it now", limit.limit, limit.headroom()),
                limit.source.clone(),
            )
            .fix("raise the limit of the container or the service where a model needs more"),
        );
    }
}

fn surroundings(machine: &Machine, found: &mut Vec<Finding>) {
    for place in &machine.facts.platform.inside {
        let finding = match place.as_str() {
            "wsl1" => Finding::new("wsl1", Severity::Problem, "this is WSL 1, which has no GPUs and slow files", "kernel release")
                .fix("wsl --set-version <distribution> 2"),
            "wsl2" => Finding::new(
                "wsl2",
                Severity::Note,
                "this is WSL 2: it sees half of the memory of Windows unless told otherwise, and files under /mnt are slow",
                "kernel release",
            )
            .fix("set memory= in %UserProfile%\\.wslconfig and keep models inside the Linux file system"),
            _ => continue,
        };
        found.push(finding);
    }
}
