//! How Metal orders the nodes of a split: it packs what one kernel computes, and moves what does not depend on each other
//! next to each other.
//!
//! Follows `ggml_graph_optimize` (ggml/src/ggml-metal/ggml-metal-common.cpp:130-600), the fusion table
//! (ggml-metal-fusion.cpp:95-830, 1030-1190) and `ggml_backend_metal_graph_optimize` (ggml-metal.cpp:570-580) of llama.cpp
//! v0.6.0-dev, crate llama-cpp-sys-2 0.1.161, which `tests/metal` was recorded with: the backend's own code, compiled without a
//! device behind it.

use super::super::graph::Graph;
use super::super::tensor::{CacheKind, Id, Memory, Op, Tensor};
use super::{Kept, closed, is_empty};
use Op::{
    Add, ArgSort, Clamp, Copy, Div, Function, GatedDelta, GetRows, Mul, MulMat, Norm, Reshape, RmsNorm, Scale, SoftMax, SsmConv, SumRows,
    Unary, View,
};
use spec::QuantType;
use std::ops::Range;

/// The most nodes of a pack (`GGML_METAL_FUSION_MAX`).
const MAX_PACK: usize = 16;
/// The most additions of a chain.
const MAX_SUMS: usize = 7;
/// The most experts whose weighted sum is one kernel.
const MAX_REDUCED: usize = 8;
/// The most experts that one kernel chooses among.
const MAX_EXPERTS: u64 = 1024;
/// How far ahead a node is looked for that may run beside others.
const AHEAD: usize = 64;

/// Element-wise chains: each node reads the one before it.
const CHAINS: [&[Op]; 8] = [
    &[Norm, Mul],
    &[Norm, Mul, Add],
    &[Norm, Scale],
    &[RmsNorm, Mul],
    &[RmsNorm, Mul, Add],
    &[RmsNorm, Scale],
    &[SsmConv, Unary],
    &[MulMat, Add],
];
/// A recurrence, and its new states on their way to the cache.
const KEEPING: [&[Op]; 1] = [&[GatedDelta, Copy]];
/// Choices of experts, views included.
const CHOICES: [&[Op]; 4] = [
    &[SoftMax, Reshape, ArgSort, View, GetRows],
    &[SoftMax, Reshape, ArgSort, View, GetRows, Scale],
    &[SoftMax, Reshape, ArgSort, View, GetRows, Reshape, SumRows, Clamp, Div, Reshape],
    &[SoftMax, Reshape, ArgSort, View, GetRows, Reshape, SumRows, Clamp, Div, Reshape, Scale],
];
/// Weights that the kernel for a few rows reads, which can add to its result (`ggml_metal_mul_mv_mma_type_supported`).
const ADDING: [QuantType; 10] = [
    QuantType::F32,
    QuantType::F16,
    QuantType::Q4_0,
    QuantType::Q4_1,
    QuantType::Q5_0,
    QuantType::Q5_1,
    QuantType::Q8_0,
    QuantType::Q4_K,
    QuantType::Q5_K,
    QuantType::Q6_K,
];

pub(super) fn optimize(graph: &mut Graph, uses: &[u32], split: Range<usize>, kept: &mut Kept, dry: bool) {
    let nodes = graph.nodes[split.clone()].to_vec();
    let pass = Split { graph, uses, nodes };
    pass.keep_operands(kept);
    let packs = pass.packs();
    let order: Vec<Id> = Reorder::new(graph, &pass.nodes, packs, dry).run();
    graph.nodes[split].copy_from_slice(&order);
}

struct Split<'a> {
    graph: &'a Graph,
    uses: &'a [u32],
    nodes: Vec<Id>,
}

