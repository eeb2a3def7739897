//! The calls of macOS, on systems that are not macOS.

use crate::host::{MacQuestion, MetalQuestion, Refusal};
use crate::live::Ask;

pub(crate) fn sysctl(_name: &str) -> Result<String, Refusal> {
    Err(Refusal::NotSupported)
}

pub(crate) fn ask(_question: MacQuestion) -> Result<String, Refusal> {
    Err(Refusal::NotSupported)
}

pub(crate) fn open_metal() -> Result<Ask<MetalQuestion>, Refusal> {
    Err(Refusal::NotSupported)
}
