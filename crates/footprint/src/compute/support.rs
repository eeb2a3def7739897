//! Which operations a backend computes: what it does not falls to another, and cuts the graph.
//!
//! Follows `supports_op` and `offload_op` of the devices (llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161), as far as
//! declared graphs can meet a limit:
//! Vulkan ggml/src/ggml-vulkan/ggml-vulkan.cpp:15324-15946, Metal ggml-metal/ggml-metal-device.m:1512-1957 (a GPU of the
//! family Apple 7, M1, or later). Of CUDA, ROCm and the others nothing is known to be missing but weights of types
//! without kernels, which placement keeps on the host; the engine's answers on pretended GPUs support everything.

use super::graph::Graph;
use super::tensor::{Op, Tensor};
use spec::QuantType;
use spec::QuantType::{BF16, F16, F32, I32, IQ4_NL, NVFP4, Q1_0, Q2_0, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, TQ1_0, TQ2_0};

/// What a backend computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Support {
    #[default]
    Everything,
    /// Nothing that reads or writes a tensor larger than this many bytes, among others.
    Vulkan {
        max_tensor: u64,
    },
    Metal,
}

impl Support {
    /// What the backend of this name supports, tensors being limited to `max_tensor` bytes.
    pub(super) fn of(backend: &str, max_tensor: u64) -> Self {
        match backend {
            "Vulkan" => Self::Vulkan { max_tensor },
            "Metal" => Self::Metal,
            _ => Self::Everything,
        }
    }

    /// True where large batches over weights in host memory are worth moving here, as far as the operation decides it.
    pub(super) fn offloads(self, op: Op) -> bool {
        self != Self::Metal || matches!(op, Op::MulMat | Op::MulMatId)
    }

    /// True where the backend has a kernel for this.
    pub(super) fn computes(self, graph: &Graph, tensor: &Tensor) -> bool {
        let sources = || tensor.sources().iter().map(|&id| graph.tensor(id)).collect::<Vec<_>>();
        match self {
            Self::Everything => true,
            Self::Vulkan { max_tensor } => {
                let sources = sources();
                let fits = sources.iter().chain([&tensor]).all(|tensor| tensor.bytes() <= max_tensor);
                fits && vulkan(tensor, &sources).unwrap_or(true)
            }
            Self::Metal => metal(tensor, &sources()).unwrap_or(true),
        }
    }
}

/// Quantised types that caches are written and copied in.
const CACHED: [QuantType; 8] = [Q1_0, Q2_0, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL];

fn is_float(ty: QuantType) -> bool {
    matches!(ty, F32 | F16)
}

/// `None` where an operand is missing.
fn vulkan(tensor: &Tensor, sources: &[&Tensor]) -> Option<bool> {
    let all = |ty: QuantType| sources.iter().all(|source| source.ty == ty);
    Some(match tensor.op {
        Op::MulMat | Op::MulMatId => vulkan_product(tensor, sources)?,
        Op::FlashAttention => vulkan_attention(sources)?,
        Op::SetRows => {
            let cached = matches!(tensor.ty, F32 | F16 | BF16) || CACHED.contains(&tensor.ty);
            is_float(sources.first()?.ty) && cached
        }
        Op::Cont | Op::Copy | Op::Duplicate => copies_vulkan(sources.first()?, tensor),
        Op::Concat => sources.iter().all(|source| source.ty == tensor.ty),
        Op::Repeat => matches!(tensor.ty.block().bytes.get(), 2 | 4),
        Op::Rope => tensor.has_dense_rows() && sources.first()?.has_dense_rows(),
        Op::Norm | Op::UnitNorm => sources.first()?.ty == F32,
        Op::Add | Op::Sub | Op::Mul | Op::Div => sources.iter().all(|source| is_float(source.ty)) && is_float(tensor.ty),
        Op::Unary | Op::Function | Op::GatedUnit | Op::Square | Op::Root | Op::Clamp => all(tensor.ty) && is_float(tensor.ty),
        Op::Scale => sources.first()?.is_contiguous() && sources.first()?.ty == F32,
        Op::SoftMax => sources.first()?.is_contiguous() && sources.first()?.ty == F32,
        Op::ArgSort => sources.first()?.is_contiguous(),
        Op::SumRows | Op::Mean => sources.first()?.ty == F32 && sources.first()?.has_dense_rows(),
        Op::Pad | Op::SsmConv => sources.first()?.ty == F32,
        Op::Index => sources.first()?.ne[0] == 128 && (CACHED[2..].contains(&sources.get(1)?.ty) || is_float(sources.get(1)?.ty)),
        // The second version of Mamba, with states of 128 or 256.
        Op::SsmScan => {
            let (states, a) = (sources.first()?, sources.get(3)?);
            a.nb[1] == 4 && matches!(states.ne[0], 128 | 256) && states.ne[1].is_multiple_of(16)
        }
        Op::GatedDelta => matches!(sources.get(2)?.ne[0], 16 | 32 | 64 | 128) && all(F32),
        // Gated linear attention, which alone has five operands, with heads of 64.
        Op::Recurrence => sources.len() != 5 || sources.first()?.ne[0] == 64,
        _ => true,
    })
}

