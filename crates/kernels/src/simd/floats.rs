//! Functions over slices of floats, written once in lanes and compiled once per instruction set. Products and sums are rounded one after
//! the other, never fused, so each has one result, whatever computes it.

use crate::dense::{LANES, total};
use crate::kernel::Q8;
use half::f16;

/// Values, weights, factor, a, and integers out.
type Quantize = fn(&[f32], &[f32], f32, f32, &mut [i8]) -> i32;
/// First and second places, cosines, sines.
type Rotate = fn(&mut [f32], &mut [f32], &[f32], &[f32]);

/// What is compiled for an instruction set.
#[derive(Debug)]
pub(crate) struct Floats {
    pub(crate) square_sum: fn(&[f32]) -> f32,
    pub(crate) normalize: fn(&[f32], &[f32], f32, &mut [f32]),
    pub(crate) largest: fn(&[f32], &[f32], f32) -> f32,
    pub(crate) quantize: Quantize,
    pub(crate) scores: fn(&[f32], &[f32], usize, f32, &mut [f32]),
    pub(crate) add_weighted: fn(&[f32], &[f32], usize, &mut [f32]),
    pub(crate) maximum: fn(&[f32]) -> f32,
    pub(crate) exponentials: fn(&mut [f32], f32) -> f32,
    pub(crate) widen_q8_0: fn(&[Q8], &mut [f32]),
    pub(crate) relu2_times: fn(&mut [f32], &[f32]),
    pub(crate) silu_times: fn(&mut [f32], &[f32]),
    pub(crate) rotate: Rotate,
}

/// A table of these functions, compiled for the features that stand in brackets, behind functions that anyone can call. `$detected` is
/// the function that hands the table out, and only where the processor has the features.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_macros, reason = "NEON is what other processors compile for anyway"))]
macro_rules! compiled {
    ($features:literal) => {
        $crate::simd::floats::compiled! { $features,
            normalize(x: &[f32], weight: &[f32], factor: f32, out: &mut [f32]) -> ();
            largest(x: &[f32], weight: &[f32], factor: f32) -> f32;
            quantize(x: &[f32], weight: &[f32], factor: f32, a: f32, out: &mut [i8]) -> i32;
            maximum(x: &[f32]) -> f32;
            exponentials(x: &mut [f32], largest: f32) -> f32;
            widen_q8_0(blocks: &[crate::kernel::Q8], out: &mut [f32]) -> ();
            relu2_times(gate: &mut [f32], up: &[f32]) -> ();
            silu_times(gate: &mut [f32], up: &[f32]) -> ();
            rotate(first: &mut [f32], second: &mut [f32], cos: &[f32], sin: &[f32]) -> ();
        }
    };
    ($features:literal, $($name:ident($($argument:ident: $ty:ty),*) -> $result:ty;)*) => {
        mod compiled {
            #![allow(clippy::too_many_arguments, reason = "those of what is compiled")]
            $(#[target_feature(enable = $features)]
            #[allow(clippy::unused_unit, reason = "some return nothing")]
            fn $name($($argument: $ty),*) -> $result {
                crate::simd::floats::$name($($argument),*)
            })*
            #[target_feature(enable = $features)]
            fn square_sum(x: &[f32]) -> f32 {
                crate::simd::floats::square_sum(x, |a, b| super::lane_products(a, b))
            }
            #[target_feature(enable = $features)]
            fn scores(queries: &[f32], rows: &[f32], width: usize, scale: f32, out: &mut [f32]) {
                crate::simd::floats::scores(
                    (queries, rows, width, scale, out),
                    |queries, rows| super::dots_floats::<4, 4>(queries, rows),
                    |queries, rows| super::dots_floats::<2, 8>(queries, rows),
                    |queries, rows| super::dots_floats::<1, 16>(queries, rows),
                );
            }
            #[target_feature(enable = $features)]
            fn add_weighted(weights: &[f32], rows: &[f32], width: usize, out: &mut [f32]) {
                crate::simd::floats::add_weighted(
                    (weights, rows, width, out),
                    |weights, rows, from, out| super::some_columns::<4, { super::COLUMNS[0] }>(weights, rows, from, out),
                    |weights, rows, from, out| super::some_columns::<2, { super::COLUMNS[1] }>(weights, rows, from, out),
                    |weights, rows, from, out| super::some_columns::<1, { super::COLUMNS[2] }>(weights, rows, from, out),
                );
            }
            pub(in crate::simd) static FLOATS: crate::simd::floats::Floats = crate::simd::floats::Floats {
                // SAFETY: the table leaves its module only with functions that `detected` hands out, which has found the features.
                $($name: |$($argument),*| unsafe { $name($($argument),*) },)*
                // SAFETY: as above.
                square_sum: |x| unsafe { square_sum(x) },
                // SAFETY: as above.
                scores: |queries, rows, width, scale, out| unsafe { scores(queries, rows, width, scale, out) },
                // SAFETY: as above.
                add_weighted: |weights, rows, width, out| unsafe { add_weighted(weights, rows, width, out) },
            };
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use compiled;

/// Compiled for every processor of the architecture.
pub(crate) static FLOATS: Floats = Floats {
    square_sum: |x| square_sum(x, lane_products),
    normalize,
    largest,
    quantize,
    scores: |queries, rows, width, scale, out| scores((queries, rows, width, scale, out), dots::<4, 4>, dots::<2, 8>, dots::<1, 16>),
    add_weighted: |weights, rows, width, out| {
        add_weighted((weights, rows, width, out), add_columns::<4, 16>, add_columns::<2, 32>, add_columns::<1, 64>);
    },
    maximum,
    exponentials,
    widen_q8_0,
    relu2_times,
    silu_times,
    rotate,
};

/// Products of lanes, summed lane by lane: what compilers do not reliably put into vectors, and each instruction set brings along.
type Lanes = [f32; LANES];

fn lane_products(a: &[Lanes], b: &[Lanes]) -> Lanes {
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        lanes.iter_mut().zip(a).zip(b).for_each(|((lane, a), b)| *lane += a * b);
    }
    lanes
}

/// Adding and taking away 1.5·2²³ rounds a float of magnitude below 2²² to a whole number, halves to even; in between, the lowest bits
/// are that number.
const ROUND: f32 = 12_582_912.0;

/// `Σ x²`: place `i` is added to lane `i mod 16`, and the lanes are then summed pairwise.
#[inline(always)]
pub(super) fn square_sum(x: &[f32], products: impl Fn(&[Lanes], &[Lanes]) -> Lanes) -> f32 {
    dot(x, x, products)
}

/// `Σ a · b` of slices as long as each other.
#[inline(always)]
fn dot(a: &[f32], b: &[f32], products: impl Fn(&[Lanes], &[Lanes]) -> Lanes) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks(), b.as_chunks());
    let mut lanes = products(a, b);
    lanes.iter_mut().zip(a_rest).zip(b_rest).for_each(|((lane, a), b)| *lane += a * b);
    total(lanes)
}

