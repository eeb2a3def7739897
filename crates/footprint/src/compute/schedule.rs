//! Which backend computes each node, and what must be copied between backends.
//!
//! Follows `ggml_backend_sched_split_graph` (ggml/src/ggml-backend.cpp:1205-1740, llama.cpp v0.6.0-dev, crate
//! llama-cpp-sys-2 0.1.161): assignment in four passes, splits where the backend changes or new weights are copied in,
//! copies of what a split needs from elsewhere. Backends are numbered by priority; the last is the host.

use super::graph::Graph;
use super::reorder::{Kept, Optimizer, uses};
use super::support::Support;
use super::tensor::{Id, MAX_SOURCES, Memory, Op, Tensor};
use crate::profile::{Ik, Offload};
use spec::QuantType;

/// How the scheduler is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scheduler {
    /// GPUs and, last, the host.
    pub(super) backends: u8,
    /// Large batches over weights in host memory are computed on the first GPU.
    pub(super) op_offload: bool,
    /// Copies of each input: more than one where several GPUs run as a pipeline.
    pub(super) copies: usize,
    /// What each of the first backends computes.
    pub(super) support: [Support; MAX_OPTIMIZED],
    /// What each of the first backends does to its splits.
    pub(super) optimizers: [Option<Optimizer>; MAX_OPTIMIZED],
    /// The rules are those of ik_llama.cpp's scheduler; `None` for llama.cpp's.
    pub(super) ik: Option<Ik>,
}

impl Scheduler {
    /// True where a backend fuses the operations of experts.
    pub(super) fn fuses(&self) -> bool {
        self.optimizers.contains(&Some(Optimizer::Cuda))
    }
    /// True where each layer is scheduled by itself and its neighbours: no backend moves nodes, or leaves some to others.
    pub(super) fn is_local(&self) -> bool {
        let local = |optimizer: &Option<Optimizer>| matches!(optimizer, None | Some(Optimizer::Cuda));
        self.optimizers.iter().all(local) && self.support.iter().all(|&support| support == Support::Everything)
    }
}

/// The most GPUs whose own order is followed.
pub(super) const MAX_OPTIMIZED: usize = 16;
/// `GGML_SCHED_MAX_COPIES`.
pub(super) const PIPELINE_COPIES: usize = 4;
/// Rows from which a GPU takes over an operation on host weights (`GGML_OP_OFFLOAD_MIN_BATCH`, ggml-cuda.cu:5739-5758;
/// other GPU backends use the same default).
const OFFLOAD_MIN_BATCH: u64 = 32;
/// `GGML_SCHED_MAX_SPLIT_INPUTS` of ik_llama.cpp until 2025 (ggml-backend.c:1084, ddceb0a5).
const IK_SPLIT_INPUTS: usize = 10;
const NONE: u8 = u8::MAX;

/// What the allocator walks over.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// Nodes with the backend of their memory, copies and dependencies included.
    pub(super) nodes: Vec<(Id, u8)>,
    /// What a pipeline keeps several copies of, with these copies and the backend of their memory: placed before all else, and
    /// never freed.
    pub(super) kept: Vec<(Id, u8)>,
    /// Leafs with the backend of their memory, in the order in which they are placed.
    pub(super) leafs: Vec<(Id, u8)>,
    /// The first of the nodes behind each cut.
    pub(super) cuts: Vec<usize>,
}

/// A graph with its backends.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    /// As the backends rearrange it.
    pub(super) layout: Layout,
    /// As it would be without their fusions, where these change anything.
    pub(super) unfused: Option<Layout>,
    /// Runs of nodes on one backend.
    pub(super) splits: u32,
    /// What crosses the cuts, where there are any.
    pub(super) trace: Trace,
    assigned: Vec<u8>,
}

