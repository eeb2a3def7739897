//! Memory of a device that is counted while it is held.

use crate::error::GpuError;
use crate::ffi::{Memory, Refusal};
use spec::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use workspace::Region;

/// Bytes at multiples of which parts of a buffer begin: those at which the driver's own memory does (CUDA C++ Programming Guide, "Device Memory
/// Accesses": at least 256).
pub const ALIGNMENT: u64 = 256;

/// A buffer, counted, and given back at once when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Memory,
    held: Arc<Mutex<u64>>,
    name: Arc<str>,
}

impl Buffer {
    pub(crate) fn new(memory: Memory, held: &Arc<Mutex<u64>>, name: &Arc<str>) -> Self {
        *held.lock().unwrap_or_else(PoisonError::into_inner) += memory.bytes();
        Self { memory, held: Arc::clone(held), name: Arc::clone(name) }
    }

    fn lost(&self, refusal: Refusal) -> GpuError {
        GpuError::Lost { name: self.name.to_string(), reason: refusal.reason }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) -= self.memory.bytes();
    }
}

/// A part of a buffer, which it holds.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    buffer: Arc<Buffer>,
    offset: u64,
}

impl Part {
    /// All of a buffer.
    pub(crate) fn whole(buffer: Buffer) -> Self {
        Self { buffer: Arc::new(buffer), offset: 0 }
    }

    /// What begins so many bytes behind this.
    pub(crate) fn behind(&self, bytes: u64) -> Self {
        Self { buffer: Arc::clone(&self.buffer), offset: self.offset + bytes }
    }

    /// A region of this.
    pub(crate) fn region(&self, region: Region) -> Self {
        self.behind(region.offset)
    }

    /// Its address on the device.
    pub(crate) fn at(&self) -> u64 {
        self.buffer.memory.at() + self.offset
    }

    /// Copies bytes to its beginning.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), GpuError> {
        self.buffer.memory.write(self.offset, bytes).map_err(|refusal| self.buffer.lost(refusal))
    }

    /// Copies bytes from its beginning, when all that was launched before is done.
    pub(crate) fn read(&self, to: &mut [u8]) -> Result<(), GpuError> {
        self.buffer.memory.read(self.offset, to).map_err(|refusal| self.buffer.lost(refusal))
    }
}

/// That a device has no memory for something.
pub(crate) fn none_left(what: &'static str, bytes: u64, name: &str) -> GpuError {
    GpuError::OutOfMemory { what, needed: Bytes::new(bytes), name: name.to_owned() }
}
