//! Strategies for NUMA nodes against the nodes of the machine.

use super::table::{
    NUMA_BEYOND_AFFINITY, NUMA_ISOLATED_MEMORY, NUMA_ISOLATED_THREADS, NUMA_NODES_LEFT_OUT, NUMA_OF_ONE_NODE, NUMA_ON_ONE_NODE,
    NUMA_OVER_MASK,
};
use super::{Context, Violation};
use footprint::Requirement;
use spec::machine::NumaNode;
use spec::settings::{LoadMode, Numa};
use spec::{Known, Machine, Settings};

/// Most nodes that the engine knows (`GGML_NUMA_MAX_NODES`, `ggml/src/ggml-cpu/ggml-cpu.c:545`).
const MOST_NODES: usize = 8;

/// A strategy against nodes, affinity and masks.
pub(super) fn nodes(context: &Context<'_>, settings: &Settings, found: &mut Vec<Violation>) {
    let (machine, strategy) = (context.machine, settings.numa);
    let nodes = &machine.facts.numa;
    if strategy == Numa::None || nodes.is_empty() {
        return;
    }
    if nodes.len() < 2 || machine.facts.platform.os != "linux" {
        let message = match machine.facts.platform.os.as_str() {
            "linux" => format!("{strategy}, and there is one node"),
            os => format!("{strategy}, which the engine does not do on {os}"),
        };
        found.push(NUMA_OF_ONE_NODE.broken("numa", message, NUMA_OF_ONE_NODE.fix));
        return;
    }
    for (name, mask) in [("cpu_mask", &settings.cpu_mask), ("cpu_mask_batch", &settings.cpu_mask_batch)] {
        if !mask.is_empty() {
            let message = format!("threads held to CPUs {}: --numa {strategy} gives them others", mask.ranges());
            found.push(NUMA_OVER_MASK.broken(name, message, "leave out the mask, or --numa"));
        }
    }
    if strategy == Numa::Distribute {
        let empty = nodes.iter().take(MOST_NODES).filter(|node| node.cpus.is_empty()).count();
        if empty > 0 {
            let message = format!("{empty} of {} nodes have no CPUs: threads that are due to run there run anywhere", nodes.len());
            found.push(NUMA_NODES_LEFT_OUT.broken("numa", message, NUMA_NODES_LEFT_OUT.fix));
        } else if nodes.len() > MOST_NODES {
            let message = format!("{} nodes, and the engine knows {MOST_NODES}: the others get no threads", nodes.len());
            found.push(NUMA_NODES_LEFT_OUT.broken("numa", message, NUMA_NODES_LEFT_OUT.fix));
        }
    }
    if strategy != Numa::Numactl {
        beyond_affinity(machine, strategy, found);
    }
    if strategy == Numa::Isolate {
        isolated_threads(machine, settings, found);
    }
}

fn beyond_affinity(machine: &Machine, strategy: Numa, found: &mut Vec<Violation>) {
    let Some(allowed) = machine.limits.allowed_cpus.value() else { return };
    let beyond: usize = machine.facts.numa.iter().map(|node| node.cpus.difference(allowed).count()).sum();
    if beyond > 0 {
        let message = format!("{strategy} gives threads whole nodes, {beyond} CPUs of which this process may not use");
        found.push(NUMA_BEYOND_AFFINITY.broken("numa", message, NUMA_BEYOND_AFFINITY.fix));
    }
}

/// Nodes that threads can run on.
fn with_cpus(machine: &Machine) -> impl Iterator<Item = &NumaNode> {
    machine.facts.numa.iter().filter(|node| !node.cpus.is_empty())
}

/// On which node the engine will start nobody knows: the one with the fewest CPUs counts.
fn isolated_threads(machine: &Machine, settings: &Settings, found: &mut Vec<Violation>) {
    let (Some(cores), Some(cpus)) = (machine.facts.cpu.physical_cores.get(), machine.facts.cpu.logical_cpus.get()) else { return };
    let per_core = (cpus / cores.max(1)).max(1);
    let Some(fewest) = with_cpus(machine).filter_map(|node| u32::try_from(node.cpus.len()).ok()).min() else { return };
    let cores = fewest.div_ceil(per_core);
    for (name, flag, threads) in [("threads", "-t", settings.threads), ("threads_batch", "-tb", settings.threads_batch)] {
        if threads > cores {
            let message = format!("{threads} threads on a node of {cores} cores: they wait for each other");
            found.push(NUMA_ISOLATED_THREADS.broken(name, message, format!("take {flag} {cores}")));
        }
    }
}

/// A strategy against what the host holds.
pub(super) fn memory(context: &Context<'_>, settings: &Settings, requirement: &Requirement, found: &mut Vec<Violation>) {
    let (machine, strategy) = (context.machine, settings.numa);
    if with_cpus(machine).count() < 2 || machine.facts.platform.os != "linux" {
        return;
    }
    let smallest = with_cpus(machine).filter_map(|node| node.memory.get()).min();
    if let (Numa::Isolate, Some(node), Some(&needed)) = (strategy, smallest, requirement.resident().high())
        && needed > node
    {
        let message = format!("{needed} on the host, and {node} of memory on a node: the rest is read from the others");
        found.push(NUMA_ISOLATED_MEMORY.broken("numa", message, NUMA_ISOLATED_MEMORY.fix));
    }
    if strategy == Numa::Distribute {
        on_one_node(settings, requirement, found);
    }
}

/// Weights that the thread which loads them touches first: read instead of mapped, locked, or copied in another order.
fn on_one_node(settings: &Settings, requirement: &Requirement, found: &mut Vec<Violation>) {
    let host = &requirement.host;
    let some = |bytes: &Known<spec::Bytes>| bytes.get().is_some_and(|bytes| !bytes.is_zero());
    let read = !matches!(settings.load_mode, LoadMode::Auto | LoadMode::Mmap);
    if read && (some(&host.weights_anonymous) || some(&host.weights_mapped)) {
        let message = format!("load mode {}: one thread reads all weights, and they lie on its node", settings.load_mode);
        found.push(NUMA_ON_ONE_NODE.broken("load_mode", message, "take -lm mmap"));
    }
    if let Some(copies) = host.weights_repacked.get().filter(|copies| !copies.is_zero()) {
        let message = format!("{copies} of rearranged copies: one thread writes them, and they lie on its node");
        found.push(NUMA_ON_ONE_NODE.broken("repack", message, "take --no-repack"));
    }
}
