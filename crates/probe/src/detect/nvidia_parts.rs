//! Parts of split NVIDIA GPUs (MIG): each is a GPU of its own.
//!
//! NVML API reference 12, "Multi Instance GPU Management"; NVIDIA MIG User Guide. The library numbers places for parts, most of
//! them empty, so every place is asked. In a container that was given one part, only that part answers, and the whole refuses
//! to tell its memory.

use super::gpus::Found;
use super::nvidia::{Handle, amount};
use super::nvidia_rate;
use crate::host::{Host, NvmlField, Refusal};
use spec::Known;
use spec::machine::{Gpu, GpuCondition, Slice};

/// More places than any device has.
const MAX_SLOTS: u64 = 64;

/// `nvmlDeviceAttributes_t` in our words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) multiprocessors: u32,
    pub(super) slices: u32,
    pub(super) compute_slices: u32,
    pub(super) memory_mib: u64,
}

/// What a device or a part is made of; `None` where the library does not tell.
pub(super) fn attributes(host: &dyn Host, handle: Handle) -> Option<Attributes> {
    parse(&handle.ask(host, NvmlField::Attributes).ok()?)
}

fn parse(text: &str) -> Option<Attributes> {
    let numbers: Vec<u64> = text.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let [multiprocessors, slices, compute_slices, memory_mib] = numbers[..] else { return None };
    let small = |number| u32::try_from(number).ok();
    Some(Attributes {
        multiprocessors: small(multiprocessors)?,
        slices: small(slices)?,
        compute_slices: small(compute_slices)?,
        memory_mib,
    })
}

/// The parts of a device, in the order of their places.
pub(super) fn read(host: &dyn Host, index: u32, whole: &Found) -> Vec<Found> {
    let slots = Handle::Device(index).number(host, NvmlField::MigSlots).unwrap_or(0).min(MAX_SLOTS);
    (0..slots).filter_map(|slot| part(host, Handle::Part(index, u32::try_from(slot).ok()?), whole)).collect()
}

fn part(host: &dyn Host, handle: Handle, whole: &Found) -> Option<Found> {
    let uuid = match handle.ask(host, NvmlField::Uuid) {
        // An empty place.
        Err(Refusal::NotFound | Refusal::NotRecorded) => return None,
        uuid => uuid,
    };
    let name = handle.ask(host, NvmlField::Name);
    let attributes = attributes(host, handle);
    let parent = whole.gpu.pci_address.value().cloned().unwrap_or_default();
    let parts_of_all = attributes.zip(whole.gpu.multiprocessors.get()).filter(|(own, all)| own.multiprocessors > 0 && *all > 0);
    let gpu = Gpu {
        name: match (&name, whole.gpu.name.value()) {
            (Ok(name), _) => Known::exact(name.trim().to_owned(), "NVML"),
            (Err(_), Some(whole)) => Known::exact(format!("{whole} MIG"), "NVML"),
            (Err(refusal), None) => Known::unknown(format!("NVML: {refusal}")),
        },
        uuid: uuid.map_or_else(|refusal| Known::unknown(format!("NVML: {refusal}")), |uuid| Known::exact(uuid.trim().to_owned(), "NVML")),
        multiprocessors: Known::from_option(attributes.map(|found| found.multiprocessors), "NVML attributes", "NVML does not say"),
        memory_total: amount(handle.ask(host, NvmlField::MemoryTotal), "NVML memory.total of the part"),
        // The bus is divided among the slices of memory, and the driver names the whole's only.
        memory_bandwidth: Known::unknown("a part's share of the whole's rate is not told"),
        compute: match (attributes, whole.gpu.compute_capability.get(), whole.gpu.max_frequency_hz.get()) {
            (Some(own), Some(capability), Some(hz)) => {
                let cores = nvidia_rate::cores_each(capability).map(|each| each.saturating_mul(own.multiprocessors.into()));
                nvidia_rate::half_precision(name.as_deref().unwrap_or(""), Some(capability), cores, Some(hz / 1_000_000))
            }
            _ => Known::unknown("NVML does not say of what the part is made"),
        },
        power_limit_watts: Known::unknown("the whole's, which its parts share"),
        host_visible: Known::unknown("NVML does not say"),
        slice: Some(Slice { profile: profile(name.as_deref().ok(), attributes), parent }),
        peers: Vec::new(),
        ..whole.gpu.clone()
    };
    let mut gpu = gpu;
    if let Some((own, all)) = parts_of_all {
        gpu.memory_bandwidth = share(host, handle, own, all, whole);
    }
    let free = amount(handle.ask(host, NvmlField::MemoryFree), "NVML memory.free of the part");
    let condition = GpuCondition { utilisation: Known::unknown("not told of parts"), ..whole.condition.clone() };
    Some(Found { gpu, free, condition, links: Vec::new() })
}

/// The rate of a part's memory: it has its own controllers, and so the share of the rate that it has of the memory.
fn share(host: &dyn Host, handle: Handle, own: Attributes, all: u32, whole: &Found) -> Known<spec::BytesPerSec> {
    let memory =
        handle.number(host, NvmlField::MemoryTotal).zip(whole.gpu.memory_total.get()).map(|(part, whole)| part as f64 / whole.as_f64());
    let share = memory.unwrap_or(f64::from(own.multiprocessors) / f64::from(all)).clamp(0.0, 1.0);
    let rate = &whole.gpu.memory_bandwidth;
    let scaled = |rate: Option<&spec::BytesPerSec>, factor: f64| rate.and_then(|rate| spec::BytesPerSec::new(rate.get() * factor));
    match (scaled(rate.value(), share), scaled(rate.low(), share * 0.9), scaled(rate.high(), (share * 1.1).min(1.0))) {
        (Some(value), Some(low), Some(high)) => Known::estimated(value, low, high, "the whole's rate x the part's share of its memory"),
        _ => Known::unknown("the whole's rate is not known"),
    }
}

/// `3g.40gb`, from the name that ends in it, else from what the part is made of.
fn profile(name: Option<&str>, attributes: Option<Attributes>) -> String {
    if let Some((_, profile)) = name.and_then(|name| name.rsplit_once("MIG ")) {
        return profile.trim().to_owned();
    }
    let Some(own) = attributes.filter(|own| own.slices > 0) else { return String::new() };
    // The maker rounds up: 4864 MiB are 5 GB, 40192 MiB 40.
    let gigabytes = own.memory_mib.div_ceil(1024);
    if own.compute_slices == own.slices {
        format!("{}g.{gigabytes}gb", own.slices)
    } else {
        format!("{}c.{}g.{gigabytes}gb", own.compute_slices, own.slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sizes() {
        let own = |text: &str| parse(text);
        assert_eq!(profile(Some("NVIDIA A100-SXM4-80GB MIG 1g.10gb"), None), "1g.10gb");
        assert_eq!(profile(None, own("42 3 3 40192")), "3g.40gb");
        assert_eq!(profile(None, own("14 3 1 19968")), "1c.3g.20gb");
        assert_eq!(profile(None, own("14 1")), "");
    }
}
