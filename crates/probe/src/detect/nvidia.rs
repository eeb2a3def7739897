//! NVIDIA GPUs, from the answers of the management library, and where it is silent from the kernel.
//!
//! Address, memory and identity of every device are asked before anything else: a driver that is slow to tell a sensor's value then
//! costs no plan. Devices that sleep are not asked: the library would wake them.

use super::gpus::{Found, HostMemory, Source, bytes};
use super::pci::{self, PciDevice};
use super::visible::{self, Place};
use super::{card, jetson, nvidia_links, nvidia_parts, nvidia_rate};
use crate::detect::Depth;
use crate::host::{Host, NvmlField, NvmlQuestion, Question, Refusal};
use spec::machine::{Gpu, GpuCondition, GpuKind, GpuVendor, PcieLink};
use spec::{Bytes, BytesPerSec, Known};

/// More devices than any machine holds; a larger count is a broken answer.
const MAX_DEVICES: u32 = 64;

const LATE: &str = "timed out: the driver did not answer";

/// A device or a part of one, as the library counts them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Handle {
    Device(u32),
    Part(u32, u32),
}

impl Handle {
    pub(super) fn ask(self, host: &dyn Host, field: NvmlField) -> Result<String, Refusal> {
        host.text(&Question::Nvml(match self {
            Self::Device(index) => NvmlQuestion::Device(index, field),
            Self::Part(index, slot) => NvmlQuestion::Slice(index, slot, field),
        }))
    }

    pub(super) fn number(self, host: &dyn Host, field: NvmlField) -> Option<u64> {
        self.ask(host, field).ok()?.trim().parse().ok()
    }
}

/// What is asked first of a device.
struct Device {
    index: u32,
    memory: (Result<String, Refusal>, Result<String, Refusal>),
    name: Result<String, Refusal>,
    uuid: Option<String>,
    address: Result<String, Refusal>,
    capability: Option<(u32, u32)>,
    split: bool,
}

/// The NVIDIA GPUs behind a host, in the library's order, which is that of their PCI addresses, parts after the whole.
pub(crate) fn read(host: &dyn Host, bus: &[&PciDevice], memory: &HostMemory<'_>, depth: Depth) -> Source {
    let bus: Vec<&PciDevice> = bus.iter().copied().filter(|device| device.vendor == pci::NVIDIA).collect();
    let asleep: Vec<bool> = bus.iter().map(|device| depth < Depth::Waking && device.asleep(host)).collect();
    let mut source = Source::default();
    let mut numbered = Vec::new();
    if depth > Depth::Static && (bus.is_empty() || asleep.contains(&false)) {
        match host.text(&Question::Nvml(NvmlQuestion::Count)) {
            Ok(count) => {
                let count = count.trim().parse::<u32>().unwrap_or(0).min(MAX_DEVICES);
                // The library counts in the order of the bus: where both know as many, a number names an address.
                let sleeps = |index: u32| match asleep.get(index as usize) {
                    Some(sleeps) if asleep.len() == count as usize => *sleeps,
                    _ => asleep.contains(&true),
                };
                numbered = (0..count).map(|index| (!sleeps(index)).then(|| first(host, index))).collect();
            }
            Err(refusal) => silence(host, &refusal, &bus, &mut source),
        }
    }
    let driver = if numbered.is_empty() { Known::unknown("NVML does not answer") } else { driver(host) };
    let mut devices = Vec::new();
    for (index, device) in numbered.iter().enumerate() {
        match device {
            Some(device) => devices.push(whole_and_parts(host, device, &bus, &driver, memory, &mut source)),
            None => {
                devices.push((visible::Device::default(), vec![source.found.len()]));
                let place = bus.get(index).copied();
                source.found.extend(place.map(|device| from_the_bus(host, device, card::ASLEEP, true)));
            }
        }
    }
    if numbered.is_empty() {
        source.found.extend(jetson::gpu(host, memory));
        devices.extend((0..source.found.len()).map(|index| (visible::Device::default(), vec![index])));
    }
    jetson::complete(host, &mut source.found);
    unnumbered(host, depth, &bus.iter().copied().zip(asleep).collect::<Vec<_>>(), &mut source, &mut devices);
    choose_visible(host, &devices, &mut source);
    source
}

