//! Random weights: valid blocks of every tensor type, with a spread that the caller names.
//!
//! Byte `p` of a tensor comes from word `p / 8` of a counter-based generator, then each block gets the scales that its
//! layout needs (`ggml/src/ggml-common.h`). So any range can be computed alone, and twice the same.

use spec::QuantType;

/// The 64-bit mix of SplitMix64 (Steele, Lea and Flood 2014) over a counter: as good as noise, and random access.
fn word(key: u64, index: u64) -> u64 {
    let mut z = key.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A key for one tensor of one file.
pub(crate) fn key(seed: u64, name: &str) -> u64 {
    // FNV-1a over the name: tensors of one seed must differ, nothing more.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    word(seed, hash)
}

fn raw(key: u64, offset: u64, out: &mut [u8]) {
    let mut index = offset / 8;
    let skip = (offset % 8) as usize;
    let (head, rest) = out.split_at_mut(if skip == 0 { 0 } else { out.len().min(8 - skip) });
    if !head.is_empty() {
        head.copy_from_slice(&word(key, index).to_le_bytes()[skip..skip + head.len()]);
        index += 1;
    }
    for chunk in rest.chunks_mut(8) {
        chunk.copy_from_slice(&word(key, index).to_le_bytes()[..chunk.len()]);
        index += 1;
    }
}

/// Fills `out` with bytes `offset..` of a tensor of type `ty` whose weights spread by about `deviation`.
pub(crate) fn fill(ty: QuantType, deviation: f32, key: u64, offset: u64, out: &mut [u8]) {
    let size = ty.block().bytes.get() as usize;
    let shape = Shaper::new(ty, deviation);
    let lead = (offset % size as u64) as usize;
    let (head, rest) = out.split_at_mut(if lead == 0 { 0 } else { out.len().min(size - lead) });
    if !head.is_empty() {
        partial(&shape, key, offset - lead as u64, lead, size, head);
    }
    let start = offset + head.len() as u64;
    let whole = rest.len() - rest.len() % size;
    let (blocks, tail) = rest.split_at_mut(whole);
    raw(key, start, blocks);
    blocks.chunks_exact_mut(size).for_each(|block| shape.apply(block));
    if !tail.is_empty() {
        partial(&shape, key, start + whole as u64, 0, size, tail);
    }
}

/// Deviation of random ternary weights before their scale.
pub(crate) const TERNARY_DEVIATION: f32 = 0.71;

/// What follows the codes of a tensor in `I2_S`: its scale, and padding.
pub(crate) const I2_S_TAIL: u64 = 32;

/// Fills `out` with bytes `offset..` of a tensor in `I2_S` with so many bytes of codes.
pub(crate) fn i2_s(deviation: f32, key: u64, codes: u64, offset: u64, out: &mut [u8]) {
    let here = codes.saturating_sub(offset).min(out.len() as u64) as usize;
    let (codes_out, tail_out) = out.split_at_mut(here);
    raw(key, offset, codes_out);
    codes_out.iter_mut().for_each(ternary);
    let scale = (deviation / TERNARY_DEVIATION).to_le_bytes();
    for (at, byte) in (offset.saturating_sub(codes)..).zip(tail_out) {
        *byte = scale.get(at as usize).copied().unwrap_or(0);
    }
}

/// Part of the block at `start`, from byte `from` on.
fn partial(shape: &Shaper, key: u64, start: u64, from: usize, size: usize, out: &mut [u8]) {
    let mut block = [0; MAX_BLOCK];
    let block = &mut block[..size];
    raw(key, start, block);
    shape.apply(block);
    out.copy_from_slice(&block[from..from + out.len()]);
}

/// The largest block: q8_K.
const MAX_BLOCK: usize = 292;

/// What turns random bytes into a block of one type.
struct Shaper {
    ty: QuantType,
    /// Half-width of a uniform distribution of the wanted deviation, for float types.
    width: f32,
    /// The half-precision numbers of the block, as bytes.
    scales: [[u8; 2]; 2],
    /// The E8M0 or UE4M3 scale.
    small: u8,
}

impl Shaper {
    fn new(ty: QuantType, deviation: f32) -> Self {
        let (unit, minimum) = unit(ty);
        let scale = deviation / unit;
        Self {
            ty,
            width: deviation * 3_f32.sqrt(),
            scales: [half(scale), half(scale * minimum)],
            small: if ty == QuantType::NVFP4 { ue4m3(2.0 * scale) } else { e8m0(scale) },
        }
    }

    fn apply(&self, block: &mut [u8]) {
        use QuantType as Q;
        let [d, m] = self.scales;
        match self.ty {
            Q::F32 => put(block, 0, self.uniform(block).to_le_bytes()),
            Q::F64 => put(block, 0, f64::from(self.uniform(block)).to_le_bytes()),
            Q::F16 => put(block, 0, half(self.uniform(block))),
            // The upper half of a single: rounding toward zero is as random as the rest.
            Q::BF16 => put(block, 0, ((self.uniform(block).to_bits() >> 16) as u16).to_le_bytes()),
            Q::I8 | Q::I16 | Q::I32 | Q::I64 => block.fill(0),
            // Codes of weight zero.
            Q::I2_S | Q::I8_S | Q::TL1 | Q::TL2 => block.fill(0x55),
            Q::HF_U2 => block.iter_mut().for_each(ternary),
            Q::Q4_0
            | Q::Q5_0
            | Q::Q8_0
            | Q::Q1_0
            | Q::IQ2_XXS
            | Q::IQ2_XS
            | Q::IQ2_S
            | Q::IQ3_XXS
            | Q::IQ3_S
            | Q::IQ1_S
            | Q::IQ4_NL
            | Q::IQ4_XS => {
                put(block, 0, d);
            }
            Q::Q4_1 | Q::Q5_1 | Q::Q4_K | Q::Q5_K => {
                put(block, 0, d);
                put(block, 2, m);
            }
            Q::Q8_1 => {
                put(block, 0, d);
                let sum: i32 = block[4..].iter().map(|&q| i32::from(q as i8)).sum();
                put(block, 2, half(f32::from_bits(single(d)) * sum as f32));
            }
            Q::Q2_0 => {
                put(block, 0, d);
                block[2..].iter_mut().for_each(ternary);
            }
            Q::Q2_K => {
                put(block, 80, d);
                put(block, 82, m);
            }
            Q::Q3_K => put(block, 108, d),
            Q::Q6_K => {
                // Narrower scales, so that the block's own stays a normal half-precision number.
                block[192..208].iter_mut().for_each(|scale| *scale = ((*scale as i8) >> 3) as u8);
                put(block, 208, d);
            }
            Q::Q8_K => {
                put(block, 0, f32::from_bits(single(d)).to_le_bytes());
                let (quants, sums) = block[4..].split_at_mut(256);
                for (group, sum) in quants.chunks_exact(16).zip(sums.chunks_exact_mut(2)) {
                    let total: i16 = group.iter().map(|&q| i16::from(q as i8)).sum();
                    sum.copy_from_slice(&total.to_le_bytes());
                }
            }
            Q::IQ1_M => {
                // The scale lies in the upper four bits of four 16-bit words.
                let bits = u16::from_le_bytes(d);
                for part in 0..4 {
                    let nibble = ((bits >> (4 * part)) & 15) as u8;
                    let byte = &mut block[49 + 2 * part];
                    *byte = (*byte & 15) | (nibble << 4);
                }
            }
            Q::TQ1_0 => put(block, 52, d),
            Q::TQ2_0 => {
                block[..64].iter_mut().for_each(ternary);
                put(block, 64, d);
            }
            Q::MXFP4 => block[0] = self.small,
            Q::NVFP4 => block[..4].fill(self.small),
            // Types of ik_llama.cpp: only files of zeros are written with them.
            _ => block.fill(0),
        }
    }

    fn uniform(&self, block: &[u8]) -> f32 {
        let bits = block.iter().take(4).rev().fold(0_u32, |bits, &byte| (bits << 8) | u32::from(byte));
        let bits = if block.len() == 2 { bits << 16 } else { bits };
        (bits >> 8) as f32 / (1 << 23) as f32 * self.width - self.width
    }
}

/// Deviation of the weights of a random block whose scale is one, and the minimum in units of the scale that centres
/// them. Within 5 % where blocks are linear, 15 % for code books (IQ), as `llama-quantize` turns them into F32.
fn unit(ty: QuantType) -> (f32, f32) {
    use QuantType as Q;
    match ty {
        Q::Q1_0 => (1.0, 0.0),
        Q::Q2_0 | Q::TQ2_0 => (TERNARY_DEVIATION, 0.0),
        Q::TQ1_0 => (0.82, 0.0),
        Q::Q4_0 => (4.6, 0.0),
        Q::Q4_1 => (4.6, -7.5),
        Q::Q5_0 => (9.2, 0.0),
        Q::Q5_1 => (9.2, -15.5),
        Q::Q8_0 | Q::Q8_1 | Q::Q8_K => (74.0, 0.0),
        Q::Q2_K => (13.9, 1.5),
        Q::Q3_K => (43.3, 0.0),
        Q::Q4_K => (258.0, 7.5),
        Q::Q5_K => (527.0, 15.5),
        Q::Q6_K => (171.0, 0.0),
        Q::IQ2_XXS | Q::IQ2_XS | Q::IQ2_S => (55.0, 0.0),
        Q::IQ3_XXS => (138.0, 0.0),
        Q::IQ3_S => (166.0, 0.0),
        Q::IQ1_S | Q::IQ1_M => (7.0, 0.0),
        Q::IQ4_NL => (70.0, 0.0),
        Q::IQ4_XS => (1290.0, 0.0),
        Q::MXFP4 | Q::NVFP4 => (5.9, 0.0),
        Q::F32 | Q::F16 | Q::BF16 | Q::F64 | Q::I8 | Q::I16 | Q::I32 | Q::I64 | Q::I2_S | Q::I8_S | Q::TL1 | Q::TL2 | Q::HF_U2 => {
            (1.0, 0.0)
        }
        _ => (1.0, 0.0),
    }
}

fn put<const N: usize>(block: &mut [u8], at: usize, bytes: [u8; N]) {
    block[at..at + N].copy_from_slice(&bytes);
}

/// Four two-bit codes where 3 is no weight of a ternary type: it becomes 1, which is zero.
fn ternary(byte: &mut u8) {
    let both = *byte & (*byte >> 1) & 0x55;
    *byte &= !(both << 1);
}

/// A number in half precision, rounded to the nearest; too large becomes the largest finite one.
fn half(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = value.abs();
    let code = if magnitude >= 65504.0 {
        0x7bff
    } else if magnitude < 6.103_515_6e-5 {
        // Subnormal: steps of 2^-24.
        (magnitude * 16_777_216.0).round() as u16
    } else {
        // Exponents are biased by 15 instead of 127; adding half a step before the cut rounds.
        (((bits & 0x7fff_ffff) + 0x1000 - (112 << 23)) >> 13) as u16
    };
    (sign | code.min(0x7bff)).to_le_bytes()
}

/// The bits in single precision of a finite number in half precision.
fn single(half: [u8; 2]) -> u32 {
    let bits = u32::from(u16::from_le_bytes(half));
    let magnitude = match (bits >> 10) & 31 {
        0 => ((bits & 0x3ff) as f32 / 16_777_216.0).to_bits(),
        exponent => ((exponent + 112) << 23) | ((bits & 0x3ff) << 13),
    };
    ((bits & 0x8000) << 16) | magnitude
}

/// The power of two nearest to twice `scale`, as OCP's E8M0; ggml halves it because its table of values is doubled.
fn e8m0(scale: f32) -> u8 {
    (scale.max(f32::MIN_POSITIVE).log2().round() + 128.0).clamp(0.0, 254.0) as u8
}

/// The nearest unsigned E4M3 number; at least the smallest, at most the largest.
fn ue4m3(value: f32) -> u8 {
    let decode = |code: u8| match code >> 3 {
        0 => f32::from(code & 7) / 512.0,
        exponent => (1.0 + f32::from(code & 7) / 8.0) * 2_f32.powi(i32::from(exponent) - 7),
    };
    (1..0x7f).min_by(|&a, &b| (decode(a) - value).abs().total_cmp(&(decode(b) - value).abs())).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_to_the_nearest() {
        for (value, bits) in
            [(0.0, 0), (1.0, 0x3c00), (-2.0, 0xc000), (65504.0, 0x7bff), (1e9, 0x7bff), (5.96e-8, 1), (6.1035e-5, 0x400), (0.1, 0x2e66)]
        {
            assert_eq!(u16::from_le_bytes(half(value)), bits, "{value}");
        }
        for code in 0..0x7c00_u16 {
            assert_eq!(half(f32::from_bits(single(code.to_le_bytes()))), code.to_le_bytes());
        }
    }

    #[test]
    fn any_range_of_a_tensor_is_the_same_bytes() {
        for &ty in QuantType::ALL {
            let size = ty.block().bytes.get() as usize;
            let mut whole = vec![0; 5 * size];
            fill(ty, 0.02, 7, 0, &mut whole);
            for (start, end) in [(0, 1), (1, size), (size - 1, size + 1), (size, 5 * size), (3, 5 * size - 1)] {
                let (start, end) = (start.min(end), end);
                let mut part = vec![0; end - start];
                fill(ty, 0.02, 7, start as u64, &mut part);
                assert_eq!(part, whole[start..end], "{ty} {start}..{end}");
            }
        }
    }

    #[test]
    fn floats_spread_as_asked_around_zero() {
        let mut bytes = vec![0; 4 * 10_000];
        fill(QuantType::F32, 0.05, 3, 0, &mut bytes);
        let values: Vec<f64> = bytes.as_chunks().0.iter().map(|&four| f64::from(f32::from_le_bytes(four))).collect();
        let mean = values.iter().sum::<f64>() / 1e4;
        let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 1e4).sqrt();
        assert!(mean.abs() < 0.002 && (deviation - 0.05).abs() < 0.002, "{mean} {deviation}");
    }

    #[test]
    fn no_scale_is_infinite_or_not_a_number() {
        // Offsets of half-precision scales by type; the other types have none.
        let places: &[(QuantType, &[usize])] = &[
            (QuantType::Q4_0, &[0]),
            (QuantType::Q8_0, &[0]),
            (QuantType::Q5_1, &[0, 2]),
            (QuantType::Q2_K, &[80, 82]),
            (QuantType::Q3_K, &[108]),
            (QuantType::Q4_K, &[0, 2]),
            (QuantType::Q6_K, &[208]),
            (QuantType::TQ1_0, &[52]),
            (QuantType::TQ2_0, &[64]),
            (QuantType::IQ4_XS, &[0]),
        ];
        for deviation in [1e-4, 0.02, 10.0] {
            for (ty, offsets) in places {
                let mut block = vec![0; ty.block().bytes.get() as usize];
                fill(*ty, deviation, 1, 0, &mut block);
                for &at in *offsets {
                    let value = f32::from_bits(single([block[at], block[at + 1]]));
                    assert!(value.is_finite() && value != 0.0 && value.abs() < 1e3, "{ty} {value}");
                }
            }
        }
    }
}
