//! Plain Rust: the meaning of the others, and what processors without them use.

use crate::block16::Block16;
use crate::dense::{LANES, LANES_Q8_0, total, total_q8_0};
use crate::kernel::{Functions, Half, Q8, float};
use crate::layout::{BLOCK, BLOCK_BYTES};
use crate::simd::floats::FLOATS;
use crate::vector::widen;
use half::f16;

pub(crate) static FUNCTIONS: Functions = Functions {
    name: "reference",
    wide: tile,
    tall: tile,
    one: tile,
    panel: None,
    f16: dots_halves::<false, _>,
    bf16: dots_halves::<true, _>,
    q8_0: dots_q8_0,
    dots: None,
    widen,
    floats: &FLOATS,
};

fn tile<const R: usize, const T: usize>(codes: [&[u8]; R], values: [&[i8]; T]) -> [[i32; T]; R] {
    codes.map(|codes| values.map(|values| dot(codes, values)))
}

fn dot(codes: &[u8], values: &[i8]) -> i32 {
    let (codes, values) = (codes.as_chunks::<BLOCK_BYTES>().0, values.as_chunks::<BLOCK>().0);
    codes.iter().zip(values).map(|(codes, values)| block(codes, values)).sum()
}

fn block(codes: &[u8; BLOCK_BYTES], values: &[i8; BLOCK]) -> i32 {
    let group = |(values, shift): (&[i8; BLOCK_BYTES], u32)| -> i32 {
        codes.iter().zip(values).map(|(code, value)| i32::from(code >> shift & 3) * i32::from(*value)).sum()
    };
    values.as_chunks().0.iter().zip([6, 4, 2, 0]).map(group).sum()
}

fn dots_halves<const BF16: bool, const R: usize>(rows: [&[Half]; R], x: &[f32]) -> [f32; R] {
    rows.map(|row| {
        let mut lanes = [0.0; LANES];
        for (weights, x) in row.chunks(LANES).zip(x.chunks(LANES)) {
            for ((lane, weight), x) in lanes.iter_mut().zip(weights).zip(x) {
                *lane += float::<BF16>(*weight) * x;
            }
        }
        total(lanes)
    })
}

fn dots_q8_0<const R: usize>(rows: [&[Q8]; R], x: &[Block16]) -> [f32; R] {
    rows.map(|row| {
        let mut lanes = [0.0; LANES_Q8_0];
        for (block, x) in row.iter().zip(x) {
            let scale = f16::from_le_bytes([block[0], block[1]]).to_f32() * x.scale;
            let product = |i: usize| i32::from(block[2 + i] as i8) * i32::from(x.values[i]);
            for (lane, sum) in lanes.iter_mut().enumerate() {
                let products: i32 = [0, 1, 16, 17].map(|i| product(2 * lane + i)).into_iter().sum();
                *sum += products as f32 * scale;
            }
        }
        total_q8_0(lanes)
    })
}
