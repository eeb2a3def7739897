//! NVIDIA's management library, loaded at run time. Every function is optional: an old driver lacks some.
//!
//! Signatures, structures and return codes: NVML API reference, version 12 (`nvml.h`). The library is never unloaded and
//! never shut down: other threads of the process may use it.

use crate::host::{NvmlField, NvmlQuestion, Refusal};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};

/// Where the driver installs it. The last one is the place in the Windows Subsystem for Linux, which is not on the
/// search path of the loader.
#[cfg(not(windows))]
pub(crate) const LIBRARIES: [&str; 3] = ["libnvidia-ml.so.1", "libnvidia-ml.so", "/usr/lib/wsl/lib/libnvidia-ml.so.1"];
#[cfg(windows)]
pub(crate) const LIBRARIES: [&str; 2] = ["nvml.dll", "C:\\Program Files\\NVIDIA Corporation\\NVSMI\\nvml.dll"];

type Device = *mut c_void;
type Status = c_uint;

// nvmlReturn_t
const SUCCESS: Status = 0;
const NOT_SUPPORTED: Status = 3;
const NO_PERMISSION: Status = 4;
const NOT_FOUND: Status = 6;
const DRIVER_NOT_LOADED: Status = 9;
const TIMEOUT: Status = 10;

// nvmlClockType_t
const CLOCK_SM: c_uint = 1;
const CLOCK_MEMORY: c_uint = 2;

// nvmlTemperatureSensors_t
const TEMPERATURE_GPU: c_uint = 0;

// NVML_NVLINK_MAX_LINKS
const MAX_LINKS: c_uint = 18;