/// Why the library does not answer; what the kernel's driver names where it is only late.
fn silence(host: &dyn Host, refusal: &Refusal, bus: &[&PciDevice], source: &mut Source) {
    match refusal {
        Refusal::TimedOut => {
            source.warnings.push(
                "the NVIDIA driver did not answer in time; where nothing holds it in memory it starts anew for each program, which takes seconds: run nvidia-persistenced"
                    .into(),
            );
            let known = known_to_the_kernel(host).into_iter().filter(|address| !bus.iter().any(|device| device.address == *address));
            source.found.extend(known.map(|address| without_a_bus(host, address)));
        }
        Refusal::NotFound | Refusal::NotRecorded => {}
        refusal => source.warnings.push(format!("NVIDIA's management library does not work: {refusal}")),
    }
}

fn first(host: &dyn Host, index: u32) -> Device {
    let handle = Handle::Device(index);
    let ask = |field| handle.ask(host, field);
    Device {
        index,
        // First of all: where the driver hangs or crashes over the rest, the card on the bus is still this one.
        address: ask(NvmlField::PciAddress),
        memory: (ask(NvmlField::MemoryTotal), ask(NvmlField::MemoryFree)),
        name: ask(NvmlField::Name),
        uuid: ask(NvmlField::Uuid).ok(),
        capability: ask(NvmlField::ComputeCapability).ok().and_then(|text| parse_capability(&text)),
        split: handle.number(host, NvmlField::Mig) == Some(1),
    }
}

fn driver(host: &dyn Host) -> Known<String> {
    let version = host.text(&Question::Nvml(NvmlQuestion::Driver));
    version.map_or_else(
        |refusal| Known::unknown(format!("NVML: {refusal}")),
        |version| Known::exact(format!("nvidia {}", version.trim()), "NVML"),
    )
}

/// A device and its parts, with their places among all that are found: the whole first.
type Counted = (visible::Device, Vec<usize>);

fn whole_and_parts(
    host: &dyn Host,
    device: &Device,
    bus: &[&PciDevice],
    driver: &Known<String>,
    memory: &HostMemory<'_>,
    source: &mut Source,
) -> Counted {
    let mut counted = visible::Device { uuid: device.uuid.clone(), split: device.split, parts: Vec::new() };
    let mut places = vec![source.found.len()];
    let whole = whole(host, device, bus, driver, memory);
    let parts = if device.split { nvidia_parts::read(host, device.index, &whole) } else { Vec::new() };
    let name = whole.gpu.name.value().cloned().unwrap_or_else(|| "unknown".into());
    source.found.push(whole);
    if device.split && parts.is_empty() {
        source.warnings.push(format!(
            "GPU {} ({name}) is split (MIG) and none of its parts is here: create one with nvidia-smi mig, or give one to this container",
            device.index
        ));
    }
    for part in parts {
        counted.parts.push(part.gpu.uuid.value().cloned());
        places.push(source.found.len());
        source.found.push(part);
    }
    (counted, places)
}

