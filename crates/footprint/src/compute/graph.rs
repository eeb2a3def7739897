//! A graph of tensors and the operations that build it, with ggml's shapes, source order and node order.
//!
//! Each operation mirrors the function of the same name in `ggml/src/ggml.c` (llama.cpp v0.6.0-dev, crate
//! llama-cpp-sys-2 0.1.161). Order matters: nodes are laid out as `ggml_build_forward_expand` finds them, sources first,
//! and the allocator's result depends on it.

use super::tensor::{Extents, Id, Memory, Op, Tensor};
use spec::QuantType;
use std::collections::BTreeMap;

/// Tensors, and the order in which they are computed.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    tensors: Vec<Tensor>,
    visited: Vec<bool>,
    /// What is computed, in order; views included.
    pub(super) nodes: Vec<Id>,
    /// What is given: inputs, weights, caches.
    pub(super) leafs: Vec<Id>,
    /// Nodes that the model fixes to a backend before scheduling.
    pub(super) pins: Vec<(Id, u8)>,
    /// Caches that are another one's memory, with the one that was made first.
    pub(super) same: BTreeMap<Id, Id>,
    /// Gates are spelt out: an activation and a product.
    split_gates: bool,
}

impl Graph {
    /// An empty graph with room for this many tensors.
    pub(super) fn new(tensors: usize, fused_gate: bool) -> Self {
        Self {
            tensors: Vec::with_capacity(tensors),
            visited: Vec::with_capacity(tensors),
            nodes: Vec::with_capacity(tensors),
            leafs: Vec::with_capacity(tensors / 2),
            pins: Vec::new(),
            same: BTreeMap::new(),
            split_gates: !fused_gate,
        }
    }
    /// Number of tensors, whether part of the order or not.
    pub(super) fn len(&self) -> usize {
        self.tensors.len()
    }
    /// The tensor of this number.
    pub(super) fn tensor(&self, id: Id) -> &Tensor {
        &self.tensors[id.index()]
    }
    /// The tensor of this number, to be changed.
    pub(super) fn tensor_mut(&mut self, id: Id) -> &mut Tensor {
        &mut self.tensors[id.index()]
    }
    /// Adds a tensor, in no order yet.
    pub(super) fn push(&mut self, tensor: Tensor) -> Id {
        let id = Id(self.tensors.len() as u32);
        self.tensors.push(tensor);
        self.visited.push(false);
        id
    }
    /// The extents of a tensor.
    pub(super) fn ne(&self, id: Id) -> Extents {
        self.tensor(id).ne
    }
    /// The tensor that owns the memory of this one: itself, unless it is a view.
    pub(super) fn root(&self, id: Id) -> Id {
        self.tensor(id).view_of.unwrap_or(id)
    }
    /// The same, and of caches that are one memory the first.
    pub(super) fn owner(&self, id: Id) -> Id {
        let root = self.root(id);
        self.same.get(&root).copied().unwrap_or(root)
    }
    /// The backend whose buffer already holds this tensor, or the one it is a view of.
    pub(super) fn home(&self, id: Id) -> Option<u8> {
        self.tensor(self.root(id)).memory.backend()
    }

    /// Appends a tensor and everything it needs to the order (`ggml_build_forward_expand`).
    pub(super) fn expand(&mut self, id: Id) {
        if std::mem::replace(&mut self.visited[id.index()], true) {
            return;
        }
        for i in 0..self.tensor(id).sources().len() {
            let source = self.tensor(id).sources()[i];
            self.expand(source);
        }
        let order = if self.tensor(id).op == Op::None { &mut self.leafs } else { &mut self.nodes };
        order.push(id);
    }

    /// A tensor that the application fills before each run.
    pub(super) fn input(&mut self, ty: QuantType, ne: Extents) -> Id {
        let mut tensor = Tensor::new(ty, ne);
        tensor.input = true;
        self.push(tensor)
    }
    /// A tensor that lies in a buffer already.
    pub(super) fn placed(&mut self, ty: QuantType, ne: Extents, memory: Memory) -> Id {
        let mut tensor = Tensor::new(ty, ne);
        tensor.memory = memory;
        self.push(tensor)
    }

