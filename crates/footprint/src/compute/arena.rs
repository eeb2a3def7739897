//! Best-fit allocation in a buffer of one or several chunks: addresses only, no memory.
//!
//! Follows `ggml_dyn_tallocr` (ggml/src/ggml-alloc.c:110-390, llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161).

use super::buffer::{BufferRules, NO_LIMIT};

const MAX_CHUNKS: usize = 16;

/// `size` rounded up.
pub(super) fn align(size: u64, alignment: u64) -> u64 {
    size.checked_next_multiple_of(alignment.max(1)).unwrap_or(u64::MAX)
}

/// A place in a buffer that may consist of several chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) chunk: usize,
    pub(super) offset: u64,
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
    /// The same since [`Arena::forget_peaks`].
    peak: u64,
}

/// Best-fit allocation in memory that grows: addresses only, no memory.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    alignment: u64,
    max_chunk: u64,
    chunks: Vec<Chunk>,
}

impl Arena {
    /// Nothing is allocated yet.
    pub(super) fn new(rules: &BufferRules) -> Self {
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

    /// A place for this many bytes.
    pub(super) fn allocate(&mut self, size: u64) -> Address {
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
    pub(super) fn shrink(&mut self, at: Address, had: u64, needs: u64) {
        let (had, needs) = (align(had, self.alignment), align(needs, self.alignment));
        if had > needs {
            self.free(Address { offset: at.offset.saturating_add(needs), ..at }, had - needs);
        }
    }

    /// Gives a place back.
    pub(super) fn free(&mut self, at: Address, size: u64) {
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

    /// Bytes of each chunk: how far it was ever used.
    pub(super) fn chunk_sizes(&self) -> Vec<u64> {
        self.chunks.iter().map(|chunk| chunk.high_water).collect()
    }
    /// The same since peaks were forgotten.
    pub(super) fn peaks(&self) -> impl Iterator<Item = u64> {
        self.chunks.iter().map(|chunk| chunk.peak)
    }
    /// From now on counts anew how far chunks are used.
    pub(super) fn forget_peaks(&mut self) {
        self.chunks.iter_mut().for_each(|chunk| chunk.peak = 0);
    }
    /// All that later decisions follow from: free blocks, chunk by chunk; with how far chunks have grown, where that decides which
    /// one is taken.
    pub(super) fn describe(&self, words: &mut Vec<u64>) {
        words.push(self.chunks.len() as u64);
        for chunk in &self.chunks {
            words.push(chunk.free.len() as u64);
            words.extend(chunk.free.iter().flat_map(|block| [block.offset, block.size]));
            words.extend((self.max_chunk < NO_LIMIT || self.chunks.len() > 1).then_some(chunk.high_water));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
