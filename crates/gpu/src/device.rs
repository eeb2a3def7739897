//! Adapters, and one that is open.

use crate::error::GpuError;
use crate::memory::{Heaps, Memory};
use crate::pipelines::Pipelines;
use spec::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// What an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With memory of its own.
    Discrete,
    /// In the host's memory.
    Integrated,
    /// Of a virtual machine.
    Virtual,
    /// A program that computes as a GPU would.
    Software,
    /// The driver does not say.
    Unknown,
}

/// An adapter that a driver lists.
#[derive(Clone, Debug)]
pub struct Adapter {
    adapter: wgpu::Adapter,
    info: wgpu::AdapterInfo,
    heaps: Option<Heaps>,
}

/// All adapters of Vulkan, Metal and Direct3D 12, in the order of their drivers; none where there is no driver. Starts drivers, which may
/// take a second.
pub fn list() -> Vec<Adapter> {
    let mut about = wgpu::InstanceDescriptor::new_without_display_handle();
    about.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let adapters = pollster::block_on(wgpu::Instance::new(about).enumerate_adapters(wgpu::Backends::all()));
    adapters.into_iter().map(|adapter| Adapter { info: adapter.get_info(), heaps: Heaps::of(&adapter), adapter }).collect()
}

impl Adapter {
    /// The driver's name for it.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self.info.device_type {
            wgpu::DeviceType::DiscreteGpu => Kind::Discrete,
            wgpu::DeviceType::IntegratedGpu => Kind::Integrated,
            wgpu::DeviceType::VirtualGpu => Kind::Virtual,
            wgpu::DeviceType::Cpu => Kind::Software,
            wgpu::DeviceType::Other => Kind::Unknown,
        }
    }

    /// Its place on the PCI bus, `0000:01:00.0`, by which other drivers know it; `None` where the driver does not say.
    pub fn pci(&self) -> Option<&str> {
        Some(self.info.device_pci_bus_id.as_str()).filter(|id| !id.is_empty())
    }

    /// Bytes at multiples of which parts of a buffer begin.
    pub fn alignment(&self) -> u64 {
        u64::from(self.adapter.limits().min_storage_buffer_offset_alignment)
    }

    /// The largest piece of memory that a kernel can be given.
    pub fn largest_piece(&self) -> Bytes {
        largest_piece(&self.adapter.limits())
    }

    /// What it has free now; `None` where its backend is not Vulkan or the driver does not tell.
    pub fn memory(&self) -> Option<Memory> {
        self.heaps.as_ref()?.memory()
    }

    /// Driver and its version, as it calls itself.
    pub fn driver(&self) -> String {
        format!("{} {} ({:?})", self.info.driver, self.info.driver_info, self.info.backend)
    }

    /// Opens it.
    ///
    /// # Errors
    /// A driver that refuses.
    pub fn open(&self) -> Result<Gpu, GpuError> {
        Gpu::open(self)
    }
}

/// Blocks of which small buffers are parts; larger ones are blocks of their own. Memory that the host can see has blocks of half of it.
const BLOCK: u64 = 8 << 20;

/// A device that is open, and its compiled kernels. Memory beyond its budget is refused as the driver would refuse it.
#[derive(Debug)]
pub struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) pipelines: Pipelines,
    name: String,
    limits: wgpu::Limits,
    kind: Kind,
    heaps: Option<Heaps>,
    budget: Option<Bytes>,
    /// Bytes of buffers that are held.
    held: Arc<Mutex<u64>>,
    lost: Arc<Mutex<Option<String>>>,
    /// What wgpu reported outside of any call that waits for it.
    refused: Arc<Mutex<Option<String>>>,
}

impl Gpu {
    /// The first adapter that is no software: discrete ones before integrated ones. `None` where there is none, and the CPU computes.
    ///
    /// # Errors
    /// A driver that refuses.
    pub fn best() -> Result<Option<Self>, GpuError> {
        let mut adapters = list();
        adapters.retain(|adapter| adapter.kind() != Kind::Software);
        adapters.sort_by_key(|adapter| match adapter.kind() {
            Kind::Discrete => 0,
            Kind::Integrated => 1,
            Kind::Virtual | Kind::Unknown | Kind::Software => 2,
        });
        adapters.first().map(Self::open).transpose()
    }