fn vulkan_product(tensor: &Tensor, sources: &[&Tensor]) -> Option<bool> {
    let (weights, rows) = (sources.first()?, sources.get(1)?);
    let batch = if tensor.op == Op::MulMat { weights } else { sources.get(2)? };
    let dense = |tensor: &Tensor| {
        let row = Tensor::new(tensor.ty, tensor.ne);
        tensor.nb[..2] == row.nb[..2] && (tensor.ne[3] == 1 || tensor.nb[3] == tensor.nb[2].saturating_mul(tensor.ne[2]))
    };
    Some(
        !(tensor.op == Op::MulMatId && tensor.precise)
            && batch.ne[3] == rows.ne[3]
            && (dense(weights) || matches!(weights.ty, F32 | F16 | BF16))
            && (dense(rows) || is_float(rows.ty))
            && !(weights.ty == BF16 && rows.ty == F16)
            && !(rows.ty == BF16 && weights.ty != BF16),
    )
}

fn vulkan_attention(sources: &[&Tensor]) -> Option<bool> {
    let (k, v) = (sources.get(1)?, sources.get(2)?);
    let read = |ty: QuantType| matches!(ty, F32 | F16 | BF16 | Q8_0 | Q5_1 | Q5_0 | Q4_1 | Q4_0 | IQ4_NL);
    let wide = k.ne[0].is_multiple_of(8) && v.ne[0].is_multiple_of(8);
    Some(wide && read(k.ty) && read(v.ty) && (k.ty == BF16) == (v.ty == BF16) && sources.get(3).is_none_or(|mask| mask.ty == F16))
}

fn copies_vulkan(from: &Tensor, to: &Tensor) -> bool {
    let converts = |a: QuantType, b: QuantType| a == F32 && (is_float(b) || b == BF16 || CACHED.contains(&b));
    let same = from.ty == to.ty
        && (!from.ty.is_quantized() || (from.is_contiguous() && to.is_contiguous()))
        && from.ty.block().bytes.get().is_multiple_of(2);
    converts(from.ty, to.ty) || converts(to.ty, from.ty) || (from.ty == F32 && to.ty == I32) || (from.ty == I32 && to.ty == F32) || same
}

fn metal(tensor: &Tensor, sources: &[&Tensor]) -> Option<bool> {
    let first = sources.first().copied();
    Some(match tensor.op {
        Op::Scale | Op::Fill | Op::Clamp | Op::Square | Op::Root | Op::Unary | Op::Function => {
            first?.has_dense_rows() && is_float(first?.ty)
        }
        Op::GatedUnit => first?.has_dense_planes() && is_float(first?.ty),
        Op::Concat => sources.iter().all(|source| source.ty == tensor.ty),
        Op::Add | Op::Sub | Op::Mul | Op::Div | Op::AddId => {
            let (a, b) = (first?, sources.get(1)?);
            a.has_dense_rows() && b.has_dense_rows() && is_float(a.ty) && a.ty == b.ty
        }
        Op::Index => first?.ne[0] == 128 && matches!(sources.get(1)?.ty, F32 | F16 | BF16 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0),
        Op::SumRows | Op::Mean | Op::SoftMax | Op::UnitNorm | Op::Norm | Op::RmsNorm => first?.has_dense_rows(),
        Op::Pad => first?.ty == F32,
        Op::FlashAttention => metal_attention(sources)?,
        Op::GatedDelta => sources.get(2)?.ne[0].is_multiple_of(32),
        // Gated linear attention has no kernel.
        Op::Recurrence => sources.len() != 5,
        Op::MulMat | Op::MulMatId => metal_product(tensor, sources)?,
        Op::Copy | Op::Cont | Op::Duplicate => copies_metal(first?.ty, tensor.ty),
        Op::GetRows => !matches!(first?.ty, NVFP4 | TQ1_0),
        Op::SetRows => {
            let written = matches!(tensor.ty, F32 | F16 | BF16 | Q8_0 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | IQ4_NL | TQ2_0);
            if first?.ty == F16 { tensor.ty == F16 } else { first?.ty == F32 && written }
        }
        _ => true,
    })
}

fn metal_attention(sources: &[&Tensor]) -> Option<bool> {
    const WIDTHS: [u64; 14] = [32, 40, 48, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576];
    let (q, k, v) = (sources.first()?, sources.get(1)?, sources.get(2)?);
    let read = matches!(k.ty, F32 | F16 | BF16 | Q8_0 | Q4_0 | Q4_1 | Q5_0 | Q5_1);
    let narrower = k.ne[0] >= v.ne[0] && (k.ne[0] != 72 || v.ne[0] == 72);
    Some(WIDTHS.contains(&q.ne[0]) && narrower && k.ty == v.ty && read)
}

fn metal_product(tensor: &Tensor, sources: &[&Tensor]) -> Option<bool> {
    let (weights, rows) = (sources.first()?, sources.get(1)?);
    if matches!(weights.ty, NVFP4 | TQ1_0) {
        return Some(false);
    }
    if rows.ty != F16 {
        return Some(true);
    }
    let transposed = |tensor: &Tensor| tensor.nb[0] > tensor.nb[1];
    let by_matrix = match tensor.op {
        Op::MulMat => !transposed(weights) && !transposed(rows) && rows.ne[1] > 8,
        _ => sources.get(2)?.ne[1] >= 32,
    };
    Some(weights.ty != BF16 && ((tensor.op == Op::MulMat && weights.ty == F16) || (by_matrix && weights.ne[0] >= 64)))
}

fn copies_metal(from: QuantType, to: QuantType) -> bool {
    match from {
        F32 => matches!(to, F32 | F16 | BF16 | Q8_0 | Q1_0 | Q2_0 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | IQ4_NL | TQ2_0 | I32),
        BF16 => matches!(to, F32 | BF16),
        F16 | Q1_0 | Q2_0 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | TQ2_0 => is_float(to),
        I32 => matches!(to, F32 | I32),
        _ => false,
    }
}
