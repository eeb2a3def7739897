//! The driver: devices, a context, memory, kernels.

use crate::kernel::Kernel;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Arc, OnceLock};

/// What is called of the driver.
const FUNCTIONS: [&str; 21] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetPCIBusId",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemcpyHtoD_v2",
    "cuMemcpyDtoH_v2",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuModuleUnload",
    "cuLaunchKernel",
    "cuGetErrorString",
];

/// What the driver answered instead of doing what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) out_of_memory: bool,
    /// Its words.
    pub(crate) reason: String,
}

impl From<DriverError> for Refusal {
    fn from(error: DriverError) -> Self {
        let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
        let name = format!("{:?}", error.0);
        let reason = text.map_or_else(|_| name.clone(), |text| format!("{text} ({name})"));
        Self { out_of_memory: error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY, reason }
    }
}

/// The driver's library, which is there, has all that is called, and is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Driver(());

impl Driver {
    /// Loads and starts it, once in a process.
    pub(crate) fn load() -> Result<Self, String> {
        static LOADED: OnceLock<Result<Driver, String>> = OnceLock::new();
        LOADED.get_or_init(Self::loaded).clone()
    }

    fn loaded() -> Result<Self, String> {
        // SAFETY: opens a library of one of the driver's names, as any program that uses it does; nothing of it is called.
        if !unsafe { sys::is_culib_present() } {
            return Err("libcuda is not there".to_owned());
        }
        // SAFETY: as above; it was there a moment ago, without which this would panic.
        let library = unsafe { sys::culib() };
        // SAFETY: the symbol is only looked for; it is not called as what it is read as.
        let lacking = FUNCTIONS.iter().find(|name| unsafe { library.get::<*const c_void>(name.as_bytes()) }.is_err());
        if let Some(name) = lacking {
            return Err(format!("its library has no {name}: a newer driver does"));
        }
        result::init().map_err(|error| Refusal::from(error).reason)?;
        Ok(Self(()))
    }

    /// The version of CUDA that it knows, major and minor.
    pub(crate) fn version(self) -> Option<(u32, u32)> {
        let mut version: c_int = 0;
        // SAFETY: `self` says that the driver is started, and the place for the answer is there.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().ok()?;
        let version = u32::try_from(version).ok()?;
        Some((version / 1000, version % 1000 / 10))
    }

    /// Its devices, in its order.
    pub(crate) fn devices(self) -> Vec<Device> {
        let count = result::device::get_count().unwrap_or(0);
        (0..count).filter_map(|ordinal| result::device::get(ordinal).ok()).map(|handle| Device { driver: self, handle }).collect()
    }
}

/// A device that the driver lists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    driver: Driver,
    handle: sys::CUdevice,
}

impl Device {
    pub(crate) fn driver(self) -> Driver {
        self.driver
    }

    /// The driver's name for it.
    pub(crate) fn name(self) -> String {
        result::device::get_name(self.handle).unwrap_or_else(|_| "a CUDA device".to_owned())
    }

    /// Its place on the bus, `0000:01:00.0`.
    pub(crate) fn pci(self) -> Option<String> {
        let mut text: [c_char; 32] = [0; 32];
        // SAFETY: the driver gave the handle, and writes at most as many bytes as it is told there are.
        unsafe { sys::cuDeviceGetPCIBusId(text.as_mut_ptr(), 31, self.handle) }.result().ok()?;
        let text: Vec<u8> = text.iter().map(|&byte| byte.cast_unsigned()).collect();
        let text = CStr::from_bytes_until_nul(&text).ok()?.to_str().ok()?;
        Some(text.to_lowercase()).filter(|text| !text.is_empty())
    }

    /// Its compute capability, major and minor.
    pub(crate) fn capability(self) -> Option<(u32, u32)> {
        let major = self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        Some((major, self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?))
    }

    /// Whether its memory is the host's.
    pub(crate) fn is_integrated(self) -> bool {
        self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED) == Some(1)
    }

    fn attribute(self, which: Attribute) -> Option<u32> {
        // SAFETY: the driver gave the handle.
        let value = unsafe { result::device::get_attribute(self.handle, which) };
        value.ok().and_then(|value| u32::try_from(value).ok())
    }

    /// Opens it.
    pub(crate) fn open(self) -> Result<Arc<Context>, Refusal> {
        // SAFETY: the driver gave the handle; what is retained here is released when the context is dropped.
        let handle = unsafe { result::primary_ctx::retain(self.handle) }?;
        Ok(Arc::new(Context { device: self.handle, handle }))
    }
}

/// A device that is open: its primary context, held until the last of its memory is given back.
#[derive(Debug)]
pub(crate) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
}