/// What crosses given places between nodes while a graph is scheduled: everything that what comes before and what comes
/// after such a place know of each other ([`super::pieces`]).
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    /// Indices of nodes, ascending: cuts are before them.
    pub(super) cuts: Vec<usize>,
    /// Per cut, after each pass that spreads backends: that of the last node before it, or of the first behind it.
    pub(super) carried: Vec<[u8; 4]>,
    /// Per cut, the backend of the split it lies in and whether that has inputs so far.
    pub(super) open: Vec<(u8, bool)>,
    /// Copies in the order of their numbers, the first of which is that of the graph's tensors.
    pub(super) copies: Vec<Copied>,
    /// What each tensor that was added is a copy of, by number: with several copies of each input, there are more of them.
    pub(super) duplicates: Vec<Id>,
    /// Index of each split's first node.
    pub(super) splits: Vec<usize>,
    /// Nodes that are fused: the first, and the last that waits for them.
    pub(super) fused: Vec<(usize, usize)>,
}

/// A copy of a tensor on another backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copied {
    pub(super) source: Id,
    pub(super) backend: u8,
    /// Index of the first node that reads it.
    pub(super) at: usize,
    /// Index of the first node of the split that it is an input of.
    pub(super) split: usize,
}

impl Schedule {
    /// The backend that computes `id`.
    pub(super) fn backend(&self, id: Id) -> Option<u8> {
        self.assigned.get(id.index()).copied().filter(|&backend| backend != NONE)
    }
}

struct Split {
    backend: u8,
    /// Index of its first node.
    start: usize,
    inputs: Vec<Id>,
}

struct Pass<'a> {
    graph: &'a mut Graph,
    scheduler: Scheduler,
    assigned: Vec<u8>,
    /// First copy of each tensor on each backend; the others follow it.
    copies: Vec<Option<Id>>,
    /// Tensors before copies were added.
    originals: usize,
    trace: Trace,
}

/// Assigns backends and inserts copies; redirects the sources of `graph` to them. Notes what crosses the cuts.
pub(super) fn schedule(graph: &mut Graph, scheduler: Scheduler, cuts: Vec<usize>) -> Schedule {
    let originals = graph.len();
    let trace = Trace { carried: vec![[NONE; 4]; cuts.len()], cuts, ..Trace::default() };
    let mut pass = Pass { graph, scheduler, assigned: vec![NONE; originals], copies: Vec::new(), originals, trace };
    pass.assign();
    if scheduler.backends > 1 {
        pass.copies = vec![None; originals * usize::from(scheduler.backends)];
    }
    let uses = if scheduler.optimizers.iter().any(Option::is_some) { uses(pass.graph) } else { Vec::new() };
    let splits = pass.split();
    let inputs = pass.copy_graph_inputs();
    let kept = pass.optimize(&uses, &splits, false);
    let unfused = pass.lay_out(&splits, &inputs, &kept);
    let mut fused = pass.optimize(&uses, &splits, true);
    pass.trace.splits = splits.iter().map(|split| split.start).collect();
    pass.trace.fused = std::mem::take(&mut fused.spans);
    let (layout, unfused) =
        if fused.is_empty() { (unfused, None) } else { (pass.lay_out(&splits, &inputs, &fused.and(kept)), Some(unfused)) };
    Schedule { layout, unfused, splits: splits.len() as u32, trace: pass.trace, assigned: pass.assigned }
}

