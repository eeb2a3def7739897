//! Regions of one arena that serves all layers, one after the other.

use crate::kernel::{Kernel, Layer, REGIONS};
use spec::Bytes;

/// A part of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// What it holds.
    pub name: &'static str,
    /// Where it begins, a multiple of the device's alignment.
    pub offset: u64,
    /// Bytes that are used of it.
    pub bytes: u64,
}

/// What a batch needs beside weights, input and what else the model has: an arena whose regions are as large as the layer that needs
/// most of each, because layers run one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    regions: Vec<Region>,
    total: u64,
}

/// Lays parts that have bytes one after the other from `from` on; where the next one would begin, or `None` beyond 2⁶⁴.
pub(crate) fn place<const N: usize>(regions: &mut Vec<Region>, from: u64, parts: [(&'static str, u64); N], alignment: u64) -> Option<u64> {
    let mut end = from;
    for (name, bytes) in parts.into_iter().filter(|part| part.1 > 0) {
        regions.push(Region { name, offset: end, bytes });
        end = end.checked_add(bytes)?.checked_next_multiple_of(alignment.max(1))?;
    }
    Some(end)
}

impl Workspace {
    /// Of a batch of `tokens` through `layers`; regions begin at multiples of `alignment` bytes (a device's least alignment of offsets
    /// into a buffer). `None` where it is beyond 2⁶⁴ bytes.
    ///
    /// ```
    /// use workspace::{Kernel, Layer, Workspace};
    /// let layers = [Layer::new(640, 2560).unwrap(), Layer::new(2560, 6912).unwrap()];
    /// let workspace = Workspace::new(Kernel::Gpu, &layers, 32, 256).unwrap();
    /// assert_eq!(workspace.total().get(), 256 + 32 * (4 * 6912 + 6912 + 8 + 4 * 2560));
    /// ```
    pub fn new(kernel: Kernel, layers: &[Layer], tokens: u64, alignment: u64) -> Option<Self> {
        let mut most: [(&'static str, u64); REGIONS] = [("", 0); REGIONS];
        for &layer in layers {
            for (most, region) in most.iter_mut().zip(kernel.regions(layer, tokens)?) {
                *most = (region.0, most.1.max(region.1));
            }
        }
        let mut regions = Vec::with_capacity(REGIONS);
        let total = place(&mut regions, 0, most, alignment)?;
        Some(Self { regions, total })
    }

    pub(crate) fn from_regions(regions: Vec<Region>, total: u64) -> Self {
        Self { regions, total }
    }

    /// The region of a name.
    pub fn region(&self, name: &str) -> Option<Region> {
        self.regions.iter().copied().find(|region| region.name == name)
    }

    /// Its regions, in the order of their offsets.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Bytes of its largest region.
    pub fn largest(&self) -> u64 {
        self.regions.iter().map(|region| region.bytes).max().unwrap_or(0)
    }

    /// Bytes of the arena.
    pub fn total(&self) -> Bytes {
        Bytes::new(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn regions_are_aligned_apart_and_as_large_as_the_largest_layer_needs(
            shapes in prop::collection::vec((1..9000_u64, 1..9000_u64), 1..6),
            tokens in 1..5000_u64,
            tile in 1..33_u64,
            alignment in prop::sample::select(vec![1_u64, 4, 64, 256]),
        ) {
            let layers: Vec<Layer> = shapes.iter().map(|&(rows, columns)| Layer::new(rows, columns).unwrap()).collect();
            let kernel = Kernel::Cpu { tile };
            let whole = Workspace::new(kernel, &layers, tokens, alignment).unwrap();
            let mut end = 0;
            for region in whole.regions() {
                prop_assert!(region.offset.is_multiple_of(alignment) && region.offset >= end);
                end = region.offset + region.bytes;
            }
            prop_assert!(end <= whole.total().get() && whole.total().get() - end < alignment);
            for &layer in &layers {
                let one = Workspace::new(kernel, &[layer], tokens, alignment).unwrap();
                prop_assert!(one.total() <= whole.total());
            }
            let more = Workspace::new(kernel, &layers, tokens + 1, alignment).unwrap();
            prop_assert!(more.total() >= whole.total());
        }
    }
}
