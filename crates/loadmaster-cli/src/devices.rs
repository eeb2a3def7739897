//! `--device`: devices by name, as the engine takes them, or declared by backend and size.

use loadmaster::footprint::{Backend, Device};
use spec::{Bytes, Known};

/// A device that is declared, not detected: `CUDA:24GiB`, or `RPC[CUDA]:24GiB` for that of a remote rpc-server.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredDevice {
    backend: Backend,
    memory: Bytes,
}

/// The devices, named and ordered as the engine would: remote ones first (`src/llama.cpp:268-269`).
pub fn devices_of(declared: &[DeclaredDevice]) -> Vec<Device> {
    let (remote, local): (Vec<_>, Vec<_>) = declared.iter().partition(|device| device.backend.name == "RPC");
    let mut devices: Vec<Device> = Vec::new();
    for DeclaredDevice { backend, memory } in remote.into_iter().chain(local) {
        let index = devices.iter().filter(|device| device.backend.name == backend.name).count();
        let memory = Known::exact(*memory, "--device");
        devices.push(Device::of_its_own(backend.device_name(index), backend.clone(), memory));
    }
    devices
}

/// True for what declares a device rather than names one. Older engines name remote ones `RPC[HOST:PORT]`.
fn declares(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(_, size)| !size.ends_with(']'))
}

/// The parts of `--device` that declare devices, and the rest, which names some.
///
/// # Errors
/// What is wrong with a declaration.
pub fn parts(text: &str) -> Result<(Vec<DeclaredDevice>, Option<String>), String> {
    let (declared, named): (Vec<&str>, Vec<&str>) = text.split(',').partition(|part| declares(part));
    let declared = declared.into_iter().map(device).collect::<Result<_, _>>()?;
    Ok((declared, (!named.is_empty()).then(|| named.join(","))))
}

fn device(text: &str) -> Result<DeclaredDevice, String> {
    const FORM: &str = "a device is BACKEND:SIZE, such as CUDA:24GiB or RPC[CUDA]:24GiB";
    let (name, size) = text.rsplit_once(':').ok_or(FORM)?;
    let backend = match name.strip_prefix("RPC[").and_then(|name| name.strip_suffix(']')) {
        Some(remote) => Backend::rpc(&backend(remote)?),
        None if name.eq_ignore_ascii_case("rpc") => return Err("say what the remote machine computes with: RPC[CUDA]:24GiB".to_owned()),
        None => backend(name)?,
    };
    let memory: Bytes = size.parse().map_err(|error: spec::units::ParseBytesError| format!("{error}; {FORM}"))?;
    // A bare number is bytes, which nobody means here.
    if memory < Bytes::from_mib(1) {
        return Err(format!("{memory} is too small; {FORM}"));
    }
    Ok(DeclaredDevice { backend, memory })
}

fn backend(name: &str) -> Result<Backend, String> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "cuda" => Backend::cuda(false),
        "rocm" | "hip" => Backend::rocm(false),
        "vulkan" => Backend::vulkan(false, None),
        "metal" => Backend::metal(),
        "sycl" => Backend::sycl(),
        _ => return Err(format!("no backend {name:?} is known; there are CUDA, ROCm, Vulkan, Metal, SYCL, and RPC[...] of each")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_declared_by_backend_and_size() {
        let devices: Vec<_> = ["CUDA:24GiB", "cuda:8GiB", "RPC[Vulkan]:16GiB"].map(|text| device(text).unwrap()).into();
        let named: Vec<_> = devices_of(&devices)
            .into_iter()
            .map(|device| (device.name, device.backend.name, device.backend.max_buffer.is_some()))
            .collect();
        let expect = |name: &str, backend: &str, limited| (name.to_owned(), backend.to_owned(), limited);
        assert_eq!(named, [expect("RPC0", "RPC", true), expect("CUDA0", "CUDA", false), expect("CUDA1", "CUDA", false)]);
        for text in ["CUDA:", "CUDA:24", "CUDA:0GiB", "CUDA:-1GiB", "TPU:8GiB", "RPC:8GiB", "RPC[RPC[CUDA]]:8GiB", "CUDA:1GiB,RPC:8GiB"] {
            assert!(parts(text).is_err(), "{text}");
        }
        let named = |text: &str| parts(text).map(|(declared, named)| (declared.len(), named));
        assert_eq!(named("CUDA0,CUDA1"), Ok((0, Some("CUDA0,CUDA1".to_owned()))));
        assert_eq!(named("CUDA:8GiB,CUDA0,RPC[10.0.0.2:50052]"), Ok((1, Some("CUDA0,RPC[10.0.0.2:50052]".to_owned()))));
    }
}
