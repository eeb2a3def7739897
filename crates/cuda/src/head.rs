//! The output head on a GPU: the logits of one token.

use crate::error::GpuError;
use crate::kernel::{Kernel, LOGITS_ROWS, Last, Logits};
use crate::linear::Pass;
use crate::memory::{ALIGNMENT, Part};
use bitnet::Weights;
use kernels::{CHUNK, DenseType};
use workspace::Workspace;

/// Bytes of weights that are made ready for the device at a time.
const STAGED: usize = 16 << 20;

const _: () = assert!(CHUNK as u64 == workspace::CHUNK);

/// The table that logits come from in a device's memory.
///
/// Logits are sums of floats in another order than the CPU's; with weights in `q8_0` the token stays in floats, which the CPU takes in 16 bits.
#[derive(Debug)]
pub(crate) struct Head {
    table: Part,
    norm: Part,
    /// The token after the norm, and logits, where they are computed.
    regions: Workspace,
    kernel: Kernel,
    rows: u32,
    columns: u32,
    /// Chunks of a row, and how many of them are weights.
    chunks: u32,
    used: u32,
    eps: f32,
}

impl Head {
    /// Copies the head of a model to a place for as many bytes as [`workspace::Head::weights`] says.
    ///
    /// # Errors
    /// More than kernels count, a device that is lost.
    pub(crate) fn at(place: &Part, weights: &Weights, shape: workspace::Head) -> Result<Self, GpuError> {
        let head = weights.head();
        let size = || GpuError::Size(format!("an output head of {} rows and {} columns", head.rows(), head.columns()));
        let parts = shape.weights(ALIGNMENT).ok_or_else(size)?;
        let part = |name| parts.region(name).map(|region| place.region(region)).ok_or_else(size);
        let (table, norm, regions) = (part("head")?, part("output_norm")?, shape.compute(ALIGNMENT).ok_or_else(size)?);
        let (row, (chunks, used)) = (head.chunked_row(), head.chunks());
        let count = |number: usize| u32::try_from(number).map_err(|_| size());
        let (rows, columns, chunks, used) = (count(head.rows())?, count(head.columns())?, count(chunks)?, count(used)?);
        let some = (STAGED / row).max(1);
        for first in (0..head.rows()).step_by(some) {
            table.behind((first * row) as u64).write(&head.chunked(first, some.min(head.rows() - first)))?;
        }
        norm.write(bytemuck::cast_slice(weights.output_norm()))?;
        let kernel = match head.ty() {
            DenseType::F32 => Kernel::LogitsF32,
            DenseType::F16 => Kernel::LogitsF16,
            DenseType::Bf16 => Kernel::LogitsBf16,
            DenseType::Q8_0 => Kernel::LogitsQ8_0,
        };
        let eps = weights.config().rms_eps;
        Ok(Self { table, norm, regions, kernel, rows, columns, chunks, used, eps })
    }

    /// From the last token's stream in an arena to its logits, which are copied; `place` is for as many bytes as [`workspace::Head::compute`]
    /// says.
    ///
    /// # Errors
    /// A device that is lost.
    pub(crate) fn tell(&self, pass: &Pass<'_>, place: &Part, to: &mut [f32]) -> Result<(), GpuError> {
        let missing = || GpuError::Size("an output head without a place for logits".to_owned());
        let region = |name| self.regions.region(name).ok_or_else(missing);
        let (token, logits) = (region("token")?, region("logits")?);
        let last = Last {
            batch: pass.arena.at("batch")?,
            x: pass.arena.at("stream")?,
            weights: self.norm.at(),
            token: place.region(token).at(),
            columns: self.columns,
            filled: (token.bytes / 4) as u32,
            eps: self.eps,
            unused: 0,
        };
        pass.gpu.launch(Kernel::Last, (1, 1), &last)?;
        let out = place.region(logits);
        let of = Logits {
            weights: self.table.at(),
            token: last.token,
            out: out.at(),
            rows: self.rows,
            chunks: self.chunks,
            used: self.used,
            unused: 0,
        };
        pass.gpu.launch(self.kernel, (self.rows.div_ceil(LOGITS_ROWS), 1), &of)?;
        out.read(bytemuck::cast_slice_mut(to))
    }

    /// Logits that it computes.
    pub(crate) fn n_vocab(&self) -> usize {
        self.rows as usize
    }
}
