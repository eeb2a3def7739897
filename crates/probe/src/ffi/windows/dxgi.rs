//! DXGI and DXCore, loaded at run time: small editions of Windows lack the one, versions before 2004 the other.
//!
//! Sources: Windows SDK headers `dxgi1_4.h`, `dxcore_interface.h`.

use super::refusal;
use crate::host::{DxgiQuestion, Refusal};
use crate::live::Ask;
use libloading::Library;
use std::ffi::c_void;
use std::fmt::Write;
use windows::Win32::Foundation::LUID;
use windows::Win32::Graphics::DXCore::{
    DXCoreAdapterProperty, DriverDescription, IDXCoreAdapter, IDXCoreAdapterFactory, IDXCoreAdapterList, IsIntegrated,
};
use windows::Win32::Graphics::Dxgi::{
    DXGI_ADAPTER_DESC1, DXGI_MEMORY_SEGMENT_GROUP, DXGI_MEMORY_SEGMENT_GROUP_LOCAL, DXGI_MEMORY_SEGMENT_GROUP_NON_LOCAL,
    DXGI_QUERY_VIDEO_MEMORY_INFO, IDXGIAdapter1, IDXGIAdapter3, IDXGIDevice, IDXGIFactory1,
};
use windows::core::{GUID, HRESULT, Interface};

/// `DXCORE_HARDWARE_TYPE_ATTRIBUTE_NPU`, newer than the bindings.
const NPU: GUID = GUID::from_u128(0xd46140c4_add7_451b_9e56_06fe8c3b58ed);
/// More adapters than any machine holds.
const MAX_ADAPTERS: u32 = 64;

type Create = unsafe extern "system" fn(*const GUID, *mut *mut c_void) -> HRESULT;

/// The interfaces. They stay on the thread that made them.
struct Graphics {
    // Before the libraries, which hold their code.
    dxgi: IDXGIFactory1,
    dxcore: Option<IDXCoreAdapterFactory>,
    _libraries: (Library, Option<Library>),
}

/// Opens DXGI, and DXCore where it is.
///
/// # Errors
/// [`Refusal::NotFound`] where there is no DXGI.
pub(crate) fn open() -> Result<Ask<DxgiQuestion>, Refusal> {
    let (library, dxgi) = create::<IDXGIFactory1>("dxgi.dll", b"CreateDXGIFactory1\0")?;
    let (second, dxcore) = match create::<IDXCoreAdapterFactory>("dxcore.dll", b"DXCoreCreateAdapterFactory\0") {
        Ok((library, factory)) => (Some(library), Some(factory)),
        Err(_) => (None, None),
    };
    let graphics = Graphics { dxgi, dxcore, _libraries: (library, second) };
    Ok(Box::new(move |question| graphics.ask(question)))
}

/// A library of the system, and the factory that its function of this name makes.
#[allow(unsafe_code)]
fn create<T: Interface>(file: &str, function: &[u8]) -> Result<(Library, T), Refusal> {
    // SAFETY: a library of Windows itself, found by its fixed name.
    let library = unsafe { Library::new(file) }.map_err(|_| Refusal::NotFound)?;
    // SAFETY: both functions have this type in their headers, and the library lives as long as the factory.
    let create = unsafe { library.get::<Create>(function) }.map(|symbol| *symbol).map_err(|_| Refusal::NotSupported)?;
    let mut made = std::ptr::null_mut();
    // SAFETY: the identity is that of `T`, the pointer is to a local pointer.
    unsafe { create(&T::IID, &raw mut made) }.ok().map_err(|error| refusal(&error))?;
    if made.is_null() {
        return Err(Refusal::NotSupported);
    }
    // SAFETY: the call succeeded, so that the pointer is to a `T` of which one reference is ours.
    Ok((library, unsafe { T::from_raw(made) }))
}

impl Graphics {
    fn ask(&self, question: DxgiQuestion) -> Result<String, Refusal> {
        match question {
            DxgiQuestion::Count => Ok((0..MAX_ADAPTERS).take_while(|index| self.adapter(*index).is_ok()).count().to_string()),
            DxgiQuestion::Adapter(index) => self.describe(&self.adapter(index)?),
            DxgiQuestion::Npus => self.npus(),
        }
    }

    #[allow(unsafe_code)]
    fn adapter(&self, index: u32) -> Result<IDXGIAdapter1, Refusal> {
        // SAFETY: an index out of range is answered with an error.
        unsafe { self.dxgi.EnumAdapters1(index) }.map_err(|_| Refusal::NotFound)
    }

