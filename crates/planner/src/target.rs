//! From a machine to what an engine can place a model on.

use footprint::{Backend, Device, Target};
use spec::machine::{Gpu, GpuKind, GpuVendor};
use spec::{Bytes, Known, Machine};

/// Which GPUs an engine build can use.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum GpuSupport {
    /// None: a build for the CPU only.
    None,
    /// Each visible GPU through its maker's own backend: CUDA for NVIDIA (and for a GPU that is only described), ROCm for
    /// AMD, Metal for Apple, Vulkan for the rest.
    #[default]
    Native,
    /// The devices that the engine itself listed (`--list-devices`), in its order.
    Listed(Vec<ListedDevice>),
}

/// A device as an engine lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedDevice {
    /// The engine's name: `CUDA0`, `Vulkan1`.
    pub name: String,
    /// What its driver calls it: `NVIDIA GeForce RTX 4090`; empty where the engine does not say.
    pub description: String,
    /// Memory in all.
    pub total: Known<Bytes>,
    /// Memory free.
    pub free: Known<Bytes>,
}

/// What an engine with this GPU support can place a model on, on this machine.
///
/// A GPU that shares the host's memory is a device like any other, and what it holds counts in the host's memory as well. Beside a GPU
/// with memory of its own the engine leaves it alone unless it is named (`src/llama.cpp:273-277`): [`Target::idle`]. So does it with a GPU
/// that it has through its maker's backend already, where it lists it a second time through Vulkan (`src/llama.cpp:235-253`).
pub fn target(machine: &Machine, support: &GpuSupport) -> Target {
    let devices = match support {
        GpuSupport::None => Vec::new(),
        GpuSupport::Native => native(machine),
        GpuSupport::Listed(listed) => listed.iter().map(|device| listed_device(machine, device)).collect(),
    };
    let again = match support {
        GpuSupport::Listed(listed) => listed_again(listed),
        _ => Vec::new(),
    };
    let own_memory = devices.iter().any(|device| !device.shares_host && device.backend.name != "RPC");
    let (idle, devices) = devices.into_iter().partition(|device| own_memory && device.shares_host || again.contains(&device.name.as_str()));
    Target { devices, idle, cpu_features: machine.facts.cpu.features.clone(), cpu_arch: machine.facts.platform.arch.clone() }
}

/// GPUs of the machine, integrated ones of one backend only (`src/llama.cpp:248-256`).
fn native(machine: &Machine) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    for (_, gpu, free) in machine.usable_gpus() {
        let backend = backend_of(gpu);
        let shares_host = gpu.unified_memory;
        if shares_host && devices.iter().any(|device| device.shares_host && device.backend.name != backend.name) {
            continue;
        }
        let index = devices.iter().filter(|device| device.backend.name == backend.name).count();
        let name = backend.device_name(index);
        devices.push(Device { name, backend, total: gpu.memory_total.clone(), free: free.clone(), shares_host, pci_address: None });
    }
    devices
}

/// Integrated GPUs of AMD that ROCm supports (system requirements of ROCm 7: Ryzen AI 300 and Ryzen AI Max); the others have Vulkan.
const ROCM_INTEGRATED: &[&str] = &["gfx1150", "gfx1151"];

/// The backend of a GPU's own maker. ROCm needs AMD's compute driver, which tells the instruction set; without it there is Vulkan.
pub(crate) fn backend_of(gpu: &Gpu) -> Backend {
    let integrated = gpu.unified_memory;
    match (gpu.vendor, gpu.architecture.value()) {
        (GpuVendor::Amd, None) => Backend::vulkan(integrated, None),
        (GpuVendor::Amd, Some(target)) if integrated && !ROCM_INTEGRATED.contains(&target.as_str()) => Backend::vulkan(true, None),
        (GpuVendor::Amd, Some(_)) => Backend::rocm(integrated),
        (GpuVendor::Other, _) if integrated => Backend::vulkan(true, None),
        (GpuVendor::Nvidia | GpuVendor::Other, _) => Backend::cuda(integrated),
        (GpuVendor::Apple, _) => Backend::metal(),
        (GpuVendor::Intel, _) => Backend::vulkan(integrated, None),
    }
}