// SAFETY: a context is used by any thread that makes it its current one, as each call here does before all else, and the driver locks (CUDA
// C++ Programming Guide, "Context", since CUDA 4.0).
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    fn current(&self) -> Result<(), Refusal> {
        // SAFETY: the context is held by `self`.
        Ok(unsafe { result::ctx::set_current(self.handle) }?)
    }

    /// Free memory of the device, and all of it.
    pub(crate) fn memory(&self) -> Result<(u64, u64), Refusal> {
        self.current()?;
        let (free, total) = result::mem_get_info()?;
        Ok((free as u64, total as u64))
    }

    /// Waits until all that was launched is done, and tells whether it went well.
    pub(crate) fn wait(&self) -> Result<(), Refusal> {
        self.current()?;
        Ok(result::ctx::synchronize()?)
    }

    /// Memory of so many bytes, which hold nothing in particular.
    pub(crate) fn allocate(self: &Arc<Self>, bytes: u64) -> Result<Memory, Refusal> {
        self.current()?;
        let size = usize::try_from(bytes).map_err(|_| Refusal { out_of_memory: true, reason: "beyond any memory".to_owned() })?;
        // SAFETY: the context is current; what is allocated is freed by `Memory` alone.
        let at = unsafe { result::malloc_sync(size) }?;
        Ok(Memory { context: Arc::clone(self), at, bytes })
    }

    /// The kernels of a compiled program (a cubin, or PTX that ends in a zero), in the order of [`Kernel::ALL`].
    pub(crate) fn load(self: &Arc<Self>, program: &[u8]) -> Result<Vec<Function>, Refusal> {
        self.current()?;
        // Of PTX the driver reads up to a zero.
        let mut image = program.to_vec();
        image.push(0);
        // SAFETY: the image is whole, ends in a zero, and outlives the call, which copies it.
        let handle = unsafe { result::module::load_data(image.as_ptr().cast()) }?;
        let module = Arc::new(Module { context: Arc::clone(self), handle });
        let function = |kernel: &Kernel| {
            let name = CString::new(kernel.name()).unwrap_or_default();
            // SAFETY: the module is loaded, and held by the function.
            let handle = unsafe { result::module::get_function(module.handle, name) }?;
            Ok(Function { module: Arc::clone(&module), handle, kernel: *kernel })
        };
        Kernel::ALL.iter().map(function).collect()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once, in `Device::open`; memory and modules hold the context, so that none is left.
        let released = unsafe { result::primary_ctx::release(self.device) };
        if let Err(error) = released {
            tracing::debug!(error = %Refusal::from(error).reason, "a context was not released");
        }
    }
}

/// A loaded program.
#[derive(Debug)]
struct Module {
    context: Arc<Context>,
    handle: sys::CUmodule,
}

// SAFETY: a handle of the driver, used with its context current, as `Context`.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        // A lost device has none any more.
        if self.context.current().is_ok() {
            // SAFETY: loaded once, in `Context::load`; functions hold the module.
            let _ = unsafe { result::module::unload(self.handle) };
        }
    }
}

/// A kernel of a loaded program.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    module: Arc<Module>,
    handle: sys::CUfunction,
    kernel: Kernel,
}

// SAFETY: a handle of the driver, used with its context current, as `Context`.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Function {
    /// Launches it over blocks in two directions. What goes wrong in it is told by a later call.
    ///
    /// `parameters` are those of the kernel: bytes of any other number are refused, for the driver reads as many as the kernel has. Addresses in
    /// them may be wrong without harm to this process: the device's memory is not its own.
    pub(crate) fn launch(&self, (x, y): (u32, u32), parameters: &[u8]) -> Result<(), Refusal> {
        let (own, needed) = (parameters.len(), self.kernel.parameters());
        if own != needed {
            return Err(Refusal { out_of_memory: false, reason: format!("{} is given {own} bytes, not {needed}", self.kernel.name()) });
        }
        self.module.context.current()?;
        // Aligned for any of their fields.
        let words: Vec<u64> = parameters.chunks(8).map(word).collect();
        let mut places = [words.as_ptr().cast_mut().cast::<c_void>()];
        let threads = (self.kernel.threads(), 1, 1);
        // SAFETY: the function's module is held; the kernel has one parameter, of as many bytes as are there (compared above, and with what the
        // compiler says in tests/compile.rs), which the driver copies before it returns.
        Ok(unsafe { result::launch_kernel(self.handle, (x, y, 1), threads, 0, result::stream::null(), &mut places) }?)
    }
}

/// Eight bytes or fewer as they lie in memory.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    u64::from_ne_bytes(word)
}

/// Memory of a device, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    context: Arc<Context>,
    at: sys::CUdeviceptr,
    bytes: u64,
}

impl Memory {
    /// Its address on the device.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether so many bytes lie in it from `offset` on.
    fn holds(&self, offset: u64, bytes: usize) -> Result<(), Refusal> {
        let within = offset.checked_add(bytes as u64).is_some_and(|end| end <= self.bytes);
        let reason = || format!("{bytes} bytes from {offset} of memory of {}", self.bytes);
        if within { Ok(()) } else { Err(Refusal { out_of_memory: false, reason: reason() }) }
    }

    /// Copies bytes to it, after all that was launched before.
    pub(crate) fn write(&self, offset: u64, from: &[u8]) -> Result<(), Refusal> {
        self.holds(offset, from.len())?;
        self.context.current()?;
        // SAFETY: the range is within this memory, as was just seen, and the call returns when the bytes are copied out of `from`.
        Ok(unsafe { result::memcpy_htod_sync(self.at + offset, from) }?)
    }

    /// Copies bytes from it, when all that was launched before is done.
    pub(crate) fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), Refusal> {
        self.holds(offset, to.len())?;
        self.context.current()?;
        // SAFETY: the range is within this memory, as was just seen, and the call returns when all of `to` is written.
        Ok(unsafe { result::memcpy_dtoh_sync(to, self.at + offset) }?)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A lost device has given it back already.
        if self.context.current().is_ok() {
            // SAFETY: allocated once, in `Context::allocate`, and nobody else frees it.
            let _ = unsafe { result::free_sync(self.at) };
        }
    }
}