fn whole(host: &dyn Host, device: &Device, bus: &[&PciDevice], driver: &Known<String>, memory: &HostMemory<'_>) -> Found {
    let handle = Handle::Device(device.index);
    let number = |field| handle.number(host, field);
    let (total, unified) = total_memory(device.memory.0.clone(), memory);
    let free = if unified { memory.available.clone() } else { amount(device.memory.1.clone(), "NVML memory.free") };
    let place = bus.iter().copied().find(|on_bus| device.address.as_ref().is_ok_and(|own| own.eq_ignore_ascii_case(&on_bus.address)));
    let asked = |answer: &Result<String, Refusal>| match answer {
        Ok(text) => Known::exact(text.trim().to_owned(), "NVML"),
        Err(refusal) => Known::unknown(format!("NVML: {refusal}")),
    };
    let (cores, clock) = (number(NvmlField::CudaCores), number(NvmlField::SmClockMhz));
    let gpu = Gpu {
        name: asked(&device.name),
        uuid: Known::from_option(device.uuid.clone(), "NVML", "NVML names no UUID"),
        driver: driver.clone(),
        multiprocessors: multiprocessors(host, handle, device.capability, cores),
        max_frequency_hz: Known::from_option(clock.and_then(|mhz| mhz.checked_mul(1_000_000)), "NVML max SM clock", "NVML names no clock"),
        power_limit_watts: watts(number(NvmlField::PowerLimit), "NVML enforced power limit"),
        memory_total: total,
        shared_memory: if unified { memory.total.clone() } else { Known::unknown("NVML does not say") },
        host_visible: bytes(number(NvmlField::Bar1).filter(|bytes| *bytes > 0), "NVML BAR1", "NVML names no window to its memory"),
        memory_bandwidth: bandwidth(number(NvmlField::MemoryBusBits), number(NvmlField::MemoryClockMhz)),
        compute: nvidia_rate::half_precision(device.name.as_deref().unwrap_or(""), device.capability, cores, clock),
        compute_capability: Known::from_option(device.capability, "NVML", "NVML names no compute capability"),
        pcie: link(number(NvmlField::PcieGeneration), number(NvmlField::PcieLanes), "NVML max link"),
        pci_address: asked(&device.address),
        pci_id: match place {
            Some(on_bus) => Known::exact(on_bus.id(), "PCI"),
            None => asked(&handle.ask(host, NvmlField::PciId)),
        },
        numa_node: place.map_or_else(|| Known::unknown("not on the bus that the system shows"), |on_bus| card::numa_node(host, on_bus)),
        ..Gpu::unknown(GpuVendor::Nvidia, if unified { GpuKind::Integrated } else { GpuKind::Discrete }, "NVML does not say")
    };
    let links = nvidia_links::read(host, handle);
    Found { gpu, free, condition: condition(host, handle), links }
}

/// How a device is now.
fn condition(host: &dyn Host, handle: Handle) -> GpuCondition {
    let number = |field| handle.number(host, field);
    let percent = number(NvmlField::Utilisation).filter(|percent| *percent <= 100);
    GpuCondition {
        utilisation: Known::from_option(percent.map(|percent| percent as f64 / 100.0), "NVML utilisation", "NVML does not say"),
        temperature_c: Known::from_option(
            number(NvmlField::Temperature).map(|degrees| degrees as f64),
            "NVML temperature",
            "NVML does not say",
        ),
        power_watts: watts(number(NvmlField::PowerDraw), "NVML power usage"),
        link: link(number(NvmlField::PcieGenerationNow), number(NvmlField::PcieLanesNow), "NVML current link"),
        throttled: throttled(handle.ask(host, NvmlField::Throttle)),
        asleep: false,
    }
}

/// `nvmlClocksThrottleReasons`: the bits that stand for heat and for power; others (idle, a user's setting) slow nothing down.
fn throttled(answer: Result<String, Refusal>) -> Known<String> {
    const SW_POWER_CAP: u64 = 0x4;
    const HW_SLOWDOWN: u64 = 0x8;
    const SW_THERMAL: u64 = 0x20;
    const HW_THERMAL: u64 = 0x40;
    const HW_POWER_BRAKE: u64 = 0x80;
    let bits = match answer.map(|text| u64::from_str_radix(text.trim(), 16)) {
        Ok(Ok(bits)) => bits,
        Ok(Err(_)) => return Known::unknown("NVML throttle reasons are no number"),
        Err(refusal) => return Known::unknown(format!("NVML throttle reasons: {refusal}")),
    };
    let thermal = bits & (SW_THERMAL | HW_THERMAL) != 0;
    let power = bits & (SW_POWER_CAP | HW_POWER_BRAKE) != 0;
    let text = match (thermal, power, bits & HW_SLOWDOWN != 0) {
        (true, true, _) => "thermal, power",
        (true, false, _) => "thermal",
        (false, true, _) => "power",
        (false, false, true) => "thermal or power",
        (false, false, false) => "",
    };
    Known::exact(text.to_owned(), "NVML throttle reasons")
}

fn watts(milliwatts: Option<u64>, source: &'static str) -> Known<f64> {
    Known::from_option(milliwatts.map(|milli| milli as f64 / 1000.0), source, "NVML does not say")
}

fn link(generation: Option<u64>, lanes: Option<u64>, source: &'static str) -> Known<PcieLink> {
    match (generation, lanes) {
        (Some(generation @ 1..=7), Some(lanes @ 1..=32)) => {
            Known::exact(PcieLink { generation: generation as u32, lanes: lanes as u32 }, source)
        }
        _ => Known::unknown("NVML names no PCI Express link"),
    }
}

