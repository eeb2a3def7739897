//! Which part of a plan a reported buffer belongs to, by ggml's names of buffer types.

use crate::launch::{BufferUse, ReportedBuffer};

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A device, by its place in the plan's target.
    Device(usize),
    Host,
}

/// Part of a place, named as in a receipt.
pub(super) fn place(buffer: &ReportedBuffer, devices: &[String]) -> (Place, &'static str) {
    let name = buffer.buffer_type.as_str();
    // Metal maps files into device memory, and Vulkan and Metal have private buffers beside shared ones.
    let device_name = name.strip_suffix("_Mapped").or_else(|| name.strip_suffix("_Private")).unwrap_or(name);
    // Devices that split mode `tensor` joins are one.
    let joined = |device: &str| device_name.starts_with("Meta(") && device.starts_with("Meta(");
    let place = devices.iter().position(|device| device == device_name || joined(device)).map_or(Place::Host, Place::Device);
    let part = match (buffer.usage, place) {
        (BufferUse::Context, _) => "context",
        (BufferUse::Compute, _) => "compute",
        (BufferUse::Output, _) => "output",
        (BufferUse::Weights, Place::Device(_)) => "weights",
        // `CPU_Mapped`: the file itself. `CPU` and pinned `CUDA_Host`: copies. The rest (`CPU_REPACK`, `AMX`,
        // `CPU_KLEIDIAI`, ...) are extra buffer types of the CPU, which hold repacked weights.
        (BufferUse::Weights, Place::Host) => match name {
            _ if name.ends_with("_Mapped") => "weights_mapped",
            "CPU" => "weights",
            _ if name.ends_with("_Host") => "weights",
            _ => "weights_repacked",
        },
    };
    (place, part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::Bytes;

    #[test]
    fn every_buffer_type_has_its_place() {
        let devices = ["CUDA0".to_owned(), "MTL0".to_owned()];
        let of = |name: &str, usage| {
            place(&ReportedBuffer { buffer_type: name.into(), usage, size: Bytes::ZERO, rounding: Bytes::ZERO }, &devices)
        };
        assert_eq!(of("CUDA0", BufferUse::Weights), (Place::Device(0), "weights"));
        assert_eq!(of("MTL0_Mapped", BufferUse::Weights), (Place::Device(1), "weights"));
        assert_eq!(of("CPU_Mapped", BufferUse::Weights), (Place::Host, "weights_mapped"));
        assert_eq!(of("CUDA_Host", BufferUse::Weights), (Place::Host, "weights"));
        assert_eq!(of("CUDA_Host", BufferUse::Compute), (Place::Host, "compute"));
        assert_eq!(of("AMX", BufferUse::Weights), (Place::Host, "weights_repacked"));
        assert_eq!(of("CPU_REPACK", BufferUse::Weights), (Place::Host, "weights_repacked"));
        let joined = ["Meta()".to_owned()];
        let meta =
            ReportedBuffer { buffer_type: "Meta(CUDA0,CUDA1)".into(), usage: BufferUse::Compute, size: Bytes::ZERO, rounding: Bytes::ZERO };
        assert_eq!(place(&meta, &joined), (Place::Device(0), "compute"));
        assert_eq!(of("CPU", BufferUse::Output), (Place::Host, "output"));
    }
}
