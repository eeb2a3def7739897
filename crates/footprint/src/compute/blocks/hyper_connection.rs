//! Hyper-connections (DeepSeek V4): the stream is several copies side by side, `[width, copies, tokens]`. A block reads a
//! mixture of them and writes to each, by weights that it learns from all of them (src/models/deepseek4.cpp:218-460).

use super::super::builder::{Builder, Missing};
use super::super::fusions::Fusion;
use super::super::tensor::{Extents, Id, Memory, Op};
use super::super::weights::Part;
use spec::QuantType;

/// What a file states beyond it is no model: the engine has operations for four (ggml.c:6466-6600).
const MAX_COPIES: u64 = 16;

/// The tensors of one block's connection.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Connection {
    function: Part,
    scale: Part,
    base: Part,
}

impl Connection {
    pub(in super::super) const ATTENTION: Self = Self { function: Part::HcAttnFn, scale: Part::HcAttnScale, base: Part::HcAttnBase };
    pub(in super::super) const FEED_FORWARD: Self = Self { function: Part::HcFfnFn, scale: Part::HcFfnScale, base: Part::HcFfnBase };
    const HEAD: Self = Self { function: Part::OutputHcFn, scale: Part::OutputHcScale, base: Part::OutputHcBase };
}

/// How a block's output joins the copies.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Joint {
    copies: Id,
    /// What of the output each copy takes, `[copies, tokens]`.
    written: Id,
    /// What of each copy every copy takes, `[copies, copies, tokens]`.
    mixed: Id,
}

impl Joint {
    /// Has everything computed before what comes next.
    pub(in super::super) fn expand(&self, b: &mut Builder<'_>) {
        for id in [self.copies, self.written, self.mixed] {
            b.graph.expand(id);
        }
    }
}

/// Equal copies of the embeddings, as many as the file states.
pub(in super::super) fn spread(b: &mut Builder<'_>, x: Id) -> Result<Id, Missing> {
    let n = b.model.arch_uint("hyper_connection.count").filter(|&n| (1..=MAX_COPIES).contains(&n));
    let n = n.ok_or(Missing { layer: None, part: Connection::HEAD.function })?;
    let [width, n_tokens, ..] = b.graph.ne(x);
    let x = b.graph.reshape(x, [width, 1, n_tokens, 1]);
    Ok(b.graph.repeat(x, [width, n, n_tokens, 1]))
}

/// What the output norm reads, of the rows wanted.
pub(in super::super) fn merge(b: &mut Builder<'_>, copies: Id, outputs: Id) -> Result<Id, Missing> {
    let [width, n, n_tokens, _] = b.graph.ne(copies);
    let rows = b.graph.reshape(copies, [width.saturating_mul(n), n_tokens, 1, 1]);
    let rows = b.graph.get_rows(rows, outputs);
    let n_outputs = b.graph.ne(rows)[1];
    let copies = b.graph.reshape(rows, [width, n, n_outputs, 1]);
    let logits = logits(b, None, Connection::HEAD, copies)?;
    let [scale, base] = [b.weight(None, Connection::HEAD.scale)?, b.weight(None, Connection::HEAD.base)?];
    let weights = gates(b, logits, scale, base);
    Ok(mixture(b, copies, weights))
}

/// What one block reads, and how its output joins the copies.
pub(in super::super) fn before(b: &mut Builder<'_>, layer: usize, connection: Connection, copies: Id) -> Result<(Id, Joint), Missing> {
    let here = Some(layer);
    let n = b.graph.ne(copies)[1];
    let logits = logits(b, here, connection, copies)?;
    let [scale, base] = [b.weight(here, connection.scale)?, b.weight(here, connection.base)?];
    let [read, written] = [(); 2].map(|()| {
        let ([_, n_tokens, ..], row) = (b.graph.ne(logits), b.graph.tensor(logits).nb[1]);
        let part = b.graph.view_2d(logits, n, n_tokens, row);
        let [scale, base] = [b.graph.view_1d(scale, 1), b.graph.view_1d(base, n)];
        gates(b, part, scale, base)
    });
    let mixed = mixing(b, layer, n, [logits, scale, base]);
    let x = if b.options.fusions.has(Fusion::StreamsRead) {
        let [width, _, n_tokens, _] = b.graph.ne(copies);
        fused(b, Fusion::StreamsRead, layer, [width, n_tokens, 1, 1], &[copies, read])
    } else {
        mixture(b, copies, read)
    };
    Ok((x, Joint { copies, written, mixed }))
}

