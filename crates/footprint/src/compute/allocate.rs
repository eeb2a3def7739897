//! Where each tensor of a scheduled graph lies, and so how large the compute buffers are.
//!
//! Follows `ggml/src/ggml-alloc.c` (llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161): the best-fit allocator
//! (`ggml_dyn_tallocr`, 110-390) and the walk over the graph (`ggml_gallocr`, 590-810) that frees a tensor after its last
//! use and lets some operations take over the memory of a source.

use super::graph::Graph;
use super::schedule::Layout;
use super::tensor::{Id, Memory, Op, Tensor};
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
const MAX_CHUNKS: usize = 16;

fn align(size: u64, alignment: u64) -> u64 {
    size.checked_next_multiple_of(alignment.max(1)).unwrap_or(u64::MAX)
}

/// A place in a buffer that may consist of several chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Address {
    chunk: usize,
    offset: u64,
}

#[derive(Clone, Copy, Debug)]
struct FreeBlock {
    offset: u64,
    size: u64,
}

#[derive(Clone, Debug)]
struct Chunk {
    free: Vec<FreeBlock>,
    high_water: u64,
    /// The same since the last cut.
    peak: u64,
}

/// Best-fit allocation in memory that grows: addresses only, no memory.
#[derive(Clone, Debug)]
struct Arena {
    alignment: u64,
    max_chunk: u64,
    chunks: Vec<Chunk>,
}

impl Arena {
    fn new(rules: &BufferRules) -> Self {
        Self { alignment: rules.alignment, max_chunk: rules.max_buffer.min(NO_LIMIT), chunks: Vec::new() }
    }

    /// The smallest inner block that fits; among equals the last of the last chunk.
    fn inner_fit(&self, size: u64) -> Option<(usize, usize)> {
        let mut best = None;
        for (c, chunk) in self.chunks.iter().enumerate() {
            let mut best_size = u64::MAX;
            for (b, block) in chunk.free.iter().enumerate().take(chunk.free.len().saturating_sub(1)) {
                if block.size >= size && block.size <= best_size {
                    best = Some((c, b));
                    best_size = block.size;
                }
            }
        }
        best
    }

    /// The last block of the chunk that grows least, or wastes least where none grows.
    fn tail_fit(&self, size: u64) -> Option<(usize, usize)> {
        if let [only] = self.chunks.as_slice() {
            let last = only.free.len().checked_sub(1)?;
            return (only.free[last].size >= size).then_some((0, last));
        }
        let mut best = None;
        let mut best_reuse = i128::MIN;
        for (c, chunk) in self.chunks.iter().enumerate() {
            let Some(block) = chunk.free.last() else { continue };
            let reuse = i128::from(chunk.high_water) - i128::from(block.offset) - i128::from(size);
            let better = (best_reuse < 0 && reuse > best_reuse) || (reuse >= 0 && reuse < best_reuse);
            if block.size >= size && better {
                best = Some((c, chunk.free.len() - 1));
                best_reuse = reuse;
            }
        }
        best
    }

    fn new_chunk(&mut self, size: u64) -> (usize, usize) {
        let endless = self.chunks.len() + 1 >= MAX_CHUNKS;
        let size = if endless { NO_LIMIT } else { size.max(self.max_chunk) };
        self.chunks.push(Chunk { free: vec![FreeBlock { offset: 0, size }], high_water: 0, peak: 0 });
        (self.chunks.len() - 1, 0)
    }

    fn allocate(&mut self, size: u64) -> Address {
        let size = align(size, self.alignment);
        let fit = self.inner_fit(size).or_else(|| self.tail_fit(size));
        let (c, b) = fit.unwrap_or_else(|| self.new_chunk(size));
        let chunk = &mut self.chunks[c];
        let block = &mut chunk.free[b];
        let offset = block.offset;
        block.offset = offset.saturating_add(size);
        block.size = block.size.saturating_sub(size);
        if block.size == 0 {
            chunk.free.remove(b);
        }
        chunk.peak = chunk.peak.max(offset.saturating_add(size));
        chunk.high_water = chunk.high_water.max(chunk.peak);
        Address { chunk: c, offset }
    }

