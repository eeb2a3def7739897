//! Names of `general.file_type`, as `llama-quantize` spells them.

use mixture::FileType;

/// The name of a file type (`llama_ftype` of `include/llama.h`, llama.cpp v0.6.0-dev); `None` where it is not known.
pub(super) fn name(id: u64) -> Option<&'static str> {
    // Made by the converter alone.
    const NVFP4: u64 = 39;
    match id {
        NVFP4 => Some("NVFP4"),
        id => FileType::from_id(u32::try_from(id).ok()?).map(FileType::name),
    }
}

/// The same in a file of the BitNet fork of llama.cpp, which gave these ids meanings of its own.
pub(super) fn bitnet_fork_name(id: u64) -> Option<&'static str> {
    match id {
        38 => Some("TL1"),
        39 => Some("TL2"),
        40 => Some("I2_S"),
        id => name(id),
    }
}