/// The copies with a block's output written to them.
pub(in super::super) fn after(b: &mut Builder<'_>, layer: usize, joint: Joint, y: Id) -> Id {
    let Joint { copies, written, mixed } = joint;
    let ne @ [width, n, n_tokens, _] = b.graph.ne(copies);
    if b.options.fusions.has(Fusion::StreamsWritten) {
        return fused(b, Fusion::StreamsWritten, layer, ne, &[y, copies, written, mixed]);
    }
    let rows = [copies, written, mixed].map(|id| b.graph.tensor(id).nb);
    let mut all = None;
    for _ in 0..n {
        let share = b.graph.view_2d(written, 1, n_tokens, rows[1][1]);
        let mut copy = b.graph.mul(y, share);
        for _ in 0..n {
            let other = b.graph.view_2d(copies, width, n_tokens, rows[0][2]);
            let share = b.graph.view_2d(mixed, 1, n_tokens, rows[2][2]);
            let other = b.graph.mul(other, share);
            copy = b.graph.add(copy, other);
        }
        let copy = b.graph.reshape(copy, [width, 1, n_tokens, 1]);
        all = Some(all.map_or(copy, |all| b.graph.concat_along(1, all, copy)));
    }
    all.unwrap_or(copies)
}

fn fused(b: &mut Builder<'_>, fusion: Fusion, layer: usize, ne: Extents, sources: &[Id]) -> Id {
    let id = b.graph.hyper_connection(ne, sources);
    b.fused.push((fusion, layer, id));
    id
}

/// One row per token that all weights are made of.
fn logits(b: &mut Builder<'_>, layer: Option<usize>, connection: Connection, copies: Id) -> Result<Id, Missing> {
    let [width, n, n_tokens, _] = b.graph.ne(copies);
    let flat = b.graph.reshape(copies, [width.saturating_mul(n), n_tokens, 1, 1]);
    let normed = b.graph.like(Op::RmsNorm, &[flat]);
    let function = b.weight(layer, connection.function)?;
    Ok(b.graph.mul_mat(function, normed))
}

fn affine(b: &mut Builder<'_>, x: Id, scale: Id, base: Id) -> Id {
    let x = b.graph.mul(x, scale);
    b.graph.add(x, base)
}

fn gates(b: &mut Builder<'_>, x: Id, scale: Id, base: Id) -> Id {
    let x = affine(b, x, scale, base);
    let x = b.graph.unary(x);
    b.graph.scale(x)
}

/// The sum of all copies by their weights, `[copies, tokens]`.
fn mixture(b: &mut Builder<'_>, copies: Id, weights: Id) -> Id {
    let [width, n, n_tokens, _] = b.graph.ne(copies);
    let (plane, row) = (b.graph.tensor(copies).nb[2], b.graph.tensor(weights).nb[1]);
    let mut sum = None;
    for _ in 0..n {
        let copy = b.graph.view_2d(copies, width, n_tokens, plane);
        let weight = b.graph.view_2d(weights, 1, n_tokens, row);
        let copy = b.graph.mul(copy, weight);
        sum = Some(sum.map_or(copy, |sum| b.graph.add(sum, copy)));
    }
    sum.unwrap_or(copies)
}

/// Weights from copy to copy whose rows and columns sum up to one: they are divided by their sums in turn (Sinkhorn).
fn mixing(b: &mut Builder<'_>, layer: usize, n: u64, [logits, scale, base]: [Id; 3]) -> Id {
    let ([_, n_tokens, ..], row) = (b.graph.ne(logits), b.graph.tensor(logits).nb[1]);
    if b.options.fusions.has(Fusion::StreamsMixed) {
        return fused(b, Fusion::StreamsMixed, layer, [n, n, n_tokens, 1], &[logits, scale, base]);
    }
    let square = n.saturating_mul(n);
    let [scale, base] = [b.graph.view_1d(scale, 1), b.graph.view_1d(base, square)];
    let part = b.graph.view_2d(logits, square, n_tokens, row);
    let weights = affine(b, part, scale, base);
    let weights = b.graph.reshape(weights, [n, n, n_tokens, 1]);
    let weights = b.graph.like(Op::SoftMax, &[weights]);
    let epsilon = b.graph.placed(QuantType::F32, [1; 4], Memory::Compute);
    let epsilon = b.graph.fill(epsilon);
    let weights = b.graph.add(weights, epsilon);
    let mut weights = by_columns(b, weights, epsilon);
    for _ in 1..iterations(b) {
        let sums = b.graph.sum_rows(weights);
        let sums = b.graph.add(sums, epsilon);
        weights = b.graph.like(Op::Div, &[weights, sums]);
        weights = by_columns(b, weights, epsilon);
    }
    weights
}

fn by_columns(b: &mut Builder<'_>, weights: Id, epsilon: Id) -> Id {
    let columns = b.graph.permute(weights, [1, 0, 2, 3]);
    let columns = b.graph.cont(columns);
    let sums = b.graph.sum_rows(columns);
    let sums = b.graph.add(sums, epsilon);
    let sums = b.graph.permute(sums, [1, 0, 2, 3]);
    b.graph.like(Op::Div, &[weights, sums])
}

/// As the file states; what no graph could hold is cut off.
fn iterations(b: &Builder<'_>) -> u64 {
    b.model.arch_uint("hyper_connection.sinkhorn_iterations").unwrap_or(1).min(1 << 10)
}