    fn compute(&mut self, op: Op, ty: QuantType, ne: Extents, sources: &[Id]) -> Id {
        self.push(Tensor::new(ty, ne).computed(op, sources))
    }
    /// An operation whose result has the type and extents of its first source.
    pub(super) fn like(&mut self, op: Op, sources: &[Id]) -> Id {
        let (ty, ne) = sources.first().map_or((QuantType::F32, [1; 4]), |&first| (self.tensor(first).ty, self.ne(first)));
        self.compute(op, ty, ne, sources)
    }
    /// A view with the strides of `a` itself.
    fn alias(&mut self, op: Op, a: Id, sources: &[Id]) -> Id {
        let source = self.tensor(a);
        let mut tensor = Tensor::new(source.ty, source.ne).computed(op, sources);
        tensor.nb = source.nb;
        tensor.view_of = Some(self.root(a));
        self.push(tensor)
    }
    /// A node without operation that keeps `a` alive until here (`ggml_view_tensor`, as the scheduler uses it).
    pub(super) fn dependency(&mut self, a: Id) -> Id {
        self.alias(Op::None, a, &[a])
    }
    /// The same of several tensors.
    pub(super) fn dependency_on(&mut self, all: &[Id]) -> Id {
        let first = all.first().copied().unwrap_or(Id(0));
        self.alias(Op::None, first, all)
    }

    /// A view of extents `ne` into `a`; `nb` are the strides of dimensions 1 to 3.
    pub(super) fn view(&mut self, a: Id, ne: Extents, nb: [u64; 3]) -> Id {
        let source = self.tensor(a);
        let mut tensor = Tensor::new(source.ty, ne).computed(Op::View, &[a]);
        tensor.nb = [tensor.nb[0], nb[0], nb[1], nb[2]];
        tensor.view_of = Some(self.root(a));
        self.push(tensor)
    }
    /// A view of the first `n` elements.
    pub(super) fn view_1d(&mut self, a: Id, n: u64) -> Id {
        let dense = Tensor::new(self.tensor(a).ty, [n, 1, 1, 1]);
        self.view(a, dense.ne, [dense.nb[1], dense.nb[2], dense.nb[3]])
    }
    /// A view of `rows` rows of `n` elements, `stride` bytes apart (`ggml_view_2d`).
    pub(super) fn view_2d(&mut self, a: Id, n: u64, rows: u64, stride: u64) -> Id {
        let plane = stride.saturating_mul(rows);
        self.view(a, [n, rows, 1, 1], [stride, plane, plane])
    }
    /// A view of planes of rows (`ggml_view_3d`).
    pub(super) fn view_3d(&mut self, a: Id, ne: [u64; 3], nb1: u64, nb2: u64) -> Id {
        self.view(a, [ne[0], ne[1], ne[2], 1], [nb1, nb2, nb2.saturating_mul(ne[2])])
    }
    /// The same dense data under other extents.
    pub(super) fn reshape(&mut self, a: Id, ne: Extents) -> Id {
        let mut tensor = Tensor::new(self.tensor(a).ty, ne).computed(Op::Reshape, &[a]);
        tensor.view_of = Some(self.root(a));
        self.push(tensor)
    }
    /// Dimension `i` of `a` becomes dimension `axes[i]`.
    pub(super) fn permute(&mut self, a: Id, axes: [usize; 4]) -> Id {
        let id = self.alias(Op::Permute, a, &[a]);
        let (ne, nb) = (self.tensor(a).ne, self.tensor(a).nb);
        let tensor = self.tensor_mut(id);
        for (from, to) in axes.into_iter().enumerate() {
            tensor.ne[to] = ne[from];
            tensor.nb[to] = nb[from];
        }
        id
    }
    /// Dimensions 0 and 1 exchanged.
    pub(super) fn transpose(&mut self, a: Id) -> Id {
        let id = self.alias(Op::Transpose, a, &[a]);
        let tensor = self.tensor_mut(id);
        tensor.ne.swap(0, 1);
        tensor.nb.swap(0, 1);
        id
    }

