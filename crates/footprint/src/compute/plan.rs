//! What the allocator does for a scheduled graph, and what memory it takes.
//!
//! Follows the walk over a graph (`ggml_gallocr`, ggml/src/ggml-alloc.c:590-810, llama.cpp v0.6.0-dev, crate llama-cpp-sys-2
//! 0.1.161) that frees a tensor after its last use and lets some operations take over the memory of a source.

use super::arena::{Address, Arena};
use super::buffer::BufferRules;
use super::graph::Graph;
use super::schedule::Layout;
use super::tensor::{Id, Memory, Op};

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

/// One deed of the allocator. Slots are numbered as they are first placed, behind those that are held from before.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// The next size of the plan gets a place: that of a new slot.
    Place(u8),
    /// The next size of the plan takes over a slot.
    TakeOver(u32),
    Free(u32),
}

/// What the allocator does along a stretch of a layout, in order. Nothing of it depends on how large tensors are, only on which
/// have the same layout as a source.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    deeds: Vec<Deed>,
    /// Tensors whose sizes are asked for, in order, each on a backend.
    pub(super) asked: Vec<(Id, u8)>,
    /// Slots that are still held at its end: what the next stretch finds, in this order.
    left: Vec<u32>,
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
    /// The walk over a layout, from cut to cut, but for what it keeps; `arrange` puts in order what has memory at a cut.
    pub(super) fn of(graph: &Graph, layout: &Layout, mut arrange: impl FnMut(usize, &mut Vec<Live>)) -> Vec<Self> {
        let mut walk = Walk { graph, states: vec![State::default(); graph.len()], slots: 0, live: Vec::new(), plan: Self::default() };
        for &(kept, _) in &layout.kept {
            walk.states[kept.index()].allocated = true;
        }
        for &(leaf, backend) in &layout.leafs {
            walk.place(leaf, backend);
        }
        for &(node, backend) in &layout.nodes {
            walk.count(node, backend);
        }
        let mut plans = Vec::with_capacity(layout.cuts.len() + 1);
        let mut start = 0;
        for (cut, &end) in layout.cuts.iter().chain([&layout.nodes.len()]).enumerate() {
            for &(node, backend) in &layout.nodes[start..end] {
                for &source in graph.tensor(node).sources() {
                    walk.place(source, backend);
                }
                walk.place(node, backend);
                for &source in graph.tensor(node).sources() {
                    walk.release(source);
                }
            }
            let mut live = walk.owners();
            if cut < layout.cuts.len() {
                arrange(cut, &mut live);
            }
            plans.push(walk.cut(&live));
            start = end;
        }
        plans
    }

    /// Does it all, with sizes in the order of [`Self::asked`]; `None` as soon as one is missing.
    pub(super) fn run(&self, mut sizes: impl Iterator<Item = Option<u64>>, buffers: &mut Buffers) -> Option<()> {
        let Buffers { arenas, slots } = buffers;
        arenas.iter_mut().for_each(Arena::forget_peaks);
        for &deed in &self.deeds {
            match deed {
                Deed::Place(backend) => {
                    let size = sizes.next()??;
                    slots.push(Slot { backend, at: arenas[usize::from(backend)].allocate(size), size });
                }
                Deed::TakeOver(slot) => {
                    let held = &mut slots[slot as usize];
                    let had = std::mem::replace(&mut held.size, sizes.next()??);
                    arenas[usize::from(held.backend)].shrink(held.at, had, held.size);
                }
                Deed::Free(slot) => {
                    let Slot { backend, at, size } = slots[slot as usize];
                    arenas[usize::from(backend)].free(at, size);
                }
            }
        }
        *slots = self.left.iter().map(|&slot| slots[slot as usize]).collect();
        Some(())
    }
}

/// Bytes of each chunk of each backend's compute buffer for a layout without cuts.
pub(super) fn chunk_sizes(graph: &Graph, layout: &Layout, rules: &[BufferRules]) -> Vec<Vec<u64>> {
    let mut buffers = Buffers::new(rules);
    let size = |&(id, backend): &(Id, u8)| rules[usize::from(backend)].size(graph, graph.tensor(id));
    for kept in &layout.kept {
        buffers.arenas[usize::from(kept.1)].allocate(size(kept));
    }
    for plan in Plan::of(graph, layout, |_, _| ()) {
        // Each has a size.
        let _ = plan.run(plan.asked.iter().map(|asked| Some(size(asked))), &mut buffers);
    }
    buffers.chunk_sizes()
}

/// Memory that some tensor has or had.
#[derive(Clone, Copy, Debug)]
struct Slot {
    backend: u8,
    at: Address,
    /// What its last owner was given, alignment aside.
    size: u64,
}

/// The compute buffers of all backends between two nodes, and which of their memory is held.
#[derive(Clone, Debug)]
pub(super) struct Buffers {
    arenas: Vec<Arena>,
    slots: Vec<Slot>,
}

impl Buffers {
    /// Nothing is allocated yet.
    pub(super) fn new(rules: &[BufferRules]) -> Self {
        Self { arenas: rules.iter().map(Arena::new).collect(), slots: Vec::new() }
    }

    /// How far the last plan used each chunk that it used: backend, chunk, bytes.
    pub(super) fn peaks(&self) -> impl Iterator<Item = (u8, u8, u64)> {
        let arenas = (0u8..).zip(&self.arenas);
        let used = arenas.flat_map(|(backend, arena)| (0u8..).zip(arena.peaks()).map(move |(chunk, peak)| (backend, chunk, peak)));
        used.filter(|&(.., peak)| peak > 0)
    }

    /// Bytes of each chunk of each backend: how far it was ever used.
    pub(super) fn chunk_sizes(&self) -> Vec<Vec<u64>> {
        self.arenas.iter().map(Arena::chunk_sizes).collect()
    }

    /// All that later decisions follow from.
    pub(super) fn describe(&self, words: &mut Vec<u64>) {
        self.arenas.iter().for_each(|arena| arena.describe(words));
        words.extend(self.slots.iter().flat_map(|slot| [slot.at.chunk as u64, slot.at.offset, slot.size]));
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
    /// The plan up to here, with what has memory then in its order. What follows finds these tensors in slots of that order.
    fn cut(&mut self, live: &[Live]) -> Plan {
        for (slot, owner) in (0u32..).zip(live) {
            self.states[owner.id.index()].slot = slot;
        }
        self.slots = live.len() as u32;
        // The next stretch is mostly like this one.
        let (deeds, asked) = (Vec::with_capacity(self.plan.deeds.len()), Vec::with_capacity(self.plan.asked.len()));
        let plan = std::mem::replace(&mut self.plan, Plan { deeds, asked, left: Vec::new() });
        Plan { left: live.iter().map(|owner| owner.slot).collect(), ..plan }
    }

    /// What has memory.
    fn owners(&self) -> Vec<Live> {
        let owner = |&id: &Id| {
            let State { children, views, backend, slot, .. } = self.states[id.index()];
            Live { id, backend, read: [children != 0, views != 0], slot }
        };
        self.live.iter().map(owner).collect()
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
        self.plan.deeds.push(Deed::Place(backend));
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
            self.plan.deeds.push(Deed::TakeOver(slot));
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
        self.plan.deeds.push(Deed::Free(self.states[id.index()].slot));
        self.states[id.index()].allocated = false;
        if let Some(position) = self.live.iter().rposition(|&live| live == id) {
            self.live.swap_remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::{MAX_OPTIMIZED, Scheduler, schedule};
    use super::*;
    use spec::QuantType::F32;

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
}