#[inline(always)]
fn normal(x: f32, weight: f32, factor: f32) -> f32 {
    weight * (x * factor)
}

/// `weight · (x · factor)`.
#[inline(always)]
pub(super) fn normalize(x: &[f32], weight: &[f32], factor: f32, out: &mut [f32]) {
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = normal(*x, *weight, factor);
    }
}

/// The largest magnitude of what [`normalize`] gives; what is no number counts as 0.
#[inline(always)]
pub(super) fn largest(x: &[f32], weight: &[f32], factor: f32) -> f32 {
    let ((chunks, rest), (weights, weight_rest)) = (x.as_chunks::<LANES>(), weight.as_chunks::<LANES>());
    let mut lanes = [0.0_f32; LANES];
    let larger = |lane: &mut f32, x: f32| *lane = if x.abs() > *lane { x.abs() } else { *lane };
    for (chunk, weights) in chunks.iter().zip(weights) {
        for ((lane, x), weight) in lanes.iter_mut().zip(chunk).zip(weights) {
            larger(lane, normal(*x, *weight, factor));
        }
    }
    for ((lane, x), weight) in lanes.iter_mut().zip(rest).zip(weight_rest) {
        larger(lane, normal(*x, *weight, factor));
    }
    lanes.into_iter().fold(0.0, f32::max)
}

/// What [`normalize`] gives, times `a`, rounded to 8 bits with halves to even; the sum of these integers. What is no number becomes 0.
#[inline(always)]
pub(super) fn quantize(x: &[f32], weight: &[f32], factor: f32, a: f32, out: &mut [i8]) -> i32 {
    let mut sum = 0_i32;
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = rounded(normal(*x, *weight, factor) * a);
        sum = sum.wrapping_add(i32::from(*out));
    }
    sum
}

/// Integer between −128 and 127 nearest to `x`.
#[inline(always)]
pub(crate) fn rounded(x: f32) -> i8 {
    let x = if x > 127.0 { 127.0 } else { x };
    let x = if x < -128.0 { -128.0 } else { x };
    let x = if x.is_nan() { 0.0 } else { x };
    (x + ROUND).to_bits() as i8
}

/// Products of some queries with some rows, summed as in [`square_sum`]: all slices are as long as each other.
fn dots<const Q: usize, const R: usize>(queries: [&[f32]; Q], rows: [&[f32]; R]) -> [[f32; R]; Q] {
    queries.map(|query| rows.map(|row| dot(query, row, lane_products)))
}

