//! Keys and values of the tokens so far.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use kernels::{Kernel, Table};
use std::ops::Range;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    #[default]
    F16,
    /// Blocks of 32 integers of 8 bits with a scale in 16 bits: heads whose width is a multiple of 32.
    Q8_0,
}

/// No page is smaller.
const PAGE: usize = 4096;

/// Weights of a block of `q8_0`.
pub(crate) const BLOCK: usize = 32;

impl CacheType {
    /// Bytes of `width` elements.
    pub const fn bytes(self, width: usize) -> usize {
        match self {
            Self::F32 => width * 4,
            Self::F16 => width * 2,
            Self::Q8_0 => width / BLOCK * (BLOCK + 2),
        }
    }

    /// True where heads of this width can be stored so.
    pub const fn takes(self, head_dim: usize) -> bool {
        !matches!(self, Self::Q8_0) || head_dim.is_multiple_of(BLOCK)
    }

    /// Writes elements.
    pub(crate) fn store(self, from: &[f32], to: &mut [u8]) {
        match self {
            Self::F32 => to.as_chunks_mut().0.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_le_bytes()),
            // Some at a time, which the crate converts in registers.
            Self::F16 => {
                for (to, from) in to.chunks_mut(2 * BLOCK).zip(from.chunks(BLOCK)) {
                    let mut halves = [f16::ZERO; BLOCK];
                    halves[..from.len()].convert_from_f32_slice(from);
                    to.as_chunks_mut().0.iter_mut().zip(halves).for_each(|(to, half)| *to = half.to_le_bytes());
                }
            }
            Self::Q8_0 => {
                for (to, from) in to.as_chunks_mut::<34>().0.iter_mut().zip(from.as_chunks::<BLOCK>().0) {
                    store_block(from, to);
                }
            }
        }
    }

    /// Reads elements.
    pub(crate) fn load(self, from: &[u8], to: &mut [f32], kernel: Kernel) {
        match self {
            Self::F32 => to.iter_mut().zip(from.as_chunks().0).for_each(|(to, from)| *to = f32::from_le_bytes(*from)),
            Self::F16 => kernel.widen(from.as_chunks().0, to),
            Self::Q8_0 => kernel.widen_q8_0(from.as_chunks().0, to),
        }
    }
}

/// Scale max|x| / 127, integers rounded with halves away from zero.
fn store_block(from: &[f32; BLOCK], to: &mut [u8; 34]) {
    let scale = from.iter().fold(0.0_f32, |largest, x| largest.max(x.abs())) / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let (head, integers) = to.split_at_mut(2);
    head.copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    integers.iter_mut().zip(from).for_each(|(to, from)| *to = (from * inverse).round() as i8 as u8);
}

/// Keys and values of all layers: `n_ctx` rows each, as wide as all heads of a token together.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    ty: CacheType,
    keys: Vec<u8>,
    values: Vec<u8>,
    layer_bytes: usize,
    row_bytes: usize,
}

impl Cache {
    pub(crate) fn new(ty: CacheType, n_layer: usize, n_ctx: usize, width: usize) -> Self {
        let (row_bytes, layer_bytes) = (ty.bytes(width), n_ctx * ty.bytes(width));
        let all = || {
            // Pages of a cleared allocation are there only once they are written: what is promised is held from the beginning.
            let mut all = std::hint::black_box(vec![0_u8; n_layer * layer_bytes]);
            all.iter_mut().step_by(PAGE).for_each(|byte| *byte = std::hint::black_box(0));
            all
        };
        Self { ty, keys: all(), values: all(), layer_bytes, row_bytes }
    }

    pub(crate) fn ty(&self) -> CacheType {
        self.ty
    }

    /// Places of keys and of values of some positions of a layer, position by position.
    pub(crate) fn rows_mut(&mut self, layer: usize, positions: Range<usize>) -> (Table<'_, u8>, Table<'_, u8>) {
        let start = layer * self.layer_bytes;
        let place = start + positions.start * self.row_bytes..start + positions.end * self.row_bytes;
        (Table::new(&mut self.keys[place.clone()], self.row_bytes), Table::new(&mut self.values[place], self.row_bytes))
    }

    /// The rows of keys and of values of a layer.
    pub(crate) fn layer(&self, layer: usize) -> (&[u8], &[u8]) {
        let place = layer * self.layer_bytes..(layer + 1) * self.layer_bytes;
        (&self.keys[place.clone()], &self.values[place])
    }

    pub(crate) fn row_bytes(&self) -> usize {
        self.row_bytes
    }
}

#[cfg(test)]
impl Cache {
    /// Keeps what one position has.
    pub(crate) fn keep(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) {
        let (ty, mut pool) = (self.ty, kernels::Pool::new(1).unwrap());
        pool.each_row(self.rows_mut(layer, position..position + 1), |_, (kept_key, kept_value)| {
            ty.store(key, kept_key);
            ty.store(value, kept_value);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back_at_its_precision() {
        let x: Vec<f32> = (0..64).map(|i| (i as f32 - 31.5) / 7.0).collect();
        for (ty, bytes, error) in [(CacheType::F32, 256, 0.0), (CacheType::F16, 128, 3e-3), (CacheType::Q8_0, 68, 2e-2)] {
            let mut cache = Cache::new(ty, 2, 3, 64);
            assert_eq!(cache.row_bytes(), bytes);
            cache.keep(1, 2, &x, &x);
            let mut back = vec![0.0; 64];
            ty.load(&cache.layer(1).0[2 * bytes..], &mut back, Kernel::best());
            assert!(x.iter().zip(&back).all(|(x, back)| (x - back).abs() <= error), "{ty:?}: {back:?}");
            assert!(cache.layer(0).1.iter().all(|byte| *byte == 0));
        }
        assert!(!CacheType::Q8_0.takes(48));
    }
}
