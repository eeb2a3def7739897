//! What cannot be asked through files: instructions of the processor and libraries of drivers. The only unsafe code of
//! this crate; every function here is safe to call.

pub(crate) mod amx;
pub(crate) mod cpuid;
pub(crate) mod nvml;
