//! Layers over devices as the engine assigns them.

/// The device of each of `n` layers and, last, of the output, as the engine assigns them (`src/llama-model.cpp:1558-1603`):
/// the last `n_gpu_layers` of them, by cumulative shares in single precision. No share means that the device gets nothing.
pub(crate) fn assign(n: usize, n_gpu_layers: u32, shares: &[f64]) -> Vec<Option<usize>> {
    let on_devices = (n_gpu_layers as usize).min(n);
    let start = n - on_devices;
    let total: f32 = shares.iter().map(|&share| share as f32).sum();
    let mut cumulative: f32 = 0.0;
    let splits: Vec<f32> = shares
        .iter()
        .map(|&share| {
            cumulative += share as f32;
            cumulative / total
        })
        .collect();
    (0..n)
        .map(|i| {
            let position = i.checked_sub(start)? as f32 / on_devices as f32;
            splits.iter().position(|&split| split > position)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_as_shares_give_the_engine_these_counts() {
        for counts in [[1, 1, 1], [41, 20, 20], [0, 5, 7], [80, 1, 0], [33, 0, 1]] {
            let n: usize = counts.iter().sum();
            let shares: Vec<f64> = counts.iter().map(|&count| count as f64).collect();
            let homes = assign(n, u32::try_from(n).unwrap(), &shares);
            for (device, &count) in counts.iter().enumerate() {
                assert_eq!(homes.iter().filter(|home| **home == Some(device)).count(), count, "{counts:?}");
            }
        }
    }

    #[test]
    fn the_first_layers_stay_on_the_host() {
        assert_eq!(assign(4, 2, &[1.0]), [None, None, Some(0), Some(0)]);
        assert_eq!(assign(3, 0, &[1.0]), [None; 3]);
        assert_eq!(assign(2, 9, &[1.0]), [Some(0); 2]);
    }
}
