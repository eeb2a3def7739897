//! Functions over slices of floats, written once in lanes and compiled once per instruction set. Products and sums are rounded one after
//! the other, never fused, so each has one result, whatever computes it.

use crate::dense::{LANES, total};

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
    pub(crate) exponentials: fn(&mut [f32], f32) -> f32,
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
            add_weighted(weights: &[f32], rows: &[f32], stride: usize, out: &mut [f32]) -> ();
            exponentials(x: &mut [f32], largest: f32) -> f32;
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
            fn scores(query: &[f32], rows: &[f32], stride: usize, scale: f32, out: &mut [f32]) {
                crate::simd::floats::scores(query, rows, stride, scale, out, |a, b| super::lane_products(a, b));
            }
            pub(in crate::simd) static FLOATS: crate::simd::floats::Floats = crate::simd::floats::Floats {
                // SAFETY: the table leaves its module only with functions that `detected` hands out, which has found the features.
                $($name: |$($argument),*| unsafe { $name($($argument),*) },)*
                // SAFETY: as above.
                square_sum: |x| unsafe { square_sum(x) },
                // SAFETY: as above.
                scores: |query, rows, stride, scale, out| unsafe { scores(query, rows, stride, scale, out) },
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
    scores: |query, rows, stride, scale, out| scores(query, rows, stride, scale, out, lane_products),
    add_weighted,
    exponentials,
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

/// `out[i] = scale · Σ query · rows[i · stride..]`, summed as in [`square_sum`].
#[inline(always)]
pub(super) fn scores(
    query: &[f32],
    rows: &[f32],
    stride: usize,
    scale: f32,
    out: &mut [f32],
    products: impl Fn(&[Lanes], &[Lanes]) -> Lanes,
) {
    for (out, row) in out.iter_mut().zip(rows.chunks(stride)) {
        let length = query.len().min(row.len());
        *out = scale * dot(&query[..length], &row[..length], &products);
    }
}

/// Floats that are summed in registers while rows go by.
const WIDE: usize = 64;

/// `out += Σ weights[i] · rows[i · stride..]`, row after row.
#[inline(always)]
pub(super) fn add_weighted(weights: &[f32], rows: &[f32], stride: usize, out: &mut [f32]) {
    let whole = out.len() / WIDE * WIDE;
    for (place, out) in out.as_chunks_mut::<WIDE>().0.iter_mut().enumerate() {
        let mut sums = *out;
        for (weight, row) in weights.iter().zip(rows.chunks(stride)) {
            let Some(row) = row.get(place * WIDE..).and_then(|row| row.first_chunk::<WIDE>()) else { continue };
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
        }
        *out = sums;
    }
    for (weight, row) in weights.iter().zip(rows.chunks(stride)) {
        let rest = row.get(whole..).unwrap_or_default();
        out[whole..].iter_mut().zip(rest).for_each(|(out, x)| *out += weight * x);
    }
}

/// Replaces every `x` by `exp(x − largest)`; their sum, in the order of [`square_sum`].
#[inline(always)]
pub(super) fn exponentials(x: &mut [f32], largest: f32) -> f32 {
    x.iter_mut().for_each(|x| *x = exp(*x - largest));
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane += x);
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane += x);
    total(lanes)
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
