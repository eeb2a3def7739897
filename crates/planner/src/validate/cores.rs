//! Threads and masks against the CPUs of the machine, and against those that this process may use.

use super::table::{
    CPU_MASK_FORBIDDEN, CPU_MASK_IGNORED, CPU_STRICT_WITHOUT_MASK, CPUS_OF_SLOW_CORES_ONLY, SLOW_CORES_IN_MASK, THREADS_ABOVE_CORES,
    THREADS_ABOVE_CPUS, THREADS_ON_SLOW_CORES,
};
use super::{Context, Violation};
use crate::plan::site::{cores, fast_cores};
use spec::Settings;
use spec::settings::CpuMask;
use std::collections::BTreeSet;

/// CPUs that a thread on Windows can be held to: those of one group (`SetThreadAffinityMask`, `ggml/src/ggml-cpu/ggml-cpu.c:2546-2553`).
const OF_ONE_GROUP: u32 = 64;

/// Threads of one phase, and what they are held to.
struct Phase<'a> {
    threads: u32,
    mask: &'a CpuMask,
    strict: bool,
    /// Names of the settings of threads, mask and strictness.
    names: [&'static str; 3],
    /// Flags of the first two.
    flags: [&'static str; 2],
}

impl Phase<'_> {
    fn both(settings: &Settings) -> [Phase<'_>; 2] {
        [
            Phase {
                threads: settings.threads,
                mask: &settings.cpu_mask,
                strict: settings.cpu_strict,
                names: ["threads", "cpu_mask", "cpu_strict"],
                flags: ["-t", "--cpu-mask"],
            },
            Phase {
                threads: settings.threads_batch,
                mask: &settings.cpu_mask_batch,
                strict: settings.cpu_strict_batch,
                names: ["threads_batch", "cpu_mask_batch", "cpu_strict_batch"],
                flags: ["-tb", "--cpu-mask-batch"],
            },
        ]
    }
}

/// Threads and masks of both phases.
pub(super) fn cpus(context: &Context<'_>, settings: &Settings, found: &mut Vec<Violation>) {
    let phases = Phase::both(settings);
    phases.iter().for_each(|phase| mask(context, phase, found));
    let Some(cores) = cores(context.machine) else { return };
    phases.iter().for_each(|phase| threads(context, phase, cores, found));
    slow_cores(context, settings, cores, found);
}

/// The CPUs of a mask that may be used; `None` without a mask, where the engine drops it, or where it is not known what may be used.
fn within(context: &Context<'_>, mask: &CpuMask) -> Option<BTreeSet<u32>> {
    let allowed = context.machine.limits.allowed_cpus.value()?;
    let within: BTreeSet<u32> = allowed.intersection(mask.cpus()).copied().collect();
    (!within.is_empty() && takes_masks(context)).then_some(within)
}

/// False where the engine takes a mask and does nothing with it (`ggml/src/ggml-cpu/ggml-cpu.c:2597-2601`).
fn takes_masks(context: &Context<'_>) -> bool {
    context.machine.facts.platform.os != "macos"
}

/// A mask against what may be used, and against what the system takes.
fn mask(context: &Context<'_>, phase: &Phase<'_>, found: &mut Vec<Violation>) {
    let (mask, [_, name, strict]) = (phase.mask, phase.names);
    if mask.is_empty() {
        if phase.strict {
            let message = "no CPUs are named that threads could have one each of".to_owned();
            found.push(CPU_STRICT_WITHOUT_MASK.broken(strict, message, format!("name them with {}", phase.flags[1])));
        }
        return;
    }
    if !takes_masks(context) {
        let message = format!("threads held to CPUs {}: the system takes no such wishes", mask.ranges());
        found.push(CPU_MASK_IGNORED.broken(name, message, format!("leave out {}", phase.flags[1])));
        return;
    }
    let beyond = mask.cpus().range(OF_ONE_GROUP..).next();
    if let (Some(cpu), "windows") = (beyond, context.machine.facts.platform.os.as_str()) {
        let message = format!("CPU {cpu} and those above it are left out: the engine sets {OF_ONE_GROUP} bits there");
        found.push(CPU_MASK_IGNORED.broken(name, message, format!("name CPUs below {OF_ONE_GROUP}")));
    }
    let Some(allowed) = context.machine.limits.allowed_cpus.value() else { return };
    let forbidden: CpuMask = mask.cpus().difference(allowed).copied().collect();
    if !forbidden.is_empty() {
        let which = if forbidden == *mask { "none of them may be used" } else { "not all of them may be used" };
        let message = format!("threads held to CPUs {}: {which} (not {})", mask.ranges(), forbidden.ranges());
        let allowed: CpuMask = allowed.iter().copied().collect();
        found.push(CPU_MASK_FORBIDDEN.broken(name, message, format!("choose of {}", allowed.ranges())));
    }
}

