//! Split mode `row`: the rows of each matrix over all devices, everything else by layer.
//!
//! Upstream: `ggml/src/ggml-sycl/ggml-sycl.cpp:1177-1243`, `:1512-1600`. CUDA had the same until it dropped these buffers; its
//! matrices are rounded alike. Nothing of this could be run here, so sizes carry an interval.

use crate::error::FootprintError;
use crate::target::Target;
use spec::model::Tensor;
use spec::settings::SplitMode;
use spec::{Bytes, QuantType, Settings};

/// A slice of a matrix is an allocation of its own; drivers give out pages of up to this size.
pub(crate) const PAGE: Bytes = Bytes::from_mib(2);
/// Elements to which the last row of a device is padded.
const ROW_PADDING: u64 = 512;

/// Where the rows of each device begin, as shares of all rows in single precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows(Vec<f32>);

impl Rows {
    /// The starts for these settings: by shares, else by the memory of each device.
    pub(super) fn new(settings: &Settings, target: &Target) -> Result<Self, FootprintError> {
        let given = settings.tensor_split.iter().any(|&share| share != 0.0);
        let weight = |(index, device): (usize, &crate::Device)| match given {
            true => Ok(settings.tensor_split.get(index).map_or(0.0, |&share| share as f32)),
            false => match device.total.get() {
                Some(total) => Ok(total.get() as f32),
                None => Err(FootprintError::FreeMemoryUnknown { device: device.name.clone() }),
            },
        };
        let weights: Vec<f32> = target.devices.iter().enumerate().map(weight).collect::<Result<_, _>>()?;
        let sum: f32 = weights.iter().sum();
        if !(sum.is_finite() && sum > 0.0) {
            return Err(FootprintError::EmptySplit);
        }
        let mut before = 0.0_f32;
        let start = |weight: f32| {
            let start = before / sum;
            before += weight;
            start
        };
        Ok(Self(weights.into_iter().map(start).collect()))
    }

    /// Bytes of a matrix on each device.
    pub(crate) fn bytes(&self, tensor: &Tensor) -> Vec<Bytes> {
        let rows = tensor.shape[1..].iter().fold(1, |product: u64, &extent| product.saturating_mul(extent));
        let rounding = rounding(tensor.ty);
        let start = |share: f32| {
            let row = (rows as f32 * share) as u64;
            (row - row % rounding).min(rows)
        };
        let short = (ROW_PADDING - tensor.shape[0] % ROW_PADDING) % ROW_PADDING;
        let padding = tensor.ty.row_bytes(short).unwrap_or(Bytes::ZERO);
        let row = tensor.ty.row_bytes(tensor.shape[0]).unwrap_or(Bytes::ZERO);
        let end = |device: usize| self.0.get(device + 1).map_or(rows, |&share| start(share));
        let of = |(device, &share): (usize, &f32)| match end(device).saturating_sub(start(share)) {
            0 => Bytes::ZERO,
            rows => row.times(rows) + padding,
        };
        self.0.iter().enumerate().map(of).collect()
    }
}

/// Rows of one device are a multiple of this, those of the last excepted.
fn rounding(ty: QuantType) -> u64 {
    match ty {
        QuantType::F16 | QuantType::F32 | QuantType::BF16 => 1,
        QuantType::Q5_0 | QuantType::Q5_1 | QuantType::Q8_0 | QuantType::Q6_K => 64,
        _ => 128,
    }
}

pub(super) fn refused(reason: String) -> FootprintError {
    FootprintError::SplitMode { mode: SplitMode::Row, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::target;

    fn matrix(ty: QuantType, columns: u64, rows: u64) -> Tensor {
        let bytes = ty.row_bytes(columns).unwrap().times(rows);
        Tensor { name: "blk.0.ffn_up.weight".into(), ty, shape: [columns, rows, 1, 1], bytes, file: 0, offset: Bytes::ZERO }
    }

    #[test]
    fn rows_are_shared_in_whole_tiles_and_padded_per_device() {
        let rows = Rows::new(&Settings { tensor_split: vec![3.0, 1.0], ..Settings::default() }, &target(&[24, 24])).unwrap();
        // Three quarters of 1100 rows are 825, of which 768 are whole tiles of 128.
        let tensor = matrix(QuantType::Q4_K, 1024, 1100);
        let row = QuantType::Q4_K.row_bytes(1024).unwrap();
        assert_eq!(rows.bytes(&tensor), [row.times(768), row.times(332)]);
        // Rows of 768 are padded to 1024 once per device.
        let tensor = matrix(QuantType::Q8_0, 768, 128);
        let (row, padding) = (QuantType::Q8_0.row_bytes(768).unwrap(), QuantType::Q8_0.row_bytes(256).unwrap());
        assert_eq!(rows.bytes(&tensor), [row.times(64) + padding, row.times(64) + padding]);
        let alone = Rows::new(&Settings { tensor_split: vec![0.0, 1.0], ..Settings::default() }, &target(&[24, 24])).unwrap();
        assert_eq!(alone.bytes(&tensor), [Bytes::ZERO, row.times(128) + padding]);
    }
}
