//! NVIDIA GPUs, from the answers of the management library.

use super::{nvidia_rate, pci, visible};
use crate::host::{Host, NvmlField, NvmlQuestion, Question, Refusal};
use spec::machine::{Gpu, GpuKind, GpuVendor, PcieLink};
use spec::{Bytes, BytesPerSec, Known};

/// More devices than any machine holds; a larger count is a broken answer.
const MAX_DEVICES: u32 = 64;

/// What the system's memory is to a GPU that has none of its own.
pub(crate) struct HostMemory<'a> {
    pub(crate) total: &'a Known<Bytes>,
    pub(crate) available: &'a Known<Bytes>,
}

/// The GPUs of a machine with what is free on each.
#[derive(Debug, Default)]
pub(crate) struct Gpus {
    pub(crate) gpus: Vec<Gpu>,
    pub(crate) free: Vec<Known<Bytes>>,
    pub(crate) visible: Vec<usize>,
    pub(crate) warnings: Vec<String>,
}

/// The NVIDIA GPUs behind a host, in the library's order, which is that of their PCI addresses.
pub(crate) fn read(host: &dyn Host, memory: &HostMemory<'_>) -> Gpus {
    let mut found = Gpus::default();
    match host.text(&Question::Nvml(NvmlQuestion::Count)) {
        Ok(count) => {
            let count = count.trim().parse::<u32>().unwrap_or(0).min(MAX_DEVICES);
            for index in 0..count {
                device(host, index, memory, &mut found);
            }
        }
        Err(Refusal::TimedOut) => {
            found.warnings.push(
                "the NVIDIA driver did not answer in time; where nothing holds it in memory it starts anew for each program, which takes seconds: run nvidia-persistenced"
                    .into(),
            );
            known_to_the_kernel(host, &mut found);
        }
        Err(Refusal::NotFound | Refusal::NotRecorded) => {}
        Err(refusal) => found.warnings.push(format!("NVIDIA's management library does not work: {refusal}")),
    }
    choose_visible(host, &mut found);
    found
}

fn device(host: &dyn Host, index: u32, memory: &HostMemory<'_>, found: &mut Gpus) {
    let ask = |field| host.text(&Question::Nvml(NvmlQuestion::Device(index, field)));
    let number = |field| ask(field).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let name = ask(NvmlField::Name);
    let capability = ask(NvmlField::ComputeCapability).ok().and_then(|text| parse_capability(&text));
    let (total, unified) = total_memory(ask(NvmlField::MemoryTotal), memory);
    let free = if unified { memory.available.clone() } else { bytes(ask(NvmlField::MemoryFree), "NVML memory.free") };
    let compute = match (capability, number(NvmlField::CudaCores), number(NvmlField::SmClockMhz)) {
        (Some(capability), Some(cores), Some(mhz)) => nvidia_rate::half_precision(name.as_deref().unwrap_or(""), capability, cores, mhz),
        _ => Known::unknown("NVML names no cores or no clock for this device"),
    };
    let link = (number(NvmlField::PcieGeneration), number(NvmlField::PcieLanes));
    found.gpus.push(Gpu {
        name: name.clone().map_or_else(|refusal| Known::unknown(format!("NVML: {refusal}")), |name| Known::exact(name, "NVML")),
        memory_total: total,
        memory_bandwidth: bandwidth(number(NvmlField::MemoryBusBits), number(NvmlField::MemoryClockMhz)),
        compute,
        compute_capability: Known::from_option(capability, "NVML", "NVML names no compute capability"),
        pcie: match link {
            (Some(generation @ 1..=7), Some(lanes @ 1..=32)) => {
                Known::exact(PcieLink { generation: generation as u32, lanes: lanes as u32 }, "NVML max link")
            }
            _ => Known::unknown("NVML names no PCI Express link"),
        },
        unified_memory: unified,
        pci_address: ask(NvmlField::PciAddress)
            .map_or_else(|refusal| Known::unknown(format!("NVML: {refusal}")), |address| Known::exact(address, "NVML")),
        ..Gpu::unknown(GpuVendor::Nvidia, if unified { GpuKind::Integrated } else { GpuKind::Discrete }, "not asked")
    });
    found.free.push(free);
    if number(NvmlField::Mig) == Some(1) {
        found.warnings.push(format!(
            "GPU {index} ({}) is split into MIG slices, which are not read yet; it is left out: switch MIG off, or describe the slice with --machine gpu=SIZE",
            name.as_deref().unwrap_or("unknown")
        ));
    }
}