/// The machine's GPU behind a device of the target: by its address, where that is known, which devices of our own kernels need; else by order
/// among those of the same backend, where both have as many; by the number in the device's name, where the target has fewer; else by order
/// among all.
pub fn gpu_of<'a>(machine: &'a Machine, target: &Target, device: usize) -> Option<&'a Gpu> {
    let placed = target.devices.get(device)?;
    let shares_host = placed.shares_host;
    if let Some(address) = placed.pci_address.as_deref() {
        let same = |gpu: &&Gpu| gpu.pci_address.value().is_some_and(|known| known.as_str().eq_ignore_ascii_case(address));
        return machine.usable_gpus().map(|(_, gpu, _)| gpu).find(same);
    }
    if placed.backend.is_own() {
        // The order of our own lists is not the machine's, and software is among them.
        return None;
    }
    let own: Vec<&Gpu> = machine.usable_gpus().map(|(_, gpu, _)| gpu).filter(|gpu| gpu.unified_memory == shares_host).collect();
    let backend = &target.devices.get(device)?.backend.name;
    let alike: Vec<&Gpu> = own.iter().copied().filter(|gpu| backend_of(gpu).name == *backend).collect();
    let same = |devices: &[Device]| devices.iter().filter(|device| device.backend.name == *backend).count();
    if !alike.is_empty() && alike.len() == same(&target.devices) {
        return alike.get(same(&target.devices[..device])).copied();
    }
    let name = &target.devices.get(device)?.name;
    let number = name.strip_prefix(backend.as_str()).and_then(|number| number.parse::<usize>().ok());
    if alike.len() > same(&target.devices) && number.is_some() {
        return alike.get(number?).copied();
    }
    if own.len() == target.devices.len() { own.get(device).copied() } else { None }
}

fn listed_device(machine: &Machine, listed: &ListedDevice) -> Device {
    let prefix = listed.name.trim_end_matches(|c: char| c.is_ascii_digit());
    let shares_host = prefix != "RPC" && prefix != "FAKE" && shares_host(machine, prefix, listed);
    let backend = match prefix {
        "CUDA" => Backend::cuda(shares_host),
        "ROCm" => Backend::rocm(shares_host),
        "Vulkan" => Backend::vulkan(shares_host, None),
        "Metal" | "MTL" => Backend::metal(),
        "SYCL" => Backend::sycl(),
        "RPC" => Backend::rpc(&Backend::cuda(false)),
        "FAKE" => Backend::pretended(false),
        // A backend without rules of its own: the strictest alignment and padding of those that are known.
        other => Backend { name: other.to_owned(), ..Backend::cuda(false) },
    };
    Device { name: listed.name.clone(), backend, total: listed.total.clone(), free: listed.free.clone(), shares_host, pci_address: None }
}

/// What one driver counts as the device's memory differs from what another does by less than this share.
const SAME_MEMORY: f64 = 0.05;

/// The names under which the engine lists a GPU through Vulkan that it lists through its maker's backend as well.
fn listed_again(listed: &[ListedDevice]) -> Vec<&str> {
    let of = |prefixes: &[&str]| -> Vec<&ListedDevice> {
        listed.iter().filter(|device| prefixes.contains(&device.name.trim_end_matches(|c: char| c.is_ascii_digit()))).collect()
    };
    let mut open = of(&["Vulkan"]);
    let mut again = Vec::new();
    for native in of(&["CUDA", "ROCm", "SYCL", "Metal", "MTL"]) {
        let free =
            |device: &ListedDevice| device.free.get().zip(native.free.get()).map_or(Bytes::MAX, |(a, b)| a.max(b).saturating_sub(a.min(b)));
        let same = open.iter().enumerate().filter(|(_, device)| is_same(native, device)).min_by_key(|(_, device)| free(device));
        if let Some(place) = same.map(|(place, _)| place) {
            again.push(open.remove(place).name.as_str());
        }
    }
    again
}

/// True where name and memory of two devices agree. Vulkan's drivers add their own name behind the device's.
fn is_same(native: &ListedDevice, vulkan: &ListedDevice) -> bool {
    let named =
        !native.description.is_empty() && vulkan.description.to_ascii_lowercase().contains(&native.description.to_ascii_lowercase());
    let memory = match (native.total.get(), vulkan.total.get()) {
        (Some(a), Some(b)) => a.max(b).saturating_sub(a.min(b)) <= a.max(b).scale(SAME_MEMORY),
        _ => true,
    };
    named && memory
}