fn multiprocessors(host: &dyn Host, handle: Handle, capability: Option<(u32, u32)>, cores: Option<u64>) -> Known<u32> {
    if let Some(count) = nvidia_parts::attributes(host, handle).map(|attributes| attributes.multiprocessors).filter(|count| *count > 0) {
        return Known::exact(count, "NVML attributes");
    }
    let count = cores.zip(capability.and_then(nvidia_rate::cores_each)).and_then(|(cores, each)| u32::try_from(cores / each).ok());
    Known::from_option(count.filter(|count| *count > 0), "NVML cores / cores of a multiprocessor", "NVML names no cores")
}

/// Memory of the device and whether it is the host's. GB10 and Jetson have none of their own and answer "not supported"; a
/// slice of a split GPU that may not look answers "no permission", which is another thing.
fn total_memory(answer: Result<String, Refusal>, memory: &HostMemory<'_>) -> (Known<Bytes>, bool) {
    match answer {
        Err(Refusal::NotSupported) => (memory.total.clone(), true),
        answer => (amount(answer, "NVML memory.total"), false),
    }
}

pub(super) fn amount(answer: Result<String, Refusal>, source: &'static str) -> Known<Bytes> {
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

const KERNEL_GPUS: &str = "/proc/driver/nvidia/gpus";

/// Addresses of the GPUs that the kernel's driver names.
fn known_to_the_kernel(host: &dyn Host) -> Vec<String> {
    host.list(KERNEL_GPUS).unwrap_or_default().into_iter().filter(|name| is_address(name)).take(MAX_DEVICES as usize).collect()
}

/// True for `0000:01:00.0`: domain, bus, device and function in hexadecimal digits.
fn is_address(name: &str) -> bool {
    let parts: Vec<&str> = name.split([':', '.']).collect();
    let hexadecimal = |part: &&str| !part.is_empty() && part.len() <= 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.len() == 4 && name.matches(':').count() == 2 && parts.iter().all(hexadecimal)
}

/// The model that the kernel's driver names. The file is kept in memory: reading it wakes nothing.
fn model(host: &dyn Host, address: &str, why: &'static str) -> Known<String> {
    let text = host.read(&format!("{KERNEL_GPUS}/{address}/information")).unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("Model:")).map(|model| model.trim().to_owned());
    Known::from_option(model.filter(|model| !model.is_empty()), "/proc/driver/nvidia", why)
}

/// A GPU that the kernel's driver names where the system shows no bus.
fn without_a_bus(host: &dyn Host, address: String) -> Found {
    let gpu = Gpu {
        name: model(host, &address, LATE),
        pci_address: Known::exact(address, "/proc/driver/nvidia"),
        ..Gpu::unknown(GpuVendor::Nvidia, GpuKind::Discrete, LATE)
    };
    Found { gpu, free: Known::unknown(LATE), condition: GpuCondition::unknown(LATE), links: Vec::new() }
}

/// A GPU of which only the bus and the kernel tell.
fn from_the_bus(host: &dyn Host, device: &PciDevice, why: &'static str, asleep: bool) -> Found {
    let mut found = Found::on_the_bus(device, GpuVendor::Nvidia, GpuKind::Discrete, why);
    found.gpu.name = model(host, &device.address, why);
    found.gpu.driver = Known::from_option(device.driver(host), "PCI", "no driver holds it");
    found.gpu.numa_node = card::numa_node(host, device);
    found.condition.asleep = asleep;
    if !asleep {
        let links = card::links(host, device);
        found.gpu.pcie = Known::from_option(links.best, "PCI max link", "the bus names no link");
        found.condition.link = Known::from_option(links.now, "PCI current link", "the bus names no link");
    }
    found
}

