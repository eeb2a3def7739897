//! The rules of each ggml backend that loadmaster knows, as data.
//!
//! Alignment, padding and capabilities follow llama.cpp v0.6.0-dev (crate llama-cpp-sys-2 0.1.161); each constructor
//! names the lines. What a driver takes beside every buffer is measured, not derived, and so an interval.

use crate::roles::Use;
use crate::target::Backend;
use spec::model::Tensor;
use spec::{Bytes, Known, QuantType};

impl Backend {
    /// NVIDIA's CUDA.
    ///
    /// `ggml/src/ggml-cuda/ggml-cuda.cu:897-921` (alignment 128; a quantised row is padded to 512 weights once per tensor),
    /// `:5226-5234` (asynchronous, events, pinned host buffer; no mapping beside an integrated GPU).
    pub fn cuda(integrated: bool) -> Self {
        Self {
            name: "CUDA".into(),
            alignment: 128,
            quantized_row_padding: Some(512),
            max_buffer: None,
            max_tensor: None,
            runtime: Known::estimated(
                Bytes::from_mib(165),
                Bytes::from_mib(100),
                Bytes::from_mib(500),
                "CUDA context and modules (156 to 168 MiB in six runs on one card; more on cards with more processors), cuBLAS workspace (4 MiB, 32 MiB from Hopper on; common.cuh:1534)",
            ),
            runtime_host: Known::estimated(
                Bytes::from_mib(250),
                Bytes::from_mib(120),
                Bytes::from_mib(500),
                "CUDA driver libraries and pinned staging in host memory",
            ),
            host_buffer: true,
            host_alignment: 32,
            pipeline: true,
            mmap: !integrated,
            maps_weights: false,
            splits_rows: false,
        }
    }

    /// AMD's ROCm: the CUDA backend compiled for HIP.
    pub fn rocm(integrated: bool) -> Self {
        Self {
            name: "ROCm".into(),
            runtime: Known::estimated(
                Bytes::from_mib(250),
                Bytes::from_mib(100),
                Bytes::from_mib(800),
                "HIP context and hipBLAS workspace; no measurement at hand",
            ),
            ..Self::cuda(integrated)
        }
    }

    /// Vulkan. Alignment is the device's `minStorageBufferOffsetAlignment` (16 to 256; 64 where not known).
    ///
    /// `ggml/src/ggml-vulkan/ggml-vulkan.cpp:13056-13070` (alignment, size), `:4216-4221` (blocks of 1 GiB at most),
    /// `:15309-15315` (capabilities). Scratch buffers are allocated on first use (`:12146-12166`).
    pub fn vulkan(integrated: bool, alignment: Option<u64>) -> Self {
        Self {
            name: "Vulkan".into(),
            alignment: alignment.filter(|a| a.is_power_of_two()).unwrap_or(64),
            quantized_row_padding: None,
            max_buffer: Some(Bytes::from_gib(1)),
            max_tensor: Some(Bytes::new(u64::from(u32::MAX))),
            runtime: Known::estimated(
                Bytes::from_mib(40),
                Bytes::from_mib(8),
                Bytes::from_mib(200),
                "7 starts against nvidia-smi: 10 to 54 MiB more than the buffers after load",
            ),
            runtime_host: Known::estimated(
                Bytes::from_mib(150),
                Bytes::from_mib(60),
                Bytes::from_mib(400),
                "Vulkan loader and driver libraries",
            ),
            host_buffer: true,
            host_alignment: 64,
            pipeline: true,
            mmap: !integrated,
            maps_weights: false,
            splits_rows: false,
        }
    }

    /// True where this program's own kernels compute on it.
    pub fn is_own(&self) -> bool {
        matches!(self.name.as_str(), Self::WGPU | Self::OWN_CUDA)
    }

    /// Name of [`Backend::wgpu`].
    pub const WGPU: &str = "wgpu";

    /// What this program's own GPU kernels reach through wgpu (Vulkan, Metal, Direct3D 12), with the limits that the device has: the
    /// alignment of parts of a buffer, and the largest piece that a kernel can be given.
    ///
    /// Blocks of up to 8 MiB are reserved around small buffers (crate `gpu`, `device.rs`); the driver's context is not measured on hardware.
    pub fn wgpu(alignment: u64, largest: Bytes) -> Self {
        Self {
            name: Self::WGPU.into(),
            alignment: alignment.max(1),
            max_buffer: Some(largest),
            max_tensor: Some(largest),
            runtime: Known::estimated(
                Bytes::from_mib(64),
                Bytes::from_mib(8),
                Bytes::from_mib(500),
                "the driver's context, and blocks around small buffers: 8 MiB each; no measurement on hardware",
            ),
            runtime_host: Known::estimated(
                Bytes::from_mib(150),
                Bytes::from_mib(20),
                Bytes::from_mib(400),
                "driver libraries and shader compiler",
            ),
            host_buffer: false,
            pipeline: false,
            mmap: true,
            ..Self::vulkan(false, None)
        }
    }