/// Threads of a phase against the CPUs that it has.
fn threads(context: &Context<'_>, phase: &Phase<'_>, cores: u32, found: &mut Vec<Violation>) {
    let all = context.machine.effective_cpus();
    let (threads, [name, ..], [flag, mask_flag]) = (phase.threads, phase.names, phase.flags);
    let held = within(context, phase.mask).and_then(|within| u32::try_from(within.len()).ok());
    if let Some(cpus) = held.filter(|&cpus| cpus < threads && cpus < all) {
        let message = format!("{threads} threads on the {cpus} CPUs of {mask_flag}: they wait for each other");
        found.push(THREADS_ABOVE_CPUS.broken(name, message, format!("take {flag} {cpus}, or a larger mask")));
    } else if threads > all {
        let message = format!("{threads} threads on {all} CPUs that may be used: they wait for each other");
        found.push(THREADS_ABOVE_CPUS.broken(name, message, format!("take {flag} {cores}")));
    } else if threads > cores && name == "threads" {
        let message = format!("{threads} threads on {cores} physical cores: two on a core share its memory ports");
        found.push(THREADS_ABOVE_CORES.broken(name, message, format!("take {flag} {cores}")));
    }
}

/// Threads of decode against the faster of several kinds of core, as far as this process may use them and a mask names them.
fn slow_cores(context: &Context<'_>, settings: &Settings, cores: u32, found: &mut Vec<Violation>) {
    let [fastest, _, ..] = context.machine.facts.cpu.core_kinds.as_slice() else { return };
    let held = within(context, &settings.cpu_mask);
    // Of two threads of one core nothing is known: as many cores as the mask could have.
    let of_mask =
        |mask: &BTreeSet<u32>| u32::try_from(fastest.cpus.intersection(mask).count()).map(|cpus| cpus.min(fastest.physical_cores));
    let fast = match &held {
        Some(mask) => of_mask(mask).ok(),
        None => fast_cores(context.machine),
    };
    let Some(fast) = fast else { return };
    let slow: CpuMask = held.iter().flatten().filter(|cpu| !fastest.cpus.contains(cpu)).copied().collect();
    if fast == 0 {
        let message = format!("none of the {} cores may be used: {} threads compute on slower ones", fastest.name, settings.threads);
        found.push(CPUS_OF_SLOW_CORES_ONLY.broken("threads", message, CPUS_OF_SLOW_CORES_ONLY.fix));
    } else if settings.threads > fast && settings.threads <= cores && (held.is_none() || !slow.is_empty()) {
        let message = format!("{} threads on {fast} {} cores: the slower ones hold them up", settings.threads, fastest.name);
        found.push(THREADS_ON_SLOW_CORES.broken("threads", message, format!("take -t {fast}")));
    } else if !slow.is_empty() {
        let message = format!("CPUs {} are of slower cores than the rest of the mask: threads there hold the others up", slow.ranges());
        let rest: CpuMask = held.iter().flatten().filter(|cpu| fastest.cpus.contains(cpu)).copied().collect();
        found.push(SLOW_CORES_IN_MASK.broken("cpu_mask", message, format!("take --cpu-mask {rest}")));
    }
}