impl Split<'_> {
    fn tensor(&self, i: usize) -> &Tensor {
        self.graph.tensor(self.nodes[i])
    }
    fn op(&self, i: usize) -> Option<Op> {
        (i < self.nodes.len()).then(|| self.tensor(i).op)
    }
    fn is(&self, i: usize, op: Op) -> bool {
        // Every function is one operation in ggml.
        self.op(i).is_some_and(|found| found == op || (op == Unary && found == Function))
    }
    fn matches(&self, start: usize, pattern: &[Op]) -> bool {
        pattern.iter().enumerate().all(|(k, &op)| self.is(start + k, op))
    }
    fn run(&self, start: usize, op: Op) -> usize {
        (start..self.nodes.len()).take_while(|&i| self.is(i, op)).count()
    }

    /// What the longest pattern at each place reads is kept until its end; only operations are compared.
    fn keep_operands(&self, kept: &mut Kept) {
        let mut i = 0;
        while i < self.nodes.len() {
            let n = self.longest_raw(i);
            if n > 0 {
                kept.keep_operands(self.graph, &self.nodes[i..i + n], self.nodes[i + n - 1]);
            }
            i += n.max(1);
        }
    }

    fn longest_raw(&self, i: usize) -> usize {
        let fixed = CHAINS.iter().chain(&CHOICES).chain(&KEEPING);
        let mut longest = fixed.filter(|pattern| self.matches(i, pattern)).map(|pattern| pattern.len()).max().unwrap_or(0);
        if self.is(i, Add) {
            let sums = self.run(i, Add).min(MAX_SUMS);
            longest = longest.max(if sums > 1 { sums } else { 0 });
        }
        if self.is(i, Mul) {
            let views = self.run(i + 1, View);
            let sums = self.run(i + 1 + views, Add);
            if (2..=MAX_REDUCED).contains(&views) && sums + 1 >= views {
                longest = longest.max(2 * views);
            }
        }
        longest
    }

    /// Runs of nodes that stay together.
    fn packs(&self) -> Vec<Range<usize>> {
        let mut packs = Vec::with_capacity(self.nodes.len());
        let mut i = 0;
        while i < self.nodes.len() {
            let n = self.pack(i);
            packs.push(i..i + n);
            i += n;
        }
        packs
    }

    /// How many nodes from here stay together (`ggml_metal_fusion_max`).
    fn pack(&self, start: usize) -> usize {
        if is_empty(self.tensor(start).op) {
            return 1;
        }
        let places: Vec<usize> = (start..self.nodes.len()).filter(|&i| !is_empty(self.tensor(i).op)).take(MAX_PACK).collect();
        let mut total = 0;
        while total < places.len() {
            let n = self.fused(&places[total..]);
            if n < 2 || total + n > MAX_PACK {
                break;
            }
            total += n;
        }
        match total {
            0 => 1,
            _ => (places[total - 1] - start + 1).min(MAX_PACK),
        }
    }

    /// The length of the longest pattern at the first of these places (`ggml_metal_fusion_next`).
    fn fused(&self, places: &[usize]) -> usize {
        let mut best = 1;
        let chains = CHAINS.iter().filter(|chain| self.is_chain(places, chain)).map(|chain| chain.len());
        best = chains.fold(best, usize::max);
        for n in 2..=MAX_SUMS {
            if n > best && self.is_chain(places, &[Add; MAX_SUMS][..n]) {
                best = n;
            }
        }
        if best < 2 && self.keeps_state(places) {
            best = 2;
        }
        for pattern in CHOICES {
            let n = pattern.iter().filter(|op| !op.is_view()).count();
            if n > best && self.is_choice(places, pattern, n) {
                best = n;
            }
        }
        for n in 2..=MAX_REDUCED {
            if n > best && self.is_reduction(places, n) {
                best = n;
            }
        }
        best
    }

    /// The nodes at these places where they are `ops`.
    fn of(&self, places: &[usize], ops: &[Op]) -> Option<Vec<Id>> {
        let places = places.get(..ops.len())?;
        let equal = places.iter().zip(ops).all(|(&place, &op)| self.is(place, op));
        equal.then(|| places.iter().map(|&place| self.nodes[place]).collect())
    }

    fn is_chain(&self, places: &[usize], ops: &[Op]) -> bool {
        let Some(nodes) = self.of(places, ops) else { return false };
        let tensors: Vec<&Tensor> = nodes.iter().map(|&node| self.graph.tensor(node)).collect();
        let linked =
            (1..nodes.len()).all(|j| tensors[j].sources().iter().take(2).any(|&s| s == nodes[j - 1]) && tensors[j].ne == tensors[j - 1].ne);
        if !linked || !closed(self.graph, self.uses, &nodes, &nodes[nodes.len() - 1..]) {
            return false;
        }
        let source = |j: usize, k: usize| tensors[j].sources().get(k).copied();
        match ops {
            [SsmConv, ..] => tensors[1].op == Unary && tensors[1].ty == QuantType::F32,
            [MulMat, ..] => self.adds_to_product(nodes[0], nodes[1]),
            [_, Scale] => tensors[1].ty == QuantType::F32,
            [Add, ..] => (1..nodes.len()).all(|j| {
                let alike = source(j, 1).zip(source(j - 1, 1)).is_some_and(|(a, b)| self.graph.tensor(a).same_layout(self.graph.tensor(b)));
                source(j, 0) == Some(nodes[j - 1]) && alike
            }),
            _ => (1..nodes.len()).all(|j| {
                let operand = source(j, 1).map(|id| self.graph.tensor(id));
                source(j, 0) == Some(nodes[j - 1])
                    && operand.is_some_and(|operand| operand.ne[0] == tensors[0].ne[0] && operand.has_dense_rows())
                    && tensors[j].ty == QuantType::F32
            }),
        }
    }

    /// True for a product plus something that is no weight.
    fn adds_to_product(&self, product: Id, sum: Id) -> bool {
        let tensor = self.graph.tensor(sum);
        let &[a, b] = tensor.sources() else { return false };
        if (a == product) == (b == product) {
            return false;
        }
        let other = if a == product { b } else { a };
        let is_weight = matches!(self.graph.tensor(self.graph.root(other)).memory, Memory::Weights { .. });
        let operands: Vec<QuantType> = self.graph.tensor(product).sources().iter().map(|&id| self.graph.tensor(id).ty).collect();
        let &[weights, rows] = operands.as_slice() else { return false };
        let f32 = |ty: QuantType| ty == QuantType::F32;
        f32(self.graph.tensor(other).ty) && f32(tensor.ty) && !is_weight && ADDING.contains(&weights) && f32(rows)
    }

    /// True for a recurrence whose new states are written to the cache next.
    fn keeps_state(&self, places: &[usize]) -> bool {
        let Some(nodes) = self.of(places, KEEPING[0]) else { return false };
        let source = self.graph.tensor(nodes[1]).sources().first().map(|&id| self.graph.tensor(id));
        source.is_some_and(|source| source.op == View && source.view_of == Some(nodes[0]) && source.is_contiguous())
    }

    /// True for a choice of experts of `n` nodes, views aside.
    fn is_choice(&self, places: &[usize], ops: &[Op], n: usize) -> bool {
        let Some(&last) = places.get(n - 1) else { return false };
        let start = places[0];
        let ends_in_view = ops.last() == Some(&Reshape);
        let end = last + usize::from(ends_in_view);
        if end + 1 != start + ops.len() || !self.matches(start, ops) {
            return false;
        }
        let nodes = &self.nodes[start..=end];
        let node = |k: usize| self.graph.tensor(nodes[k]);
        let reads = |k: usize, sources: &[Id]| node(k).sources() == sources;
        let linked = reads(1, &nodes[..1])
            && reads(2, &nodes[..1])
            && reads(3, &nodes[2..3])
            && reads(4, &[nodes[1], nodes[3]])
            && match ops.len() {
                6 => reads(5, &nodes[4..5]),
                10 | 11 => {
                    reads(5, &nodes[4..5])
                        && reads(6, &nodes[5..6])
                        && reads(7, &nodes[6..7])
                        && reads(8, &[nodes[5], nodes[7]])
                        && reads(9, &nodes[8..9])
                        && (ops.len() == 10 || reads(10, &nodes[9..10]))
                }
                _ => true,
            };
        let &[logits] = node(0).sources() else { return false };
        let logits = self.graph.tensor(logits);
        let (experts, tokens, used) = (logits.ne[0], logits.ne[1], node(3).ne[0]);
        let out = node(nodes.len() - 1);
        let shaped = logits.ne[2..] == [1, 1]
            && (1..=MAX_EXPERTS).contains(&experts)
            && (1..=experts).contains(&used)
            && node(3).ne[1..] == [tokens, 1, 1]
            && out.ne == [1, used, tokens, 1];
        linked
            && shaped
            && logits.ty == QuantType::F32
            && logits.is_contiguous()
            && out.is_contiguous()
            && closed(self.graph, self.uses, nodes, &[nodes[3], nodes[nodes.len() - 1]])
    }

    /// True for the weighted sum of `n` experts.
    fn is_reduction(&self, places: &[usize], n: usize) -> bool {
        let start = places[0];
        let (count, end) = (2 * n, start + 2 * n);
        let sums_at = start + 1 + n;
        if places.get(n - 1) != Some(&(end - 1)) || !self.is(start, Mul) || self.run(start + 1, View) != n || self.run(sums_at, Add) < n - 1
        {
            return false;
        }
        let nodes = &self.nodes[start..end];
        let product = self.graph.tensor(nodes[0]);
        let &[experts, weights] = product.sources() else { return false };
        let (experts, weights, sum) = (self.graph.tensor(experts), self.graph.tensor(weights), self.graph.tensor(nodes[count - 1]));
        let [width, used, tokens, more] = experts.ne;
        let shaped = used == n as u64
            && more == 1
            && weights.ne == [1, used, tokens, 1]
            && sum.ne == [width, tokens, 1, 1]
            && [product, experts, weights, sum].iter().all(|tensor| tensor.ty == QuantType::F32)
            && [experts, weights, sum].iter().all(|tensor| tensor.is_contiguous());
        let views = (1..=n).all(|k| {
            let view = self.graph.tensor(nodes[k]);
            view.sources() == &nodes[..1] && view.ne[..2] == [width, tokens] && view.nb[1] == product.nb[2]
        });
        let sums = (1..n).all(|k| {
            let left = if k == 1 { nodes[1] } else { nodes[n + k - 1] };
            self.graph.tensor(nodes[n + k]).sources() == [left, nodes[k + 1]]
        });
        shaped && views && sums && closed(self.graph, self.uses, nodes, &nodes[count - 1..])
    }
}

