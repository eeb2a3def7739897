//! What backends do to the nodes of their splits before these are allocated: they put them into another order, and have
//! tensors kept longer than their last use, so that what one kernel computes together does not overlap.
//!
//! The scheduler calls `graph_optimize` of a split's backend after copies are in place (ggml/src/ggml-backend.cpp:1598-1703,
//! llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161; since pull request 15850, 2025-09). Of that version the backends
//! CUDA (and so ROCm), Vulkan, Metal and Hexagon have one; RPC, SYCL, OpenCL and the others leave the order as it is.

mod cuda;
mod metal;
mod vulkan;

use super::graph::Graph;
use super::tensor::{Id, Op};
use std::collections::BTreeMap;
use std::ops::Range;

/// A backend's pass over the nodes of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Optimizer {
    /// Keeps operands of fused experts, and joins shared experts with routed ones.
    Cuda,
    /// Moves independent nodes next to each other.
    Vulkan,
    /// The same in another way. `dry`: caches have no memory yet, so that all of one kind seem to overlap.
    Metal { dry: bool },
}

impl Optimizer {
    /// The pass of a backend by its name; none for those that keep the order.
    pub(super) fn of(backend: &str) -> Option<Self> {
        match backend {
            "CUDA" | "ROCm" => Some(Self::Cuda),
            "Vulkan" => Some(Self::Vulkan),
            "Metal" => Some(Self::Metal { dry: false }),
            _ => None,
        }
    }

    /// Runs over one split, `uses` being those of the graph before copies were put in.
    pub(super) fn run(self, graph: &mut Graph, uses: &[u32], split: Range<usize>, kept: &mut Kept) {
        match self {
            Self::Cuda => cuda::optimize(graph, uses, split, kept),
            Self::Vulkan => vulkan::optimize(graph, uses, split, kept),
            Self::Metal { dry } => metal::optimize(graph, uses, split, kept, dry),
        }
    }
}

/// Tensors to be kept until a node has been computed, in the order in which they were named.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    until: BTreeMap<Id, Vec<Id>>,
    /// Indices of the first node of what CUDA fuses, and of the last that moves or waits for it.
    pub(super) spans: Vec<(usize, usize)>,
}

impl Kept {
    fn keep(&mut self, tensor: Id, until: Id) {
        let kept = self.until.entry(until).or_default();
        if !kept.contains(&tensor) {
            kept.push(tensor);
        }
    }
    /// Keeps what `nodes` read from outside until the last of them.
    fn keep_operands(&mut self, graph: &Graph, nodes: &[Id], until: Id) {
        for (i, &node) in nodes.iter().enumerate() {
            for &source in graph.tensor(node).sources() {
                if !nodes[..i].contains(&source) {
                    self.keep(source, until);
                }
            }
        }
    }
    /// True where nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.until.is_empty()
    }
    /// The same with what another pass keeps until other nodes.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.until.extend(other.until);
        self
    }
    /// What is kept until this node.
    pub(super) fn until(&self, node: Id) -> &[Id] {
        self.until.get(&node).map_or(&[], Vec::as_slice)
    }
}

/// How often each tensor is a source.
pub(super) fn uses(graph: &Graph) -> Vec<u32> {
    let mut uses = vec![0; graph.len()];
    for &node in &graph.nodes {
        for &source in graph.tensor(node).sources() {
            uses[source.index()] += 1;
        }
    }
    uses
}

/// True where nothing outside reads these nodes, `outputs` aside (`ggml_can_fuse_subgraph_ext`, ggml.c:7769-7826).
fn closed(graph: &Graph, uses: &[u32], nodes: &[Id], outputs: &[Id]) -> bool {
    nodes.iter().enumerate().all(|(i, &node)| {
        if outputs.contains(&node) {
            return true;
        }
        let tensor = graph.tensor(node);
        let of = |other: &Id| graph.tensor(*other).sources().iter().filter(|&&source| source == node).count();
        let read: usize = nodes[i + 1..].iter().map(of).sum();
        let root_inside = tensor.view_of.is_none_or(|root| nodes.contains(&root));
        !tensor.output && uses.get(node.index()).is_some_and(|&uses| uses as usize == read) && root_inside
    })
}

/// Names the tensors whose layouts decide what CUDA fuses from this node on; everything else of it is decided by structure.
pub(super) fn inspected(graph: &Graph, node: Id, name: impl FnMut(Id)) {
    cuda::inspected(graph, node, name);
}

/// Operations without work of their own (`ggml_op_is_empty`).
const fn is_empty(op: Op) -> bool {
    matches!(op, Op::None) || op.is_view()
}