    /// Name of [`Backend::own_cuda`]: in small letters, which llama.cpp's is not.
    pub const OWN_CUDA: &str = "cuda";

    /// What this program's own kernels reach through CUDA: three buffers of any size, whose parts begin at multiples of `alignment`.
    ///
    /// What the context takes is not measured with these kernels: llama.cpp's has more code and cuBLAS beside it.
    pub fn own_cuda(alignment: u64) -> Self {
        Self {
            name: Self::OWN_CUDA.into(),
            alignment: alignment.max(1),
            quantized_row_padding: None,
            runtime: Known::estimated(
                Bytes::from_mib(160),
                Bytes::from_mib(60),
                Bytes::from_mib(500),
                "CUDA context and kernels: llama.cpp's took 156 to 168 MiB in six runs on one card; no measurement of ours",
            ),
            runtime_host: Known::estimated(
                Bytes::from_mib(250),
                Bytes::from_mib(100),
                Bytes::from_mib(700),
                "CUDA driver libraries and NVRTC in host memory; no measurement",
            ),
            host_buffer: false,
            pipeline: false,
            mmap: true,
            ..Self::cuda(false)
        }
    }

    /// Apple's Metal. Weights are used in place from the mapped file.
    ///
    /// `ggml/src/ggml-metal/ggml-metal.cpp:269-285` (alignment 32), `:701-707` (capabilities; no pinned host buffer, buffers over
    /// memory of the host).
    pub fn metal() -> Self {
        Self {
            name: "Metal".into(),
            alignment: 32,
            quantized_row_padding: None,
            max_buffer: None,
            max_tensor: None,
            runtime: Known::estimated(
                Bytes::from_mib(60),
                Bytes::from_mib(10),
                Bytes::from_mib(250),
                "Metal command queues and compiled kernels; no measurement at hand",
            ),
            runtime_host: Known::estimated(Bytes::from_mib(60), Bytes::from_mib(20), Bytes::from_mib(150), "Metal frameworks"),
            host_buffer: false,
            host_alignment: 32,
            pipeline: true,
            mmap: true,
            maps_weights: true,
            splits_rows: false,
        }
    }

    /// Intel's SYCL.
    ///
    /// `ggml/src/ggml-sycl/ggml-sycl.cpp:1090-1100` (alignment 128, rows padded to 512 as on CUDA), `get_props` (asynchronous,
    /// events, pinned host buffer), `:7277` (rows). One logged run agrees in every buffer.
    pub fn sycl() -> Self {
        Self {
            name: "SYCL".into(),
            splits_rows: true,
            runtime: Known::estimated(
                Bytes::from_mib(200),
                Bytes::from_mib(50),
                Bytes::from_mib(700),
                "Level Zero context and kernels; no measurement at hand",
            ),
            ..Self::cuda(false)
        }
    }

    /// A device of a remote `rpc-server`, whose own backend is `remote`.
    ///
    /// `ggml/src/ggml-rpc/ggml-rpc.cpp:820-930` (alignment, largest buffer and the size of quantised and other special tensors
    /// are asked of the server), `:2190-2200` (asynchronous, events, no pinned host buffer). Memory is the remote machine's.
    pub fn rpc(remote: &Self) -> Self {
        Self {
            name: "RPC".into(),
            host_buffer: false,
            pipeline: true,
            mmap: true,
            maps_weights: false,
            splits_rows: false,
            ..remote.clone()
        }
    }

    /// A pretended GPU for tests against the engine: discrete, with CUDA's alignment and padding, no pinned host buffer, and
    /// a pipeline where `pipeline` is set. What it takes beside its buffers is nothing.
    pub fn pretended(pipeline: bool) -> Self {
        Self {
            name: "FAKE".into(),
            alignment: 128,
            quantized_row_padding: Some(512),
            max_buffer: None,
            max_tensor: None,
            runtime: Known::exact(Bytes::ZERO, "a pretended device"),
            runtime_host: Known::exact(Bytes::ZERO, "a pretended device"),
            host_buffer: false,
            host_alignment: 32,
            pipeline,
            mmap: true,
            maps_weights: false,
            splits_rows: false,
        }
    }

    /// The engine's name of this backend's device `index` (`ggml-metal.cpp:15` calls its own `MTL`).
    pub fn device_name(&self, index: usize) -> String {
        let prefix = if self.name == "Metal" { "MTL" } else { &self.name };
        format!("{prefix}{index}")
    }