/// What a set of nodes reads and writes, by the tensor that owns the memory.
struct Touched {
    now: u32,
    read: Vec<u32>,
    written: Vec<u32>,
    /// Caches among them; true where written.
    caches: Vec<(Id, bool)>,
    /// Weights are among what is read.
    weights_read: bool,
    /// A view of weights is among what is written.
    weights_written: bool,
}

impl Touched {
    fn new(tensors: usize) -> Self {
        Self { now: 1, read: vec![0; tensors], written: vec![0; tensors], caches: Vec::new(), weights_read: false, weights_written: false }
    }
    fn clear(&mut self) {
        self.now += 1;
        self.caches.clear();
        (self.weights_read, self.weights_written) = (false, false);
    }
}

/// What a pack reads from outside, and what it writes, by the tensor that owns the memory.
struct Pack {
    nodes: Range<usize>,
    op: Op,
    reads: Vec<Id>,
    writes: Vec<Id>,
}

struct Reorder<'a> {
    graph: &'a Graph,
    nodes: &'a [Id],
    packs: Vec<Pack>,
    dry: bool,
}

impl<'a> Reorder<'a> {
    fn new(graph: &'a Graph, nodes: &'a [Id], packs: Vec<Range<usize>>, dry: bool) -> Self {
        let described = packs.into_iter().map(|range| {
            let inside = &nodes[range.clone()];
            let root = |id: Id| graph.owner(id);
            let reads = inside.iter().flat_map(|&node| graph.tensor(node).sources()).filter(|source| !inside.contains(source));
            Pack {
                op: graph.tensor(inside[0]).op,
                reads: reads.map(|&id| root(id)).collect(),
                writes: inside.iter().map(|&id| root(id)).collect(),
                nodes: range,
            }
        });
        Self { graph, nodes, packs: described.collect(), dry }
    }

