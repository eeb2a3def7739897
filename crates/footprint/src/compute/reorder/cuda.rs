//! What CUDA's fusions of routed experts do to a graph: they move nodes and keep tensors longer, so that results which one
//! kernel computes together do not overlap.
//!
//! Follows `ggml_backend_cuda_graph_optimize` and its matchers (ggml/src/ggml-cuda/ggml-cuda.cu:1676-1877, 2875-3022,
//! 3106-3240, 4603-4715, ggml-cuda/topk-moe.cu:403-447) and `ggml_can_fuse_subgraph_ext` (ggml/src/ggml.c:7769-7826) of
//! llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161. Read, not run: no such device has confirmed it.

use super::super::graph::Graph;
use super::super::tensor::{Id, Memory, Op};
use super::{Kept, closed};
use spec::QuantType;
use std::ops::Range;

/// Most experts of a token whose weighted sum is one kernel.
const MAX_REDUCED: usize = 15;

/// Fuses the nodes of one split, `uses` being those of the graph before copies were put in.
pub(super) fn optimize(graph: &mut Graph, uses: &[u32], split: Range<usize>, kept: &mut Kept) {
    let mut split = Split { graph, uses, start: split.start, end: split.end };
    split.join_shared_experts(kept);
    let mut i = split.start;
    while i < split.end {
        if let Some((operands, count)) = split.weighted_reduction(i) {
            let until = split.node(i + count - 1);
            operands.into_iter().for_each(|operand| kept.keep(operand, until));
            kept.spans.push((i, i + count - 1));
            i += count - 1;
        }
        if let Some(count) = split.top_k(i) {
            kept.spans.push((i, i + count));
            if let Some(&until) = split.graph.nodes.get(i + count) {
                for k in i..i + count {
                    let node = split.node(k);
                    kept.keep(node, until);
                    for &source in split.graph.tensor(node).sources() {
                        kept.keep(source, until);
                    }
                }
            }
            i += count - 1;
        }
        i += 1;
    }
}

/// Names the tensors whose types, extents or strides the matchers look at where they come to this node.
pub(super) fn inspected(graph: &Graph, node: Id, mut name: impl FnMut(Id)) {
    let tensor = graph.tensor(node);
    match tensor.op {
        Op::Mul => {
            name(node);
            tensor.sources().iter().copied().for_each(name);
        }
        Op::ArgSort => name(node),
        Op::MulMatId => tensor.sources().iter().copied().for_each(name),
        Op::GatedUnit => {
            let products = tensor.sources().iter();
            products.flat_map(|&product| graph.tensor(product).sources()).copied().for_each(name);
        }
        Op::SoftMax if tensor.sources().len() == 1 => tensor.sources().iter().copied().for_each(name),
        Op::Unary if is_compiled(tensor.ne[0]) => tensor.sources().iter().copied().for_each(name),
        Op::View if tensor.sources().first().is_some_and(|&source| graph.tensor(source).op == Op::Mul) => name(node),
        _ => {}
    }
}

struct Split<'a> {
    graph: &'a mut Graph,
    uses: &'a [u32],
    start: usize,
    end: usize,
}

