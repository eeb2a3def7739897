//! The time of a pass over layers as a function of its tokens.

use crate::kernel::Layer;

/// What a device does with a kernel: `T(m) = launch + max(bytes ÷ bandwidth, unpack · weights + m' · 2 · weights ÷ rate)` for `m` tokens,
/// filled up to `m'`, a multiple of the kernel's tile; summed over layers. Times in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// Bytes of weights per second that reach the kernel.
    pub bandwidth: f64,
    /// Seconds that unpacking takes per weight, once per pass.
    pub unpack: f64,
    /// Operations per second, two per weight and token.
    pub rate: f64,
    /// Seconds per layer beside its work: dispatch, barriers.
    pub launch: f64,
    /// Tokens that are computed together.
    pub tile: u64,
}

/// One measured pass over the layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Tokens.
    pub tokens: u64,
    /// Seconds.
    pub seconds: f64,
}

/// Measurements that say nothing of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalibrationError {
    /// Too few batches.
    #[error("a calibration needs times of at least three different batches, not {0}")]
    Few(usize),
    /// A time that is none.
    #[error("a measured time of batch {0} is not a positive number")]
    Time(u64),
    /// Larger batches that are not slower.
    #[error("the measured time does not grow with the batch")]
    Flat,
}

impl Calibration {
    /// From times of passes over `layers` (two bits per weight) with different batches.
    ///
    /// The times of the smallest batches are a floor, those of the rest a line; every place of the bend is tried, and the one with the
    /// least sum of squared relative errors is taken. What the floor holds of `launch` (seconds per layer, measured with nothing to do)
    /// is taken off before.
    ///
    /// # Errors
    /// Fewer than three batches, times that are no times, times that do not grow.
    pub fn fit(layers: &[Layer], measured: &[Measured], launch: f64, tile: u64) -> Result<Self, CalibrationError> {
        let tile = tile.max(1);
        let mut points = Vec::with_capacity(measured.len());
        for one in measured {
            if !(one.seconds.is_finite() && one.seconds > 0.0) || one.tokens == 0 {
                return Err(CalibrationError::Time(one.tokens));
            }
            points.push((one.tokens.next_multiple_of(tile) as f64, one.seconds));
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut batches: Vec<f64> = points.iter().map(|point| point.0).collect();
        batches.dedup();
        if batches.len() < 3 {
            return Err(CalibrationError::Few(batches.len()));
        }
        let bend = batches[..batches.len() - 1].iter().filter_map(|&batch| bent(&points, batch));
        let (_, floor, start, slope) = bend.min_by(|a, b| a.0.total_cmp(&b.0)).ok_or(CalibrationError::Flat)?;
        let weights = layers.iter().map(|layer| layer.weights() as f64).sum::<f64>().max(1.0);
        let launch = launch.clamp(0.0, floor / 2.0 / layers.len().max(1) as f64);
        let launches = launch * layers.len() as f64;
        Ok(Self {
            bandwidth: weights / 4.0 / (floor - launches),
            unpack: (start - launches).max(0.0) / weights,
            rate: 2.0 * weights / slope,
            launch,
            tile,
        })
    }

    /// Seconds of a pass of `tokens` over `layers`.
    pub fn seconds(&self, layers: &[Layer], tokens: u64) -> f64 {
        let tokens = tokens.max(1).next_multiple_of(self.tile.max(1)) as f64;
        let one = |layer: &Layer| {
            let weights = layer.weights() as f64;
            self.launch + (weights / 4.0 / self.bandwidth).max(weights * (self.unpack + tokens * 2.0 / self.rate))
        };
        layers.iter().map(one).sum()
    }

    /// Tokens per second that no batch passes: whole tiles that never wait for weights.
    pub fn tokens_per_second(&self, layers: &[Layer]) -> f64 {
        1.0 / layers.iter().map(|layer| layer.weights() as f64 * 2.0 / self.rate).sum::<f64>()
    }
}

/// A floor up to and with `batch` and a line from there on: the sum of squared relative errors, the floor, where the line begins at no
/// tokens and what a token adds. `None` where the line does not go up.
fn bent(points: &[(f64, f64)], batch: f64) -> Option<(f64, f64, f64, f64)> {
    let (low, high): (Vec<_>, Vec<_>) = points.iter().copied().partition(|&point: &(f64, f64)| point.0 <= batch);
    let floor = low.iter().map(|point| point.1).sum::<f64>() / low.len() as f64;
    // Least squares with weights of 1 ÷ y²: errors are relative.
    let weighted = |value: &dyn Fn(&(f64, f64)) -> f64| high.iter().map(|point| value(point) / (point.1 * point.1)).sum::<f64>();
    let (w, x, y) = (weighted(&|_| 1.0), weighted(&|p| p.0), weighted(&|p| p.1));
    let (xx, xy) = (weighted(&|p| p.0 * p.0), weighted(&|p| p.0 * p.1));
    let spread = w * xx - x * x;
    // One batch beyond the bend: a line through it and the bend.
    let (slope, start) = if spread > 1e-12 * w * xx {
        let slope = (w * xy - x * y) / spread;
        (slope, (y - slope * x) / w)
    } else {
        let slope = (y / w - floor) / (x / w - batch);
        (slope, floor - slope * batch)
    };
    // Nothing is unpacked in less than no time.
    let (slope, start) = if start < 0.0 { (xy / xx, 0.0) } else { (slope, start) };
    if !(slope.is_finite() && slope > 0.0) {
        return None;
    }
    let said = |tokens: f64| floor.max(start + slope * tokens);
    let errors = points.iter().map(|point| (said(point.0) / point.1 - 1.0).powi(2)).sum();
    Some((errors, floor, start, slope))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layers() -> Vec<Layer> {
        vec![Layer::new(2560, 2560).unwrap(), Layer::new(6912, 2560).unwrap()]
    }

    proptest! {
        /// What times are made of is found again, through noise of a few percent.
        #[test]
        fn a_fit_finds_what_made_the_times(
            bandwidth in 5e9..2e12_f64,
            intensity in 2.0..200.0_f64,
            unpack in 0.0..2.0_f64,
            noise in prop::collection::vec(-0.02..0.02_f64, 11),
            tile in prop::sample::select(vec![1_u64, 4, 16]),
        ) {
            // The bend lies at `intensity` tokens.
            let rate = intensity * 8.0 * bandwidth;
            let truth = Calibration { bandwidth, unpack: unpack * 0.2 / 4.0 / bandwidth, rate, launch: 0.0, tile };
            let points: Vec<Measured> = (0..11)
                .map(|i| {
                    let tokens = 1_u64 << i;
                    Measured { tokens, seconds: truth.seconds(&layers(), tokens) * (1.0 + noise[i]) }
                })
                .collect();
            let found = Calibration::fit(&layers(), &points, 0.0, tile).unwrap();
            for tokens in [1_u64, 3, 7, 20, 50, 100, 300, 700] {
                let ratio = found.seconds(&layers(), tokens) / truth.seconds(&layers(), tokens);
                prop_assert!((0.85..1.18).contains(&ratio), "{tokens}: {ratio} {found:?} {truth:?}");
            }
        }
    }

    #[test]
    fn times_that_say_nothing_are_errors() {
        let times = |seconds: [f64; 3]| {
            [1, 8, 64].into_iter().zip(seconds).map(|(tokens, seconds)| Measured { tokens, seconds }).collect::<Vec<_>>()
        };
        let fit = |seconds| Calibration::fit(&layers(), &times(seconds), 0.0, 1).unwrap_err();
        assert_eq!(fit([1.0, f64::NAN, 2.0]), CalibrationError::Time(8));
        assert_eq!(fit([3.0, 2.0, 1.0]), CalibrationError::Flat);
        assert_eq!(Calibration::fit(&layers(), &times([1.0, 2.0, 3.0])[..2], 0.0, 1), Err(CalibrationError::Few(2)));
        // Batches that a tile makes the same are one batch.
        assert_eq!(Calibration::fit(&layers(), &times([1.0, 2.0, 3.0]), 0.0, 64), Err(CalibrationError::Few(1)));
    }
}