    /// Frees what a place has beyond its new owner's need.
    fn shrink(&mut self, at: Address, had: u64, needs: u64) {
        let (had, needs) = (align(had, self.alignment), align(needs, self.alignment));
        if had > needs {
            self.free(Address { offset: at.offset.saturating_add(needs), ..at }, had - needs);
        }
    }

    fn free(&mut self, at: Address, size: u64) {
        let size = align(size, self.alignment);
        let end = at.offset.saturating_add(size);
        let free = &mut self.chunks[at.chunk].free;
        for i in 0..free.len() {
            let block = free[i];
            if block.offset.saturating_add(block.size) == at.offset {
                free[i].size = block.size.saturating_add(size);
                if let Some(&next) = free.get(i + 1)
                    && end == next.offset
                {
                    free[i].size = free[i].size.saturating_add(next.size);
                    free.remove(i + 1);
                }
                return;
            }
            if end == block.offset {
                free[i] = FreeBlock { offset: at.offset, size: block.size.saturating_add(size) };
                if i > 0 && free[i - 1].offset.saturating_add(free[i - 1].size) == at.offset {
                    free[i - 1].size = free[i - 1].size.saturating_add(free[i].size);
                    free.remove(i);
                }
                return;
            }
        }
        // Not a binary search: a freed tensor of no bytes may leave an empty block within another, out of order.
        let position = free.iter().position(|block| block.offset >= at.offset).unwrap_or(free.len());
        free.insert(position, FreeBlock { offset: at.offset, size });
    }
}

/// What the walk knows of one tensor.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    children: i32,
    views: i32,
    allocated: bool,
    /// What holds it, while it has memory.
    slot: u32,
    backend: u8,
}

/// One deed of the allocator. Slots are numbered as they are first placed.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The next size of the plan gets a place: that of a new slot.
    Place(u8),
    /// The next size of the plan takes over a slot.
    TakeOver(u32),
    Free(u32),
    /// A cut of the layout, or its end.
    Cut,
}

/// What the allocator does for a layout, in order. Nothing of it depends on how large tensors are, only on which have the same
/// layout as a source.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    steps: Vec<Step>,
    /// Tensors whose sizes are asked for, in order, each on a backend.
    pub(super) asked: Vec<(Id, u8)>,
    /// Tensors that have memory at each cut and at the end, where there are cuts.
    pub(super) live: Vec<Vec<Live>>,
}

/// A tensor that has memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) id: Id,
    pub(super) backend: u8,
    /// It will be read, itself or through views.
    pub(super) read: [bool; 2],
    slot: u32,
}

impl Plan {
    /// The walk over a layout.
    pub(super) fn of(graph: &Graph, layout: &Layout) -> Self {
        let plan = Self { steps: Vec::with_capacity(2 * layout.nodes.len()), ..Self::default() };
        let mut walk = Walk { graph, states: vec![State::default(); graph.len()], slots: 0, live: Vec::new(), plan };
        for &(leaf, backend) in &layout.leafs {
            walk.place(leaf, backend);
        }
        for &(node, backend) in &layout.nodes {
            walk.count(node, backend);
        }
        let mut start = 0;
        for &end in layout.cuts.iter().chain([&layout.nodes.len()]) {
            for &(node, backend) in &layout.nodes[start..end] {
                for &source in graph.tensor(node).sources() {
                    walk.place(source, backend);
                }
                walk.place(node, backend);
                for &source in graph.tensor(node).sources() {
                    walk.release(source);
                }
            }
            if !layout.cuts.is_empty() {
                walk.cut();
            }
            start = end;
        }
        walk.plan
    }

    /// The sizes that are asked for, as the graph has them.
    pub(super) fn sizes(&self, graph: &Graph, rules: &[BufferRules]) -> Vec<u64> {
        self.asked.iter().map(|&(id, backend)| rules[usize::from(backend)].size(graph, graph.tensor(id))).collect()
    }