    /// A dense copy.
    pub(super) fn cont(&mut self, a: Id) -> Id {
        self.like(Op::Cont, &[a])
    }
    /// A dense copy under other extents.
    pub(super) fn cont_as(&mut self, a: Id, ne: Extents) -> Id {
        let ty = self.tensor(a).ty;
        self.compute(Op::Cont, ty, ne, &[a])
    }
    /// A copy in another type. ggml makes the result its own second source.
    pub(super) fn cast(&mut self, a: Id, ty: QuantType) -> Id {
        let itself = Id(self.tensors.len() as u32);
        let ne = self.ne(a);
        self.compute(Op::Copy, ty, ne, &[a, itself])
    }
    /// Writes `a` over `b`.
    pub(super) fn copy_into(&mut self, a: Id, b: Id) -> Id {
        self.alias(Op::Copy, b, &[a, b])
    }
    /// Scales in the memory of `a`.
    pub(super) fn scale_inplace(&mut self, a: Id) -> Id {
        self.alias(Op::Scale, a, &[a])
    }
    /// The rows of `a` that `ids` names.
    pub(super) fn get_rows(&mut self, a: Id, ids: Id) -> Id {
        let ty = if self.tensor(a).ty == QuantType::I32 { QuantType::I32 } else { QuantType::F32 };
        let (width, n) = (self.ne(a)[0], self.ne(ids));
        self.compute(Op::GetRows, ty, [width, n[0], n[1], n[2]], &[a, ids])
    }
    /// Writes the rows of `rows` into `a` where `ids` says.
    pub(super) fn set_rows(&mut self, a: Id, rows: Id, ids: Id) -> Id {
        self.alias(Op::SetRows, a, &[rows, ids, a])
    }
    /// `a` in full times `b`: one row of the result per row of `b`.
    pub(super) fn mul_mat(&mut self, a: Id, b: Id) -> Id {
        let (rows, n) = (self.ne(a)[1], self.ne(b));
        self.compute(Op::MulMat, QuantType::F32, [rows, n[1], n[2], n[3]], &[a, b])
    }
    /// The same with the experts that `ids` picks for each token.
    pub(super) fn mul_mat_id(&mut self, experts: Id, b: Id, ids: Id) -> Id {
        let ne = [self.ne(experts)[1], self.ne(ids)[0], self.ne(b)[2], 1];
        self.compute(Op::MulMatId, QuantType::F32, ne, &[experts, b, ids])
    }
    /// `a + b`, `b` repeated as needed.
    pub(super) fn add(&mut self, a: Id, b: Id) -> Id {
        self.like(Op::Add, &[a, b])
    }
    /// `a × b`, `b` repeated as needed.
    pub(super) fn mul(&mut self, a: Id, b: Id) -> Id {
        self.like(Op::Mul, &[a, b])
    }
    /// `a - b`, `b` repeated as needed.
    pub(super) fn sub(&mut self, a: Id, b: Id) -> Id {
        self.like(Op::Sub, &[a, b])
    }
    /// `a` times a constant.
    pub(super) fn scale(&mut self, a: Id) -> Id {
        self.like(Op::Scale, &[a])
    }
    /// GELU, SiLU, sigmoid or softplus of each element.
    pub(super) fn unary(&mut self, a: Id) -> Id {
        self.like(Op::Unary, &[a])
    }
    /// Another function of each element (`ggml_unary` with tanh, ReLU, exp, ...).
    pub(super) fn function(&mut self, a: Id) -> Id {
        self.like(Op::Function, &[a])
    }
    /// The square of each element.
    pub(super) fn square(&mut self, a: Id) -> Id {
        self.like(Op::Square, &[a])
    }
    /// The root of each element.
    pub(super) fn square_root(&mut self, a: Id) -> Id {
        self.like(Op::Root, &[a])
    }
    /// Gated unit of two tensors of one shape (`ggml_swiglu_split` and its like).
    pub(super) fn gated(&mut self, gate: Id, up: Id) -> Id {
        if self.split_gates {
            let gate = self.unary(gate);
            return self.mul(gate, up);
        }
        self.like(Op::GatedUnit, &[gate, up])
    }
    /// Gated unit of the two halves of each row (`ggml_swiglu`).
    pub(super) fn gated_halves(&mut self, a: Id) -> Id {
        let (ty, mut ne) = (self.tensor(a).ty, self.ne(a));
        ne[0] /= 2;
        if self.split_gates {
            let nb = self.tensor(a).nb;
            let [gate, up] = [(); 2].map(|()| {
                let half = self.view(a, ne, [nb[1], nb[2], nb[3]]);
                self.cont(half)
            });
            return self.gated(gate, up);
        }
        self.compute(Op::GatedUnit, ty, ne, &[a])
    }
    /// `a` and `b` joined along dimension 0.
    pub(super) fn concat(&mut self, a: Id, b: Id) -> Id {
        self.concat_along(0, a, b)
    }
    /// `a` and `b` joined along this dimension.
    pub(super) fn concat_along(&mut self, dimension: usize, a: Id, b: Id) -> Id {
        let (ty, mut ne) = (self.tensor(a).ty, self.ne(a));
        ne[dimension] = ne[dimension].saturating_add(self.ne(b)[dimension]);
        self.compute(Op::Concat, ty, ne, &[a, b])
    }
    /// `a` repeated to larger extents.
    pub(super) fn repeat(&mut self, a: Id, ne: Extents) -> Id {
        let ty = self.tensor(a).ty;
        self.compute(Op::Repeat, ty, ne, &[a])
    }
    /// `a` with its rows lengthened to `width`.
    pub(super) fn pad_rows(&mut self, a: Id, width: u64) -> Id {
        let (ty, mut ne) = (self.tensor(a).ty, self.ne(a));
        ne[0] = width;
        self.compute(Op::Pad, ty, ne, &[a])
    }
    /// What several operations yield as one, in memory of its own: of the extents of the first source.
    pub(super) fn fused(&mut self, sources: &[Id]) -> Id {
        self.like(Op::Fused, sources)
    }
    /// The sum of all experts' outputs of each token, of which `first` is a view of the first (`ggml_multi_add`).
    pub(super) fn sum_of_experts(&mut self, first: Id) -> Id {
        let (ty, ne) = (self.tensor(first).ty, self.ne(first));
        self.compute(Op::Fused, ty, ne, &[first])
    }
    /// Gated activations of the chosen experts in one operation (`ggml_moe_up_gate`).
    pub(super) fn experts_gate(&mut self, up: Id, gate: Id, x: Id, ids: Id) -> Id {
        let ne = [self.ne(up)[1], self.ne(ids)[0], self.ne(x)[2], 1];
        self.compute(Op::ExpertsGate, QuantType::F32, ne, &[up, gate, x, ids])
    }
    /// Gated activations of a dense block in one operation (`ggml_fused_up_gate`).
    pub(super) fn gate_up(&mut self, up: Id, gate: Id, x: Id) -> Id {
        let (rows, ne) = (self.ne(up)[1], self.ne(x));
        self.compute(Op::Fused, QuantType::F32, [rows, ne[1], ne[2], ne[3]], &[up, gate, x])
    }
    /// The sum of each row.
    pub(super) fn sum_rows(&mut self, a: Id) -> Id {
        self.of_rows(Op::SumRows, a)
    }
    /// The mean of each row.
    pub(super) fn mean(&mut self, a: Id) -> Id {
        self.of_rows(Op::Mean, a)
    }
    fn of_rows(&mut self, op: Op, a: Id) -> Id {
        let (ty, mut ne) = (self.tensor(a).ty, self.ne(a));
        ne[0] = 1;
        self.compute(op, ty, ne, &[a])
    }
    /// Numbers of the `k` largest elements of each row: all sorted, and a view of the first `k` (`ggml_argsort_top_k`).
    pub(super) fn top_k(&mut self, a: Id, k: u64) -> Id {
        let ne = self.ne(a);
        let sorted = self.compute(Op::ArgSort, QuantType::I32, ne, &[a]);
        let nb = self.tensor(sorted).nb;
        self.view(sorted, [k, ne[1], ne[2], ne[3]], [nb[1], nb[2], nb[3]])
    }
    /// The same without order among them (`ggml_top_k`): only the `k` are kept.
    pub(super) fn top_k_alone(&mut self, a: Id, k: u64) -> Id {
        let ne = self.ne(a);
        self.compute(Op::TopK, QuantType::I32, [k, ne[1], ne[2], ne[3]], &[a])
    }
    /// Scores of all cells for each token, by an indexer's queries and keys (`ggml_lightning_indexer`).
    pub(super) fn index(&mut self, q: Id, k: Id, weights: Id, mask: Id) -> Id {
        let (nq, nk) = (self.ne(q), self.ne(k));
        self.compute(Op::Index, QuantType::F32, [nk[2], nq[2], 1, nq[3]], &[q, k, weights, mask])
    }
    /// A step of hyper-connections as one operation (`ggml_dsv4_hc_pre`, `ggml_dsv4_hc_comb`, `ggml_dsv4_hc_post`).
    pub(super) fn hyper_connection(&mut self, ne: Extents, sources: &[Id]) -> Id {
        self.compute(Op::HyperConnection, QuantType::F32, ne, sources)
    }
    /// One value in every element of a tensor like `a`, in the memory of `a` where it may.
    pub(super) fn fill(&mut self, a: Id) -> Id {
        self.like(Op::Fill, &[a])
    }
    /// Fused attention; the result has the heads before the tokens.
    pub(super) fn flash_attention(&mut self, q: Id, k: Id, v: Id, mask: Id, sinks: Option<Id>) -> Id {
        let (nq, nv) = (self.ne(q), self.ne(v));
        let ne = [nv[0], nq[2], nq[1], nq[3]];
        match sinks {
            Some(sinks) => self.compute(Op::FlashAttention, QuantType::F32, ne, &[q, k, v, mask, sinks]),
            None => self.compute(Op::FlashAttention, QuantType::F32, ne, &[q, k, v, mask]),
        }
    }
    /// True where `other` begins where `id` ends: caches of one buffer lie in the order in which they were made, aligned to 32
    /// bytes.
    pub(super) fn follows_in_memory(&self, id: Id, other: Id) -> bool {
        let memory = self.tensor(id).memory;
        let next = (id.0 + 1..self.tensors.len() as u32)
            .map(Id)
            .find(|&next| self.tensor(next).memory == memory && !self.same.contains_key(&next));
        next == Some(other) && self.tensor(id).bytes().is_multiple_of(32)
    }
    /// Convolution over the tokens of each sequence.
    pub(super) fn ssm_conv(&mut self, x: Id, kernel: Id) -> Id {
        let (nx, nk) = (self.ne(x), self.ne(kernel));
        let tokens = (nx[0] + 1).saturating_sub(nk[0]);
        self.compute(Op::SsmConv, QuantType::F32, [nk[1], tokens, nx[2], 1], &[x, kernel])
    }
    /// A recurrence over the tokens of each sequence (`ggml_gated_delta_net`, `ggml_rwkv_wkv6` and its like): outputs and,
    /// behind them, the new states.
    pub(super) fn recurrence(&mut self, op: Op, [width, rows]: [u64; 2], sources: &[Id]) -> Id {
        self.compute(op, QuantType::F32, [width, rows, 1, 1], sources)
    }
    /// Selective scan: outputs and, behind them, as many new states of each sequence.
    pub(super) fn ssm_scan(&mut self, sources: [Id; 7], n_states: u64) -> Id {
        let (state, ids) = (self.ne(sources[0]), self.ne(sources[6]));
        let states = state[..3].iter().fold(ids[0].saturating_mul(n_states), |product, &n| product.saturating_mul(n));
        let n = self.tensor(sources[1]).elements().saturating_add(states);
        self.compute(Op::SsmScan, QuantType::F32, [n, 1, 1, 1], &sources)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tensor::CacheKind;
    use super::*;
    use QuantType::{F32, I32};

    #[test]
    fn sources_come_before_their_users_and_leafs_apart() {
        let mut graph = Graph::default();
        let x = graph.input(F32, [8, 4, 1, 1]);
        let w = graph.placed(QuantType::Q8_0, [32, 16, 1, 1], Memory::Weights { backend: 0, host: true });
        let y = graph.mul_mat(w, x);
        let z = graph.add(y, y);
        let unused = graph.scale(x);
        graph.expand(z);
        graph.expand(z);
        assert_eq!((graph.nodes.as_slice(), graph.leafs.as_slice()), ([y, z].as_slice(), [w, x].as_slice()));
        assert!(!graph.nodes.contains(&unused));
        assert_eq!(graph.ne(z), [16, 4, 1, 1]);
    }

    #[test]
    fn views_know_their_root_and_keep_strides() {
        let mut graph = Graph::default();
        let cache = graph.placed(QuantType::F16, [1024, 4096, 1, 1], Memory::Cache { backend: 1, kind: CacheKind::Full });
        let k = graph.view(cache, [128, 8, 4096, 1], [256, 2048, 2048 * 4096]);
        let p = graph.permute(k, [0, 2, 1, 3]);
        assert_eq!(graph.ne(p), [128, 4096, 8, 1]);
        assert_eq!(graph.tensor(p).nb, [2, 2048, 256, 2048 * 4096]);
        assert_eq!((graph.root(p), graph.home(p)), (cache, Some(1)));
        assert_eq!(graph.tensor(p).bytes(), graph.tensor(cache).bytes());
    }

    #[test]
    fn a_cast_names_itself_and_does_not_loop() {
        let mut graph = Graph::default();
        let x = graph.input(F32, [8, 1, 1, 1]);
        let y = graph.cast(x, QuantType::F16);
        graph.expand(y);
        assert_eq!((graph.nodes.as_slice(), graph.tensor(y).bytes()), ([y].as_slice(), 16));
        let ids = graph.input(I32, [3, 1, 1, 1]);
        let picked = graph.get_rows(ids, ids);
        assert_eq!(graph.tensor(picked).ty, I32);
    }
}