    #[allow(unsafe_code)]
    fn describe(&self, adapter: &IDXGIAdapter1) -> Result<String, Refusal> {
        // SAFETY: the call fills a structure of fixed size.
        let about: DXGI_ADAPTER_DESC1 = unsafe { adapter.GetDesc1() }.map_err(|error| refusal(&error))?;
        let luid = about.AdapterLuid;
        let mut text = format!(
            "name: {}\nvendor: {:x}\ndevice: {:x}\nluid: {:x}:{:x}\nflags: {}\ndedicated: {}\nshared: {}",
            until_nul(&about.Description),
            about.VendorId,
            about.DeviceId,
            luid.HighPart,
            luid.LowPart,
            about.Flags,
            about.DedicatedVideoMemory,
            about.SharedSystemMemory
        );
        if let Ok(newer) = adapter.cast::<IDXGIAdapter3>() {
            for (group, name) in [(DXGI_MEMORY_SEGMENT_GROUP_LOCAL, "local"), (DXGI_MEMORY_SEGMENT_GROUP_NON_LOCAL, "other")] {
                if let Some(info) = segment(&newer, group) {
                    let _ = write!(text, "\n{name}-budget: {}\n{name}-used: {}", info.Budget, info.CurrentUsage);
                }
            }
        }
        if let Some(integrated) = self.integrated(&luid) {
            let _ = write!(text, "\nintegrated: {}", u8::from(integrated));
        }
        // SAFETY: the identity is that of an interface that every version knows.
        if let Ok(version) = unsafe { adapter.CheckInterfaceSupport(&IDXGIDevice::IID) } {
            let part = |shift: u32| (version >> shift) & 0xffff;
            let _ = write!(text, "\ndriver: {}.{}.{}.{}", part(48), part(32), part(16), part(0));
        }
        Ok(text)
    }

    #[allow(unsafe_code)]
    fn integrated(&self, luid: &LUID) -> Option<bool> {
        // SAFETY: the pointer is to a number that lives through the call.
        let adapter: IDXCoreAdapter = unsafe { self.dxcore.as_ref()?.GetAdapterByLuid(luid) }.ok()?;
        let mut value = false;
        // SAFETY: this property is a C++ bool, one byte that is 0 or 1.
        unsafe { adapter.GetProperty(IsIntegrated, size_of::<bool>(), (&raw mut value).cast()) }.ok()?;
        Some(value)
    }

    #[allow(unsafe_code)]
    fn npus(&self) -> Result<String, Refusal> {
        let factory = self.dxcore.as_ref().ok_or(Refusal::NotSupported)?;
        // SAFETY: the list of attributes lives through the call; a version that does not know the attribute lists nothing.
        let list: IDXCoreAdapterList = unsafe { factory.CreateAdapterList(&[NPU]) }.map_err(|error| refusal(&error))?;
        // SAFETY: no argument.
        let count = unsafe { list.GetAdapterCount() }.min(MAX_ADAPTERS);
        let name = |index: u32| {
            // SAFETY: the index is below the count.
            let adapter: IDXCoreAdapter = unsafe { list.GetAdapter(index) }.ok()?;
            property_text(&adapter, DriverDescription)
        };
        Ok((0..count).filter_map(name).collect::<Vec<_>>().join("\n"))
    }
}

#[allow(unsafe_code)]
fn segment(adapter: &IDXGIAdapter3, group: DXGI_MEMORY_SEGMENT_GROUP) -> Option<DXGI_QUERY_VIDEO_MEMORY_INFO> {
    let mut info = DXGI_QUERY_VIDEO_MEMORY_INFO::default();
    // SAFETY: node 0 is on every adapter; the call fills a structure of fixed size.
    unsafe { adapter.QueryVideoMemoryInfo(0, group, &raw mut info) }.ok()?;
    Some(info)
}

/// A property that is a text ending in NUL.
#[allow(unsafe_code)]
fn property_text(adapter: &IDXCoreAdapter, property: DXCoreAdapterProperty) -> Option<String> {
    const LONGEST: usize = 1024;
    // SAFETY: takes a number; one that it does not know is an error.
    let length = unsafe { adapter.GetPropertySize(property) }.ok().filter(|length| (1..=LONGEST).contains(length))?;
    let mut bytes = vec![0u8; length];
    // SAFETY: the buffer has room for `length` bytes.
    unsafe { adapter.GetProperty(property, length, bytes.as_mut_ptr().cast()) }.ok()?;
    Some(String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned())
}

fn until_nul(units: &[u16]) -> String {
    String::from_utf16_lossy(units.split(|unit| *unit == 0).next().unwrap_or_default())
}
