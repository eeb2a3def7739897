//! A linear layer: packed weights times quantised tokens.

use crate::activation::Activations;
use crate::kernel::{Functions, Kernel, Panel, ROW_PANEL, ROWS, Sums, TOKENS};
use crate::layout::BLOCK_BYTES;
use crate::matrix::TernaryMatrix;
use crate::pool::{ColumnsMut, Pool};
use crate::simd::expect;

/// Tokens that are multiplied with a panel of rows at a time: with it, they stay near.
const TOKEN_PANEL: usize = 16;
/// Tokens that share what a [`Panel`] unpacks: their sums take 32 KiB.
const TOKEN_SPAN: usize = 128;

/// `y = s · a⁻¹ · Σ w·q`: ternary weights with their scale `s` times tokens in 8 bits with theirs (W1.58A8, arXiv 2402.17764; rounding as
/// transformers 5.23.0 `integrations/bitnet.py`).
///
/// ```
/// use kernels::{Activations, Kernel, Pool, QuantizedLinear, TernaryMatrix};
/// let weights = TernaryMatrix::from_codes(2, 3, 0.5, |row, column| if row == column { 2 } else { 1 })?;
/// let layer = QuantizedLinear::new(weights, Kernel::best());
/// let mut activations = Activations::with_room(1, 3);
/// activations.quantize(&[127.0, -64.0, 3.0], 3);
/// let mut y = [0.0; 2];
/// layer.forward(&activations, &mut Pool::new(1)?, &mut y);
/// assert_eq!(y, [63.5, -32.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct QuantizedLinear {
    weights: TernaryMatrix,
    kernel: Kernel,
}

impl QuantizedLinear {
    /// With the kernel that it computes with.
    pub fn new(weights: TernaryMatrix, kernel: Kernel) -> Self {
        Self { weights, kernel }
    }

    /// The weights.
    pub fn weights(&self) -> &TernaryMatrix {
        &self.weights
    }

    /// All tokens of `activations`: `out` holds `tokens × rows` floats, token by token. Allocates nothing.
    ///
    /// # Panics
    /// Activations of another width, or `out` of another length: the caller's sizes are wrong.
    pub fn forward(&self, activations: &Activations, pool: &mut Pool, out: &mut [f32]) {
        Self::forward_each([(self, out)], activations, pool, |_| ());
    }

    /// Adds to `out` what [`QuantizedLinear::forward`] writes.
    ///
    /// # Panics
    /// As there.
    pub fn forward_add(&self, activations: &Activations, pool: &mut Pool, out: &mut [f32]) {
        let table = self.table(activations, out);
        let step = step(table.1, activations.tokens(), pool.threads());
        pool.split_columns([table], step, |[out]| self.multiply(activations, out, |out, y| *out += y));
    }

