//! Devices of the driver, and one that is open.

use crate::error::GpuError;
use crate::ffi::{Context, Device, Driver, Function, Refusal};
use crate::kernel::{self, Kernel, Lose};
use crate::memory::{Buffer, Part, none_left};
use spec::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// The least compute capability: products of four bytes (PTX ISA, `dp4a`) are there from 6.1 on.
const LEAST: (u32, u32) = (6, 1);

/// A device that the driver lists.
#[derive(Clone, Debug)]
pub struct Adapter {
    device: Device,
    name: String,
}

/// All devices, in the driver's order (`CUDA_VISIBLE_DEVICES` counts); none where there is no driver. Starts it, which may take a second.
pub fn list() -> Vec<Adapter> {
    match Driver::load() {
        Ok(driver) => driver.devices().into_iter().map(|device| Adapter { name: device.name(), device }).collect(),
        Err(reason) => {
            tracing::debug!(%reason, "no CUDA");
            Vec::new()
        }
    }
}

impl Adapter {
    /// The driver's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its place on the PCI bus, `0000:01:00.0`, by which other drivers know it; `None` where the driver does not say.
    pub fn pci(&self) -> Option<String> {
        self.device.pci()
    }

    /// Its memory that is free now, and all of it (`cuMemGetInfo`). Opens a context to ask, which takes a moment and some memory meanwhile.
    ///
    /// # Errors
    /// A driver that refuses.
    pub fn memory(&self) -> Result<(Bytes, Bytes), GpuError> {
        let asked = self.device.open().and_then(|context| context.memory());
        let open = |refusal: Refusal| GpuError::Open { name: self.name.clone(), reason: refusal.reason };
        asked.map(|(free, total)| (Bytes::new(free), Bytes::new(total))).map_err(open)
    }

    /// Whether its memory is the host's.
    pub fn is_integrated(&self) -> bool {
        self.device.is_integrated()
    }

    /// Its compute capability, major and minor.
    pub fn capability(&self) -> Option<(u32, u32)> {
        self.device.capability()
    }

    /// The driver, by the version of CUDA that it knows.
    pub fn driver(&self) -> String {
        self.device.driver().version().map_or_else(|| "CUDA".to_owned(), |(major, minor)| format!("CUDA {major}.{minor}"))
    }

    /// Opens it and compiles the kernels for it, which takes some seconds.
    ///
    /// # Errors
    /// A device below compute capability 6.1, no NVRTC, a driver that refuses.
    pub fn open(&self) -> Result<Gpu, GpuError> {
        let name = || self.name.clone();
        let open = |refusal: Refusal| GpuError::Open { name: name(), reason: refusal.reason };
        let (major, minor) =
            self.capability().ok_or_else(|| GpuError::Open { name: name(), reason: "it tells no compute capability".to_owned() })?;
        if (major, minor) < LEAST {
            return Err(GpuError::Old { name: name(), major, minor });
        }
        let program = kernel::compile(&self.name, major * 10 + minor)?;
        let context = self.device.open().map_err(open)?;
        let functions = context.load(&program).map_err(open)?;
        Ok(Gpu { functions, context, name: self.name.as_str().into(), budget: None, held: Arc::new(Mutex::new(0)) })
    }
}

/// A device that is open, and its compiled kernels. Memory beyond its budget is refused as the driver would refuse it.
#[derive(Debug)]
pub struct Gpu {
    /// By [`Kernel::ALL`].
    functions: Vec<Function>,
    context: Arc<Context>,
    name: Arc<str>,
    budget: Option<Bytes>,
    /// Bytes of buffers that are held.
    held: Arc<Mutex<u64>>,
}

impl Gpu {
    /// The first device; `None` where there is none, and the CPU computes.
    ///
    /// # Errors
    /// As [`Adapter::open`].
    pub fn best() -> Result<Option<Self>, GpuError> {
        list().first().map(Adapter::open).transpose()
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

    /// Bytes of the buffers that are held: weights, keys and values, arenas.
    pub fn held(&self) -> Bytes {
        Bytes::new(*self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Memory of the device that is free now, and all of it (`cuMemGetInfo`).
    ///
    /// # Errors
    /// A device that is lost.
    pub fn memory(&self) -> Result<(Bytes, Bytes), GpuError> {
        let (free, total) = self.context.memory().map_err(|refusal| self.lost(refusal))?;
        Ok((Bytes::new(free), Bytes::new(total)))
    }

    /// Waits until all that was launched is done.
    ///
    /// # Errors
    /// A device that is lost.
    pub fn wait(&self) -> Result<(), GpuError> {
        self.context.wait().map_err(|refusal| self.lost(refusal))
    }

    /// A buffer, or why there is none.
    pub(crate) fn buffer(&self, what: &'static str, bytes: u64) -> Result<Part, GpuError> {
        if self.budget.is_some_and(|budget| self.held().get().saturating_add(bytes) > budget.get()) {
            return Err(none_left(what, bytes, &self.name));
        }
        match self.context.allocate(bytes) {
            Ok(memory) => Ok(Part::whole(Buffer::new(memory, &self.held, &self.name))),
            Err(refusal) if refusal.out_of_memory => Err(none_left(what, bytes, &self.name)),
            Err(refusal) => Err(self.lost(refusal)),
        }
    }

    /// Launches a kernel over blocks in two directions, after what was launched before.
    pub(crate) fn launch<P: bytemuck::Pod>(&self, kernel: Kernel, blocks: (u32, u32), parameters: &P) -> Result<(), GpuError> {
        let function = Kernel::ALL.iter().zip(&self.functions).find(|(known, _)| **known == kernel);
        let Some((_, function)) = function else {
            return Err(GpuError::Open { name: self.name.to_string(), reason: format!("it has no kernel {}", kernel.name()) });
        };
        function.launch(blocks, bytemuck::bytes_of(parameters)).map_err(|refusal| self.lost(refusal))
    }

    fn lost(&self, refusal: Refusal) -> GpuError {
        GpuError::Lost { name: self.name.to_string(), reason: refusal.reason }
    }

    /// Loses the device on purpose, as a driver that is reset would: for tests of what comes after. No other context of this process on it works
    /// from then on.
    pub fn lose(&self) {
        // The loss is reported when the device is asked next.
        let _ = self.launch(Kernel::Lose, (1, 1), &Lose { unused: 0 });
        let _ = self.wait();
    }
}
