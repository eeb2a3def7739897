//! NUMA nodes from `/sys/devices/system/node`.

use super::{cpulist, memory};
use crate::host::Host;
use spec::machine::NumaNode;
use spec::{Bytes, Known};
use std::collections::BTreeSet;

const NODE: &str = "/sys/devices/system/node";

/// Nodes, and memory of GPUs that the kernel shows as nodes.
#[derive(Debug, Default)]
pub(crate) struct Numa {
    pub(crate) nodes: Vec<NumaNode>,
    /// Memory of GPUs that `/proc/meminfo` counts as the host's (Grace Hopper, POWER9 with V100).
    pub(crate) gpu_memory: Option<Bytes>,
}

/// The nodes behind a host; empty where the kernel has no NUMA.
pub(crate) fn read(host: &dyn Host) -> Numa {
    let online = host.read(&format!("{NODE}/online")).ok().and_then(|text| cpulist::parse(&text)).filter(|nodes| !nodes.is_empty());
    let ids = online.unwrap_or_else(|| {
        let names = host.list(NODE).unwrap_or_default();
        names.iter().filter_map(|name| name.strip_prefix("node")?.parse().ok()).collect()
    });
    let of_gpus = gpu_nodes(host);
    let mut numa = Numa::default();
    for id in ids {
        let node = node(host, id);
        if of_gpus.contains(&id) && node.cpus.is_empty() {
            let memory = node.memory.get().unwrap_or(Bytes::ZERO);
            numa.gpu_memory = Some(numa.gpu_memory.unwrap_or(Bytes::ZERO) + memory);
            numa.nodes.push(NumaNode { of_gpu: true, ..node });
        } else {
            numa.nodes.push(node);
        }
    }
    // A list that names another number of nodes than there are cannot be told apart.
    let nodes = numa.nodes.len();
    for node in numa.nodes.iter_mut().filter(|node| node.distances.len() != nodes) {
        node.distances.clear();
    }
    numa
}

fn node(host: &dyn Host, id: u32) -> NumaNode {
    let file = |name: &str| host.read(&format!("{NODE}/node{id}/{name}")).ok();
    let cpus = file("cpulist").and_then(|text| cpulist::parse(&text)).or_else(|| cpulist::parse_mask(&file("cpumap")?));
    let memory = file("meminfo").and_then(|text| memory::node_total(&text));
    NumaNode {
        id,
        cpus: cpus.unwrap_or_default(),
        memory: Known::from_option(memory, format!("{NODE}/node{id}/meminfo"), "the kernel does not name the memory of this node"),
        distances: file("distance").map(|text| distances(&text)).unwrap_or_default(),
        of_gpu: false,
    }
}

/// `10 21 31`; none where a word is no number.
fn distances(text: &str) -> Vec<u32> {
    text.split_ascii_whitespace().map(|word| word.parse().ok()).collect::<Option<Vec<u32>>>().unwrap_or_default()
}

/// Nodes that are the memory of NVIDIA GPUs, from the driver's `numa_status` (lines `Node: 255`).
fn gpu_nodes(host: &dyn Host) -> BTreeSet<u32> {
    const GPUS: &str = "/proc/driver/nvidia/gpus";
    let status = |gpu: &String| host.read(&format!("{GPUS}/{gpu}/numa_status")).ok();
    let node = |text: String| text.lines().find_map(|line| line.trim().strip_prefix("Node:")?.trim().parse().ok());
    host.list(GPUS).unwrap_or_default().iter().filter_map(status).filter_map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};

    #[test]
    fn memory_of_a_gpu_is_no_memory_of_the_host() {
        let mut host = Recording::new("");
        let mut file = |path: &str, text: &str| host.set(&Question::Read(path.into()), Ok(Answer::text(text)));
        file("/sys/devices/system/node/online", "0,1,255");
        file("/sys/devices/system/node/node0/cpulist", "0-7");
        file("/sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 1024 kB");
        file("/sys/devices/system/node/node0/distance", "10 20 80");
        file("/sys/devices/system/node/node1/distance", "20 10");
        file("/sys/devices/system/node/node1/cpulist", "");
        file("/sys/devices/system/node/node1/meminfo", "Node 1 MemTotal: 2048 kB");
        file("/sys/devices/system/node/node255/cpulist", "");
        file("/sys/devices/system/node/node255/meminfo", "Node 255 MemTotal: 4096 kB");
        file("/proc/driver/nvidia/gpus/0004:04:00.0/numa_status", "Node:          255\nStatus:        online");
        host.set(&Question::List("/proc/driver/nvidia/gpus".into()), Ok(Answer::Names(vec!["0004:04:00.0".into()])));
        let numa = read(&host);
        // Node 1 has no CPUs either, but is nobody's GPU: CXL or high-bandwidth memory, which programs may use.
        assert_eq!(numa.nodes.iter().map(|node| (node.id, node.of_gpu)).collect::<Vec<_>>(), [(0, false), (1, false), (255, true)]);
        assert_eq!((&numa.nodes[0].distances[..], &numa.nodes[1].distances[..]), (&[10, 20, 80][..], &[][..]));
        assert_eq!(numa.gpu_memory, Some(Bytes::from_kib(4096)));
    }
}