    fn run(&self) -> Vec<Id> {
        let mut used = vec![false; self.packs.len()];
        let mut order = Vec::with_capacity(self.nodes.len());
        let (mut beside, mut before) = (Touched::new(self.graph.len()), Touched::new(self.graph.len()));
        for i in 0..self.packs.len() {
            if used[i] {
                continue;
            }
            let pack = &self.packs[i];
            if !is_empty(pack.op) && !self.is_free(&beside, pack) {
                before.clear();
                self.add(&mut before, pack);
                for (j, next) in self.packs.iter().enumerate().take(i + AHEAD).skip(i + 1) {
                    if used[j] {
                        continue;
                    }
                    if !may_move(next.op) {
                        break;
                    }
                    if (is_empty(next.op) || self.is_free(&beside, next)) && self.is_free(&before, next) {
                        self.add(&mut beside, next);
                        order.extend_from_slice(&self.nodes[next.nodes.clone()]);
                        used[j] = true;
                    } else {
                        self.add(&mut before, next);
                    }
                }
                beside.clear();
            }
            self.add(&mut beside, pack);
            order.extend_from_slice(&self.nodes[pack.nodes.clone()]);
        }
        order
    }

    fn is_cache(&self, id: Id) -> bool {
        matches!(self.graph.tensor(id).memory, Memory::Cache { .. })
    }