    /// The first adapter whose name contains `name`, software too; case does not matter.
    ///
    /// # Errors
    /// No such adapter, or a driver that refuses.
    pub fn named(name: &str) -> Result<Self, GpuError> {
        let adapters = list();
        let asked = name.to_lowercase();
        let Some(adapter) = adapters.iter().find(|adapter| adapter.name().to_lowercase().contains(&asked)) else {
            let names: Vec<&str> = adapters.iter().map(Adapter::name).collect();
            let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(GpuError::Unknown { asked: name.to_owned(), found });
        };
        Self::open(adapter)
    }

    fn open(adapter: &Adapter) -> Result<Self, GpuError> {
        let limits = adapter.adapter.limits();
        let about = wgpu::DeviceDescriptor {
            label: Some("loadmaster"),
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::Manual { suballocated_device_memory_block_size: BLOCK..BLOCK },
            ..wgpu::DeviceDescriptor::default()
        };
        let opened = pollster::block_on(adapter.adapter.request_device(&about));
        let (device, queue) = opened.map_err(|error| GpuError::Open { name: adapter.name().to_owned(), reason: error.to_string() })?;
        let (lost, refused) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let noted = Arc::clone(&lost);
        device.set_device_lost_callback(move |reason, text| note(&noted, format!("{reason:?} {text}").trim().to_owned()));
        let noted = Arc::clone(&refused);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| note(&noted, error.to_string())));
        let pipelines = Pipelines::new(&device);
        let held = Arc::new(Mutex::new(0));
        Ok(Self {
            device,
            queue,
            pipelines,
            name: adapter.name().to_owned(),
            limits,
            kind: adapter.kind(),
            heaps: adapter.heaps.clone(),
            budget: None,
            held,
            lost,
            refused,
        })
    }

    /// With a budget: buffers of more bytes in all are refused as if there was no memory.
    #[must_use]
    pub fn with_budget(mut self, budget: Option<Bytes>) -> Self {
        self.budget = budget;
        self
    }

    /// The driver's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a program computes as a GPU would.
    pub fn is_software(&self) -> bool {
        self.kind == Kind::Software
    }

    /// Bytes at multiples of which regions of the arena begin.
    pub fn alignment(&self) -> u64 {
        u64::from(self.limits.min_storage_buffer_offset_alignment)
    }

    /// The largest piece of memory that a kernel can be given.
    pub fn largest_piece(&self) -> Bytes {
        largest_piece(&self.limits)
    }

    /// The largest number of workgroups in one direction.
    pub(crate) fn most_groups(&self) -> u32 {
        self.limits.max_compute_workgroups_per_dimension
    }

    /// Bytes of the buffers that are held: weights and arenas.
    pub fn held(&self) -> Bytes {
        Bytes::new(*self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it has free now; `None` where its backend is not Vulkan or the driver does not tell. Asks the driver and waits for nothing that
    /// was sent; may be asked at any time, also of a device that is lost.
    pub fn memory(&self) -> Option<Memory> {
        self.heaps.as_ref()?.memory()
    }

    /// What the device's allocator says: bytes that are allocated, and bytes that are reserved for them in whole blocks. `None` where the
    /// backend has no such report.
    pub fn allocated(&self) -> Option<(Bytes, Bytes)> {
        let report = self.device.generate_allocator_report()?;
        Some((Bytes::new(report.total_allocated_bytes), Bytes::new(report.total_reserved_bytes)))
    }

    /// What the allocator reserves at least and at most for buffers of these sizes that are held together: those beyond a block as they are,
    /// the rest in whole blocks (gpu-allocator 0.28 `vulkan/mod.rs:MemoryType::allocate`, first fit, which keeps one empty block).
    pub fn reserved(sizes: &[Bytes]) -> (Bytes, Bytes) {
        let of = |block: u64| -> (u64, u64) {
            let (mut large, mut blocks) = (0_u64, Vec::new());
            for size in sizes.iter().map(|size| size.get()) {
                if size > block {
                    large = large.saturating_add(size);
                } else if let Some(left) = blocks.iter_mut().find(|left| **left >= size) {
                    *left -= size;
                } else {
                    blocks.push(block - size);
                }
            }
            (large, blocks.len() as u64)
        };
        let ((large, blocks), (most_large, most_blocks)) = (of(BLOCK / 2), of(BLOCK));
        let low = large.saturating_add(blocks * (BLOCK / 2)).min(most_large.saturating_add(most_blocks * BLOCK));
        let high = large.saturating_add((blocks + 1) * (BLOCK / 2)).max(most_large.saturating_add((most_blocks + 1) * BLOCK));
        (Bytes::new(low), Bytes::new(high))
    }

    /// A buffer, or why there is none. Sizes are filled up to whole words.
    pub(crate) fn buffer(&self, what: &'static str, bytes: u64, usage: wgpu::BufferUsages) -> Result<Held, GpuError> {
        let name = || self.name.clone();
        let needed = Bytes::new(bytes);
        if bytes > self.limits.max_buffer_size {
            return Err(GpuError::Limit { what, needed, allowed: Bytes::new(self.limits.max_buffer_size), name: name() });
        }
        let size = bytes.next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT);
        if self.budget.is_some_and(|budget| self.held().get().saturating_add(size) > budget.get()) {
            return Err(GpuError::OutOfMemory { what, needed, name: name() });
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false });
        if pollster::block_on(scope.pop()).is_some() {
            return Err(GpuError::OutOfMemory { what, needed, name: name() });
        }
        self.working()?;
        Ok(Held::new(buffer, &self.held))
    }

    /// Sends commands and what was written to buffers before them.
    pub(crate) fn send(&self, commands: wgpu::CommandEncoder) {
        self.queue.submit([commands.finish()]);
    }

    /// Waits until all that was sent is done.
    pub(crate) fn wait(&self) -> Result<(), GpuError> {
        let waited = self.device.poll(wgpu::PollType::wait_indefinitely());
        self.working()?;
        waited.map(|_| ()).map_err(|error| GpuError::Lost { name: self.name.clone(), reason: error.to_string() })
    }

    /// Waits until what was written to buffers is there, and its copies on the way are given back.
    pub(crate) fn flush(&self) -> Result<(), GpuError> {
        self.send(self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default()));
        self.wait()
    }

    /// Waits, and copies the first floats of a buffer.
    pub(crate) fn read(&self, from: &wgpu::Buffer, to: &mut [f32]) -> Result<(), GpuError> {
        let bytes = size_of_val(to) as u64;
        from.map_async(wgpu::MapMode::Read, ..bytes, |_| {});
        self.wait()?;
        let lost = |error: &dyn std::fmt::Display| GpuError::Lost { name: self.name.clone(), reason: error.to_string() };
        {
            let view = from.get_mapped_range(..bytes).map_err(|error| lost(&error))?;
            bytemuck::cast_slice_mut(to).copy_from_slice(&view);
        }
        from.unmap();
        Ok(())
    }

    /// Whether the device is there and has refused nothing.
    pub(crate) fn working(&self) -> Result<(), GpuError> {
        let said = |of: &Mutex<Option<String>>| of.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(reason) = said(&self.lost) {
            return Err(GpuError::Lost { name: self.name.clone(), reason });
        }
        said(&self.refused).map_or(Ok(()), |reason| Err(GpuError::Refused { name: self.name.clone(), reason }))
    }

    /// Loses the device on purpose, as a driver that is reset would: for tests of what comes after.
    pub fn lose(&self) {
        self.device.destroy();
        // The loss is reported when the device is asked next.
        let _ = self.device.poll(wgpu::PollType::Poll);
    }
}

fn largest_piece(limits: &wgpu::Limits) -> Bytes {
    Bytes::new(limits.max_storage_buffer_binding_size.min(limits.max_buffer_size))
}

fn note(place: &Mutex<Option<String>>, text: String) {
    // The first word is the cause; what follows are its consequences.
    place.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
}

/// A buffer that is counted while it is held, and given back at once when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    buffer: wgpu::Buffer,
    held: Arc<Mutex<u64>>,
}

impl Held {
    fn new(buffer: wgpu::Buffer, held: &Arc<Mutex<u64>>) -> Self {
        *held.lock().unwrap_or_else(PoisonError::into_inner) += buffer.size();
        Self { buffer, held: Arc::clone(held) }
    }
}

impl std::ops::Deref for Held {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.buffer
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) -= self.buffer.size();
        self.buffer.destroy();
    }
}
