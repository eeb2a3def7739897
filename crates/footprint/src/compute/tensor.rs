//! A tensor of the simulated graph: its type, extents and strides, what it is computed from, and whose memory it is.
//!
//! Follows `ggml/src/ggml.c` (`ggml_new_tensor_impl`, `ggml_nbytes`) of llama.cpp v0.6.0-dev, crate llama-cpp-sys-2
//! 0.1.161. Extents come from files, so sizes saturate instead of wrapping.

use spec::QuantType;

/// Number of a tensor in its [`super::graph::Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(pub(super) u32);

impl Id {
    /// The number as an index.
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What computes a tensor; operations that schedule and allocate alike share a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Nothing: an input, a weight, a cache, or a copy that the scheduler makes.
    None,
    View,
    Reshape,
    Permute,
    Transpose,
    Add,
    AddId,
    ArgSort,
    Clamp,
    Concat,
    Cont,
    Copy,
    Div,
    Duplicate,
    /// Gate and up matrices of experts with their activation, as one (ik_llama.cpp).
    ExpertsGate,
    Fill,
    FlashAttention,
    /// A function of each element other than [`Self::Unary`].
    Function,
    /// Several operations as one that works in memory of its own (ik_llama.cpp).
    Fused,
    GatedDelta,
    GatedUnit,
    GetRows,
    HyperConnection,
    Index,
    Mul,
    MulMat,
    Mean,
    MulMatId,
    Norm,
    Pad,
    Recurrence,
    Repeat,
    RmsNorm,
    Root,
    Rope,
    Scale,
    Set,
    SetRows,
    SoftMax,
    Square,
    SsmConv,
    SsmScan,
    Sub,
    SumRows,
    TopK,
    UnitNorm,
    /// GELU, SiLU, sigmoid or softplus of each element: what backends fuse with a product.
    Unary,
}

impl Op {
    /// True for operations that only look at another tensor's memory (`ggml_is_view_op`).
    pub(super) const fn is_view(self) -> bool {
        matches!(self, Self::View | Self::Reshape | Self::Permute | Self::Transpose)
    }
    /// True where the result may take over the memory of a source (`ggml_op_can_inplace`, ggml-alloc.c:22-51).
    pub(super) const fn can_reuse_source(self) -> bool {
        matches!(
            self,
            Self::Scale
                | Self::Fill
                | Self::Add
                | Self::AddId
                | Self::Sub
                | Self::Mul
                | Self::Div
                | Self::Function
                | Self::Root
                | Self::Square
                | Self::Unary
                | Self::Rope
                | Self::RmsNorm
                | Self::Clamp
                | Self::SoftMax
        )
    }
}

/// What is kept in one buffer per backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheKind {
    /// Keys and values of the whole context.
    Full,
    /// Keys and values of windows.
    Window,
    /// Keys of indexers.
    Indexer,
    /// Rows that stand for several tokens.
    Compressed,
    /// States of recurrent layers.
    State,
}

/// Whose memory a tensor lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// The compute buffer: the allocator finds a place.
    Compute,
    /// A buffer of weights that `backend` reads in place; `host` where other backends may copy from it.
    Weights { backend: u8, host: bool },
    /// A cache or state that `backend` holds, in its buffer of this kind.
    Cache { backend: u8, kind: CacheKind },
}

impl Memory {
    /// The backend whose buffer it is; none for memory yet to be found.
    pub(super) const fn backend(self) -> Option<u8> {
        match self {
            Self::Compute => None,
            Self::Weights { backend, .. } | Self::Cache { backend, .. } => Some(backend),
        }
    }
}

/// The most sources of a tensor (`GGML_MAX_SRC`).
pub(super) const MAX_SOURCES: usize = 10;

/// Extents, fastest first.
pub(super) type Extents = [u64; 4];

/// One tensor.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) ty: QuantType,
    pub(super) op: Op,
    pub(super) memory: Memory,
    /// Filled by the application before each run; placed before everything else.
    pub(super) input: bool,
    /// Read by the application after each run; never freed.
    pub(super) output: bool,
    /// A product whose activations must be read with all their digits (`ggml_prec_set_src`).
    pub(super) precise: bool,
    pub(super) ne: Extents,
    pub(super) nb: Extents,
    /// The tensor whose memory this one is part of; never itself a view.
    pub(super) view_of: Option<Id>,
    sources: [Id; MAX_SOURCES],
    n_sources: u8,
}

