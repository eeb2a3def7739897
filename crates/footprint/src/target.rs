//! Where a model can be put: the devices an engine sees, with the allocation rules of their backends.

use crate::error::FootprintError;
use spec::settings::Devices;
use spec::{Bytes, Known};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The allocation rules of one ggml backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// ggml's name: `CUDA`, `Metal`, `Vulkan`, `ROCm`, ...
    pub name: String,
    /// Alignment of tensors in a buffer.
    pub alignment: u64,
    /// Quantised tensors whose rows are no multiple of this many elements get one padded row's bytes; `None`: no padding.
    pub quantized_row_padding: Option<u64>,
    /// Largest single buffer; `None` where there is no limit.
    pub max_buffer: Option<Bytes>,
    /// Largest tensor that its kernels read or write; `None` where there is no limit. What is larger falls to the host.
    pub max_tensor: Option<Bytes>,
    /// What the driver's context and modules take on the device beside every buffer, right after load.
    pub runtime: Known<Bytes>,
    /// What the runtime takes in host memory.
    pub runtime_host: Known<Bytes>,
    /// True where the backend offers a pinned host buffer, which then holds host compute buffers.
    pub host_buffer: bool,
    /// Alignment of tensors in that host buffer.
    pub host_alignment: u64,
    /// True where copies and events are asynchronous, so that several devices run as a pipeline.
    pub pipeline: bool,
    /// True where weights may be mapped from the file beside this device; without it load mode `auto` reads them
    /// (integrated GPUs of CUDA and Vulkan).
    pub mmap: bool,
    /// True where weights on the device are those of the mapped file, used in place (`buffer_from_host_ptr`): of each file it
    /// maps everything from the first to the last tensor that it holds.
    pub maps_weights: bool,
    /// True where it has buffers for rows of one matrix on several devices (split mode `row`).
    pub splits_rows: bool,
}

/// A GPU as the engine sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// The engine's name: `CUDA0`.
    pub name: String,
    /// Its backend's rules.
    pub backend: Backend,
    /// Memory in all.
    pub total: Known<Bytes>,
    /// Memory free before the engine starts; decides the default split over several devices.
    pub free: Known<Bytes>,
    /// True where its memory is the host's: what it holds counts there, too.
    pub shares_host: bool,
    /// Its address on the bus (`0000:01:00.0`), where the engine says it: by that the machine's GPU is found.
    pub pci_address: Option<String>,
}

impl Device {
    /// A device with memory of its own, of this size and all of it free.
    pub fn of_its_own(name: impl Into<String>, backend: Backend, memory: Known<Bytes>) -> Self {
        Self { name: name.into(), backend, total: memory.clone(), free: memory, shares_host: false, pci_address: None }
    }
}

/// Everything an engine can place a model on.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// GPUs in the engine's order; empty for a CPU-only engine.
    pub devices: Vec<Device>,
    /// Devices that the engine leaves alone unless they are named ([`spec::Settings::devices`]).
    pub idle: Vec<Device>,
    /// Instruction-set extensions of the host (spelling of [`spec::machine::Cpu::features`]), as far as the engine's
    /// build uses them: they decide which weights are repacked.
    pub cpu_features: BTreeSet<String>,
    /// `x86_64` or `aarch64`.
    pub cpu_arch: String,
}

impl Target {
    /// What is left of it for settings that name devices, in their order, by which main GPU and shares count
    /// (`src/llama.cpp:188-191`).
    ///
    /// # Errors
    /// A name that no device has, or that is there twice.
    pub fn only(&self, devices: &Devices) -> Result<Cow<'_, Self>, FootprintError> {
        let Devices::Only(names) = devices else { return Ok(Cow::Borrowed(self)) };
        if let Some((_, twice)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            return Err(FootprintError::DeviceTwice { name: twice.clone() });
        }
        if names.iter().eq(self.devices.iter().map(|device| &device.name)) {
            return Ok(Cow::Borrowed(self));
        }
        let find = |name: &String| {
            let found = self.devices.iter().chain(&self.idle).find(|device| device.name == *name).cloned();
            found.ok_or_else(|| self.no_such(name))
        };
        let devices = names.iter().map(find).collect::<Result<_, _>>()?;
        Ok(Cow::Owned(Self { devices, idle: Vec::new(), ..self.clone() }))
    }
    /// Index of the device of this name among those in use.
    pub(crate) fn device(&self, name: &str) -> Result<usize, FootprintError> {
        self.devices.iter().position(|device| device.name == name).ok_or_else(|| self.no_such(name))
    }
    fn no_such(&self, name: &str) -> FootprintError {
        let names: Vec<&str> = self.devices.iter().chain(&self.idle).map(|device| device.name.as_str()).collect();
        let known = if names.is_empty() { "there is none".to_owned() } else { format!("there are {}", names.join(", ")) };
        FootprintError::NoSuchDevice { name: name.to_owned(), known }
    }
}