/// Whether a listed device computes in the host's memory: what the machine's GPU of that name says; where no name fits, what all GPUs
/// say that the backend can be for; where they differ, the one whose memory is nearest.
fn shares_host(machine: &Machine, prefix: &str, listed: &ListedDevice) -> bool {
    let fits = |gpu: &Gpu| match prefix {
        "CUDA" => gpu.vendor == GpuVendor::Nvidia,
        "ROCm" => gpu.vendor == GpuVendor::Amd,
        "SYCL" => gpu.vendor == GpuVendor::Intel,
        _ => true,
    };
    let gpus: Vec<&Gpu> = machine.facts.gpus.iter().filter(|gpu| gpu.kind != GpuKind::Software && fits(gpu)).collect();
    let named = |gpu: &&&Gpu| gpu.name.value().is_some_and(|name| !name.is_empty() && listed.description.contains(name.as_str()));
    let distance = |gpu: &Gpu| match (gpu.memory_total.get(), listed.total.get()) {
        (Some(a), Some(b)) => a.max(b).saturating_sub(a.min(b)),
        _ => Bytes::MAX,
    };
    let by_name = gpus.iter().find(named);
    by_name.or_else(|| gpus.iter().min_by_key(|gpu| distance(gpu))).is_some_and(|gpu| gpu.unified_memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amd_gpu_without_its_compute_driver_is_vulkans() {
        let unknown = Gpu::unknown(GpuVendor::Amd, GpuKind::Discrete, "test");
        assert_eq!(backend_of(&unknown).name, "Vulkan");
        let known = Gpu { architecture: Known::exact("gfx1100".into(), "test"), ..unknown };
        assert_eq!(backend_of(&known).name, "ROCm");
    }
    #[test]
    fn a_gpu_that_is_listed_twice_counts_once_through_its_makers_backend() {
        let machine = probe::describe("rtx4090x2,ram=64GiB,cores=8").unwrap();
        let listed = |name: &str, description: &str, gib: f64| {
            let memory = Known::exact(Bytes::from_f64(gib * 1073741824.0), "--list-devices");
            ListedDevice { name: name.into(), description: description.into(), total: memory.clone(), free: memory }
        };
        let names = |listed: Vec<ListedDevice>| {
            let target = target(&machine, &GpuSupport::Listed(listed));
            let names = |devices: &[Device]| devices.iter().map(|device| device.name.clone()).collect::<Vec<_>>().join(" ");
            (names(&target.devices), names(&target.idle))
        };
        let cuda = |index| listed(&format!("CUDA{index}"), "NVIDIA GeForce RTX 4090", 23.5);
        let vulkan = |index| listed(&format!("Vulkan{index}"), "NVIDIA GeForce RTX 4090", 24.0);
        let both = |devices: &str, idle: &str| (devices.to_owned(), idle.to_owned());
        assert_eq!(names(vec![cuda(0), cuda(1), vulkan(0), vulkan(1)]), both("CUDA0 CUDA1", "Vulkan0 Vulkan1"));
        // One is hidden from CUDA: Vulkan has it alone.
        assert_eq!(names(vec![vulkan(0), vulkan(1), cuda(0)]), both("Vulkan1 CUDA0", "Vulkan0"));
        assert_eq!(names(vec![vulkan(0), vulkan(1)]), both("Vulkan0 Vulkan1", ""));
        let radeon = listed("Vulkan2", "AMD Radeon RX 7900 XTX (RADV NAVI31)", 24.0);
        let same = listed("ROCm0", "AMD Radeon RX 7900 XTX", 24.0);
        assert_eq!(names(vec![cuda(0), same, vulkan(0), radeon]), both("CUDA0 ROCm0", "Vulkan0 Vulkan2"));
        assert_eq!(names(vec![cuda(0), listed("Vulkan0", "NVIDIA GeForce RTX 4090", 16.0)]), both("CUDA0 Vulkan0", ""));
    }
}