impl Split<'_> {
    fn node(&self, i: usize) -> Id {
        self.graph.nodes[i]
    }
    fn op(&self, i: usize) -> Option<Op> {
        (i < self.end).then(|| self.graph.tensor(self.node(i)).op)
    }
    fn source(&self, id: Id, k: usize) -> Option<Id> {
        self.graph.tensor(id).sources().get(k).copied()
    }
    /// True where node `i` is `op` of the node before it.
    fn follows(&self, i: usize, op: Op) -> bool {
        self.op(i) == Some(op) && i > 0 && self.source(self.node(i), 0) == Some(self.node(i - 1))
    }

    fn closed(&self, nodes: &[Id], outputs: &[Id]) -> bool {
        closed(self.graph, self.uses, nodes, outputs)
    }

    /// Moves the first products of shared experts behind those of routed ones of the same shape and type.
    fn join_shared_experts(&mut self, kept: &mut Kept) {
        let mut i = self.start;
        while i + 5 < self.end {
            if self.op(i) == Some(Op::MulMatId)
                && let Some(j) = self.shared_expert_of(i)
            {
                self.graph.nodes[i + 3..j + 3].rotate_right(3);
                kept.spans.push((i, j + 2));
                let until = self.node(i + 5);
                let routed = self.graph.tensor(self.node(i + 2)).sources().get(1).copied();
                for operand in [1, 2] {
                    if let Some(operand) = routed.and_then(|up| self.source(up, operand)) {
                        kept.keep(operand, until);
                    }
                }
                i += 5;
            }
            i += 1;
        }
    }

    fn shared_expert_of(&self, i: usize) -> Option<usize> {
        for j in i + 3..self.end.saturating_sub(2) {
            if self.op(j) == Some(Op::MulMatId) && self.op(j + 1) == Some(Op::MulMatId) {
                return None;
            }
            if self.op(j) == Some(Op::MulMat) && self.matches_shared_expert(i, j) == Some(true) {
                return Some(j);
            }
        }
        None
    }

    /// `None` where some operand is not there at all.
    fn matches_shared_expert(&self, i: usize, j: usize) -> Option<bool> {
        let places = [i, i + 1, i + 2, j, j + 1, j + 2];
        let wanted = [Op::MulMatId, Op::MulMatId, Op::GatedUnit, Op::MulMat, Op::MulMat, Op::GatedUnit];
        if places.iter().zip(wanted).any(|(&place, op)| self.op(place) != Some(op)) {
            return Some(false);
        }
        let nodes = places.map(|place| self.node(place));
        let [routed, shared] = [nodes[2], nodes[5]];
        if !self.closed(&nodes, &[routed, shared]) {
            return Some(false);
        }
        let pair = |unit: Id, first: Id, second: Id| {
            let (gate, up) = (self.source(unit, 0)?, self.source(unit, 1)?);
            ((gate, up) == (first, second) || (up, gate) == (first, second)).then_some((gate, up))
        };
        let (Some((gate, up)), Some((shared_gate, shared_up))) = (pair(routed, nodes[0], nodes[1]), pair(shared, nodes[3], nodes[4]))
        else {
            return Some(false);
        };
        let alike = |a: Id, b: Id| {
            let (a, b) = (self.graph.tensor(a), self.graph.tensor(b));
            a.same_layout(b)
        };
        let [weight, gate_weight, shared_weight, shared_gate_weight] = [up, gate, shared_up, shared_gate].map(|id| self.source(id, 0));
        let (weight, shared_weight) = (weight?, shared_weight?);
        let (input, shared_input) = (self.source(up, 1)?, self.source(shared_up, 1)?);
        let paired = alike(weight, gate_weight?)
            && alike(shared_weight, shared_gate_weight?)
            && Some(input) == self.source(gate, 1)
            && self.source(up, 2) == self.source(gate, 2)
            && Some(shared_input) == self.source(shared_gate, 1);
        let (w, s, x) = (self.graph.tensor(weight), self.graph.tensor(shared_weight), self.graph.tensor(input));
        // A weight that is copied in for this split has no buffer yet.
        let placed = matches!(w.memory, Memory::Weights { .. } | Memory::Cache { .. });
        let same = w.ty == s.ty && w.ne[..2] == s.ne[..2] && w.nb[1] == s.nb[1] && w.ne[3] == 1 && s.ne[2] == 1 && s.ne[3] == 1;
        let shaped = x.op == Op::Reshape && self.source(input, 0) == Some(shared_input) && x.ne[1] == 1 && x.ne[3] == 1;
        let y = self.graph.tensor(shared_input);
        let dense = x.is_contiguous() && y.is_contiguous() && y.ne[2] == 1 && y.ne[3] == 1;
        Some(paired && placed && w.ty.is_quantized() && same && shaped && dense)
    }

    /// The operands and the number of nodes of a sum of weighted experts that begins here.
    fn weighted_reduction(&self, i: usize) -> Option<(Vec<Id>, usize)> {
        if self.op(i) != Some(Op::Mul) {
            return None;
        }
        let first = self.node(i);
        let doubled = || {
            let second = (self.op(i + 1) == Some(Op::Mul)).then(|| self.node(i + 1))?;
            let (scaled, route) = self.factors(second)?;
            let (raw, scale) = self.factors(first)?;
            (scaled == first).then_some((second, vec![raw, route, scale]))
        };
        let (weighted, operands) = match doubled() {
            Some(doubled) => doubled,
            None => {
                let (experts, weights) = self.factors(first)?;
                (first, vec![experts, weights])
            }
        };
        let products = operands.len() - 1;
        let [_, n_used, tokens, more] = self.graph.ne(weighted);
        let (n_used, n_tokens) = (usize::try_from(n_used).ok()?, tokens.saturating_mul(more));
        if !(2..=MAX_REDUCED).contains(&n_used) {
            return None;
        }
        let count = 2 * n_used + products - 1;
        if i + count > self.end {
            return None;
        }
        let nodes = &self.graph.nodes[i..i + count];
        let (views, sums) = nodes[products..].split_at(n_used);
        let is_view = |&view: &Id| {
            let tensor = self.graph.tensor(view);
            tensor.op == Op::View && self.source(view, 0) == Some(weighted) && tensor.ne[1] == n_tokens && tensor.ne[2] == 1
        };
        let mut sum = *views.first()?;
        for (k, &next) in sums.iter().enumerate() {
            let tensor = self.graph.tensor(next);
            if tensor.op != Op::Add || tensor.sources() != [sum, *views.get(k + 1)?].as_slice() {
                return None;
            }
            sum = next;
        }
        (views.iter().all(is_view) && self.closed(nodes, &[sum])).then_some((operands, count))
    }

    /// The experts' outputs and one factor of each, in either order.
    fn factors(&self, product: Id) -> Option<(Id, Id)> {
        let tensor = self.graph.tensor(product);
        let &[a, b] = tensor.sources() else { return None };
        let is = |id: Id, ne: [u64; 4]| {
            let operand = self.graph.tensor(id);
            operand.ty == QuantType::F32 && operand.is_contiguous() && operand.ne == ne
        };
        let [_, ne @ ..] = tensor.ne;
        let weights = [1, ne[0], ne[1], ne[2]];
        if tensor.ty != QuantType::F32 {
            return None;
        }
        [(a, b), (b, a)].into_iter().find(|&(full, factor)| is(full, tensor.ne) && is(factor, weights))
    }

    /// The number of nodes of a choice of experts that begins here: softmax, sigmoid or the root of softplus, sorting, and the
    /// chosen weights. A softmax over chosen experts only is fused too, but keeps nothing.
    fn top_k(&self, i: usize) -> Option<usize> {
        let bent = match self.op(i)? {
            Op::SoftMax if self.graph.tensor(self.node(i)).sources().len() == 1 => i,
            Op::Unary if self.follows(i + 1, Op::Root) => i + 1,
            // Of what a product is fused with, routers take only sigmoid.
            Op::Unary => i,
            _ => return None,
        };
        if !self.follows(bent + 1, Op::Reshape) {
            return None;
        }
        let (logits, probabilities, reshaped) = (self.source(self.node(i), 0)?, self.node(bent), self.node(bent + 1));
        let biased = self.op(bent + 2) == Some(Op::Add) && self.source(self.node(bent + 2), 0) == Some(probabilities);
        let sorted = bent + 2 + usize::from(biased);
        let sorts = self.op(sorted) == Some(Op::ArgSort)
            && self.source(self.node(sorted), 0) == Some(if biased { self.node(sorted - 1) } else { probabilities });
        if !sorts || !self.follows(sorted + 1, Op::View) || self.op(sorted + 2) != Some(Op::GetRows) {
            return None;
        }
        let chosen = self.node(sorted + 1);
        if self.graph.tensor(self.node(sorted + 2)).sources() != [reshaped, chosen].as_slice() {
            return None;
        }
        let mut end = sorted + 3;
        if self.is_normalized(end) {
            end += 5;
        }
        // A reshape that divides nothing ends the pattern.
        if self.follows(end, Op::Scale) {
            end += 1;
        }
        let nodes = &self.graph.nodes[i..end];
        let n_experts = self.graph.ne(self.node(sorted))[0];
        let dense = self.graph.tensor(logits).is_contiguous();
        (is_compiled(n_experts) && dense && self.closed(nodes, &[chosen, *nodes.last()?])).then_some(end - i)
    }

    /// Weights divided by their sum, from here.
    fn is_normalized(&self, i: usize) -> bool {
        self.follows(i, Op::Reshape)
            && self.follows(i + 1, Op::SumRows)
            && self.follows(i + 2, Op::Clamp)
            && self.op(i + 3) == Some(Op::Div)
            && self.graph.tensor(self.node(i + 3)).sources() == [self.node(i), self.node(i + 2)].as_slice()
            && self.follows(i + 4, Op::Reshape)
    }
}

