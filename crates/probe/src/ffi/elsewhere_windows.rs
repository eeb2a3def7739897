//! The calls of Windows, on systems that are not Windows.

use crate::host::{DxgiQuestion, Refusal, WindowsQuestion};
use crate::live::Ask;

pub(crate) fn ask(_question: WindowsQuestion) -> Result<String, Refusal> {
    Err(Refusal::NotSupported)
}

pub(crate) fn registry(_path: &str) -> Result<String, Refusal> {
    Err(Refusal::NotSupported)
}

pub(crate) fn registry_keys(_path: &str) -> Result<Vec<String>, Refusal> {
    Err(Refusal::NotSupported)
}

pub(crate) fn open_dxgi() -> Result<Ask<DxgiQuestion>, Refusal> {
    Err(Refusal::NotSupported)
}