    /// Bytes of each chunk of each backend's compute buffer; and the memory at each cut and at the end, where there are cuts.
    pub(super) fn run(&self, sizes: &[u64], rules: &[BufferRules]) -> (Vec<Vec<u64>>, Vec<Snapshot>) {
        let mut arenas: Vec<Arena> = rules.iter().map(Arena::new).collect();
        let mut slots: Vec<Slot> = Vec::with_capacity(sizes.len());
        let mut snapshots = Vec::with_capacity(self.live.len());
        let mut sizes = sizes.iter().copied();
        for &step in &self.steps {
            match step {
                Step::Place(backend) => {
                    let size = sizes.next().unwrap_or(0);
                    slots.push(Slot { backend, at: arenas[usize::from(backend)].allocate(size), size });
                }
                Step::TakeOver(slot) => {
                    let held = &mut slots[slot as usize];
                    let had = std::mem::replace(&mut held.size, sizes.next().unwrap_or(0));
                    arenas[usize::from(held.backend)].shrink(held.at, had, held.size);
                }
                Step::Free(slot) => {
                    let Slot { backend, at, size } = slots[slot as usize];
                    arenas[usize::from(backend)].free(at, size);
                }
                Step::Cut => snapshots.push(Snapshot::of(&mut arenas, &slots, &self.live[snapshots.len()])),
            }
        }
        (arenas.iter().map(|arena| arena.chunks.iter().map(|chunk| chunk.high_water).collect()).collect(), snapshots)
    }
}

/// Bytes of each chunk of each backend's compute buffer.
pub(super) fn chunk_sizes(graph: &Graph, layout: &Layout, rules: &[BufferRules]) -> Vec<Vec<u64>> {
    let plan = Plan::of(graph, layout);
    plan.run(&plan.sizes(graph, rules), rules).0
}

/// Memory that some tensor has or had.
#[derive(Clone, Copy, Debug)]
struct Slot {
    backend: u8,
    at: Address,
    /// What its last owner was given, alignment aside.
    size: u64,
}

/// Compute buffers between two nodes: all that later decisions follow from.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// Free blocks of each backend, chunk by chunk; with how far chunks have grown, where their size is limited.
    pub(super) free: Vec<u64>,
    /// Chunk and offset of each tensor that has memory, in the order of [`Plan::live`].
    pub(super) at: Vec<[u64; 2]>,
    /// Per backend, how far each chunk was used since the snapshot before.
    pub(super) peaks: Vec<Vec<u64>>,
}

impl Snapshot {
    fn of(arenas: &mut [Arena], slots: &[Slot], live: &[Live]) -> Self {
        let mut free = Vec::with_capacity(16);
        let mut peaks = Vec::with_capacity(arenas.len());
        for arena in arenas {
            free.push(arena.chunks.len() as u64);
            for chunk in &arena.chunks {
                free.push(chunk.free.len() as u64);
                free.extend(chunk.free.iter().flat_map(|block| [block.offset, block.size]));
                free.extend((arena.max_chunk < NO_LIMIT).then_some(chunk.high_water));
            }
            peaks.push(arena.chunks.iter_mut().map(|chunk| std::mem::take(&mut chunk.peak)).collect());
        }
        let at = |live: &Live| {
            let Address { chunk, offset } = slots[live.slot as usize].at;
            [chunk as u64, offset]
        };
        Self { free, at: live.iter().map(at).collect(), peaks }
    }
}

struct Walk<'a> {
    graph: &'a Graph,
    states: Vec<State>,
    slots: u32,
    /// Tensors that have memory.
    live: Vec<Id>,
    plan: Plan,
}

