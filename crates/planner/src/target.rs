//! From a machine to what an engine can place a model on.

use footprint::{Backend, Device, Target};
use spec::machine::{Gpu, GpuVendor};
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
    /// Memory in all.
    pub total: Known<Bytes>,
    /// Memory free.
    pub free: Known<Bytes>,
}

/// What an engine with this GPU support can place a model on, on this machine.
///
/// GPUs that share the host's memory are left out: their memory is the host's, and is planned as such.
pub fn target(machine: &Machine, support: &GpuSupport) -> Target {
    let devices = match support {
        GpuSupport::None => Vec::new(),
        GpuSupport::Native => native(machine),
        GpuSupport::Listed(listed) => listed.iter().map(listed_device).collect(),
    };
    Target { devices, cpu_features: machine.facts.cpu.features.clone(), cpu_arch: machine.facts.platform.arch.clone() }
}

fn native(machine: &Machine) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    for (_, gpu, free) in machine.usable_gpus().filter(|(_, gpu, _)| !gpu.unified_memory) {
        let backend = backend_of(gpu);
        let index = devices.iter().filter(|device| device.backend.name == backend.name).count();
        devices.push(Device { name: format!("{}{index}", backend.name), backend, total: gpu.memory_total.clone(), free: free.clone() });
    }
    devices
}

/// The backend of a GPU's own maker. ROCm needs AMD's compute driver, which tells the instruction set; without it there is Vulkan.
pub(crate) fn backend_of(gpu: &Gpu) -> Backend {
    match gpu.vendor {
        GpuVendor::Amd if gpu.architecture.is_unknown() => Backend::vulkan(false, None),
        GpuVendor::Nvidia | GpuVendor::Other => Backend::cuda(false),
        GpuVendor::Amd => Backend::rocm(false),
        GpuVendor::Apple => Backend::metal(),
        GpuVendor::Intel => Backend::vulkan(false, None),
    }
}

/// The machine's GPU behind a device of the target: by order among those of the same backend, where both have as many; by the
/// number in the device's name, where the target has fewer; else by order among all.
pub fn gpu_of<'a>(machine: &'a Machine, target: &Target, device: usize) -> Option<&'a Gpu> {
    let own: Vec<&Gpu> = machine.usable_gpus().map(|(_, gpu, _)| gpu).filter(|gpu| !gpu.unified_memory).collect();
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

fn listed_device(listed: &ListedDevice) -> Device {
    let backend = match listed.name.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "CUDA" => Backend::cuda(false),
        "ROCm" => Backend::rocm(false),
        "Vulkan" => Backend::vulkan(false, None),
        "Metal" | "MTL" => Backend::metal(),
        "SYCL" => Backend::sycl(),
        "RPC" => Backend::rpc(&Backend::cuda(false)),
        "FAKE" => Backend::pretended(false),
        // A backend without rules of its own: the strictest alignment and padding of those that are known.
        other => Backend { name: other.to_owned(), ..Backend::cuda(false) },
    };
    Device { name: listed.name.clone(), backend, total: listed.total.clone(), free: listed.free.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::machine::GpuKind;

    #[test]
    fn an_amd_gpu_without_its_compute_driver_is_vulkans() {
        let unknown = Gpu::unknown(GpuVendor::Amd, GpuKind::Discrete, "test");
        assert_eq!(backend_of(&unknown).name, "Vulkan");
        let known = Gpu { architecture: Known::exact("gfx1100".into(), "test"), ..unknown };
        assert_eq!(backend_of(&known).name, "ROCm");
    }
}
