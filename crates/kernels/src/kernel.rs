//! The choice of instructions.

use crate::block16::Block16;
use crate::simd;
use crate::simd::floats::Floats;

/// Σ code · value of some packed rows with some tokens. All rows have as many bytes, all tokens four values per byte, in whole blocks.
pub(crate) type Tile<const ROWS: usize, const TOKENS: usize> = fn([&[u8]; ROWS], [&[i8]; TOKENS]) -> [[i32; TOKENS]; ROWS];

/// Σ weight · x of some rows of a dense matrix, in the order that [`crate::dense`] states; weights of `T` and values of `X`, all rows as long as
/// the values.
pub(crate) type Dots<T, X, const ROWS: usize> = fn([&[T]; ROWS], &[X]) -> [f32; ROWS];

/// Rows of a tile.
pub(crate) const ROWS: usize = 4;
/// Tokens of a wide tile.
pub(crate) const TOKENS: usize = 4;
/// Rows of a panel, which stay in a core's second cache until all tokens have been multiplied with them.
pub(crate) const ROW_PANEL: usize = 64;

/// Sums of one token with the rows of a panel, from a line of a cache on.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Sums(pub(crate) [i32; ROW_PANEL]);

impl Sums {
    pub(crate) const ZERO: Self = Self([0; ROW_PANEL]);
}

/// Replaces `sums[token].0[row]` by Σ code · value of the rows in `codes`, of which there are 1 to [`ROW_PANEL`], with as many tokens as there
/// are sums; those of rows that are not there mean nothing. On the way the codes that are `next` are asked for.
pub(crate) type PanelProduct = fn(codes: &[u8], next: &[u8], values: &[i8], sums: &mut [Sums]);

/// What multiplies a panel of rows with many tokens, for instruction sets that unpack weights into memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel {
    /// Fewest tokens that it takes.
    pub(crate) fewest: usize,
    pub(crate) multiply: PanelProduct,
}

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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Functions {
    pub(crate) name: &'static str,
    /// Prefill: rows times tokens.
    pub(crate) wide: Tile<ROWS, TOKENS>,
    /// Decode: rows times one token.
    pub(crate) tall: Tile<ROWS, 1>,
    /// What is left over.
    pub(crate) one: Tile<1, 1>,
    /// Prefill of more tokens, instead of `wide`.
    pub(crate) panel: Option<Panel>,
    pub(crate) f16: Dots<Half, f32, ROWS>,
    pub(crate) bf16: Dots<Half, f32, ROWS>,
    pub(crate) q8_0: Dots<Q8, Block16, ROWS>,
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
pub struct Kernel(pub(crate) &'static Functions);

/// Why there is no kernel `amx-int8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmxError {
    /// Another target, or the feature `no-simd`.
    #[error("this build has no AMX: it takes Linux on x86-64, and no feature no-simd")]
    Build,
    /// Instructions that the processor lacks.
    #[error("this processor has no {0}")]
    Processor(&'static str),
    /// Registers that the system does not save.
    #[error("the system does not save tile registers: XCR0 is {xcr0:#x}")]
    System {
        /// The states that it saves.
        xcr0: u64,
    },
    /// A process that may not use tiles.
    #[error("the system does not let this process use tiles: error {errno} of arch_prctl(ARCH_REQ_XCOMP_PERM)")]
    Permission {
        /// The system's number of the error.
        errno: i32,
    },
    /// A small product, computed once per process, that is not that of the plain kernel.
    #[error("products of tiles are not those of the plain kernel on this processor")]
    Products,
}

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

    /// AMX with 8-bit integers for prompts, and AVX-512 for everything else: the first of [`Kernel::available`] where it is offered. The first
    /// call asks Linux for tile registers, once for all threads of the process, and compares a small product with the plain kernel's: where
    /// they differ, it is not offered. No processor with AMX was at hand when it was written: it is tested by an emulation of the
    /// instructions, and how fast it is was not measured.
    ///
    /// # Errors
    /// Why it is not offered.
    pub fn amx_int8() -> Result<Self, AmxError> {
        if cfg!(feature = "no-simd") { Err(AmxError::Build) } else { simd::amx_int8().map(Self) }
    }

    /// The one of that name, where this processor has it: `amx-int8`, `avx512-vnni`, `avx-vnni`, `avx2`, `neon-dot`, `reference`.
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