/// Memory of the device and whether it is the host's. GB10 and Jetson have none of their own and answer "not supported"; a
/// slice of a split GPU that may not look answers "no permission", which is another thing.
fn total_memory(answer: Result<String, Refusal>, memory: &HostMemory<'_>) -> (Known<Bytes>, bool) {
    match answer {
        Err(Refusal::NotSupported) => (memory.total.clone(), true),
        answer => (bytes(answer, "NVML memory.total"), false),
    }
}

fn bytes(answer: Result<String, Refusal>, source: &'static str) -> Known<Bytes> {
    match answer.map(|text| text.trim().parse().map(Bytes::new)) {
        Ok(Ok(bytes)) => Known::exact(bytes, source),
        Ok(Err(_)) => Known::unknown(format!("{source} is no number")),
        Err(refusal) => Known::unknown(format!("{source}: {refusal}")),
    }
}

fn parse_capability(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?)).filter(|&(major, _)| major > 0)
}

/// Two transfers per clock on every line of the bus. Against the makers' figures for 14 captured cards: 0.1 to 2.4 % off, one
/// overclocked card apart.
fn bandwidth(bus_bits: Option<u64>, clock_mhz: Option<u64>) -> Known<BytesPerSec> {
    const OFF: f64 = 0.03;
    let rate = match (bus_bits, clock_mhz) {
        (Some(bits), Some(mhz)) => 2.0 * mhz as f64 * 1e6 * bits as f64 / 8.0,
        _ => 0.0,
    };
    match (BytesPerSec::new(rate), BytesPerSec::new(rate * (1.0 - OFF)), BytesPerSec::new(rate * (1.0 + OFF))) {
        (Some(rate), Some(low), Some(high)) => Known::estimated(rate, low, high, "NVML: 2 x max memory clock x bus width"),
        _ => Known::unknown("NVML names no memory clock or bus width"),
    }
}

/// GPUs that the kernel's driver names while the library is silent.
fn known_to_the_kernel(host: &dyn Host, found: &mut Gpus) {
    const GPUS: &str = "/proc/driver/nvidia/gpus";
    for address in host.list(GPUS).unwrap_or_default() {
        let text = host.read(&format!("{GPUS}/{address}/information")).unwrap_or_default();
        let model = text.lines().find_map(|line| line.strip_prefix("Model:")).map(|model| model.trim().to_owned());
        let late = "the driver did not answer in time";
        found.gpus.push(Gpu {
            name: Known::from_option(model, "/proc/driver/nvidia", late),
            pci_address: Known::exact(address, "/proc/driver/nvidia"),
            ..Gpu::unknown(GpuVendor::Nvidia, GpuKind::Discrete, late)
        });
        found.free.push(Known::unknown(late));
    }
}

fn choose_visible(host: &dyn Host, found: &mut Gpus) {
    let ask = |index: usize, field| host.text(&Question::Nvml(NvmlQuestion::Device(u32::try_from(index).unwrap_or(u32::MAX), field))).ok();
    // UUIDs before the variable: a recording replaces both, and must have seen the long form to know the short one.
    let uuids: Vec<Option<String>> = (0..found.gpus.len()).map(|index| ask(index, NvmlField::Uuid)).collect();
    let variable = host.env("CUDA_VISIBLE_DEVICES");
    let split = |index: usize| ask(index, NvmlField::Mig).is_some_and(|mode| mode.trim() == "1");
    found.visible = visible::visible(variable.as_deref(), &uuids);
    found.visible.retain(|&index| !split(index));
    let differ = found.gpus.windows(2).any(|pair| pair[0].name.value() != pair[1].name.value());
    if differ && visible::counts(variable.as_deref()) && host.env("CUDA_DEVICE_ORDER").as_deref() != Some("PCI_BUS_ID") {
        found.warnings.push(
            "the GPUs differ and CUDA counts the fastest first, so the numbers in CUDA_VISIBLE_DEVICES may mean other devices than here: set CUDA_DEVICE_ORDER=PCI_BUS_ID".into(),
        );
    }
}