/// True for numbers of experts that the kernel is compiled for.
const fn is_compiled(n_experts: u64) -> bool {
    (n_experts.is_power_of_two() && n_experts <= 512) || matches!(n_experts, 288 | 576)
}

#[cfg(test)]
mod tests {
    use super::super::uses;
    use super::*;
    use QuantType::{F32, I32, Q4_K};

    const WIDTH: u64 = 256;

    fn weight(graph: &mut Graph, ne: [u64; 4]) -> Id {
        graph.placed(Q4_K, ne, Memory::Weights { backend: 0, host: false })
    }

    /// Two experts of a token, weighted and summed: the product, its operands, the sum.
    fn reduction(graph: &mut Graph, n_used: u64) -> [Id; 4] {
        let ids = graph.input(I32, [n_used, 4, 1, 1]);
        let factors = graph.input(F32, [1, n_used, 4, 1]);
        let x = graph.input(F32, [WIDTH, 1, 4, 1]);
        let w = weight(graph, [WIDTH, WIDTH, 8, 1]);
        let experts = graph.mul_mat_id(w, x, ids);
        let product = graph.mul(experts, factors);
        graph.expand(product);
        let row = graph.tensor(product).nb[2];
        let views: Vec<Id> = (0..n_used).map(|_| graph.view_2d(product, WIDTH, 4, row)).collect();
        views.iter().for_each(|&view| graph.expand(view));
        let sum = views[1..].iter().fold(views[0], |sum, &view| graph.add(sum, view));
        graph.expand(sum);
        [product, experts, factors, sum]
    }