impl Tensor {
    /// A tensor of its own memory with dense strides.
    pub(super) fn new(ty: QuantType, ne: Extents) -> Self {
        let block = ty.block();
        let mut nb = [block.bytes.get(); 4];
        nb[1] = nb[0].saturating_mul(ne[0] / block.weights).saturating_add(ty.row_header().get());
        nb[2] = nb[1].saturating_mul(ne[1]);
        nb[3] = nb[2].saturating_mul(ne[2]);
        Self {
            ty,
            op: Op::None,
            memory: Memory::Compute,
            input: false,
            output: false,
            precise: false,
            ne,
            nb,
            view_of: None,
            sources: [Id(0); MAX_SOURCES],
            n_sources: 0,
        }
    }
    /// The same computed by `op` from `sources`; a source past [`MAX_SOURCES`] would be lost, and no operation has one.
    pub(super) fn computed(mut self, op: Op, sources: &[Id]) -> Self {
        let n = sources.len().min(MAX_SOURCES);
        self.op = op;
        self.sources[..n].copy_from_slice(&sources[..n]);
        self.n_sources = n as u8;
        self
    }
    /// What it is computed from.
    pub(super) fn sources(&self) -> &[Id] {
        &self.sources[..usize::from(self.n_sources)]
    }
    /// What it is computed from, to be redirected to copies.
    pub(super) fn sources_mut(&mut self) -> &mut [Id] {
        &mut self.sources[..usize::from(self.n_sources)]
    }
    /// Number of elements.
    pub(super) fn elements(&self) -> u64 {
        self.ne.iter().fold(1, |product: u64, &n| product.saturating_mul(n))
    }
    /// Number of rows.
    pub(super) fn rows(&self) -> u64 {
        self.ne[1].saturating_mul(self.ne[2]).saturating_mul(self.ne[3])
    }
    /// Bytes from its first to its last element: a strided view counts what lies between (`ggml_nbytes`).
    pub(super) fn bytes(&self) -> u64 {
        if self.ne.contains(&0) {
            return 0;
        }
        let block = self.ty.block();
        let first = if block.weights == 1 {
            block.bytes.get().saturating_add((self.ne[0] - 1).saturating_mul(self.nb[0]))
        } else {
            (self.ne[0].saturating_mul(self.nb[0]) / block.weights).saturating_add(self.ty.row_header().get())
        };
        (1..4).fold(first, |sum, i| sum.saturating_add((self.ne[i] - 1).saturating_mul(self.nb[i])))
    }
    /// True where elements follow each other without gaps, in order (`ggml_is_contiguous`).
    pub(super) fn is_contiguous(&self) -> bool {
        let dense = Self::new(self.ty, self.ne);
        (0..4).all(|i| self.ne[i] == 1 || self.nb[i] == dense.nb[i])
    }
    /// True where rows are dense, and planes follow each other without gaps, while rows may have gaps between them
    /// (`ggml_is_contiguous_1`).
    pub(super) fn has_dense_planes(&self) -> bool {
        let dense = Self::new(self.ty, self.ne);
        let plane = self.nb[1].saturating_mul(self.ne[1]);
        (self.ne[0] == self.ty.block().weights || self.nb[0] == dense.nb[0])
            && (self.ne[2] == 1 || self.nb[2] == plane)
            && (self.ne[3] == 1 || self.nb[3] == plane.saturating_mul(self.ne[2]))
    }
    /// True where the elements of a row follow each other without gaps (`ggml_is_contiguous_rows`).
    pub(super) fn has_dense_rows(&self) -> bool {
        let block = self.ty.block();
        self.ne[0] == block.weights || self.nb[0] == block.bytes.get()
    }
    /// True where both have the same type, extents and strides (`ggml_are_same_layout`).
    pub(super) fn same_layout(&self, other: &Self) -> bool {
        self.ty == other.ty && self.ne == other.ne && self.nb == other.nb
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_dense_and_strided_tensors() {
        assert_eq!(Tensor::new(QuantType::F32, [10, 3, 1, 1]).bytes(), 120);
        assert_eq!(Tensor::new(QuantType::Q4_K, [512, 2, 1, 1]).bytes(), 576);
        assert_eq!(Tensor::new(QuantType::F32, [10, 0, 1, 1]).bytes(), 0);
        let mut view = Tensor::new(QuantType::F32, [4, 3, 1, 1]);
        view.nb[1] = 40;
        assert_eq!(view.bytes(), 16 + 80);
        view.ne.swap(0, 1);
        view.nb.swap(0, 1);
        assert_eq!(view.bytes(), 16 + 80, "transposed");
        assert!(!view.is_contiguous());
        assert_eq!(Tensor::new(QuantType::F32, [u64::MAX, u64::MAX, 2, 2]).bytes(), u64::MAX);
    }
}