    /// Bytes that a tensor of `bytes` bytes with rows of `width` elements takes in this backend's memory.
    pub(crate) fn padded(&self, ty: QuantType, width: u64, bytes: Bytes) -> Bytes {
        let short = match self.quantized_row_padding {
            Some(multiple) if ty.is_quantized() && !width.is_multiple_of(multiple) => multiple - width % multiple,
            _ => 0,
        };
        (bytes + ty.row_bytes(short).unwrap_or(Bytes::ZERO)).pad_to(self.alignment)
    }

    /// True where the backend has a kernel that reads this tensor; otherwise the engine keeps it on the host.
    ///
    /// CUDA and ROCm: `ggml-cuda.cu:5345-5377,5384-5411`; Vulkan: `ggml-vulkan.cpp:15415-15446`; Metal:
    /// `ggml-metal-device.m:1512-1521`. A backend that is not known by name is taken to support everything.
    pub(crate) fn reads(&self, tensor: &Tensor, used: Use) -> bool {
        use QuantType::{F64, I8, I16, I32, I64, IQ4_NL, MXFP4, NVFP4, Q8_1, Q8_K, TQ1_0, TQ2_0};
        let ty = tensor.ty;
        if used == Use::Other {
            return true;
        }
        // Which types of ik_llama.cpp CUDA computes with is the scheduler's question: weights go where their layer does.
        if ty.is_ik_fork() {
            return true;
        }
        // Kernels of the BitNet fork are the CPU's alone.
        if ty.is_bitnet_fork() {
            return false;
        }
        let no_matrix = matches!(ty, I8 | I16 | I32 | I64 | F64 | Q8_1);
        if self.max_tensor.is_some_and(|max| tensor.bytes > max || tested_rows(tensor, used) > max) {
            return false;
        }
        match (self.name.as_str(), used) {
            // Mamba 2 with its usual states alone (ggml-vulkan.cpp:15906-15938).
            ("Vulkan", Use::Scan { d_inner, d_state }) => {
                let heads = d_inner / tensor.shape[1].max(1);
                tensor.shape[0] == 1 && matches!(d_state, 128 | 256) && heads.is_multiple_of(16)
            }
            (_, Use::Scan { .. }) => true,
            ("CUDA" | "ROCm" | "SYCL", Use::GetRows) => match ty {
                IQ4_NL | MXFP4 => tensor.shape[0].is_multiple_of(256),
                I32 => true,
                _ => !no_matrix && !matches!(ty, TQ1_0 | TQ2_0 | NVFP4 | Q8_K),
            },
            ("CUDA" | "ROCm" | "SYCL", _) => !no_matrix && !matches!(ty, TQ1_0 | TQ2_0),
            ("Vulkan", _) => !no_matrix && ty != Q8_K,
            ("Metal", Use::MulMat | Use::Stack { .. } | Use::MulMatId) => !matches!(ty, NVFP4 | TQ1_0),
            _ => true,
        }
    }
}

/// The result of the operation that the engine asks a device about: 512 tokens (llama-model-loader.cpp:945-966).
fn tested_rows(tensor: &Tensor, used: Use) -> Bytes {
    let [width, rows, matrices, _] = tensor.shape;
    let per_token = match used {
        Use::GetRows => width,
        Use::MulMat | Use::Stack { .. } => rows.saturating_mul(matrices),
        Use::MulMatId => rows,
        _ => 0,
    };
    Bytes::new(per_token.saturating_mul(512 * 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantised_rows_are_padded_once_per_tensor() {
        let tensor = |ty: QuantType, columns: u64| Tensor {
            name: String::new(),
            ty,
            shape: [columns, 10, 1, 1],
            bytes: ty.row_bytes(columns).unwrap().times(10),
            file: 0,
            offset: Bytes::ZERO,
        };
        let padded = |backend: &Backend, tensor: &Tensor| backend.padded(tensor.ty, tensor.shape[0], tensor.bytes);
        let cuda = Backend::cuda(false);
        assert_eq!(padded(&cuda, &tensor(QuantType::Q8_0, 512)), Bytes::new(5504));
        assert_eq!(padded(&cuda, &tensor(QuantType::Q8_0, 576)), Bytes::new(6656));
        assert_eq!(padded(&cuda, &tensor(QuantType::F32, 576)), Bytes::new(23040));
        assert_eq!(padded(&Backend::metal(), &tensor(QuantType::Q8_0, 576)), Bytes::new(6144));
        assert!(!cuda.reads(&tensor(QuantType::TQ2_0, 512), Use::MulMat));
        assert!(Backend::vulkan(false, None).reads(&tensor(QuantType::TQ2_0, 512), Use::MulMat));
    }
}