    fn fused(graph: &mut Graph) -> Kept {
        let (uses, n) = (uses(graph), graph.nodes.len());
        let mut kept = Kept::default();
        optimize(graph, &uses, 0..n, &mut kept);
        kept
    }

    #[test]
    fn operands_of_a_weighted_sum_are_kept_until_it_is_done() {
        let mut graph = Graph::default();
        let [_, experts, factors, sum] = reduction(&mut graph, 3);
        assert_eq!(fused(&mut graph).until(sum), [experts, factors]);
    }

    /// A choice of two among `n_experts`, with probabilities made by `bend`; what is kept until the node after it.
    fn kept_by_choice(n_experts: u64, bend: impl Fn(&mut Graph, Id) -> Id) -> usize {
        let mut graph = Graph::default();
        let logits = graph.input(F32, [n_experts, 4, 1, 1]);
        let probabilities = bend(&mut graph, logits);
        let column = graph.reshape(probabilities, [1, n_experts, 4, 1]);
        graph.expand(column);
        let chosen = graph.top_k(probabilities, 2);
        let weights = graph.get_rows(column, chosen);
        graph.expand(weights);
        let scaled = graph.scale(weights);
        let after = graph.unary(scaled);
        graph.expand(after);
        fused(&mut graph).until(after).len()
    }

    #[test]
    fn choices_by_softmax_sigmoid_and_the_root_of_softplus_are_kept_until_the_next_node() {
        assert_eq!(kept_by_choice(8, |graph, logits| graph.like(Op::SoftMax, &[logits])), 7);
        assert_eq!(kept_by_choice(8, Graph::unary), 7);
        assert_eq!(
            kept_by_choice(8, |graph, logits| {
                let bent = graph.unary(logits);
                graph.square_root(bent)
            }),
            8
        );
        assert_eq!(kept_by_choice(10, Graph::unary), 0, "no kernel for ten experts");
        assert_eq!(kept_by_choice(8, Graph::square_root), 0, "no router");
    }

    #[test]
    fn a_sum_of_too_many_or_with_another_reader_is_not_fused() {
        let mut graph = Graph::default();
        let [.., sum] = reduction(&mut graph, 16);
        assert!(fused(&mut graph).until(sum).is_empty());

        let mut graph = Graph::default();
        let [product, .., sum] = reduction(&mut graph, 2);
        let other = graph.scale(product);
        graph.expand(other);
        assert!(fused(&mut graph).until(sum).is_empty());
    }

    /// Routed experts and a shared one over one input, `shared` wide; nodes of the shared one by position.
    fn experts(shared: u64) -> (Graph, Vec<usize>) {
        let mut graph = Graph::default();
        let x = graph.input(F32, [WIDTH, 4, 1, 1]);
        let ids = graph.input(I32, [2, 4, 1, 1]);
        let [gates, ups] = [(); 2].map(|()| weight(&mut graph, [WIDTH, 512, 8, 1]));
        let [gate, up] = [(); 2].map(|()| weight(&mut graph, [WIDTH, shared, 1, 1]));
        let tall = graph.reshape(x, [WIDTH, 1, 4, 1]);
        let routed = [gates, ups].map(|w| graph.mul_mat_id(w, tall, ids));
        let routed = graph.gated(routed[0], routed[1]);
        graph.expand(routed);
        let between = graph.unary(routed);
        graph.expand(between);
        let products = [gate, up].map(|w| graph.mul_mat(w, x));
        let unit = graph.gated(products[0], products[1]);
        graph.expand(unit);
        fused(&mut graph);
        let at = |id: Id| graph.nodes.iter().position(|&node| node == id).unwrap_or(usize::MAX);
        let places = [products[0], products[1], unit].map(at).to_vec();
        (graph, places)
    }

    #[test]
    fn a_shared_expert_of_the_same_shape_moves_behind_the_routed_ones() {
        assert_eq!(experts(512).1, [4, 5, 6], "before what lay between");
        assert_eq!(experts(1024).1, [5, 6, 7], "another width stays");
    }
}