impl Pass<'_> {
    const fn host(&self) -> u8 {
        self.scheduler.backends - 1
    }
    fn of(&self, id: Id) -> u8 {
        self.assigned[id.index()]
    }
    fn is_view(&self, id: Id) -> bool {
        self.graph.tensor(id).op.is_view()
    }

    fn support(&self, backend: u8) -> Support {
        let gpu = backend < self.host();
        self.scheduler.support.get(usize::from(backend)).copied().filter(|_| gpu).unwrap_or_default()
    }
    fn computes(&self, backend: u8, id: Id) -> bool {
        self.support(backend).computes(self.graph, self.graph.tensor(id)) && self.ik_computes(backend, id)
    }

    fn assign(&mut self) {
        for i in 0..self.graph.pins.len() {
            let (id, backend) = self.graph.pins[i];
            if self.computes(backend, id) {
                self.assigned[id.index()] = backend;
            }
        }
        for i in 0..self.graph.leafs.len() {
            self.assign_by_memory(self.graph.leafs[i]);
        }
        for i in 0..self.graph.nodes.len() {
            self.assign_by_memory(self.graph.nodes[i]);
        }
        let nodes = self.graph.nodes.len();
        self.expand(0..nodes, true);
        self.note_carried(0, true);
        self.expand((0..nodes).rev(), true);
        self.note_carried(1, false);
        self.expand(0..nodes, false);
        self.note_carried(2, true);
        self.expand((0..nodes).rev(), false);
        self.note_carried(3, false);
        for i in 0..nodes {
            self.assign_by_sources(self.graph.nodes[i]);
        }
        self.assign_rest();
    }

    /// A pass carries over a cut what it last saw: the backend of the nearest node, before the cut or behind it.
    fn note_carried(&mut self, pass: usize, forwards: bool) {
        for c in 0..self.trace.cuts.len() {
            let cut = self.trace.cuts[c];
            let nodes = &self.graph.nodes;
            let seen = |&&node: &&Id| !self.is_view(node);
            let nearest = if forwards { nodes[..cut].iter().rev().find(seen) } else { nodes[cut..].iter().find(seen) };
            self.trace.carried[c][pass] = nearest.map_or(NONE, |&node| self.of(node));
        }
    }

    /// Pass 1: where the memory or the weights already are.
    fn assign_by_memory(&mut self, id: Id) {
        if self.of(id) != NONE {
            return;
        }
        let tensor = self.graph.tensor(id);
        let backend = match self.graph.home(id) {
            Some(home) => home,
            None if tensor.input => self.host(),
            // Small operands (frequencies, sinks) do not decide.
            None if matches!(tensor.op, Op::Rope | Op::FlashAttention) && self.scheduler.ik.is_none() => return,
            None => self.weights_backend(tensor),
        };
        self.assigned[id.index()] = backend;
    }

    /// The backend of the first weights among the sources, or one that takes the operation over; none where it cannot
    /// compute it, or there are no weights.
    fn weights_backend(&self, tensor: &Tensor) -> u8 {
        let computes = |backend: u8| self.support(backend).computes(self.graph, tensor);
        let weights = tensor.sources().iter().find_map(|&source| match self.graph.tensor(source).memory {
            Memory::Weights { backend, host } => Some((backend, host)),
            _ => None,
        });
        let Some((backend, host)) = weights.filter(|&(backend, _)| computes(backend)) else { return NONE };
        if self.scheduler.op_offload && backend == self.host() && host && self.wants(tensor) {
            let taker = (0..backend).find(|&gpu| computes(gpu) && self.support(gpu).offloads(tensor.op));
            return taker.unwrap_or(backend);
        }
        backend
    }

    /// True where the first GPU takes over an operation on host weights.
    fn wants(&self, tensor: &Tensor) -> bool {
        let Some(Ik { offload: policy, interleaved, .. }) = self.scheduler.ik else { return is_large_batch(tensor) };
        let sources = tensor.sources();
        let supported = |&id: &Id| {
            !matches!(self.graph.tensor(id).memory, Memory::Weights { .. }) || cuda_computes(self.graph.tensor(id).ty, interleaved)
        };
        sources.iter().all(supported)
            && match tensor.op {
                Op::GetRows => false,
                Op::ExpertsGate if policy == Offload::NotFusedExperts => false,
                Op::MulMatId | Op::ExpertsGate if policy != Offload::ActiveExperts => tensor.ne[2] >= OFFLOAD_MIN_BATCH,
                // A batch is large where each expert gets enough tokens.
                Op::MulMatId | Op::ExpertsGate => {
                    let experts = sources.first().map_or(1, |&id| self.graph.ne(id)[2]);
                    let used = sources.last().map_or(1, |&id| self.graph.ne(id)[0]);
                    let tokens = tensor.ne[2];
                    tokens >= OFFLOAD_MIN_BATCH && tokens.saturating_mul(used) >= OFFLOAD_MIN_BATCH.saturating_mul(experts)
                }
                _ => tensor.ne[1] >= OFFLOAD_MIN_BATCH,
            }
    }

    /// Pass 2: neighbours join a backend; with `gpus_only` the host does not spread.
    fn expand(&mut self, order: impl Iterator<Item = usize>, gpus_only: bool) {
        let mut current = NONE;
        for i in order {
            let node = self.graph.nodes[i];
            if self.is_view(node) {
                continue;
            }
            match self.of(node) {
                NONE if current != NONE && self.computes(current, node) => self.assigned[node.index()] = current,
                NONE => {}
                backend if gpus_only && backend == self.host() => current = NONE,
                backend => current = backend,
            }
        }
    }

    /// True where ik_llama.cpp's backend has a kernel for the operation. Of CUDA in ik_llama.cpp that is known of fused attention
    /// (`ggml_backend_cuda_supports_op`, ggml-cuda.cu:3653-3680, ddceb0a5); everything else is taken to be supported.
    fn ik_computes(&self, backend: u8, node: Id) -> bool {
        let tensor = self.graph.tensor(node);
        if self.scheduler.ik.is_none() || backend == self.host() || tensor.op != Op::FlashAttention {
            return true;
        }
        let of = |source: Id| (self.graph.ne(source)[0], self.graph.tensor(source).ty);
        let (head, k, v) = match *tensor.sources() {
            [q, k, v, ..] => (self.graph.ne(q)[0], of(k), of(v)),
            _ => return true,
        };
        let half = QuantType::F16;
        match (k, v) {
            _ if head == 128 => true,
            ((256, k), (256, v)) if [k, v].iter().all(|ty| matches!(ty, QuantType::F16 | QuantType::Q8_0)) => true,
            ((192, k), (128, v)) => k == v && matches!(k, QuantType::F16 | QuantType::Q8_0),
            ((576, _), (512, _)) => true,
            ((257.., _), _) => false,
            ((_, k), (_, v)) => k == half && (head == 64 || v == half),
        }
    }

    /// Pass 3: what a neighbour could not compute goes to the backend that reads most of its sources in place. (Backends that
    /// share a buffer type, which it concerns too, do not occur.)
    fn assign_by_sources(&mut self, node: Id) {
        if self.is_view(node) || self.of(node) != NONE {
            return;
        }
        let readable = |backend: u8| {
            let sources = self.graph.tensor(node).sources().iter();
            let placed = |source: Id| self.of(source) != NONE || self.of(self.graph.root(source)) != NONE;
            sources.filter(|&&source| placed(source) && self.readable(source, backend)).count()
        };
        let mut best = None;
        for backend in (0..self.scheduler.backends).filter(|&backend| self.computes(backend, node)) {
            let count = readable(backend);
            if best.is_none_or(|(most, _)| count > most) {
                best = Some((count, backend));
            }
        }
        if let Some((_, backend)) = best {
            self.assigned[node.index()] = backend;
        }
    }

    /// Pass 4: sources and views follow.
    fn assign_rest(&mut self) {
        for i in 0..self.graph.nodes.len() {
            let node = self.graph.nodes[i];
            if self.of(node) == NONE
                && let Some(root) = self.graph.tensor(node).view_of
            {
                self.assigned[node.index()] = self.of(root);
            }
            for k in 0..self.graph.tensor(node).sources().len() {
                let source = self.graph.tensor(node).sources()[k];
                if self.of(source) == NONE {
                    let from = self.graph.tensor(source).view_of.unwrap_or(node);
                    self.assigned[source.index()] = self.of(from);
                }
            }
            if self.of(node) == NONE {
                let first = (0..self.scheduler.backends).find(|&backend| self.computes(backend, node));
                self.assigned[node.index()] = first.unwrap_or(self.host());
            }
        }
    }

    /// True where `backend` can read `id` without a copy.
    fn readable(&self, id: Id, backend: u8) -> bool {
        let home = self.graph.home(id).unwrap_or_else(|| match self.of(id) {
            NONE => self.of(self.graph.root(id)),
            assigned => assigned,
        });
        home == backend
    }

    /// Pass 5: cuts the graph, and makes a copy of each input of a split that lies elsewhere.
    fn split(&mut self) -> Vec<Split> {
        let first = self.graph.nodes.iter().position(|&node| !self.is_view(node)).unwrap_or(0);
        let backend = self.graph.nodes.get(first).map_or(self.host(), |&node| self.of(node));
        let mut current = Split { backend, start: 0, inputs: Vec::new() };
        if self.scheduler.backends == 1 {
            self.trace.open = vec![(backend, false); self.trace.cuts.len()];
            return vec![current];
        }
        let mut splits = Vec::new();
        for i in first..self.graph.nodes.len() {
            while self.trace.cuts.get(self.trace.open.len()).is_some_and(|&cut| cut <= i) {
                self.trace.open.push((current.backend, !current.inputs.is_empty()));
            }
            let node = self.graph.nodes[i];
            if self.is_view(node) {
                continue;
            }
            let backend = self.of(node);
            if backend != current.backend
                || (!current.inputs.is_empty() && (self.needs_foreign_weights(node, backend) || self.is_full(node, &current)))
            {
                let next = Split { backend, start: i, inputs: Vec::new() };
                splits.push(std::mem::replace(&mut current, next));
            }
            self.redirect(i, &mut current);
        }
        self.trace.open.resize(self.trace.cuts.len(), (current.backend, !current.inputs.is_empty()));
        splits.push(current);
        splits
    }

    /// A new split lets the memory of weights copied in before be reused.
    fn needs_foreign_weights(&self, node: Id, backend: u8) -> bool {
        self.graph.tensor(node).sources().iter().any(|&source| {
            matches!(self.graph.tensor(source).memory, Memory::Weights { .. })
                && self.of(source) != backend
                && !self.readable(source, backend)
        })
    }

    /// Where a split has as many inputs as it may, one more begins the next.
    fn is_full(&self, node: Id, split: &Split) -> bool {
        self.scheduler.ik.is_some()
            && split.inputs.len() == IK_SPLIT_INPUTS
            && self.graph.tensor(node).sources().iter().any(|&source| {
                let slot = source.index() * usize::from(self.scheduler.backends) + usize::from(split.backend);
                source.index() < self.originals
                    && self.of(source) != split.backend
                    && self.copies[slot].is_none()
                    && !self.readable(source, split.backend)
            })
    }

    fn redirect(&mut self, at: usize, split: &mut Split) {
        let node = self.graph.nodes[at];
        for k in 0..self.graph.tensor(node).sources().len() {
            let source = self.graph.tensor(node).sources()[k];
            if source.index() >= self.originals || self.of(source) == split.backend || self.readable(source, split.backend) {
                continue;
            }
            let slot = source.index() * usize::from(self.scheduler.backends) + usize::from(split.backend);
            let copy = match self.copies[slot] {
                Some(copy) => copy,
                None => {
                    let copy = self.duplicate(source, self.scheduler.copies);
                    self.copies[slot] = Some(copy);
                    self.trace.copies.push(Copied { source, backend: split.backend, at, split: split.start });
                    split.inputs.push(source);
                    copy
                }
            };
            self.graph.tensor_mut(node).sources_mut()[k] = copy;
        }
    }

    /// Adds copies of `source` with its layout, and returns the first.
    fn duplicate(&mut self, source: Id, copies: usize) -> Id {
        let original = self.graph.tensor(source);
        let mut copy = Tensor::new(original.ty, original.ne);
        copy.nb = original.nb;
        copy.input = self.scheduler.copies > 1;
        copy.output = self.scheduler.copies > 1;
        self.trace.duplicates.extend(std::iter::repeat_n(source, copies));
        let first = self.graph.push(copy.clone());
        for _ in 1..copies {
            self.graph.push(copy.clone());
        }
        first
    }

    /// Backends rearrange their splits, and have tensors kept longer (`ggml_backend_graph_optimize`): CUDA with its fusions of
    /// experts, or the others.
    fn optimize(&mut self, uses: &[u32], splits: &[Split], fusions: bool) -> Kept {
        let mut kept = Kept::default();
        for (s, split) in splits.iter().enumerate().filter(|(_, split)| split.backend != self.scheduler.backends - 1) {
            let optimizer = self.scheduler.optimizers.get(usize::from(split.backend)).copied().flatten();
            if let Some(optimizer) = optimizer.filter(|&optimizer| (optimizer == Optimizer::Cuda) == fusions) {
                let end = splits.get(s + 1).map_or(self.graph.nodes.len(), |next| next.start);
                optimizer.run(self.graph, uses, split.start..end, &mut kept);
            }
        }
        kept
    }

    /// Pass 6: a pipeline keeps several copies of every input of the graph, the original being the first. Returns each
    /// input with the first of its further copies.
    fn copy_graph_inputs(&mut self) -> Vec<(Id, Id)> {
        let mut inputs = Vec::new();
        if self.scheduler.copies == 1 {
            return inputs;
        }
        for i in 0..self.graph.leafs.len() {
            let leaf = self.graph.leafs[i];
            if self.graph.tensor(leaf).input {
                inputs.push((leaf, self.duplicate(leaf, self.scheduler.copies - 1)));
                self.graph.tensor_mut(leaf).output = true;
            }
        }
        inputs
    }

    /// The copy of the graph that the allocator walks over: at the start of each split its inputs and their copies.
    fn lay_out(&mut self, splits: &[Split], inputs: &[(Id, Id)], kept: &Kept) -> Layout {
        let Self { graph, scheduler, assigned, copies, trace, .. } = self;
        let of = |id: Id| assigned[id.index()];
        let copy_on = |source: Id, backend: u8| {
            copies.get(source.index() * usize::from(scheduler.backends) + usize::from(backend)).copied().flatten()
        };
        let mut nodes = Vec::with_capacity(graph.nodes.len() + 2 * splits.len());
        let mut cuts = Vec::with_capacity(trace.cuts.len());
        let mut copied = Vec::new();
        if scheduler.copies > 1 {
            for &(leaf, further) in inputs {
                copied.push((leaf, of(leaf)));
                copied.extend((0..scheduler.copies as u32 - 1).map(|c| (Id(further.0 + c), of(leaf))));
            }
        }
        let reach = |cuts: &mut Vec<usize>, i: usize, position: usize| {
            while trace.cuts.get(cuts.len()).is_some_and(|&cut| cut <= i) {
                cuts.push(position);
            }
        };
        for (s, split) in splits.iter().enumerate() {
            reach(&mut cuts, split.start, nodes.len());
            for &input in &split.inputs {
                let dependency = graph.dependency(input);
                nodes.push((dependency, of(input)));
                if let Some(copy) = copy_on(input, split.backend) {
                    nodes.push((copy, split.backend));
                    if scheduler.copies > 1 {
                        copied.extend((0..scheduler.copies as u32).map(|c| (Id(copy.0 + c), split.backend)));
                    }
                }
            }
            let end = splits.get(s + 1).map_or(graph.nodes.len(), |next| next.start);
            for i in split.start..end {
                let node = graph.nodes[i];
                reach(&mut cuts, i, nodes.len());
                nodes.push((node, of(node)));
                for some in kept.until(node).chunks(MAX_SOURCES) {
                    nodes.push((graph.dependency_on(some), split.backend));
                }
            }
        }
        let leafs = graph.leafs.iter().map(|&leaf| (leaf, of(leaf))).collect();
        cuts.resize(trace.cuts.len(), nodes.len());
        Layout { nodes, kept: copied, leafs, cuts }
    }
}

