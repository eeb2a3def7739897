//! The kernels: their source, what each is given, and how it is compiled.

use crate::error::GpuError;
use crate::ffi::Compiler;

/// The source of all kernels, as NVRTC compiles it.
pub const SOURCE: &str = concat!(
    include_str!("kernels/halves.cu"),
    include_str!("kernels/shared.cu"),
    include_str!("kernels/quantize.cu"),
    include_str!("kernels/product.cu"),
    include_str!("kernels/kept.cu"),
    include_str!("kernels/turn.cu"),
    include_str!("kernels/attend.cu"),
    include_str!("kernels/gated.cu"),
    include_str!("kernels/head.cu"),
    include_str!("kernels/lose.cu"),
);

/// Tables over kernels: one row each.
macro_rules! kernels {
    ($($kernel:ident $name:literal $parameters:ident $threads:literal,)*) => {
        /// A kernel of [`SOURCE`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kernel { $($kernel),* }

        impl Kernel {
            pub(crate) const ALL: [Self; [$($name),*].len()] = [$(Self::$kernel),*];

            /// Its name in the source.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$kernel => $name),* }
            }

            /// Bytes of what it is given.
            pub(crate) const fn parameters(self) -> usize {
                match self { $(Self::$kernel => size_of::<$parameters>()),* }
            }

            /// Threads of a block.
            pub(crate) const fn threads(self) -> u32 {
                match self { $(Self::$kernel => $threads),* }
            }
        }
    };
}

kernels! {
    Quantize "quantize" Quantize 256,
    QuantizeNorm "quantize_norm" Quantize 256,
    One "one" Product 128,
    Many "many" Product 128,
    TurnF32 "turn_f32" Turn 64,
    TurnF16 "turn_f16" Turn 64,
    AttendF32 "attend_f32" Attend 128,
    AttendF16 "attend_f16" Attend 128,
    Gated "gated" Gated 256,
    Last "last" Last 1024,
    LogitsF32 "logits_f32" Logits 128,
    LogitsF16 "logits_f16" Logits 128,
    LogitsBf16 "logits_bf16" Logits 128,
    LogitsQ8_0 "logits_q8_0" Logits 128,
    Lose "lose" Lose 32,
}

/// The widest head of which each thread of attention has a pair of elements.
pub(crate) const WIDEST_HEAD: usize = 2 * Kernel::AttendF32.threads() as usize;

/// Columns of a block of `gated`.
pub(crate) const GATED_COLUMNS: u32 = Kernel::Gated.threads();

/// Rows that a block of `one` computes: two by each warp (`ROWS` in `product.cu`).
pub(crate) const ONE_ROWS: u32 = Kernel::One.threads() / 32 * 2;

/// Rows that a block of the output head computes: one by each warp.
pub(crate) const LOGITS_ROWS: u32 = Kernel::LogitsF16.threads() / 32;

/// Rows of a tile of `many` (`TILE_ROWS` in `product.cu`).
pub(crate) const TILE_ROWS: u32 = 64;

/// Tokens of a tile of `many` (`TILE_TOKENS` in `product.cu`).
pub(crate) const TILE_TOKENS: u32 = 32;

/// What kernels are told of a batch, as `shared.cu` declares it.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Batch {
    pub(crate) tokens: u32,
    pub(crate) start: u32,
    pub(crate) unused: [u32; 2],
}

/// As `quantize.cu` declares it: addresses on the device first.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Quantize {
    pub(crate) batch: u64,
    pub(crate) x: u64,
    pub(crate) weights: u64,
    pub(crate) values: u64,
    pub(crate) marks: u64,
    pub(crate) columns: u32,
    pub(crate) words: u32,
    pub(crate) eps: f32,
    pub(crate) unused: u32,
}

/// As `product.cu` declares it.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Product {
    pub(crate) batch: u64,
    pub(crate) values: u64,
    pub(crate) marks: u64,
    pub(crate) codes: u64,
    pub(crate) out: u64,
    pub(crate) rows: u32,
    pub(crate) words: u32,
    pub(crate) scale: f32,
    pub(crate) adds: u32,
}

/// As `turn.cu` declares it.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Turn {
    pub(crate) batch: u64,
    pub(crate) queries: u64,
    pub(crate) keys: u64,
    pub(crate) values: u64,
    pub(crate) kept_keys: u64,
    pub(crate) kept_values: u64,
    pub(crate) angles: u64,
    pub(crate) heads: u32,
    pub(crate) key_heads: u32,
    pub(crate) head: u32,
    pub(crate) unused: u32,
}

/// As `attend.cu` declares it.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Attend {
    pub(crate) batch: u64,
    pub(crate) queries: u64,
    pub(crate) keys: u64,
    pub(crate) values: u64,
    pub(crate) mixed: u64,
    pub(crate) heads: u32,
    pub(crate) key_heads: u32,
    pub(crate) head: u32,
    pub(crate) unused: u32,
}

/// As `gated.cu` declares it.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Gated {
    pub(crate) gate: u64,
    pub(crate) up: u64,
    pub(crate) width: u32,
    pub(crate) silu: u32,
}

/// As `head.cu` declares it.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Last {
    pub(crate) batch: u64,
    pub(crate) x: u64,
    pub(crate) weights: u64,
    pub(crate) token: u64,
    pub(crate) columns: u32,
    pub(crate) filled: u32,
    pub(crate) eps: f32,
    pub(crate) unused: u32,
}

/// As `head.cu` declares it.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Logits {
    pub(crate) weights: u64,
    pub(crate) token: u64,
    pub(crate) out: u64,
    pub(crate) rows: u32,
    pub(crate) chunks: u32,
    pub(crate) used: u32,
    pub(crate) unused: u32,
}

/// As `lose.cu` declares it.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Lose {
    pub(crate) unused: u64,
}

/// Compiles [`SOURCE`] for a compute capability (86 for 8.6), with products and sums rounded one after the other: to machine code where NVRTC knows
/// the capability, else to PTX for the newest that it knows below it, which the driver translates.
///
/// # Errors
/// No NVRTC, or one that knows nothing as old; `name` is whose message it is.
pub fn compile(name: &str, capability: u32) -> Result<Vec<u8>, GpuError> {
    let refused = |reason: String| GpuError::Compiler { name: name.to_owned(), reason };
    let compiler = Compiler::load().map_err(refused)?;
    let known = compiler.capabilities();
    let (major, minor) = compiler.version();
    let architecture = architecture(&known, capability)
        .ok_or_else(|| refused(format!("NVRTC {major}.{minor} knows no compute capability of {}.{}", capability / 10, capability % 10)))?;
    let options = [format!("--gpu-architecture={architecture}"), "--fmad=false".to_owned(), "--std=c++14".to_owned()];
    compiler.compile(SOURCE, &options).map_err(|said| refused(format!("NVRTC {major}.{minor}: {said}")))
}

/// The architecture by NVRTC's names that serves a capability.
fn architecture(known: &[u32], capability: u32) -> Option<String> {
    if known.contains(&capability) {
        return Some(format!("sm_{capability}"));
    }
    known.iter().filter(|&&known| known < capability).max().map(|known| format!("compute_{known}"))
}

#[cfg(test)]
mod tests;