/// Queries, rows, the width of both, scale, and a score per query and row.
type Scores<'a> = (&'a [f32], &'a [f32], usize, f32, &'a mut [f32]);

/// `out[q][i] = scale · Σ query q · row i`, summed as in [`square_sum`]: sixteen sums at a time, which do not wait for each other, of as
/// many queries as there are, so that a row is loaded for several.
#[inline(always)]
pub(super) fn scores(
    (queries, rows, width, scale, out): Scores<'_>,
    four: impl Fn([&[f32]; 4], [&[f32]; 4]) -> [[f32; 4]; 4],
    two: impl Fn([&[f32]; 2], [&[f32]; 8]) -> [[f32; 8]; 2],
    one: impl Fn([&[f32]; 1], [&[f32]; 16]) -> [[f32; 16]; 1],
) {
    let queries = queries.chunks_exact(width);
    let count = out.len() / queries.len().max(1);
    if count == 0 {
        return;
    }
    let mut rest = (queries, out);
    tiles_of(&mut rest, rows, (width, count, scale), four);
    tiles_of(&mut rest, rows, (width, count, scale), two);
    tiles_of(&mut rest, rows, (width, count, scale), one);
}

/// Takes queries and their scores from the front, `Q` at a time, as long as there are so many.
#[inline(always)]
fn tiles_of<const Q: usize, const R: usize>(
    (queries, out): &mut (std::slice::ChunksExact<'_, f32>, &mut [f32]),
    rows: &[f32],
    (width, count, scale): (usize, usize, f32),
    tile: impl Fn([&[f32]; Q], [&[f32]; R]) -> [[f32; R]; Q],
) {
    while queries.len() >= Q {
        let taken: [&[f32]; Q] = std::array::from_fn(|_| queries.next().unwrap_or_default());
        let (scores, rest) = std::mem::take(out).split_at_mut(Q * count);
        *out = rest;
        for first in (0..count).step_by(R) {
            // Where fewer are left, the last one is taken several times.
            let tile_rows = std::array::from_fn(|row| &rows[(first + row).min(count - 1) * width..][..width]);
            let sums = tile(taken, tile_rows);
            for (scores, sums) in scores.chunks_exact_mut(count).zip(&sums) {
                scores[first..].iter_mut().zip(sums).for_each(|(score, sum)| *score = scale * sum);
            }
        }
    }
}

/// Adds `N` columns of all rows, from `from` on, to as many of each of `Q` outputs, which are summed in registers while rows go by.
fn add_columns<const Q: usize, const N: usize>(weights: [&[f32]; Q], rows: Chunks<'_>, from: usize, mut out: [&mut [f32]; Q]) -> usize {
    if out[0].len() < from + N {
        return 0;
    }
    let mut sums = out.each_ref().map(|out| out[from..].first_chunk::<N>().copied().unwrap_or([0.0; N]));
    for (place, row) in rows.enumerate() {
        let Some(row) = row[from..].first_chunk::<N>() else { continue };
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let weight = weights[place];
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
        }
    }
    out.iter_mut().zip(sums).for_each(|(out, sums)| out[from..from + N].copy_from_slice(&sums));
    N
}

/// Rows of a width.
pub(super) type Chunks<'a> = std::iter::Take<std::slice::ChunksExact<'a, f32>>;

/// Weights, rows, the width of rows and outputs, outputs.
type Weighted<'a> = (&'a [f32], &'a [f32], usize, &'a mut [f32]);