    /// Several layers of the same tokens at once. `then` is called with what was written, columns of each output, once or more by each thread.
    ///
    /// # Panics
    /// As for one.
    pub fn forward_each<const N: usize>(
        layers: [(&Self, &mut [f32]); N],
        activations: &Activations,
        pool: &mut Pool,
        then: impl Fn(&mut [ColumnsMut<'_>; N]) + Sync,
    ) {
        let linear = layers.each_ref().map(|(layer, _)| *layer);
        let tables = layers.map(|(layer, out)| layer.table(activations, out));
        let widest = tables.iter().map(|(_, rows)| *rows).max().unwrap_or(0);
        pool.split_columns(tables, step(widest, activations.tokens(), pool.threads()), |out| {
            linear.iter().zip(out.iter_mut()).for_each(|(layer, out)| layer.multiply(activations, out, |out, y| *out = y));
            then(out);
        });
    }

    /// `out` with the width of its rows.
    fn table<'o>(&self, activations: &Activations, out: &'o mut [f32]) -> (&'o mut [f32], usize) {
        let rows = self.weights.rows();
        assert!(activations.columns() == self.weights.columns(), "activations of another width");
        assert!(out.len() == activations.tokens() * rows, "an output of another length");
        (out, rows)
    }

    /// One token: each weight is read once, and memory sets the pace.
    fn multiply_one(&self, activations: &Activations, first: usize, out: &mut [f32], put: impl Fn(&mut f32, f32)) {
        let (values, sum) = (activations.values(0, 1), activations.sum(0));
        let scale = activations.scale(0) * self.weights.scale();
        let tiles = out.len().div_ceil(ROWS);
        for tile in 0..tiles {
            let rows = distant(out.len(), tile);
            let products = (self.kernel.functions().tall)(rows.map(|row| self.weights.packed(first + row, 1)), [values]);
            for (row, [product]) in (tile..).step_by(tiles).zip(products) {
                // Beyond the end stands the last row again, which is put once.
                if let Some(out) = out.get_mut(row) {
                    put(out, (product - sum) as f32 * scale);
                }
            }
        }
    }

    /// The rows of `out`, for all tokens.
    fn multiply(&self, activations: &Activations, out: &mut ColumnsMut<'_>, put: impl Fn(&mut f32, f32)) {
        match (activations.tokens(), self.kernel.functions().panel) {
            (1, _) => self.multiply_one(activations, out.first(), out.row(0), put),
            (tokens, Some(panel)) if tokens >= panel.fewest => self.multiply_panels(panel, activations, out, put),
            _ => self.multiply_tiles(activations, out, put),
        }
    }

    /// The panel from `row` on, of less rows or none at the end of the matrix: also beyond what one thread has taken, for another core finds
    /// in a shared cache what this one has asked for.
    fn panel(&self, row: usize) -> &[u8] {
        self.weights.packed(row, ROW_PANEL.min(self.weights.rows() - row))
    }

    /// The same by panels, whose sums are of all their rows at once.
    fn multiply_panels(&self, panel: Panel, activations: &Activations, out: &mut ColumnsMut<'_>, put: impl Fn(&mut f32, f32)) {
        let (first, count, tokens) = (out.first(), out.width(), activations.tokens());
        // As long as each other, so that none has fewer tokens than a panel takes.
        let spans = tokens.div_ceil(TOKEN_SPAN);
        let begin = |span: usize| tokens * span / spans;
        let mut sums = [Sums::ZERO; TOKEN_SPAN];
        for row in (0..count).step_by(ROW_PANEL) {
            let rows = ROW_PANEL.min(count - row);
            let codes = self.weights.packed(first + row, rows);
            let mut next = self.panel(first + row + rows);
            for tokens in (0..spans).map(|span| begin(span)..begin(span + 1)) {
                let sums = &mut sums[..tokens.len()];
                (panel.multiply)(codes, std::mem::take(&mut next), activations.values(tokens.start, tokens.len()), sums);
                for (token, Sums(products)) in tokens.zip(sums) {
                    let (sum, scale) = (activations.sum(token), activations.scale(token) * self.weights.scale());
                    for (out, product) in out.row(token)[row..][..rows].iter_mut().zip(products) {
                        put(out, (*product - sum) as f32 * scale);
                    }
                }
            }
        }
    }

    /// The same by tiles in registers.
    fn multiply_tiles(&self, activations: &Activations, out: &mut ColumnsMut<'_>, put: impl Fn(&mut f32, f32)) {
        let (first, count) = (out.first(), out.width());
        for row in (0..count).step_by(ROW_PANEL) {
            let rows = ROW_PANEL.min(count - row);
            let codes = self.weights.packed(first + row, rows);
            let mut next = self.panel(first + row + rows);
            for tokens in (0..activations.tokens()).step_by(TOKEN_PANEL) {
                let tokens = tokens..activations.tokens().min(tokens + TOKEN_PANEL);
                let mut sums = [0; ROW_PANEL * TOKEN_PANEL];
                let sums = &mut sums[..rows * tokens.len()];
                let values = activations.values(tokens.start, tokens.len());
                products(self.kernel.functions(), codes, std::mem::take(&mut next), values, rows, sums);
                for (place, token) in tokens.clone().enumerate() {
                    let (sum, scale) = (activations.sum(token), activations.scale(token) * self.weights.scale());
                    // Codes are weights plus one: what the ones add is the sum of the values.
                    let sums = sums[place..].iter().step_by(tokens.len());
                    for (out, product) in out.row(token)[row..].iter_mut().zip(sums) {
                        put(out, (product - sum) as f32 * scale);
                    }
                }
            }
        }
    }
}

/// Rows that threads take together: whole panels for several tokens where there are enough of them for all threads, else less.
fn step(rows: usize, tokens: usize, threads: usize) -> usize {
    /// Panels per thread that are enough.
    const ENOUGH: usize = 4;
    let mut step = if tokens == 1 { ROWS } else { ROW_PANEL };
    while step > ROWS && rows / step < ENOUGH * threads {
        step /= 2;
    }
    step
}

/// Rows of a tile that are read from as many distant places of `rows`: memory serves several streams faster than one. Tile `i`
/// of `rows.div_ceil(ROWS)` has the rows `i`, `i + tiles`, ...; those beyond the end are the last one once more.
pub(crate) fn distant(rows: usize, tile: usize) -> [usize; ROWS] {
    let tiles = rows.div_ceil(ROWS);
    std::array::from_fn(|place| (place * tiles + tile).min(rows - 1))
}

/// `sums[row × tokens + token] = Σ code · value` of all rows and tokens. On the way the codes that are `next` are asked for: weights come from
/// memory once, while others are multiplied.
fn products(functions: &Functions, codes: &[u8], next: &[u8], values: &[i8], rows: usize, sums: &mut [i32]) {
    let bytes = codes.len() / rows;
    let tokens = sums.len() / rows;
    let row = |r: usize| &codes[r * bytes..][..bytes];
    let token = |t: usize| &values[t * 4 * bytes..][..4 * bytes];
    let (tall, wide) = (rows - rows % ROWS, tokens - tokens % TOKENS);
    debug_assert!(bytes.is_multiple_of(BLOCK_BYTES));
    for r in (0..tall).step_by(ROWS) {
        expect(next.get(r * bytes..next.len().min((r + ROWS) * bytes)).unwrap_or_default());
        let codes: [&[u8]; ROWS] = std::array::from_fn(|i| row(r + i));
        for t in (0..wide).step_by(TOKENS) {
            let tile = (functions.wide)(codes, std::array::from_fn(|i| token(t + i)));
            for (i, part) in tile.iter().enumerate() {
                if let Some(sums) = sums[(r + i) * tokens + t..].first_chunk_mut() {
                    *sums = *part;
                }
            }
        }
        for t in wide..tokens {
            for (i, [sum]) in (functions.tall)(codes, [token(t)]).into_iter().enumerate() {
                sums[(r + i) * tokens + t] = sum;
            }
        }
    }
    for r in tall..rows {
        for t in 0..tokens {
            let [[sum]] = (functions.one)([row(r)], [token(t)]);
            sums[r * tokens + t] = sum;
        }
    }
}
