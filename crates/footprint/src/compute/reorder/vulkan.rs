//! How Vulkan orders the nodes of a split: it runs what does not depend on each other side by side, and keeps together what
//! one shader computes.
//!
//! Follows `ggml_vk_graph_optimize` (ggml/src/ggml-vulkan/ggml-vulkan.cpp:14687-15064, patterns ggml-vulkan-types.h:508-561)
//! of llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161, which `tests/vulkan` was recorded with. Left out are patterns of
//! operations that no declared graph has (snake activation, QSA's indexer, hyper-connections, roots of softplus).

use super::super::graph::Graph;
use super::super::tensor::{Id, Op, Tensor};
use super::{Kept, closed, is_empty};
use Op::{
    Add, AddId, ArgSort, Clamp, Div, GetRows, Mul, MulMat, MulMatId, Reshape, RmsNorm, Rope, Scale, SetRows, SoftMax, SsmConv, SumRows,
    Unary, View,
};
use spec::QuantType;
use std::ops::Range;

/// How far ahead nodes are looked for.
const AHEAD: usize = 20;
/// How far behind a node what would be fused with it is looked for.
const FUSED_AHEAD: usize = 15;

/// Choices of experts; what they read is kept until they are done.
const CHOICES: [&[Op]; 4] = [
    &[SoftMax, Reshape, ArgSort, View, GetRows, Reshape, SumRows, Clamp, Div, Reshape],
    &[Unary, Reshape, Add, ArgSort, View, GetRows, Reshape, SumRows, Clamp, Div, Reshape],
    &[SoftMax, Reshape, ArgSort, View, GetRows],
    &[ArgSort, View, GetRows, Reshape, SoftMax, Reshape],
];
/// What else stays together, in the order in which it is tried.
const PATTERNS: [&[Op]; 5] = [
    &[RmsNorm, Mul, Add, Mul],
    &[RmsNorm, Mul, Add],
    &[RmsNorm, Mul, Rope, View, SetRows],
    &[RmsNorm, View, SetRows],
    &[Rope, View, SetRows],
];
/// Neighbours of which the second may follow the first that was taken although it depends on it.
const PAIRS: [[Op; 2]; 6] = [[MulMat, Add], [MulMatId, AddId], [MulMatId, Mul], [Add, Add], [SsmConv, Add], [SsmConv, Unary]];

pub(super) fn optimize(graph: &mut Graph, uses: &[u32], split: Range<usize>, kept: &mut Kept) {
    let nodes = graph.nodes[split.clone()].to_vec();
    let mut pass = Pass {
        graph,
        uses,
        used: vec![false; nodes.len()],
        done: vec![false; graph.len()],
        order: Vec::with_capacity(nodes.len()),
        first: 0,
        nodes,
    };
    while pass.first < pass.nodes.len() {
        if !pass.keep_together(kept) {
            pass.take_set();
        }
    }
    let order = pass.order;
    graph.nodes[split].copy_from_slice(&order);
}

struct Pass<'a> {
    graph: &'a Graph,
    uses: &'a [u32],
    nodes: Vec<Id>,
    /// Nodes that have their place, or will have it with the set being taken.
    used: Vec<bool>,
    /// Tensors that have their place.
    done: Vec<bool>,
    order: Vec<Id>,
    /// The first node without a place.
    first: usize,
}

