//! AMD's compute driver (KFD) on its devices: instruction set, compute units, memory banks, links between GPUs.
//!
//! Linux drivers/gpu/drm/amd/amdkfd/kfd_topology.c (the files and their units), kfd_crat.h (kinds of link and heap). These
//! files hold what the driver found when it started; reading them wakes no device.

use crate::host::Host;
use std::collections::BTreeMap;

const NODES: &str = "/sys/class/kfd/kfd/topology/nodes";
const MAX_NODES: usize = 256;
const MAX_BANKS: u64 = 8;
const MAX_LINKS: u64 = 64;

/// `CRAT_IOLINK_TYPE_XGMI`.
const XGMI: u64 = 11;

/// A GPU as the compute driver sees it; a part of one where it is partitioned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) id: u32,
    /// PCI address.
    pub(crate) address: String,
    /// `gfx1100`.
    pub(crate) target: Option<String>,
    pub(crate) compute_units: Option<u32>,
    pub(crate) max_clock_mhz: Option<u64>,
    /// Bytes of its memory.
    pub(crate) memory: Option<u64>,
    /// Bits of its memory's bus, and the highest clock of the memory in MHz.
    pub(crate) bus: Option<(u64, u64)>,
    pub(crate) xgmi: Vec<Xgmi>,
}

/// A direct link to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Xgmi {
    pub(crate) to: u32,
    /// MB/s of one link, and of all links to that node; 0 where the driver does not say.
    pub(crate) one: u64,
    pub(crate) all: u64,
}

/// The GPUs among the nodes, in the driver's order, which is ROCm's.
pub(crate) fn read(host: &dyn Host) -> Vec<Node> {
    let mut ids: Vec<u32> = host.list(NODES).unwrap_or_default().iter().filter_map(|name| name.parse().ok()).take(MAX_NODES).collect();
    ids.sort_unstable();
    ids.into_iter().filter_map(|id| node(host, id)).collect()
}

fn node(host: &dyn Host, id: u32) -> Option<Node> {
    let folder = format!("{NODES}/{id}");
    let own = properties(&host.read(&format!("{folder}/properties")).ok()?);
    let get = |name: &str| own.get(name).copied().filter(|value| *value > 0);
    // Processors are nodes too.
    let simds = get("simd_count")?;
    let banks = (0..get("mem_banks_count").unwrap_or(0).min(MAX_BANKS))
        .filter_map(|bank| host.read(&format!("{folder}/mem_banks/{bank}/properties")).ok())
        .map(|text| properties(&text))
        // 1 and 2: memory of the GPU that the host can and cannot reach.
        .filter(|bank| matches!(bank.get("heap_type"), Some(1 | 2)))
        .collect::<Vec<_>>();
    let of_bank = |name: &str| banks.iter().filter_map(|bank| bank.get(name).copied()).find(|value| *value > 0);
    let links = (0..get("io_links_count").unwrap_or(0).min(MAX_LINKS))
        .filter_map(|link| host.read(&format!("{folder}/io_links/{link}/properties")).ok())
        .map(|text| properties(&text))
        .filter(|link| link.get("type") == Some(&XGMI));
    let memory: u64 = banks.iter().filter_map(|bank| bank.get("size_in_bytes")).fold(0, |sum, size| sum.saturating_add(*size));
    Some(Node {
        id,
        address: address(get("domain").unwrap_or(0), get("location_id")?),
        target: get("gfx_target_version").and_then(target),
        compute_units: get("simd_per_cu").and_then(|per| u32::try_from(simds / per).ok()).filter(|units| *units > 0),
        max_clock_mhz: get("max_engine_clk_fcompute"),
        memory: Some(memory).filter(|memory| *memory > 0),
        bus: of_bank("width").zip(of_bank("mem_clk_max")),
        xgmi: links.filter_map(|link| xgmi(&link)).collect(),
    })
}

fn xgmi(link: &BTreeMap<String, u64>) -> Option<Xgmi> {
    let get = |name: &str| link.get(name).copied().unwrap_or(0);
    Some(Xgmi { to: u32::try_from(*link.get("node_to")?).ok()?, one: get("min_bandwidth"), all: get("max_bandwidth") })
}

fn properties(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| line.split_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)));
    text.lines().filter_map(pair).collect()
}

/// The PCI address: the location holds bus, device and function, and in its highest bits the number of a partition.
fn address(domain: u64, location: u64) -> String {
    format!("{domain:04x}:{:02x}:{:02x}.{:x}", location >> 8 & 0xff, location >> 3 & 0x1f, location & 7)
}

/// The instruction set's name: 110000 is gfx1100, 90010 is gfx90a.
fn target(version: u64) -> Option<String> {
    let (major, minor, step) = (version / 10_000, version / 100 % 100, version % 100);
    (major < 100 && minor < 16 && step < 16).then(|| format!("gfx{major}{minor:x}{step:x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_instruction_sets() {
        let name = |version| target(version);
        assert_eq!(name(110_000).as_deref(), Some("gfx1100"));
        assert_eq!(name(90_010).as_deref(), Some("gfx90a"));
        assert_eq!(name(90_402).as_deref(), Some("gfx942"));
        assert_eq!(name(110_501).as_deref(), Some("gfx1151"));
        assert_eq!(name(80_003).as_deref(), Some("gfx803"));
        assert_eq!(name(120_001).as_deref(), Some("gfx1201"));
        assert_eq!(name(u64::MAX), None);
    }

    #[test]
    fn addresses_of_wholes_and_parts() {
        assert_eq!(address(0, 25_600), "0000:64:00.0");
        assert_eq!(address(1, 0x3000_0500), "0001:05:00.0");
    }
}
