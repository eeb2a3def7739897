//! What a tensor takes in a backend's compute buffer, apart from where it lies.
//!
//! Follows `get_alloc_size` of the buffer types (llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161).

use super::arena::align;
use super::graph::Graph;
use super::tensor::{Op, Tensor};
use spec::QuantType;

/// The allocation rules of one backend's compute buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BufferRules {
    /// Alignment of tensors.
    pub(super) alignment: u64,
    /// Largest single buffer.
    pub(super) max_buffer: u64,
    /// Quantised rows that are no multiple of this many elements get the missing elements' bytes once per tensor.
    pub(super) quantized_row_padding: Option<u64>,
    /// What operations keep behind their results.
    pub(super) scratch: Scratch,
}

/// What the kernels of a backend write beside a result, in memory that is reserved with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scratch {
    None,
    /// Fused attention over a cache that is not F16 keeps F16 copies of it (ggml-cuda/fattn.cu:722,
    /// fattn-common.cuh:53-85).
    Cuda,
    /// Fused attention, products with experts, and sorting (ggml-metal.cpp:220-253, ggml-metal-ops.cpp:2774-2800, 3229-3395).
    Metal,
}

impl Scratch {
    /// The size of a result that takes `size` bytes itself.
    fn beside(self, graph: &Graph, tensor: &Tensor, size: u64) -> u64 {
        match (self, tensor.op) {
            (Self::Cuda, Op::FlashAttention) => {
                let caches = tensor.sources().iter().skip(1).take(2).map(|&cached| graph.tensor(cached));
                let copied = caches.filter(|cached| cached.ty != QuantType::F16);
                copied.fold(size, |size, cached| align(size, 128).saturating_add(cached.elements().saturating_mul(2)))
            }
            (Self::Metal, Op::FlashAttention) => size.saturating_add(metal_attention(graph, tensor).unwrap_or(0)),
            (Self::Metal, Op::MulMatId) => size.saturating_add(metal_experts(graph, tensor).unwrap_or(0)),
            (Self::Metal, Op::ArgSort) => size.saturating_mul(2),
            (Self::Metal, Op::TopK) => tensor.sources().first().map_or(size, |&sorted| graph.tensor(sorted).elements().saturating_mul(8)),
            _ => size,
        }
    }
}

/// Row numbers by expert, and the scales of parts.
fn metal_experts(graph: &Graph, tensor: &Tensor) -> Option<u64> {
    let experts = graph.ne(*tensor.sources().first()?)[2];
    let tokens = graph.ne(*tensor.sources().get(2)?)[1];
    Some(experts.saturating_mul(tokens.saturating_add(1)).saturating_mul(4).saturating_add(8 + 256 * 4))
}

/// Padding of the last cells, the blocks of the mask, partial results, and the cache as F16.
fn metal_attention(graph: &Graph, tensor: &Tensor) -> Option<u64> {
    const CELLS: u64 = 64;
    let product = |factors: &[u64]| factors.iter().fold(1, |product: u64, &n| product.saturating_mul(n));
    let source = |k: usize| tensor.sources().get(k).map(|&id| graph.tensor(id));
    let (q, k, v) = (source(0)?, source(1)?, source(2)?);
    let mask = source(3).map_or([0; 4], |mask| mask.ne);
    let within = tensor.sources().get(1).zip(tensor.sources().get(2)).is_some_and(|(&k, &v)| graph.root(k) == graph.root(v));
    let copied = q.ne[1] >= 32 && k.ty.is_quantized();
    let row = |of: &Tensor, width: u64| if copied { width.saturating_mul(2) } else { of.nb[1] };
    let rows = product(&[row(k, k.ne[0]), k.ne[2], k.ne[3]])
        .saturating_add(product(&[row(v, if within { k.ne[0] } else { v.ne[0] }), v.ne[2], v.ne[3]]))
        .saturating_add(product(&[2, mask[1], mask[2], mask[3]]));
    let (queries, cells) = if q.ne[1] < 20 && q.ne[0].is_multiple_of(32) { (1, 32) } else { (8, CELLS) };
    let blocks = product(&[q.ne[1].div_ceil(queries), mask[0].div_ceil(cells), mask[2], mask[3]]);
    let partial = product(&[4, q.ne[1].min(32), q.ne[2], q.ne[3], 32, v.ne[0].saturating_add(2)]);
    let half = |of: &Tensor| align(of.elements().saturating_mul(2), 16);
    let halves = half(k).saturating_add(if within { 0 } else { half(v) });
    let all = [rows.saturating_mul(CELLS), align(blocks, 32), partial, halves];
    Some(all.iter().fold(0, |sum: u64, &part| sum.saturating_add(part)))
}

impl BufferRules {
    /// Host memory (`ggml_backend_cpu_buffer_type`; pinned buffers behave alike).
    pub(super) const HOST: Self = Self { alignment: 32, max_buffer: NO_LIMIT, quantized_row_padding: None, scratch: Scratch::None };

    /// The same for copies, which nothing is computed into.
    pub(super) fn plain(&self) -> Self {
        Self { scratch: Scratch::None, ..*self }
    }

    /// What a tensor takes, alignment aside (`get_alloc_size` of the buffer type).
    pub(super) fn size(&self, graph: &Graph, tensor: &Tensor) -> u64 {
        let mut size = tensor.bytes();
        if let Some(padding) = self.quantized_row_padding
            && tensor.ty.is_quantized()
            && !tensor.ne[0].is_multiple_of(padding)
        {
            // Views of heads may end within a block; the engine rounds down (`ggml_row_size`).
            let missing = padding - tensor.ne[0] % padding;
            let block = tensor.ty.block();
            let row = block.bytes.get().saturating_mul(missing) / block.weights;
            size = size.saturating_add(row).saturating_add(tensor.ty.row_header().get());
        }
        self.scratch.beside(graph, tensor, size)
    }
}

/// `SIZE_MAX/2`, the size that ggml takes as endless.
pub(super) const NO_LIMIT: u64 = u64::MAX / 2;

#[cfg(test)]
mod tests {
    use super::super::tensor::{CacheKind, Memory};
    use super::*;
    use QuantType::{F16, F32, Q8_0};

    #[test]
    fn quantised_copies_are_padded_and_fused_attention_may_keep_copies_of_its_cache() {
        let rules = BufferRules { quantized_row_padding: Some(512), scratch: Scratch::Cuda, ..BufferRules::HOST };
        let mut graph = Graph::default();
        let weight = graph.input(Q8_0, [576, 10, 1, 1]);
        assert_eq!(rules.size(&graph, graph.tensor(weight)), 6120 + 476);
        assert_eq!(BufferRules::HOST.size(&graph, graph.tensor(weight)), 6120);

        let q = graph.input(F32, [64, 4, 8, 1]);
        let mask = graph.input(F16, [256, 4, 1, 1]);
        for (ty, scratch) in [(F16, 0), (Q8_0, 2 * 64 * 256 * 2 * 2)] {
            let [k, v] = [(); 2].map(|()| graph.placed(ty, [64, 256, 2, 1], Memory::Cache { backend: 0, kind: CacheKind::Full }));
            let y = graph.flash_attention(q, k, v, mask, None);
            assert_eq!(rules.size(&graph, graph.tensor(y)), 64 * 8 * 4 * 4 + scratch);
        }
    }
}