/// What stands on the bus and cannot be used, for people.
pub(crate) fn unusable(host: &dyn Host, gpus: &[Gpu]) -> Vec<String> {
    let known = |address: &str| gpus.iter().any(|gpu| gpu.pci_address.value().is_some_and(|known| known.eq_ignore_ascii_case(address)));
    let text = |device: pci::PciDevice| {
        let place = format!("{} ({:04x}:{:04x})", device.address, device.vendor, device.device);
        match device.vendor {
            pci::NVIDIA => Some(format!(
                "an NVIDIA GPU at {place} does not answer through NVML: is the driver loaded, and its library libnvidia-ml.so.1 installed?"
            )),
            pci::AMD => Some(format!("an AMD GPU at {place} is left out: only NVIDIA GPUs are read yet")),
            // Address 00:02 is the place of integrated graphics, which most processors have and no engine is given.
            pci::INTEL if !device.address.ends_with(":00:02.0") => {
                Some(format!("an Intel GPU at {place} is left out: only NVIDIA GPUs are read yet"))
            }
            _ => None,
        }
    };
    pci::accelerators(host).into_iter().filter(|device| !known(&device.address)).filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Recording};

    fn ask(answers: &[(NvmlQuestion, Result<&str, Refusal>)]) -> Gpus {
        let mut host = Recording::new("");
        for (question, answer) in answers {
            host.set(&Question::Nvml(*question), answer.clone().map(Answer::text));
        }
        let (total, available) = (Known::exact(Bytes::from_gib(120), "total"), Known::exact(Bytes::from_gib(100), "available"));
        read(&host, &HostMemory { total: &total, available: &available })
    }

    #[test]
    fn a_gpu_without_memory_of_its_own_has_the_hosts() {
        let memory = |refusal: Refusal| [(NvmlQuestion::Count, Ok("1")), (NvmlQuestion::Device(0, NvmlField::MemoryTotal), Err(refusal))];
        let gb10 = ask(&memory(Refusal::NotSupported));
        assert!(gb10.gpus[0].unified_memory);
        assert_eq!((gb10.gpus[0].memory_total.get(), gb10.free[0].get()), (Some(Bytes::from_gib(120)), Some(Bytes::from_gib(100))));
        let slice = ask(&memory(Refusal::Denied));
        assert!(!slice.gpus[0].unified_memory && slice.gpus[0].memory_total.is_unknown() && slice.free[0].is_unknown());
    }

    #[test]
    fn a_split_gpu_is_not_used_whole() {
        let found = ask(&[(NvmlQuestion::Count, Ok("2")), (NvmlQuestion::Device(1, NvmlField::Mig), Ok("1"))]);
        assert_eq!(found.visible, [0]);
        assert!(found.warnings[0].contains("MIG"));
    }

    #[test]
    fn a_late_driver_is_late_and_not_absent() {
        let found = ask(&[(NvmlQuestion::Count, Err(Refusal::TimedOut))]);
        assert!(found.warnings[0].contains("in time"));
        assert!(ask(&[]).warnings.is_empty());
    }

    #[test]
    fn bandwidth_of_known_cards() {
        // RTX 4090: 384 bits at 10501 MHz, 1008 GB/s; H100 SXM: 5120 bits at 2619 MHz, 3350 GB/s.
        assert!((bandwidth(Some(384), Some(10501)).get().unwrap().get() / 1008e9 - 1.0).abs() < 0.001);
        assert!((bandwidth(Some(5120), Some(2619)).get().unwrap().get() / 3350e9 - 1.0).abs() < 0.001);
        assert!(bandwidth(Some(0), Some(1)).is_unknown() && bandwidth(None, Some(1)).is_unknown());
    }
}