impl Walk<'_> {
    fn cut(&mut self) {
        let live = self.live.iter().map(|&id| {
            let State { children, views, backend, slot, .. } = self.states[id.index()];
            Live { id, backend, read: [children != 0, views != 0], slot }
        });
        self.plan.live.push(live.collect());
        self.plan.steps.push(Step::Cut);
    }

    /// Counts users and views, and places inputs before anything else can take their memory.
    fn count(&mut self, node: Id, backend: u8) {
        let tensor = self.graph.tensor(node);
        if let Some(root) = tensor.view_of
            && tensor.op != Op::None
        {
            self.states[root.index()].views += 1;
        }
        if tensor.input {
            self.place(node, backend);
        }
        for &source in tensor.sources() {
            self.states[source.index()].children += 1;
            if self.graph.tensor(source).input {
                self.place(source, backend);
            }
        }
    }

    fn place(&mut self, id: Id, backend: u8) {
        let tensor = self.graph.tensor(id);
        if tensor.memory != Memory::Compute || self.states[id.index()].allocated || tensor.view_of.is_some() {
            return;
        }
        self.states[id.index()].allocated = true;
        if tensor.op.can_reuse_source() && self.take_over(id) {
            return;
        }
        let state = &mut self.states[id.index()];
        state.backend = backend;
        state.slot = self.slots;
        self.slots += 1;
        self.plan.asked.push((id, backend));
        self.plan.steps.push(Step::Place(backend));
        self.live.push(id);
    }

    /// Takes the memory of the first source that nobody else needs and that has the same layout. A view is never marked
    /// as allocated, so upstream's branch for views (ggml-alloc.c:665-676) is never taken, and is not mirrored. What the memory
    /// has beyond the new owner's need is freed.
    fn take_over(&mut self, id: Id) -> bool {
        let graph = self.graph;
        let node = graph.tensor(id);
        for &source in node.sources() {
            let parent = graph.tensor(source);
            let state = self.states[source.index()];
            if !state.allocated || parent.output || state.children != 1 || state.views != 0 || !node.same_layout(parent) {
                continue;
            }
            self.states[source.index()].allocated = false;
            let State { backend, slot, .. } = state;
            let state = &mut self.states[id.index()];
            state.backend = backend;
            state.slot = slot;
            if let Some(owner) = self.live.iter_mut().rev().find(|live| **live == source) {
                *owner = id;
            }
            self.plan.asked.push((id, backend));
            self.plan.steps.push(Step::TakeOver(slot));
            return true;
        }
        false
    }

    /// One use of `source` is over; after the last its memory is free.
    fn release(&mut self, source: Id) {
        let state = &mut self.states[source.index()];
        state.children -= 1;
        if state.children != 0 || state.views != 0 {
            return;
        }
        match self.graph.tensor(source).view_of {
            Some(root) => {
                let owner = &mut self.states[root.index()];
                owner.views -= 1;
                if owner.views == 0 && owner.children == 0 && owner.allocated {
                    self.free(root);
                }
            }
            None if state.allocated => self.free(source),
            None => {}
        }
    }

    fn free(&mut self, id: Id) {
        if self.graph.tensor(id).output {
            return;
        }
        self.plan.steps.push(Step::Free(self.states[id.index()].slot));
        self.states[id.index()].allocated = false;
        if let Some(position) = self.live.iter().rposition(|&live| live == id) {
            self.live.swap_remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::{MAX_OPTIMIZED, Scheduler, schedule};
    use super::super::tensor::CacheKind;
    use super::*;
    use QuantType::{F16, F32, Q8_0};

    fn sizes_of(mut graph: Graph, rules: BufferRules) -> Vec<u64> {
        let scheduler = Scheduler {
            backends: 1,
            op_offload: true,
            copies: 1,
            support: Default::default(),
            optimizers: [None; MAX_OPTIMIZED],
            ik: None,
        };
        let schedule = schedule(&mut graph, scheduler, Vec::new());
        chunk_sizes(&graph, &schedule.layout, &[rules]).remove(0)
    }

    fn arena(max_chunk: u64) -> Arena {
        Arena::new(&BufferRules { max_buffer: max_chunk, ..BufferRules::HOST })
    }

    #[test]
    fn the_smallest_hole_that_fits_is_used_and_neighbours_merge() {
        let mut arena = arena(NO_LIMIT);
        let at: Vec<Address> = [64, 32, 96, 32, 32].into_iter().map(|size| arena.allocate(size)).collect();
        assert_eq!(at.iter().map(|a| a.offset).collect::<Vec<_>>(), [0, 64, 96, 192, 224]);
        arena.free(at[0], 64);
        arena.free(at[2], 96);
        assert_eq!(arena.allocate(60).offset, 0, "the hole of 64, not that of 96");
        arena.free(Address { chunk: 0, offset: 0 }, 60);
        arena.free(at[1], 32);
        assert_eq!(arena.chunks[0].free.len(), 2, "three holes became one, and the end");
        assert_eq!(arena.allocate(192).offset, 0);
        assert_eq!(arena.chunks[0].high_water, 256);
        assert_eq!(arena.allocate(1).offset, 256);
    }

    /// A tensor of no bytes that is freed inside a hole leaves an empty hole there, out of order once the hole shrinks: holes
    /// are then no longer sorted, and where the next goes decides which of them merge.
    #[test]
    fn an_empty_hole_within_another_changes_where_holes_go() {
        let mut arena = arena(NO_LIMIT);
        let at: Vec<Address> = [64, 64, 64, 64].into_iter().map(|size| arena.allocate(size)).collect();
        arena.free(at[0], 64);
        arena.free(at[1], 64);
        arena.free(Address { chunk: 0, offset: 32 }, 0);
        assert_eq!(arena.allocate(64).offset, 0, "the hole is now 64 to 128, behind it in the list the empty one at 32");
        let holes = |arena: &Arena| arena.chunks[0].free.iter().map(|hole| hole.offset).collect::<Vec<_>>();
        assert_eq!(holes(&arena), [64, 32, 256]);
        arena.free(Address { chunk: 0, offset: 0 }, 32);
        assert_eq!(holes(&arena), [64, 0, 256], "merged with the empty hole");
    }

    #[test]
    fn a_limited_buffer_grows_by_chunks_and_a_larger_tensor_gets_its_own() {
        let mut arena = arena(128);
        assert_eq!(arena.allocate(96), Address { chunk: 0, offset: 0 });
        assert_eq!(arena.allocate(64), Address { chunk: 1, offset: 0 });
        assert_eq!(arena.allocate(32), Address { chunk: 0, offset: 96 }, "the end that needs the least growth");
        assert_eq!(arena.allocate(256), Address { chunk: 2, offset: 0 });
        assert_eq!(arena.chunks.iter().map(|chunk| chunk.high_water).collect::<Vec<_>>(), [128, 64, 256]);
    }

    #[test]
    fn an_element_wise_operation_takes_over_its_source() {
        let mut graph = Graph::default();
        let x = graph.input(F32, [64, 1, 1, 1]);
        let w = graph.placed(F32, [64, 64, 1, 1], Memory::Weights { backend: 0, host: true });
        let y = graph.mul_mat(w, x);
        let z = graph.scale(y);
        graph.expand(z);
        // 256 bytes of input and 256 of y, which z takes over.
        assert_eq!(sizes_of(graph, BufferRules::HOST), [512]);
    }

    #[test]
    fn a_source_with_another_user_a_view_or_a_reader_outside_is_kept() {
        let build = |change: fn(&mut Graph, Id)| {
            let mut graph = Graph::default();
            let x = graph.input(F32, [64, 1, 1, 1]);
            let w = graph.placed(F32, [64, 64, 1, 1], Memory::Weights { backend: 0, host: true });
            let y = graph.mul_mat(w, x);
            let z = graph.scale(y);
            change(&mut graph, y);
            graph.expand(z);
            let last = graph.mul_mat(w, z);
            graph.expand(last);
            sizes_of(graph, BufferRules::HOST)
        };
        assert_eq!(build(|_, _| {}), [512], "x is free when the last product needs room");
        assert_eq!(build(|graph, y| graph.tensor_mut(y).output = true), [768]);
        let second_user = |graph: &mut Graph, y| {
            let sum = graph.sum_rows(y);
            graph.expand(sum);
        };
        assert_eq!(build(second_user), [768], "the sum lies where x was, so that the last product finds no room there");
        let view = |graph: &mut Graph, y| {
            let view = graph.reshape(y, [32, 2, 1, 1]);
            graph.expand(view);
        };
        assert_eq!(build(view), [768], "the view of y has no user, so y stays");
    }

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