/// True where CUDA multiplies with weights of this type in ik_llama.cpp: not where rows are interleaved for the CPU, but for
/// those types that got kernels in 2025-05 and -06 (ggml-cuda.cu:3477-3529, ddceb0a5).
fn cuda_computes(ty: QuantType, interleaved: bool) -> bool {
    use QuantType::{IQ1_M_R4, IQ1_S_R4, IQ2_K_R4, IQ3_K_R4, IQ4_K_R4, IQ4_KS_R4, IQ5_K_R4, IQ5_KS_R4};
    let rows = (202..=233).contains(&ty.id()) || ty.id() >= 335;
    !rows || interleaved && matches!(ty, IQ2_K_R4 | IQ3_K_R4 | IQ4_K_R4 | IQ4_KS_R4 | IQ5_K_R4 | IQ5_KS_R4 | IQ1_S_R4 | IQ1_M_R4)
}

/// True where a GPU takes the operation over if the weights are in host memory.
pub(super) fn is_large_batch(tensor: &Tensor) -> bool {
    batch_rows(tensor) >= OFFLOAD_MIN_BATCH
}

/// The rows that count as batch when a GPU decides whether to take an operation over (`get_op_batch_size`).
fn batch_rows(tensor: &Tensor) -> u64 {
    match tensor.op {
        Op::GetRows => 0,
        Op::MulMat => tensor.ne[1],
        Op::MulMatId | Op::Rope => tensor.ne[2],
        _ => tensor.rows(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::QuantType::F32;

    const GPU: u8 = 0;
    const HOST: u8 = 1;

    fn weight(graph: &mut Graph, backend: u8) -> Id {
        graph.placed(F32, [64, 64, 1, 1], Memory::Weights { backend, host: backend == HOST })
    }

    /// Two products in a row, over weights on `first` and `second`.
    fn products(first: u8, second: u8, tokens: u64) -> (Graph, [Id; 4]) {
        let mut graph = Graph::default();
        let x = graph.input(F32, [64, tokens, 1, 1]);
        let w = [first, second].map(|backend| weight(&mut graph, backend));
        let y = graph.mul_mat(w[0], x);
        let y = graph.scale(y);
        let z = graph.mul_mat(w[1], y);
        graph.expand(z);
        (graph, [w[0], w[1], y, z])
    }

    fn run(graph: &mut Graph, op_offload: bool, copies: usize) -> Schedule {
        schedule(
            graph,
            Scheduler { backends: 2, op_offload, copies, support: Default::default(), optimizers: [None; MAX_OPTIMIZED], ik: None },
            Vec::new(),
        )
    }

    #[test]
    fn work_is_done_where_the_weights_are_and_what_crosses_over_is_copied() {
        let (mut graph, [.., y, z]) = products(HOST, GPU, 4);
        let tensors = graph.len();
        let schedule = run(&mut graph, true, 1);
        assert_eq!((schedule.splits, schedule.backend(y), schedule.backend(z)), (2, Some(GPU), Some(GPU)), "a GPU spreads upwards");
        let copy = graph.tensor(z).sources()[1];
        assert_eq!(copy, y, "the scaled product is on the GPU already");
        let scaled = graph.tensor(y).sources()[0];
        assert!(scaled.index() >= tensors, "its source is a copy of what the host computed");
        assert_eq!(graph.ne(scaled), [64, 4, 1, 1]);
    }

    #[test]
    fn large_batches_over_host_weights_go_to_the_gpu_with_copies_of_the_weights() {
        for (tokens, offload, on, splits) in [(31, true, HOST, 1), (32, true, GPU, 2), (32, false, HOST, 1)] {
            let (mut graph, [w0, w1, y, z]) = products(HOST, HOST, tokens);
            let schedule = run(&mut graph, offload, 1);
            assert_eq!((schedule.backend(y), schedule.backend(z), schedule.splits), (Some(on), Some(on), splits), "{tokens} {offload}");
            let copied = |node: Id, weight: Id| graph.tensor(node).sources()[0] != weight;
            let first = graph.tensor(y).sources()[0];
            assert_eq!((copied(first, w0), copied(z, w1)), (on == GPU, on == GPU));
        }
    }

    #[test]
    fn repacked_weights_stay_with_the_host() {
        let mut graph = Graph::default();
        let x = graph.input(F32, [64, 512, 1, 1]);
        let w = graph.placed(F32, [64, 64, 1, 1], Memory::Weights { backend: HOST, host: false });
        let y = graph.mul_mat(w, x);
        graph.expand(y);
        assert_eq!(run(&mut graph, true, 1).backend(y), Some(HOST));
    }

    #[test]
    fn a_pin_overrules_the_neighbourhood() {
        let (mut graph, [.., y, z]) = products(GPU, GPU, 4);
        graph.pins.push((y, HOST));
        let schedule = run(&mut graph, true, 1);
        assert_eq!((schedule.backend(y), schedule.backend(z), schedule.splits), (Some(HOST), Some(GPU), 3));
    }

    #[test]
    fn a_pipeline_keeps_four_of_every_input() {
        let (mut graph, _) = products(GPU, GPU, 4);
        let leafs = graph.leafs.len();
        let schedule = run(&mut graph, true, PIPELINE_COPIES);
        // The input four times on the host, and four copies on the GPU.
        let backends: Vec<u8> = schedule.layout.kept.iter().map(|&(_, backend)| backend).collect();
        assert_eq!((backends, schedule.layout.leafs.len()), ([[HOST; 4], [GPU; 4]].concat(), leafs));
        assert!(schedule.layout.kept.iter().all(|&(id, _)| graph.tensor(id).output));
    }
}