impl Pass<'_> {
    fn tensor(&self, i: usize) -> &Tensor {
        self.graph.tensor(self.nodes[i])
    }
    fn op(&self, i: usize) -> Op {
        self.tensor(i).op
    }
    fn is_empty(&self, i: usize) -> bool {
        is_empty(self.op(i))
    }
    fn first_source(&self, i: usize) -> Option<Id> {
        self.tensor(i).sources().first().copied()
    }

    fn matches(&self, pattern: &[Op], start: usize) -> bool {
        let end = start + pattern.len();
        end <= self.nodes.len() && (start..end).zip(pattern).all(|(i, &op)| self.op(i) == op && !self.used[i])
    }

    /// Places a pattern that begins at the first node; false where none does.
    fn keep_together(&mut self, kept: &mut Kept) -> bool {
        let start = self.first;
        let Some(pattern) = CHOICES.iter().chain(&PATTERNS).find(|pattern| self.matches(pattern, start)) else { return false };
        let end = start + pattern.len();
        if CHOICES.contains(pattern) {
            let scaled = end < self.nodes.len() && self.op(end) == Scale;
            let until = self.nodes[if scaled { end } else { end - 1 }];
            kept.keep_operands(self.graph, &self.nodes[start..end], until);
        }
        self.place(start..end);
        true
    }

    fn place(&mut self, set: impl IntoIterator<Item = usize>) {
        for i in set {
            let node = self.nodes[i];
            // A node that was taken twice has one place: upstream cuts the order off at the number of nodes.
            if self.order.len() < self.nodes.len() {
                self.order.push(node);
            }
            self.done[node.index()] = true;
            self.used[i] = true;
        }
        while self.first < self.nodes.len() && self.used[self.first] {
            self.first += 1;
        }
    }

    /// The first node with those near it that need nothing without a place; views after them.
    fn take_set(&mut self) {
        let mut set = vec![self.first];
        let end = (self.first + AHEAD).min(self.nodes.len());
        for j in self.first + 1..end {
            if self.used[j] || self.is_empty(j) || CHOICES.iter().chain(&PATTERNS).any(|pattern| self.matches(pattern, j)) {
                continue;
            }
            let last = *set.last().unwrap_or(&self.first);
            let blocked = |c: usize| !self.used[c] && self.depends(j, c) && !(c == last && self.joins(c, j));
            if !(self.first..j).any(blocked) {
                set.push(j);
                self.take_fused(j, &mut set);
            }
        }
        if set.last().is_some_and(|&last| self.op(last) != Add) {
            for j in self.first + 1..end {
                let blocked = |c: usize| !self.used[c] && self.depends(j, c) && !set.contains(&c);
                if !self.used[j] && self.is_empty(j) && !(self.first..j).any(blocked) {
                    set.push(j);
                }
            }
        }
        self.place(set);
    }

    /// True where `later` reads `earlier`, or overwrites what it reads.
    fn depends(&self, later: usize, earlier: usize) -> bool {
        let (dst, src) = (self.nodes[later], self.nodes[earlier]);
        let root = |id: Id| self.graph.owner(id);
        let (reads, read) = (self.tensor(later).sources(), self.tensor(earlier).sources());
        if reads.contains(&src) || root(dst) == root(src) {
            return true;
        }
        if self.is_empty(later) || self.is_empty(earlier) {
            return false;
        }
        reads.iter().any(|&source| root(source) == root(src)) || read.iter().any(|&source| root(source) == root(dst))
    }

    /// True where `j` is fused with `c`, the last node taken, and so need not wait for it.
    fn joins(&self, c: usize, j: usize) -> bool {
        let pair = [self.op(c), self.op(j)];
        let near = || (c + 1..j).all(|v| self.used[v] || self.is_empty(v));
        match pair {
            [RmsNorm, Mul] | [Unary, Mul] | [Op::Function, Mul] => near(),
            _ => j == c + 1 && (PAIRS.contains(&pair) || pair == [SsmConv, Op::Function]),
        }
    }

    /// Takes, beside `j`, what would be fused with it.
    fn take_fused(&mut self, j: usize, set: &mut Vec<usize>) {
        let before = (j > 0).then(|| self.op(j - 1));
        let mut rotated = j;
        if self.op(j) == Mul && before == Some(RmsNorm) {
            let given = |id: Option<&Id>| id.is_none_or(|&id| self.graph.tensor(id).op == Op::None);
            let fits = |k: usize| {
                let sources = self.tensor(k).sources();
                self.op(k) == Rope && sources.first() == Some(&self.nodes[j]) && given(sources.get(1)) && given(sources.get(2))
            };
            if let Some(k) = self.after(j).find(|&k| fits(k)) {
                rotated = k;
                self.take(k, set);
            }
        }
        if matches!(self.op(rotated), Rope | RmsNorm) {
            self.take_store(rotated, set);
        }
        let ready = |id: Id| self.graph.tensor(id).op == Op::None || self.done[id.index()];
        let follows = |k: usize, op: Op| self.op(k) == op && self.first_source(k) == Some(self.nodes[j]);
        let with_ready = |k: usize, op: Op| follows(k, op) && self.tensor(k).sources().get(1).is_some_and(|&other| ready(other));
        let found = match (before, self.op(j)) {
            (Some(MulMatId), AddId) => self.after(j).find(|&k| with_ready(k, Mul)),
            (Some(MulMat), Add) => self.after(j).find(|&k| with_ready(k, Add)),
            (Some(SsmConv), Add) => self.after(j).find(|&k| follows(k, Unary) || follows(k, Op::Function)),
            (_, Unary) => self.after(j).find(|&k| self.other_factor(j, k).is_some_and(ready) && self.fuses_product(j, k)),
            _ => None,
        };
        if let Some(k) = found {
            self.take(k, set);
        }
    }

    fn after(&self, j: usize) -> Range<usize> {
        j + 1..(j + FUSED_AHEAD).min(self.nodes.len())
    }
    fn take(&mut self, k: usize, set: &mut Vec<usize>) {
        set.push(k);
        self.used[k] = true;
    }

    /// A view of `rotated` and its store in a cache, made consecutive.
    fn take_store(&mut self, rotated: usize, set: &mut Vec<usize>) {
        let mut after = self.after(rotated).filter(|&k| !self.used[k]);
        let reads = |k: usize, op: Op, of: usize| self.op(k) == op && self.first_source(k) == Some(self.nodes[of]);
        let Some(view) = after.find(|&k| reads(k, View, rotated)) else { return };
        let Some(store) = after.find(|&k| reads(k, SetRows, view)) else { return };
        let nodes = [rotated, view, store].map(|i| self.nodes[i]);
        let blocked = |c: usize| !self.used[c] && c != view && !self.is_empty(c) && self.depends(store, c);
        if closed(self.graph, self.uses, &nodes, &nodes[2..]) && !(rotated + 1..store).any(blocked) {
            self.take(view, set);
            self.take(store, set);
        }
    }

    /// The other operand where `k` is a product with `j`.
    fn other_factor(&self, j: usize, k: usize) -> Option<Id> {
        let sources = self.tensor(k).sources();
        match (self.op(k), sources) {
            (Mul, &[a, b]) if a == self.nodes[j] => Some(b),
            (Mul, &[a, b]) if b == self.nodes[j] => Some(a),
            _ => None,
        }
    }

    /// True where one shader computes the function `j` and the product `k` (`ggml_vk_can_fuse_unary_mul`).
    fn fuses_product(&self, j: usize, k: usize) -> bool {
        let (function, product) = (self.tensor(j), self.tensor(k));
        let (Some(other), Some(&from)) = (self.other_factor(j, k), function.sources().first()) else { return false };
        let (other, from) = (self.graph.tensor(other), self.graph.tensor(from));
        let first = self.first_source(k).map(|id| self.graph.tensor(id));
        let (small, large) =
            if self.first_source(k) == Some(self.nodes[j]) { (Some(other), Some(function)) } else { (Some(function), first) };
        let repeats = small
            .zip(large)
            .is_some_and(|(small, large)| small.ne.iter().zip(large.ne).all(|(&small, large)| small != 0 && large.is_multiple_of(small)));
        matches!(function.ty, QuantType::F32 | QuantType::F16)
            && product.ty == function.ty
            && other.ty == function.ty
            && other.has_dense_planes()
            && from.has_dense_planes()
            && repeats
    }
}
