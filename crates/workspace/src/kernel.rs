//! Bytes that a layer's kernel needs for a batch.

/// A linear layer: `rows` outputs of `columns` inputs each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layer {
    rows: u64,
    columns: u64,
}

/// A layer that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a layer of {rows} rows and {columns} columns cannot be")]
pub struct LayerError {
    /// Rows.
    pub rows: u64,
    /// Columns.
    pub columns: u64,
}

impl Layer {
    /// With its outputs and inputs.
    ///
    /// # Errors
    /// Nothing, or more weights than 2⁶² on either side.
    pub fn new(rows: u64, columns: u64) -> Result<Self, LayerError> {
        let weights = rows.checked_mul(columns).filter(|&weights| weights > 0 && weights < 1 << 62);
        weights.map(|_| Self { rows, columns }).ok_or(LayerError { rows, columns })
    }

    /// Outputs.
    pub const fn rows(self) -> u64 {
        self.rows
    }

    /// Inputs.
    pub const fn columns(self) -> u64 {
        self.columns
    }

    /// Outputs × inputs.
    pub const fn weights(self) -> u64 {
        self.rows * self.columns
    }
}

/// How a layer is computed, as far as its memory depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Codes of two bits times tokens in 8 bits on the CPU, unpacked in registers. Columns are filled up to 128, tokens to `tile`
    /// (1 but where a kernel keeps whole tiles). Input and output are the caller's.
    Cpu {
        /// Tokens that are kept together.
        tile: u64,
    },
    /// The same on a GPU, where input (f32), output and what kernels are told of a batch (16 bytes) lie in the arena too.
    Gpu,
    /// Pairs of weights looked up in tables (TL1): sixteen entries of 16 bits per pair (microsoft/BitNet 16da220,
    /// `utils/codegen_tl1.py`).
    Tl1,
    /// Triplets looked up (TL2), and pairs for the columns beyond the last whole block of `block_columns` (the same,
    /// `utils/codegen_tl2.py`).
    Tl2 {
        /// Columns of a block, BK of the kernel's configuration.
        block_columns: u64,
    },
}

/// Weights of a block of `I2_S`: columns are filled up to it.
const BLOCK: u64 = 128;

/// Most regions that a kernel has.
pub(crate) const REGIONS: usize = 5;

/// Bytes of what a device's kernels are told of a batch.
pub(crate) const BATCH: u64 = 16;

/// Bytes of tokens in 8 bits, each filled up to whole blocks.
pub(crate) fn values(layer: Layer, tokens: u64) -> Option<u64> {
    tokens.checked_mul(layer.columns.checked_next_multiple_of(BLOCK)?)
}

impl Kernel {
    /// Bytes of the regions that a batch of `tokens` needs, by name; `None` where they are beyond 2⁶⁴.
    pub(crate) fn regions(self, layer: Layer, tokens: u64) -> Option<[(&'static str, u64); REGIONS]> {
        let none = ("", 0);
        // A scale and a sum of 32 bits each.
        Some(match self {
            Self::Cpu { tile } => {
                let tokens = tokens.checked_next_multiple_of(tile.max(1))?;
                [("activations", values(layer, tokens)?), ("scales", tokens.checked_mul(8)?), none, none, none]
            }
            Self::Gpu => [
                ("batch", BATCH),
                ("input", tokens.checked_mul(layer.columns)?.checked_mul(4)?),
                ("activations", values(layer, tokens)?),
                ("scales", tokens.checked_mul(8)?),
                ("output", tokens.checked_mul(layer.rows)?.checked_mul(4)?),
            ],
            // Two planes of 16 bytes per entry of a table.
            Self::Tl1 => [
                ("tables", tokens.checked_mul(layer.columns.div_ceil(2).checked_mul(32)?)?),
                ("scales", tokens.checked_mul(4)?),
                none,
                none,
                none,
            ],
            Self::Tl2 { block_columns } => {
                let triplets = layer.columns - layer.columns % block_columns.max(1);
                let entries = triplets.div_ceil(3) + (layer.columns - triplets).div_ceil(2);
                [("tables", tokens.checked_mul(entries.checked_mul(32)?)?), ("scales", tokens.checked_mul(4)?), none, none, none]
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kernel: Kernel, layer: Layer, tokens: u64) -> [u64; REGIONS] {
        kernel.regions(layer, tokens).unwrap().map(|(_, bytes)| bytes)
    }

    #[test]
    fn figures_of_the_formats() {
        let layer = Layer::new(640, 2560).unwrap();
        assert_eq!(bytes(Kernel::Cpu { tile: 1 }, layer, 3), [3 * 2560, 24, 0, 0, 0]);
        assert_eq!(bytes(Kernel::Cpu { tile: 16 }, layer, 3), [16 * 2560, 128, 0, 0, 0]);
        assert_eq!(bytes(Kernel::Gpu, layer, 3), [16, 3 * 4 * 2560, 3 * 2560, 24, 3 * 2560]);
        // Columns are filled up to whole blocks.
        assert_eq!(bytes(Kernel::Gpu, Layer::new(1, 129).unwrap(), 1), [16, 516, 256, 8, 4]);
        assert_eq!(bytes(Kernel::Tl1, layer, 2), [2 * 16 * 2560, 8, 0, 0, 0]);
        // 26 whole blocks of 96 are 832 triplets, 64 columns are 32 pairs: 27,648 bytes, as the kernel's own preprocessor writes.
        assert_eq!(bytes(Kernel::Tl2 { block_columns: 96 }, layer, 1), [27_648, 4, 0, 0, 0]);
    }

    #[test]
    fn what_cannot_be_is_an_error_and_what_is_too_large_is_none() {
        assert_eq!(Layer::new(0, 3).unwrap_err().to_string(), "a layer of 0 rows and 3 columns cannot be");
        assert!(Layer::new(u64::MAX, 2).is_err());
        let layer = Layer::new(1 << 30, 1 << 31).unwrap();
        assert_eq!(Kernel::Cpu { tile: 8 }.regions(layer, u64::MAX), None);
        assert_eq!(Kernel::Tl1.regions(layer, u64::MAX / 2), None);
    }
}