    fn is_weight(&self, id: Id) -> bool {
        matches!(self.graph.tensor(id).memory, Memory::Weights { .. })
    }

    /// True where nothing that the pack reads is written by the set, and nothing that it writes is touched.
    fn is_free(&self, set: &Touched, pack: &Pack) -> bool {
        let written = |id: Id| set.written[id.index()] == set.now;
        let touched = |id: Id| written(id) || set.read[id.index()] == set.now;
        let cached = |id: Id, writes: bool| {
            self.is_cache(id) && set.caches.iter().any(|&(other, written)| (writes || written) && self.overlaps(id, other))
        };
        // In a dry run weights have no memory yet, so that all of them seem to overlap.
        let weights = |id: Id, taken: bool| self.dry && taken && self.is_weight(id);
        let read = |id: Id| written(id) || cached(id, false) || weights(id, set.weights_written);
        let write = |id: Id| touched(id) || cached(id, true) || weights(id, set.weights_read || set.weights_written);
        !pack.reads.iter().any(|&id| read(id)) && !pack.writes.iter().any(|&id| write(id))
    }

    fn add(&self, set: &mut Touched, pack: &Pack) {
        for (ids, writes) in [(&pack.reads, false), (&pack.writes, true)] {
            for &id in ids {
                let stamps = if writes { &mut set.written } else { &mut set.read };
                if std::mem::replace(&mut stamps[id.index()], set.now) != set.now && self.is_cache(id) {
                    set.caches.push((id, writes));
                }
                if self.is_weight(id) {
                    set.weights_read |= !writes;
                    set.weights_written |= writes;
                }
            }
        }
    }

    /// True where the backend takes two caches to overlap: one that ends where the other begins; in a dry run all keys and
    /// values of one buffer, as they have no memory yet (states have, llama-memory-recurrent.cpp:115).
    fn overlaps(&self, id: Id, other: Id) -> bool {
        let (a, b) = (self.graph.tensor(id).memory, self.graph.tensor(other).memory);
        let absent = self.dry && !matches!(a, Memory::Cache { kind: CacheKind::State, .. });
        id != other && a == b && (absent || self.graph.follows_in_memory(id, other))
    }
}

/// True for operations that others may overtake (`h_safe`).
fn may_move(op: Op) -> bool {
    use Op::{Cont, GatedUnit, MulMatId, Repeat, Rope, SetRows, SsmScan, Sub, UnitNorm};
    is_empty(op)
        || matches!(op, MulMat | MulMatId | Rope | Norm | RmsNorm | UnitNorm | SumRows | SsmConv | SsmScan | Clamp | Mul | Add | Sub | Div)
        || matches!(op, GatedUnit | Scale | Unary | Function | GetRows | SetRows | Copy | Cont | Repeat)
}
