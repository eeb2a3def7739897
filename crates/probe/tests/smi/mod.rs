//! What the makers' command lines print, as recordings: for an example program and its test, not for the shipped binary.

mod nvidia;
mod rocm;

use probe::Recording;

/// The recording of the machine that one of these texts tells of.
pub fn read(text: &str) -> Result<Recording, String> {
    if text.trim_start().starts_with('{') {
        rocm::read(text)
    } else if text.contains("<nvidia_smi_log") {
        nvidia::read_xml(text)
    } else if text.contains("NVSMI LOG") {
        nvidia::read_text(text)
    } else {
        Err("neither nvidia-smi -q, nvidia-smi -q -x nor rocm-smi --json".into())
    }
}
