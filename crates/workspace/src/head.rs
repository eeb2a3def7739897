//! Bytes of an output head on a device: the table that logits come from, and what one token's are computed in.

use crate::arena::{Workspace, place};
use crate::stack::{Device, SHAPE, StackBytes};
use spec::{Bytes, QuantType};

/// Bytes that a kernel reads of a row at once: rows begin at whole multiples of them.
pub const CHUNK: u64 = 16;

/// Values that a token is filled up to with zeros: as many as a chunk has at most.
const VALUES: u64 = 16;

/// A table of `n_vocab` rows of `n_embd` weights, and the norm before it.
///
/// On a device a row of blocks has its integers first and its scales behind them, in as many bytes as in a file; rows are filled up to
/// whole chunks of 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Tokens of the vocabulary.
    pub n_vocab: u64,
    /// Width of the residual stream.
    pub n_embd: u64,
    /// How weights are kept: F32, F16, BF16 or Q8_0.
    pub ty: QuantType,
}

impl Head {
    /// Bytes of a row. `None` for other types, rows of no whole blocks or of none, and beyond 2⁶⁴.
    ///
    /// ```
    /// use spec::QuantType;
    /// let head = workspace::Head { n_vocab: 128_256, n_embd: 2560, ty: QuantType::Q8_0 };
    /// assert_eq!(head.row(), Some(2720));
    /// assert_eq!(workspace::Head { n_embd: 2570, ..head }.row(), None);
    /// assert_eq!(workspace::Head { n_embd: 2570, ty: QuantType::F16, ..head }.row(), Some(5152));
    /// ```
    pub fn row(&self) -> Option<u64> {
        let kept = matches!(self.ty, QuantType::F32 | QuantType::F16 | QuantType::BF16 | QuantType::Q8_0) && self.n_embd > 0;
        self.ty.row_bytes(self.n_embd).filter(|_| kept)?.get().checked_next_multiple_of(CHUNK)
    }

    /// What one token's logits are computed in: the token after the norm and the logits, at multiples of `alignment`. `None` beyond 2⁶⁴.
    pub fn compute(&self, alignment: u64) -> Option<Workspace> {
        let token = self.n_embd.checked_next_multiple_of(VALUES)?.checked_mul(4)?;
        Workspace::of([("token", token), ("logits", self.n_vocab.checked_mul(4)?)], alignment)
    }

    /// The table and its norm in one piece, at multiples of `alignment`. `None` as of [`Head::row`].
    pub fn weights(&self, alignment: u64) -> Option<Workspace> {
        Workspace::of([("head", self.row()?.checked_mul(self.n_vocab)?), ("output_norm", self.n_embd.checked_mul(4)?)], alignment)
    }

    /// Rows that a piece of memory has room for.
    pub fn rows_of(&self, largest: Bytes) -> Option<u64> {
        Some(largest.get() / self.row()?).filter(|&rows| rows > 0)
    }

    /// Everything on a device that limits pieces: the table in pieces with what kernels are told of each, its norm, what is computed in, and
    /// where logits are read from. `None` as of [`Head::row`], or where a row is beyond the device's largest piece.
    pub fn bytes(&self, device: Device) -> Option<StackBytes> {
        let pieces = self.n_vocab.div_ceil(self.rows_of(device.largest)?);
        let table = self.row()?.checked_mul(self.n_vocab)?.checked_add(pieces.checked_mul(SHAPE)?)?;
        let compute = self.compute(device.alignment)?.total().get();
        Some(StackBytes {
            weights: Bytes::new(table.checked_add(self.n_embd.checked_mul(4)?)?),
            kv_cache: Bytes::ZERO,
            compute: Bytes::new(compute.checked_add(self.n_vocab.checked_mul(4)?)?),
            buffers: pieces.checked_mul(2)?.checked_add(3)?,
        })
    }
}

impl Workspace {
    /// Parts one after the other.
    fn of<const N: usize>(parts: [(&'static str, u64); N], alignment: u64) -> Option<Self> {
        let mut regions = Vec::with_capacity(N);
        let total = place(&mut regions, 0, parts, alignment)?;
        Some(Self::from_regions(regions, total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Device = Device { alignment: 256, largest: Bytes::from_mib(128) };

    #[test]
    fn rows_lie_in_pieces_that_a_device_allows() {
        let head = Head { n_vocab: 1000, n_embd: 100, ty: QuantType::BF16 };
        assert_eq!((head.row(), head.rows_of(Bytes::new(2079))), (Some(208), Some(9)));
        let bytes = |largest| head.bytes(Device { largest: Bytes::new(largest), ..DEVICE });
        assert_eq!(bytes(2080).map(|bytes| (bytes.weights.get(), bytes.buffers)), Some((208_000 + 100 * 32 + 400, 203)));
        assert_eq!(bytes(207), None);
        // 112 values of a token.
        assert_eq!(head.compute(1).map(|compute| compute.total().get()), Some(448 + 4000));
        assert_eq!(head.weights(256).map(|weights| weights.total().get()), Some(208_128 + 512));
    }

    #[test]
    fn what_cannot_be_is_none() {
        let head = Head { n_vocab: 8, n_embd: 32, ty: QuantType::F32 };
        assert!(head.bytes(DEVICE).is_some());
        for wrong in [
            Head { n_embd: 0, ..head },
            Head { ty: QuantType::Q4_0, ..head },
            Head { n_vocab: u64::MAX, ..head },
            Head { n_embd: u64::MAX, ..head },
            Head { ty: QuantType::Q8_0, n_embd: 33, ..head },
        ] {
            assert_eq!((wrong.bytes(DEVICE), wrong.weights(256)), (None, None), "{wrong:?}");
        }
    }
}