/// `nvmlMemory_t`, version 1: total includes what the driver reserves, free does not.
#[repr(C)]
#[derive(Default)]
struct Memory {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlDeviceAttributes_t`, version 2.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    multiprocessors: c_uint,
    /// Copy engines, decoders, encoders, JPEG and optical-flow engines.
    engines: [c_uint; 5],
    instance_slices: c_uint,
    compute_slices: c_uint,
    memory_mib: c_ulonglong,
}

/// `nvmlPciInfo_t`, version 3.
#[repr(C)]
#[derive(Default)]
struct PciInfo {
    bus_id_legacy: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    pci_device_id: c_uint,
    pci_subsystem_id: c_uint,
    bus_id: [c_char; 32],
}
const _: () = assert!(size_of::<PciInfo>() == 68);
const _: () = assert!(size_of::<Memory>() == 24);
const _: () = assert!(size_of::<Attributes>() == 40);

type GetText = unsafe extern "C" fn(Device, *mut c_char, c_uint) -> Status;
type GetNumber = unsafe extern "C" fn(Device, *mut c_uint) -> Status;

/// The library, initialised.
pub(crate) struct Nvml {
    library: Library,
}

impl Nvml {
    /// Loads and initialises the library. Takes seconds where nothing holds the driver in memory.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] where there is no such library or no driver.
    #[allow(unsafe_code)]
    pub(crate) fn open(paths: &[&str]) -> Result<Self, Refusal> {
        // SAFETY: loading runs the initialisers of a library of the system's GPU driver, found by its fixed name on the
        // loader's path like any other library of the system.
        let library = paths.iter().find_map(|path| unsafe { Library::new(*path) }.ok()).ok_or(Refusal::NotFound)?;
        let nvml = Self { library };
        let init: unsafe extern "C" fn() -> Status = nvml.function(b"nvmlInit_v2\0")?;
        // SAFETY: nvmlInit_v2 takes no argument and may be called at any time, any number of times.
        check(unsafe { init() })?;
        Ok(nvml)
    }

    /// The answer to one question, as a text.
    pub(crate) fn ask(&self, question: NvmlQuestion) -> Result<String, Refusal> {
        match question {
            NvmlQuestion::Driver => self.driver(),
            NvmlQuestion::Count => self.count().map(|count| count.to_string()),
            NvmlQuestion::Device(index, field) => self.field(self.device(index)?, field),
            NvmlQuestion::Slice(index, slot, field) => self.field(self.slice(self.device(index)?, slot)?, field),
        }
    }

    fn field(&self, device: Device, field: NvmlField) -> Result<String, Refusal> {
        match field {
            NvmlField::Name => self.device_text(b"nvmlDeviceGetName\0", device),
            NvmlField::Uuid => self.device_text(b"nvmlDeviceGetUUID\0", device),
            NvmlField::PciAddress => self.pci(device).map(|info| info.address()),
            NvmlField::PciId => self.pci(device).map(|info| info.id()),
            NvmlField::MemoryTotal => self.memory(device).map(|memory| memory.total.to_string()),
            NvmlField::MemoryFree => self.memory(device).map(|memory| memory.free.to_string()),
            NvmlField::ComputeCapability => self.compute_capability(device),
            NvmlField::Mig => self.mig(device),
            NvmlField::MigSlots => self.device_number(b"nvmlDeviceGetMaxMigDeviceCount\0", device),
            NvmlField::PcieGeneration => self.device_number(b"nvmlDeviceGetMaxPcieLinkGeneration\0", device),
            NvmlField::PcieLanes => self.device_number(b"nvmlDeviceGetMaxPcieLinkWidth\0", device),
            NvmlField::PcieGenerationNow => self.device_number(b"nvmlDeviceGetCurrPcieLinkGeneration\0", device),
            NvmlField::PcieLanesNow => self.device_number(b"nvmlDeviceGetCurrPcieLinkWidth\0", device),
            NvmlField::MemoryBusBits => self.device_number(b"nvmlDeviceGetMemoryBusWidth\0", device),
            NvmlField::MemoryClockMhz => self.chosen(b"nvmlDeviceGetMaxClockInfo\0", device, CLOCK_MEMORY).map(|mhz| mhz.to_string()),
            NvmlField::SmClockMhz => self.chosen(b"nvmlDeviceGetMaxClockInfo\0", device, CLOCK_SM).map(|mhz| mhz.to_string()),
            NvmlField::CudaCores => self.device_number(b"nvmlDeviceGetNumGpuCores\0", device),
            NvmlField::Attributes => self.attributes(device),
            NvmlField::Bar1 => self.bar1(device),
            NvmlField::PowerLimit => self.device_number(b"nvmlDeviceGetEnforcedPowerLimit\0", device),
            NvmlField::PowerDraw => self.device_number(b"nvmlDeviceGetPowerUsage\0", device),
            NvmlField::Temperature => {
                self.chosen(b"nvmlDeviceGetTemperature\0", device, TEMPERATURE_GPU).map(|degrees| degrees.to_string())
            }
            NvmlField::Utilisation => self.utilisation(device),
            NvmlField::Throttle => self.throttle(device),
            NvmlField::NvLinks => self.links(device),
        }
    }

    /// A function of the library by its name, which ends in NUL.
    ///
    /// `F` must be the function's type in `nvml.h`; this module is the only caller, and each call stands beside the type.
    #[allow(unsafe_code)]
    fn function<F: Copy>(&self, name: &[u8]) -> Result<F, Refusal> {
        // SAFETY: `F` is the type that nvml.h gives the function of this name, and the library lives as long as `self`.
        unsafe { self.library.get::<F>(name) }.map(|symbol| *symbol).map_err(|_| Refusal::NotSupported)
    }

    #[allow(unsafe_code)]
    fn driver(&self) -> Result<String, Refusal> {
        let get: unsafe extern "C" fn(*mut c_char, c_uint) -> Status = self.function(b"nvmlSystemGetDriverVersion\0")?;
        text(|buffer, length| {
            // SAFETY: `buffer` has room for `length` bytes; the library is initialised.
            unsafe { get(buffer, length) }
        })
    }

    #[allow(unsafe_code)]
    fn count(&self) -> Result<c_uint, Refusal> {
        let get: unsafe extern "C" fn(*mut c_uint) -> Status = self.function(b"nvmlDeviceGetCount_v2\0")?;
        let mut count = 0;
        // SAFETY: the pointer is to a local number; the library is initialised.
        check(unsafe { get(&raw mut count) })?;
        Ok(count)
    }

    #[allow(unsafe_code)]
    fn device(&self, index: u32) -> Result<Device, Refusal> {
        let get: unsafe extern "C" fn(c_uint, *mut Device) -> Status = self.function(b"nvmlDeviceGetHandleByIndex_v2\0")?;
        let mut device = std::ptr::null_mut();
        // SAFETY: the pointer is to a local handle; an index out of range is answered with an error.
        check(unsafe { get(index, &raw mut device) })?;
        Ok(device)
    }

    #[allow(unsafe_code)]
    fn device_text(&self, name: &[u8], device: Device) -> Result<String, Refusal> {
        let get: GetText = self.function(name)?;
        text(|buffer, length| {
            // SAFETY: `device` is a handle of this library; `buffer` has room for `length` bytes.
            unsafe { get(device, buffer, length) }
        })
    }

    #[allow(unsafe_code)]
    fn device_number(&self, name: &[u8], device: Device) -> Result<String, Refusal> {
        let get: GetNumber = self.function(name)?;
        let mut number = 0;
        // SAFETY: `device` is a handle of this library; the pointer is to a local number.
        check(unsafe { get(device, &raw mut number) })?;
        Ok(number.to_string())
    }

    #[allow(unsafe_code)]
    fn memory(&self, device: Device) -> Result<Memory, Refusal> {
        let get: unsafe extern "C" fn(Device, *mut Memory) -> Status = self.function(b"nvmlDeviceGetMemoryInfo\0")?;
        let mut memory = Memory::default();
        // SAFETY: `device` is a handle of this library; `Memory` has the layout of version 1, which this function fills.
        check(unsafe { get(device, &raw mut memory) })?;
        Ok(memory)
    }

    #[allow(unsafe_code)]
    fn compute_capability(&self, device: Device) -> Result<String, Refusal> {
        let get: unsafe extern "C" fn(Device, *mut c_int, *mut c_int) -> Status = self.function(b"nvmlDeviceGetCudaComputeCapability\0")?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: `device` is a handle of this library; the pointers are to local numbers.
        check(unsafe { get(device, &raw mut major, &raw mut minor) })?;
        Ok(format!("{major}.{minor}"))
    }

    /// A number of which the caller chooses the kind: a clock, a sensor, a link.
    #[allow(unsafe_code)]
    fn chosen(&self, name: &[u8], device: Device, which: c_uint) -> Result<c_uint, Refusal> {
        let get: unsafe extern "C" fn(Device, c_uint, *mut c_uint) -> Status = self.function(name)?;
        let mut number = 0;
        // SAFETY: `device` is a handle of this library; the pointer is to a local number; a kind out of range is answered with
        // an error. Every function named here has this type.
        check(unsafe { get(device, which, &raw mut number) })?;
        Ok(number)
    }

    #[allow(unsafe_code)]
    fn attributes(&self, device: Device) -> Result<String, Refusal> {
        let get: unsafe extern "C" fn(Device, *mut Attributes) -> Status = self.function(b"nvmlDeviceGetAttributes_v2\0")?;
        let mut found = Attributes::default();
        // SAFETY: `device` is a handle of this library; `Attributes` has the layout of version 2, which this function fills.
        check(unsafe { get(device, &raw mut found) })?;
        Ok(format!("{} {} {} {}", found.multiprocessors, found.instance_slices, found.compute_slices, found.memory_mib))
    }

    #[allow(unsafe_code)]
    fn bar1(&self, device: Device) -> Result<String, Refusal> {
        let get: unsafe extern "C" fn(Device, *mut Memory) -> Status = self.function(b"nvmlDeviceGetBAR1MemoryInfo\0")?;
        let mut memory = Memory::default();
        // SAFETY: `device` is a handle of this library; `nvmlBAR1Memory_t` has the three numbers of `Memory`.
        check(unsafe { get(device, &raw mut memory) })?;
        Ok(memory.total.to_string())
    }

    #[allow(unsafe_code)]
    fn utilisation(&self, device: Device) -> Result<String, Refusal> {
        let get: unsafe extern "C" fn(Device, *mut [c_uint; 2]) -> Status = self.function(b"nvmlDeviceGetUtilizationRates\0")?;
        let mut rates = [0; 2];
        // SAFETY: `device` is a handle of this library; `nvmlUtilization_t` is two numbers, of the GPU and of its memory.
        check(unsafe { get(device, &raw mut rates) })?;
        Ok(rates[0].to_string())
    }

    #[allow(unsafe_code)]
    fn throttle(&self, device: Device) -> Result<String, Refusal> {
        let get: unsafe extern "C" fn(Device, *mut c_ulonglong) -> Status =
            self.function(b"nvmlDeviceGetCurrentClocksThrottleReasons\0")?;
        let mut bits = 0;
        // SAFETY: `device` is a handle of this library; the pointer is to a local number.
        check(unsafe { get(device, &raw mut bits) })?;
        Ok(format!("{bits:x}"))
    }

    /// A line for each link that is up.
    fn links(&self, device: Device) -> Result<String, Refusal> {
        let mut lines = Vec::new();
        for link in 0..MAX_LINKS {
            match self.chosen(b"nvmlDeviceGetNvLinkState\0", device, link) {
                Ok(1) => {}
                Ok(_) => continue,
                // The first tells whether the device has links at all; beyond its last, links are not valid.
                Err(refusal) if link == 0 => return Err(refusal),
                Err(_) => break,
            }
            let version = self.chosen(b"nvmlDeviceGetNvLinkVersion\0", device, link).unwrap_or(0);
            let kind = match self.chosen(b"nvmlDeviceGetNvLinkRemoteDeviceType\0", device, link) {
                Ok(0) => "gpu",
                Ok(2) => "switch",
                _ => "other",
            };
            let address = self.remote(device, link).map(|info| info.address()).unwrap_or_else(|_| "-".to_owned());
            lines.push(format!("{link} {version} {kind} {address}"));
        }
        Ok(lines.join("\n"))
    }

    #[allow(unsafe_code)]
    fn remote(&self, device: Device, link: c_uint) -> Result<PciInfo, Refusal> {
        let get: unsafe extern "C" fn(Device, c_uint, *mut PciInfo) -> Status = self.function(b"nvmlDeviceGetNvLinkRemotePciInfo_v2\0")?;
        let mut info = PciInfo::default();
        // SAFETY: `device` is a handle of this library; `PciInfo` has the layout of version 3, which this function fills.
        check(unsafe { get(device, link, &raw mut info) })?;
        Ok(info)
    }

    /// The part in a slot of a split device; most slots are empty.
    #[allow(unsafe_code)]
    fn slice(&self, device: Device, slot: u32) -> Result<Device, Refusal> {
        let get: unsafe extern "C" fn(Device, c_uint, *mut Device) -> Status = self.function(b"nvmlDeviceGetMigDeviceHandleByIndex\0")?;
        let mut slice = std::ptr::null_mut();
        // SAFETY: `device` is a handle of this library; the pointer is to a local handle.
        check(unsafe { get(device, slot, &raw mut slice) })?;
        Ok(slice)
    }

    #[allow(unsafe_code)]
    fn mig(&self, device: Device) -> Result<String, Refusal> {
        let get: unsafe extern "C" fn(Device, *mut c_uint, *mut c_uint) -> Status = self.function(b"nvmlDeviceGetMigMode\0")?;
        let (mut current, mut pending) = (0, 0);
        // SAFETY: `device` is a handle of this library; the pointers are to local numbers.
        check(unsafe { get(device, &raw mut current, &raw mut pending) })?;
        Ok(current.to_string())
    }

    #[allow(unsafe_code)]
    fn pci(&self, device: Device) -> Result<PciInfo, Refusal> {
        let get: unsafe extern "C" fn(Device, *mut PciInfo) -> Status = self.function(b"nvmlDeviceGetPciInfo_v3\0")?;
        let mut info = PciInfo::default();
        // SAFETY: `device` is a handle of this library; `PciInfo` has the layout of version 3, which this function fills.
        check(unsafe { get(device, &raw mut info) })?;
        Ok(info)
    }
}

impl PciInfo {
    /// NVML writes the domain with eight digits, the system with four. Function 0 is the only one of a GPU that computes.
    fn address(&self) -> String {
        format!("{:04x}:{:02x}:{:02x}.0", self.domain, self.bus, self.device)
    }

    fn id(&self) -> String {
        format!("{:04x}:{:04x}", self.pci_device_id & 0xffff, self.pci_device_id >> 16)
    }
}

/// The text that a function writes into a buffer.
fn text(fill: impl FnOnce(*mut c_char, c_uint) -> Status) -> Result<String, Refusal> {
    // The longest of the library's own limits is 96 bytes (NVML_DEVICE_NAME_V2_BUFFER_SIZE, NVML_DEVICE_UUID_V2_BUFFER_SIZE).
    const LENGTH: usize = 256;
    let mut buffer = [0u8; LENGTH];
    check(fill(buffer.as_mut_ptr().cast(), LENGTH as c_uint))?;
    CStr::from_bytes_until_nul(&buffer)
        .map(|text| text.to_string_lossy().into_owned())
        .map_err(|_| Refusal::Failed("NVML wrote a text without an end".into()))
}

fn check(status: Status) -> Result<(), Refusal> {
    match status {
        SUCCESS => Ok(()),
        NOT_SUPPORTED => Err(Refusal::NotSupported),
        NO_PERMISSION => Err(Refusal::Denied),
        NOT_FOUND | DRIVER_NOT_LOADED => Err(Refusal::NotFound),
        TIMEOUT => Err(Refusal::TimedOut),
        other => Err(Refusal::Failed(format!("NVML error {other}"))),
    }
}