/// `out[q] += Σ weights[q][i] · row i`, row after row; several outputs at a time, so that a row is loaded for all of them. The functions add
/// some columns from one on to all that is there, and say how many: none where fewer are left than they take.
#[inline(always)]
pub(super) fn add_weighted(
    (weights, rows, width, out): Weighted<'_>,
    four: impl Fn([&[f32]; 4], Chunks<'_>, usize, [&mut [f32]; 4]) -> usize,
    two: impl Fn([&[f32]; 2], Chunks<'_>, usize, [&mut [f32]; 2]) -> usize,
    one: impl Fn([&[f32]; 1], Chunks<'_>, usize, [&mut [f32]; 1]) -> usize,
) {
    let outputs = out.chunks_exact_mut(width);
    let count = weights.len() / outputs.len().max(1);
    if count == 0 {
        return;
    }
    assert!(rows.len() >= count * width, "fewer rows than weights");
    let mut rest = (weights.chunks_exact(count), outputs);
    let rows = rows.chunks_exact(width).take(count);
    sums_of(&mut rest, &rows, four);
    sums_of(&mut rest, &rows, two);
    sums_of(&mut rest, &rows, one);
}

/// Takes weights and outputs from the front, `Q` at a time, as long as there are so many.
#[inline(always)]
fn sums_of<const Q: usize>(
    (weights, outputs): &mut (std::slice::ChunksExact<'_, f32>, std::slice::ChunksExactMut<'_, f32>),
    rows: &Chunks<'_>,
    add: impl Fn([&[f32]; Q], Chunks<'_>, usize, [&mut [f32]; Q]) -> usize,
) {
    while outputs.len() >= Q {
        let weights: [&[f32]; Q] = std::array::from_fn(|_| weights.next().unwrap_or_default());
        let mut outputs: [&mut [f32]; Q] = std::array::from_fn(|_| outputs.next().unwrap_or_default());
        let mut from = 0;
        loop {
            let added = add(weights, rows.clone(), from, outputs.each_mut().map(|out| &mut **out));
            from += added;
            if added == 0 {
                break;
            }
        }
        for (place, row) in rows.clone().enumerate().take_while(|(_, row)| from < row.len()) {
            for (out, weights) in outputs.iter_mut().zip(weights) {
                let weight = weights[place];
                out[from..].iter_mut().zip(&row[from..]).for_each(|(out, x)| *out += weight * x);
            }
        }
    }
}

/// The largest; what is no number counts as less than any, and none is −∞.
#[inline(always)]
pub(super) fn maximum(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    let larger = |lane: &mut f32, x: f32| *lane = if x > *lane { x } else { *lane };
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| larger(lane, *x));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| larger(lane, *x));
    for width in [8, 4, 2, 1] {
        let (first, second) = lanes.split_at_mut(width);
        first.iter_mut().zip(second).for_each(|(lane, x)| larger(lane, *x));
    }
    lanes[0]
}

/// Replaces every `x` by `exp(x − largest)`; their sum, in the order of [`square_sum`].
#[inline(always)]
pub(super) fn exponentials(x: &mut [f32], largest: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let replace = |x: &mut f32, lane: &mut f32| {
        *x = exp(*x - largest);
        *lane += *x;
    };
    // Whole registers: few scores would else be left to what comes after a compiler's longer steps.
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        chunk.iter_mut().zip(&mut lanes).for_each(|(x, lane)| replace(x, lane));
    }
    rest.iter_mut().zip(&mut lanes).for_each(|(x, lane)| replace(x, lane));
    total(lanes)
}

/// Blocks of 32 integers of 8 bits with a scale in 16 bits, as floats: over the shorter of both.
#[inline(always)]
pub(crate) fn widen_q8_0(blocks: &[Q8], out: &mut [f32]) {
    let (whole, rest) = out.as_chunks_mut::<32>();
    whole.iter_mut().zip(blocks).for_each(|(out, block)| widen_block(block, out));
    blocks.get(whole.len()).into_iter().for_each(|block| widen_block(block, rest));
}

#[inline(always)]
fn widen_block(block: &Q8, out: &mut [f32]) {
    let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
    out.iter_mut().zip(&block[2..]).for_each(|(out, integer)| *out = scale * f32::from(*integer as i8));
}

/// eˣ within 3 parts in 10⁷ for x from −87 to 88; 0 below that, and e⁸⁸ above. No number stays none.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, and eʳ by its series up to r⁷, of which the rest is below 6 parts in 10⁹.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// ln 2 in two parts, of which the first times any n here is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let within = if x > 88.0 { 88.0 } else { x };
    let within = if within < -87.0 { -87.0 } else { within };
    let shifted = within * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (within - n * LN_2[0]) - n * LN_2[1];
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * r + coefficient;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { sum * power }
}

/// `gate = max(gate, 0)² · up`.
#[inline(always)]
pub(super) fn relu2_times(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        let x = if *gate < 0.0 { 0.0 } else { *gate };
        *gate = x * x * up;
    }
}

/// `gate = gate · sigmoid(gate) · up`.
#[inline(always)]
pub(super) fn silu_times(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// Turns the points `(first, second)` by the angles of these cosines and sines.
#[inline(always)]
pub(super) fn rotate(first: &mut [f32], second: &mut [f32], cos: &[f32], sin: &[f32]) {
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_within_their_bound() {
        for i in 0..=1_750_000 {
            let x = -87.0 + i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let off = (f64::from(exp(x)) / exact - 1.0).abs();
            assert!(off < 3e-7, "exp({x}) is off by {off}");
        }
        assert_eq!([exp(0.0), exp(-87.1), exp(f32::NEG_INFINITY)], [1.0, 0.0, 0.0]);
        assert!(exp(f32::NAN).is_nan() && exp(f32::INFINITY).is_finite());
    }

    #[test]
    fn rounding_keeps_to_8_bits() {
        let found = [0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.4, 1e9, -128.0, -1e9, f32::NAN, f32::INFINITY].map(rounded);
        assert_eq!(found, [0, 2, 2, 0, -2, 126, 127, 127, -128, -128, 0, 127]);
    }
}
