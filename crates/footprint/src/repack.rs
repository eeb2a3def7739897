//! Which host weights get a second, rearranged copy for the CPU's kernels, and its size.
//!
//! Upstream: `ggml/src/ggml-cpu/repack.cpp:4890-5140` (`CPU_REPACK`) and `ggml/src/ggml-cpu/amx/` (`AMX`). The order of
//! the two is that of `ggml/src/ggml-cpu/ggml-cpu.cpp:43-70`.

use crate::roles::Use;
use spec::model::Tensor;
use spec::{Bytes, QuantType};
use std::collections::BTreeSet;

/// Instruction sets that choose a rearranged layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kernels {
    avx2: bool,
    avx512: bool,
    neon_dot: bool,
    neon_i8mm: bool,
    amx: bool,
}

impl Kernels {
    /// From the features of the host (the kernel's spelling or the vendor's).
    pub(crate) fn of(arch: &str, features: &BTreeSet<String>, amx_built: bool) -> Self {
        let has = |names: &[&str]| names.iter().any(|&name| features.contains(name));
        // Every 64-bit Arm core has NEON (Advanced SIMD).
        let neon = arch == "aarch64" || has(&["neon", "asimd"]);
        Self {
            avx2: has(&["avx2"]),
            avx512: has(&["avx512f"]),
            neon_dot: neon && has(&["dotprod", "asimddp"]),
            neon_i8mm: neon && has(&["i8mm"]),
            amx: amx_built && has(&["amx_int8"]) && has(&["avx512_vnni", "avx512vnni"]),
        }
    }

    /// True where `CPU_REPACK` takes the tensor: a type with a layout for this CPU, rows in whole groups.
    pub(crate) fn repacks(self, tensor: &Tensor, used: Use) -> bool {
        let dims = n_dims(tensor);
        let shape_fits = matches!((used, dims), (Use::MulMat, 2) | (Use::MulMatId, 3));
        let arm = self.neon_dot || self.neon_i8mm;
        let group = match tensor.ty {
            QuantType::Q4_0 | QuantType::IQ4_NL | QuantType::MXFP4 if self.avx2 => 8,
            QuantType::Q4_K if self.avx2 => 8,
            QuantType::Q2_K if self.avx512 => 8,
            QuantType::Q4_K | QuantType::Q5_K | QuantType::Q6_K if arm => 8,
            QuantType::Q4_0 | QuantType::Q8_0 | QuantType::Q1_0 if arm => 4,
            QuantType::IQ4_NL | QuantType::MXFP4 if self.neon_dot => 4,
            _ => return false,
        };
        shape_fits && tensor.shape[1].is_multiple_of(group)
    }

    /// Size of the `AMX` copy; `None` where AMX does not take the tensor.
    ///
    /// Upstream: eligibility `amx/amx.cpp:140-187`, size `amx/mmq.cpp:245-260,2267-2287`. A stacked tensor counts as its
    /// first matrix, as it does there.
    pub(crate) fn amx_bytes(self, tensor: &Tensor, used: Use) -> Option<Bytes> {
        let rows = match used {
            Use::MulMat => tensor.shape[1],
            Use::Stack { matrices } => tensor.shape[1] / matrices.max(1),
            _ => return None,
        };
        if !self.amx || !rows.is_multiple_of(32) {
            return None;
        }
        let (multiple, extra) = match tensor.ty {
            QuantType::F16 => return tensor.shape[0].is_multiple_of(16).then_some(tensor.bytes),
            QuantType::Q4_0 | QuantType::Q4_1 => (32, 0),
            QuantType::Q8_0 => (32, 4),
            QuantType::Q4_K | QuantType::Q5_K => (256, 4),
            QuantType::Q6_K => (256, 0),
            QuantType::IQ4_XS => (256, 2),
            _ => return None,
        };
        if !tensor.shape[0].is_multiple_of(multiple) {
            return None;
        }
        let blocks = tensor.shape[0] / multiple;
        Some((tensor.ty.block().bytes + Bytes::new(extra)).times(blocks).times(rows))
    }
}

/// Dimensions of a tensor as ggml counts them: the last one above 1 (`ggml_n_dims`).
fn n_dims(tensor: &Tensor) -> usize {
    tensor.shape.iter().rposition(|&extent| extent > 1).map_or(1, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(ty: QuantType, shape: [u64; 4]) -> Tensor {
        let bytes = ty.row_bytes(shape[0]).unwrap().times(shape[1] * shape[2] * shape[3]);
        Tensor { name: String::new(), ty, shape, bytes, file: 0, offset: Bytes::ZERO }
    }

    fn features(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn x86_repacks_four_bit_types_and_two_bits_with_avx512() {
        let avx2 = Kernels::of("x86_64", &features(&["avx2"]), false);
        let avx512 = Kernels::of("x86_64", &features(&["avx2", "avx512f"]), false);
        let q2 = tensor(QuantType::Q2_K, [1024, 1024, 1, 1]);
        assert!(!avx2.repacks(&q2, Use::MulMat) && avx512.repacks(&q2, Use::MulMat));
        assert!(avx2.repacks(&tensor(QuantType::Q4_K, [1024, 8, 1, 1]), Use::MulMat));
        assert!(!avx2.repacks(&tensor(QuantType::Q4_K, [1024, 12, 1, 1]), Use::MulMat));
        assert!(!avx2.repacks(&tensor(QuantType::Q4_K, [1024, 8, 1, 1]), Use::GetRows));
        assert!(avx2.repacks(&tensor(QuantType::MXFP4, [1024, 8, 32, 1]), Use::MulMatId));
        assert!(!avx2.repacks(&tensor(QuantType::Q6_K, [1024, 8, 1, 1]), Use::MulMat));
    }

    #[test]
    fn arm_repacks_by_dot_products() {
        let none = Kernels::of("aarch64", &features(&[]), false);
        let dot = Kernels::of("aarch64", &features(&["asimddp"]), false);
        for ty in [QuantType::Q8_0, QuantType::Q6_K, QuantType::Q4_0, QuantType::IQ4_NL] {
            let tensor = tensor(ty, [512, 16, 1, 1]);
            assert!(!none.repacks(&tensor, Use::MulMat) && dot.repacks(&tensor, Use::MulMat), "{ty}");
        }
        assert!(dot.repacks(&tensor(QuantType::Q8_0, [512, 12, 1, 1]), Use::MulMat));
        assert!(!dot.repacks(&tensor(QuantType::Q6_K, [512, 12, 1, 1]), Use::MulMat));
    }

    #[test]
    fn amx_adds_what_its_tiles_need() {
        let amx = Kernels::of("x86_64", &features(&["avx2", "avx512_vnni", "amx_int8"]), true);
        let q8 = tensor(QuantType::Q8_0, [1024, 64, 1, 1]);
        assert_eq!(amx.amx_bytes(&q8, Use::MulMat), Some(Bytes::new(32 * 38 * 64)));
        assert_eq!(amx.amx_bytes(&tensor(QuantType::Q5_0, [1024, 64, 1, 1]), Use::MulMat), None);
        assert_eq!(amx.amx_bytes(&tensor(QuantType::Q8_0, [1024, 48, 1, 1]), Use::MulMat), None);
        assert_eq!(Kernels::of("x86_64", &features(&["amx_int8"]), true).amx_bytes(&q8, Use::MulMat), None);
    }
}
