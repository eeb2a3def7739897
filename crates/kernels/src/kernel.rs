//! The choice of instructions.

use crate::simd;
use crate::simd::floats::Floats;

/// Σ code · value of some packed rows with some tokens. All rows have as many bytes, all tokens four values per byte, in whole blocks.
pub(crate) type Tile<const ROWS: usize, const TOKENS: usize> = fn([&[u8]; ROWS], [&[i8]; TOKENS]) -> [[i32; TOKENS]; ROWS];

/// Σ weight · x of some rows of a dense matrix, in the order that [`crate::dense`] states; weights of `T`, all rows as long as each other.
pub(crate) type Dots<T, const ROWS: usize> = fn([&[T]; ROWS], &[f32]) -> [f32; ROWS];

/// Rows of a tile.
pub(crate) const ROWS: usize = 4;
/// Tokens of a wide tile.
pub(crate) const TOKENS: usize = 4;

/// A 16-bit float as it lies in memory.
pub(crate) type Half = [u8; 2];

/// Its value: a `bf16` is the upper half of a 32-bit float, else it is an IEEE half.
#[inline(always)]
pub(crate) fn float<const BF16: bool>(half: Half) -> f32 {
    if BF16 { half::bf16::from_le_bytes(half).to_f32() } else { half::f16::from_le_bytes(half).to_f32() }
}
/// 32 weights of `q8_0`: a scale in f16 and 32 integers.
pub(crate) type Q8 = [u8; 34];

/// Functions that one instruction set gives.
#[derive(Debug)]
pub(crate) struct Functions {
    pub(crate) name: &'static str,
    /// Prefill: rows times tokens.
    pub(crate) wide: Tile<ROWS, TOKENS>,
    /// Decode: rows times one token.
    pub(crate) tall: Tile<ROWS, 1>,
    /// What is left over.
    pub(crate) one: Tile<1, 1>,
    pub(crate) f16: Dots<Half, ROWS>,
    pub(crate) bf16: Dots<Half, ROWS>,
    pub(crate) q8_0: Dots<Q8, ROWS>,
    /// So many turns of products of 8 bits that read no memory; how many products a turn is. `None` where the instruction set has none
    /// of its own for them.
    pub(crate) dots: Option<fn(u64) -> u64>,
    /// 16-bit floats to 32 bits.
    pub(crate) widen: fn(&[Half], &mut [f32]),
    pub(crate) floats: &'static Floats,
}

/// Instructions to compute with. A value of this type is the proof that the processor has them: there is no other way to get one
/// than to ask.
#[derive(Clone, Copy, Debug)]
pub struct Kernel(&'static Functions);

impl PartialEq for Kernel {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Kernel {}

impl Kernel {
    /// The fastest that this processor has.
    pub fn best() -> Self {
        Self::available().into_iter().next().unwrap_or_else(Self::reference)
    }

    /// Plain Rust, for every processor: what the others are compared with.
    pub fn reference() -> Self {
        Self(&simd::reference::FUNCTIONS)
    }

    /// All that this processor has, fastest first; the plain one is the last, and the only one with the feature `no-simd`.
    ///
    /// ```
    /// use kernels::Kernel;
    /// assert_eq!(Kernel::available().last(), Some(&Kernel::reference()));
    /// ```
    pub fn available() -> Vec<Self> {
        let detected = if cfg!(feature = "no-simd") { Vec::new() } else { simd::detected() };
        detected.into_iter().chain([&simd::reference::FUNCTIONS]).map(Self).collect()
    }

    /// The one of that name, where this processor has it: `avx512-vnni`, `avx-vnni`, `avx2`, `neon-dot`, `reference`.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|kernel| kernel.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Multiplies integers of 8 bits in registers for so many turns, as fast as the instruction set can, and says how many products that
    /// was: what prefill is measured against. `None` for kernels without an instruction for it.
    pub fn integer_dots(self, turns: u64) -> Option<u64> {
        self.0.dots.map(|dots| dots(turns))
    }

    pub(crate) fn functions(self) -> &'static Functions {
        self.0
    }
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
