//! Keys and values of past tokens: how they are written, and seen as heads (`cpy_k`, `cpy_v`, `get_k`, `get_v` in
//! llama-kv-cache.cpp:1296-1500).

use super::super::builder::Builder;
use super::super::tensor::Id;
use spec::QuantType;

/// Side of the rotation of a quantised cache: 64, and for keys the largest power of two that divides the head
/// (llama-kv-cache.cpp:313-358). None where heads differ in width or are no multiple of 64.
pub(super) fn rotation(ty: QuantType, mut head_dims: impl Iterator<Item = u32>, largest: bool) -> Option<u64> {
    let first = head_dims.next()?;
    if !ty.is_quantized() || first == 0 || !first.is_multiple_of(64) || head_dims.any(|dim| dim != first) {
        return None;
    }
    Some(if largest { 1 << first.trailing_zeros() } else { 64 })
}

/// A product with a small rotation, row block by row block (`llama_mul_mat_hadamard`).
pub(super) fn hadamard(b: &mut Builder<'_>, x: Id, rotation: Id) -> Id {
    let n = b.graph.ne(rotation)[0].max(1);
    let (ne, rows) = (b.graph.ne(x), b.graph.tensor(x).elements() / n);
    let blocks = [n, rows, 1, 1];
    let x = if b.graph.tensor(x).is_contiguous() { b.graph.reshape(x, blocks) } else { b.graph.cont_as(x, blocks) };
    let y = b.graph.mul_mat(rotation, x);
    b.graph.reshape(y, ne)
}

/// Writes one row per token into a cache.
pub(super) fn store(b: &mut Builder<'_>, cache: Id, x: Id, slots: Id) {
    let (ne, row) = (b.graph.ne(x), b.graph.tensor(x).nb[2]);
    let width = ne[0].saturating_mul(ne[1]);
    if !b.options.rules.indexed_store {
        let target = b.graph.view_1d(cache, width.saturating_mul(ne[2]));
        let stored = b.graph.copy_into(x, target);
        b.graph.expand(stored);
        return;
    }
    let x = b.graph.view_2d(x, width, ne[2], row);
    let [_, cells, n_stream, _] = b.graph.ne(cache);
    let cache = if n_stream > 1 { b.graph.reshape(cache, [width, cells.saturating_mul(n_stream), 1, 1]) } else { cache };
    let stored = b.graph.set_rows(cache, x, slots);
    b.graph.expand(stored);
}

/// Writes values into a transposed cache, one element per row.
pub(super) fn store_transposed(b: &mut Builder<'_>, cache: Id, x: Id, slots: Id) {
    let (ne, row) = (b.graph.ne(x), b.graph.tensor(x).nb[2]);
    let width = ne[0].saturating_mul(ne[1]);
    let flat = [width, ne[2], 1, 1];
    let mut x = if row == width.saturating_mul(4) { b.graph.reshape(x, flat) } else { b.graph.cont_as(x, flat) };
    if !b.options.rules.indexed_store {
        let x = b.graph.transpose(x);
        let column = b.graph.tensor(cache).nb[0].saturating_mul(b.graph.ne(cache)[1]);
        let target = b.graph.view_2d(cache, ne[2], width, column);
        let stored = b.graph.copy_into(x, target);
        b.graph.expand(stored);
        return;
    }
    let cache_width = b.graph.ne(cache)[0];
    if width < cache_width {
        x = b.graph.pad_rows(x, cache_width);
    }
    let elements = b.graph.tensor(cache).elements();
    let column = b.graph.reshape(cache, [1, elements, 1, 1]);
    let elements = b.graph.tensor(x).elements();
    let x = b.graph.reshape(x, [1, elements, 1, 1]);
    let stored = b.graph.set_rows(column, x, slots);
    b.graph.expand(stored);
}

/// The cache as heads of rows: `[dim, heads, cells, streams]`.
pub(super) fn rows_of(b: &mut Builder<'_>, cache: Id, dim: u64, heads: u64, cells: u64) -> Id {
    let tensor = b.graph.tensor(cache);
    let (ty, [_, row, stream, _], n_stream) = (tensor.ty, tensor.nb, tensor.ne[2]);
    let head = ty.row_bytes(dim).map_or(row / heads.max(1), |bytes| bytes.get());
    b.graph.view(cache, [dim, heads, cells, n_stream], [head, row, stream])
}

/// The transposed cache: `[cells, heads, dim, streams]`.
pub(super) fn columns_of(b: &mut Builder<'_>, cache: Id, dim: u64, heads: u64, cells: u64) -> Id {
    let tensor = b.graph.tensor(cache);
    let (element, stream, n_stream) = (tensor.nb[0], tensor.nb[2], tensor.ne[2]);
    let column = element.saturating_mul(cells);
    b.graph.view(cache, [cells, heads, dim, n_stream], [column.saturating_mul(dim), column, stream])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_follow_the_head() {
        let of = |ty, dims: &[u32], largest| rotation(ty, dims.iter().copied(), largest);
        assert_eq!(of(QuantType::Q8_0, &[128, 128], true), Some(128));
        assert_eq!(of(QuantType::Q8_0, &[192], true), Some(64));
        assert_eq!(of(QuantType::Q8_0, &[128], false), Some(64));
        assert_eq!(of(QuantType::F16, &[128], true), None);
        assert_eq!(of(QuantType::Q8_0, &[80], true), None);
        assert_eq!(of(QuantType::Q8_0, &[128, 64], true), None);
        assert_eq!(of(QuantType::Q8_0, &[], true), None);
    }
}
