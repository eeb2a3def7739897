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

/// `nvmlMemory_t`, version 1: total includes what the driver reserves, free does not.
#[repr(C)]
#[derive(Default)]
struct Memory {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlPciInfo_t`, version 3.
#[repr(C)]
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
        }
    }

    fn field(&self, device: Device, field: NvmlField) -> Result<String, Refusal> {
        match field {
            NvmlField::Name => self.device_text(b"nvmlDeviceGetName\0", device),
            NvmlField::Uuid => self.device_text(b"nvmlDeviceGetUUID\0", device),
            NvmlField::PciAddress => self.pci_address(device),
            NvmlField::MemoryTotal => self.memory(device).map(|memory| memory.total.to_string()),
            NvmlField::MemoryFree => self.memory(device).map(|memory| memory.free.to_string()),
            NvmlField::ComputeCapability => self.compute_capability(device),
            NvmlField::PcieGeneration => self.device_number(b"nvmlDeviceGetMaxPcieLinkGeneration\0", device),
            NvmlField::PcieLanes => self.device_number(b"nvmlDeviceGetMaxPcieLinkWidth\0", device),
            NvmlField::MemoryBusBits => self.device_number(b"nvmlDeviceGetMemoryBusWidth\0", device),
            NvmlField::MemoryClockMhz => self.max_clock(device, CLOCK_MEMORY),
            NvmlField::SmClockMhz => self.max_clock(device, CLOCK_SM),
            NvmlField::CudaCores => self.device_number(b"nvmlDeviceGetNumGpuCores\0", device),
            NvmlField::Mig => self.mig(device),
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

    #[allow(unsafe_code)]
    fn max_clock(&self, device: Device, clock: c_uint) -> Result<String, Refusal> {
        let get: unsafe extern "C" fn(Device, c_uint, *mut c_uint) -> Status = self.function(b"nvmlDeviceGetMaxClockInfo\0")?;
        let mut mhz = 0;
        // SAFETY: `device` is a handle of this library; the pointer is to a local number.
        check(unsafe { get(device, clock, &raw mut mhz) })?;
        Ok(mhz.to_string())
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
    fn pci_address(&self, device: Device) -> Result<String, Refusal> {
        let get: unsafe extern "C" fn(Device, *mut PciInfo) -> Status = self.function(b"nvmlDeviceGetPciInfo_v3\0")?;
        let mut info =
            PciInfo { bus_id_legacy: [0; 16], domain: 0, bus: 0, device: 0, pci_device_id: 0, pci_subsystem_id: 0, bus_id: [0; 32] };
        // SAFETY: `device` is a handle of this library; `PciInfo` has the layout of version 3, which this function fills.
        check(unsafe { get(device, &raw mut info) })?;
        // NVML writes the domain with eight digits, the system with four. Function 0 is the only one of a GPU that computes.
        Ok(format!("{:04x}:{:02x}:{:02x}.0", info.domain, info.bus, info.device))
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
