//! Layers over devices: which counts fit, and the tensor split that makes the engine place them so.

/// Splits consecutive `loads` over devices with these `capacities`, in order, so that the fullest device is as empty as it
/// can be. `None` where they do not fit. The last load (the output) must be on a device as all others.
pub(crate) fn balanced(loads: &[f64], capacities: &[f64]) -> Option<Vec<usize>> {
    let mut best = greedy(loads, capacities, 1.0)?;
    let (mut low, mut high) = (0.0, 1.0);
    // 24 halvings resolve a share to less than a layer of any model.
    for _ in 0..24 {
        let share = (low + high) / 2.0;
        match greedy(loads, capacities, share) {
            Some(counts) => (best, high) = (counts, share),
            None => low = share,
        }
    }
    Some(best)
}

/// Fills each device up to `share` of its capacity before the next one.
pub(crate) fn greedy(loads: &[f64], capacities: &[f64], share: f64) -> Option<Vec<usize>> {
    let mut counts = vec![0; capacities.len()];
    let mut next = 0;
    for (count, capacity) in counts.iter_mut().zip(capacities) {
        let mut left = capacity * share;
        while let Some(load) = loads.get(next).filter(|load| **load <= left) {
            left -= load;
            next += 1;
            *count += 1;
        }
    }
    (next == loads.len()).then_some(counts)
}

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

    #[test]
    fn balance_follows_capacity() {
        assert_eq!(balanced(&[1.0; 12], &[8.0, 16.0]), Some(vec![4, 8]));
        assert_eq!(balanced(&[1.0; 24], &[8.0, 16.0]), Some(vec![8, 16]));
        assert_eq!(balanced(&[1.0; 25], &[8.0, 16.0]), None);
        assert_eq!(balanced(&[5.0], &[4.0, 6.0]), Some(vec![0, 1]));
    }
}