/// Devices that stand on the bus and that the library did not name: asleep, late, or without a driver that it knows.
fn unnumbered(host: &dyn Host, depth: Depth, bus: &[(&PciDevice, bool)], source: &mut Source, devices: &mut Vec<Counted>) {
    let late = source.warnings.iter().any(|warning| warning.contains("in time"));
    for (device, sleeps) in bus {
        if source.found.iter().any(|found| found.is_at(&device.address)) {
            continue;
        }
        let why = match (sleeps, late, depth) {
            (true, ..) => card::ASLEEP,
            (_, true, _) => LATE,
            (_, _, Depth::Static) => "drivers were not asked",
            _ => "NVML does not name this device",
        };
        let found = from_the_bus(host, device, why, *sleeps);
        let held = found.gpu.driver.value().is_some_and(|driver| driver.starts_with("nvidia"));
        if held && (*sleeps || depth == Depth::Static) || late {
            devices.push((visible::Device::default(), vec![source.found.len()]));
        } else {
            source.warnings.push(format!(
                "an NVIDIA GPU at {} ({}) does not answer through NVML: is the driver loaded, and its library libnvidia-ml.so.1 installed?",
                device.address,
                device.id()
            ));
        }
        source.found.push(found);
    }
    let sleeping = source.found.iter().filter(|found| found.condition.asleep).count();
    if sleeping > 0 {
        source.warnings.push(format!(
            "{sleeping} NVIDIA GPU{} asleep and was left so, its memory is not known: a plan wakes it",
            if sleeping == 1 { " is" } else { "s are" }
        ));
    }
}

fn choose_visible(host: &dyn Host, devices: &[Counted], source: &mut Source) {
    // UUIDs were asked before the variable: a recording replaces both, and must have seen the long form to know the short one.
    let variable = host.env("CUDA_VISIBLE_DEVICES");
    let counted: Vec<visible::Device> = devices.iter().map(|(device, _)| device.clone()).collect();
    let seen = visible::cuda(variable.as_deref(), &counted);
    let index = |place: &Place| match place {
        Place::Whole(device) => devices.get(*device)?.1.first().copied(),
        Place::Part(device, part) => devices.get(*device)?.1.get(part + 1).copied(),
    };
    source.visible = seen.iter().filter_map(index).collect();
    let parts: usize = counted.iter().map(|device| device.parts.len()).sum();
    if parts > 1 && source.visible.len() == 1 {
        source.warnings.push(format!("CUDA uses one of the {parts} MIG parts in a process: choose it with CUDA_VISIBLE_DEVICES=MIG-UUID"));
    }
    let differ = source.found.windows(2).any(|pair| pair[0].gpu.name.value() != pair[1].gpu.name.value());
    if differ && visible::counts(variable.as_deref()) && host.env("CUDA_DEVICE_ORDER").as_deref() != Some("PCI_BUS_ID") {
        source.warnings.push(
            "the GPUs differ and CUDA counts the fastest first, so the numbers in CUDA_VISIBLE_DEVICES may mean other devices than here: set CUDA_DEVICE_ORDER=PCI_BUS_ID".into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Recording};

    fn ask(answers: &[(NvmlQuestion, Result<&str, Refusal>)]) -> Source {
        let mut host = Recording::new("");
        for (question, answer) in answers {
            host.set(&Question::Nvml(*question), answer.clone().map(Answer::text));
        }
        let (total, available) = (Known::exact(Bytes::from_gib(120), "total"), Known::exact(Bytes::from_gib(100), "available"));
        read(&host, &[], &HostMemory { total: &total, available: &available }, Depth::Drivers)
    }

    #[test]
    fn a_gpu_without_memory_of_its_own_has_the_hosts() {
        let memory = |refusal: Refusal| [(NvmlQuestion::Count, Ok("1")), (NvmlQuestion::Device(0, NvmlField::MemoryTotal), Err(refusal))];
        let gb10 = ask(&memory(Refusal::NotSupported)).found.remove(0);
        assert!(gb10.gpu.unified_memory);
        assert_eq!((gb10.gpu.memory_total.get(), gb10.free.get()), (Some(Bytes::from_gib(120)), Some(Bytes::from_gib(100))));
        let slice = ask(&memory(Refusal::Denied)).found.remove(0);
        assert!(!slice.gpu.unified_memory && slice.gpu.memory_total.is_unknown() && slice.free.is_unknown());
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

    #[test]
    fn reasons_for_a_lower_clock() {
        let says = |bits: &str| throttled(Ok(bits.to_owned())).value().cloned();
        assert_eq!(says("1").as_deref(), Some(""));
        assert_eq!(says("24").as_deref(), Some("thermal, power"));
        assert_eq!(says("88").as_deref(), Some("power"));
        assert_eq!(says("48").as_deref(), Some("thermal"));
        assert_eq!(says("8").as_deref(), Some("thermal or power"));
        assert_eq!(says("x"), None);
    }
}
