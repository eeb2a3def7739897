//! Which device holds each layer.

use super::rows;
use crate::EngineProfile;
use crate::error::FootprintError;
use crate::target::{Device, Target};
use spec::Settings;
use spec::settings::SplitMode;

/// Most devices the engine takes: `llama_max_devices` (`src/llama.cpp:86`); its scheduler takes one backend less, the
/// host being one of its 16 (`ggml/src/ggml-backend.cpp:904`).
const MAX_DEVICES: usize = 15;

/// Devices that take part, in the engine's order.
///
/// Upstream: `src/llama.cpp:288-302`; rows need a buffer type for them, without which loading fails (`llama-model.cpp:1147-1167`).
pub(super) fn devices_in_use(settings: &Settings, target: &Target, profile: &EngineProfile) -> Result<Vec<usize>, FootprintError> {
    let all = target.devices.len();
    let devices: Vec<usize> = match settings.split_mode {
        _ if all == 0 => Vec::new(),
        SplitMode::None => match usize::try_from(settings.main_gpu) {
            Ok(main) if main < all => vec![main],
            _ => return Err(FootprintError::NoSuchGpu { main_gpu: settings.main_gpu, devices: all }),
        },
        SplitMode::Layer => (0..all).collect(),
        // Slices of joined devices are not placed tensor by tensor (`crate::tensor_parallel`).
        mode @ SplitMode::Tensor => {
            let reason = "the engine's dry run reports the joined devices, not what each holds".to_owned();
            return Err(FootprintError::SplitMode { mode, reason });
        }
        SplitMode::Row => {
            let splits = |device: &&Device| device.backend.splits_rows || (profile.rules.cuda_splits_rows && device.backend.name == "CUDA");
            match target.devices.iter().find(|device| !splits(device)) {
                Some(device) => return Err(rows::refused(format!("{} does not support split buffers; use layer or tensor", device.name))),
                None => (0..all).collect(),
            }
        }
    };
    if devices.len() > MAX_DEVICES {
        return Err(FootprintError::TooManyDevices { devices: devices.len(), most: MAX_DEVICES });
    }
    Ok(devices)
}

/// The device of each layer and, last, of the output. Shares are cumulative and in single precision, as they are there.
///
/// Upstream: `src/llama-model.cpp:1558-1616`.
pub(super) fn layer_devices(
    n_layer_all: u32,
    settings: &Settings,
    target: &Target,
    devices: &[usize],
    output_last: bool,
) -> Result<Vec<Option<usize>>, FootprintError> {
    let places = u64::from(n_layer_all) + 1;
    let offloaded = if devices.is_empty() { 0 } else { u64::from(settings.n_gpu_layers).min(places) };
    // Engines that offload the output last have it on the host, behind the layers, until there is room for all.
    let behind = u64::from(output_last && offloaded < places);
    let first = places - offloaded - behind;
    let mut layers = vec![None; usize::try_from(first).unwrap_or(usize::MAX)];
    if offloaded == 0 {
        layers.resize(usize::try_from(places).unwrap_or(usize::MAX), None);
        return Ok(layers);
    }
    let shares = cumulative_shares(settings, target, devices)?;
    for place in 0..offloaded {
        let at = place as f32 / offloaded as f32;
        let index = shares.partition_point(|&share| share <= at);
        // A share that is not a number, or none above the place: the engine fails at the same spot.
        let device = devices.get(index).filter(|_| shares.iter().all(|share| share.is_finite()));
        layers.push(Some(*device.ok_or(FootprintError::EmptySplit)?));
    }
    layers.extend((0..behind).map(|_| None));
    Ok(layers)
}

fn cumulative_shares(settings: &Settings, target: &Target, devices: &[usize]) -> Result<Vec<f32>, FootprintError> {
    let given: Vec<f32> = (0..devices.len()).map(|i| settings.tensor_split.get(i).map_or(0.0, |&share| share as f32)).collect();
    let weights = if given.iter().any(|&share| share != 0.0) {
        given
    } else if devices.len() == 1 {
        vec![1.0]
    } else {
        devices
            .iter()
            .map(|&device| {
                let device = &target.devices[device];
                let free = device.free.get().ok_or_else(|| FootprintError::FreeMemoryUnknown { device: device.name.clone() })?;
                Ok(free.get() as f32)
            })
            .collect::<Result<_, FootprintError>>()?
    };
    let mut sum = 0.0_f32;
    let mut shares: Vec<f32> = Vec::with_capacity(weights.len());
    for weight in weights {
        sum += weight;
        shares.push(sum);
    }
    for share in &mut shares {
        *share /= sum;
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::target;

    fn layers(settings: Settings, gpus: &[u64]) -> Result<Vec<Option<usize>>, FootprintError> {
        let target = target(gpus);
        layer_devices(8, &settings, &target, &devices_in_use(&settings, &target, &EngineProfile::bundled())?, false)
    }

    #[test]
    fn the_last_layers_and_the_output_go_first() {
        let ngl = |n_gpu_layers| layers(Settings { n_gpu_layers, ..Settings::default() }, &[24]).unwrap();
        assert_eq!(ngl(0), [None; 9]);
        assert_eq!(ngl(1), [None, None, None, None, None, None, None, None, Some(0)]);
        assert_eq!(ngl(3)[5..], [None, Some(0), Some(0), Some(0)]);
        assert_eq!(ngl(u32::MAX), [Some(0); 9]);
    }

    #[test]
    fn older_engines_offload_the_output_last() {
        let target = target(&[24]);
        let ngl = |n_gpu_layers| layer_devices(8, &Settings { n_gpu_layers, ..Settings::default() }, &target, &[0], true).unwrap();
        assert_eq!(ngl(0), [None; 9]);
        assert_eq!(ngl(3)[4..], [None, Some(0), Some(0), Some(0), None]);
        assert_eq!((ngl(8)[0], ngl(8)[8], ngl(9)), (Some(0), None, vec![Some(0); 9]));
    }

    #[test]
    fn shares_follow_free_memory_or_what_is_asked() {
        let all = |tensor_split: &[f64]| Settings { n_gpu_layers: 99, tensor_split: tensor_split.to_vec(), ..Settings::default() };
        let count = |layers: Vec<Option<usize>>| [0, 1].map(|device| layers.iter().filter(|&&layer| layer == Some(device)).count());
        assert_eq!(count(layers(all(&[]), &[24, 24]).unwrap()), [5, 4]);
        assert_eq!(count(layers(all(&[]), &[24, 12]).unwrap()), [6, 3]);
        assert_eq!(count(layers(all(&[0.0, 1.0]), &[24, 24]).unwrap()), [0, 9]);
        assert_eq!(count(layers(all(&[1.0]), &[24, 24]).unwrap()), [9, 0]);
        assert_eq!(layers(all(&[f64::NAN, 1.0]), &[24, 24]), Err(FootprintError::EmptySplit));
        assert_eq!(layers(all(&[]), &[0, 0]), Err(FootprintError::EmptySplit));
    }

    #[test]
    fn devices_are_chosen_by_split_mode() {
        let mode = |split_mode, main_gpu| {
            devices_in_use(&Settings { split_mode, main_gpu, ..Settings::default() }, &target(&[24, 24]), &EngineProfile::bundled())
        };
        assert_eq!(mode(SplitMode::Layer, 0), Ok(vec![0, 1]));
        assert_eq!(mode(SplitMode::None, 1), Ok(vec![1]));
        assert_eq!(mode(SplitMode::None, 2), Err(FootprintError::NoSuchGpu { main_gpu: 2, devices: 2 }));
        let row = mode(SplitMode::Row, 0).unwrap_err().to_string();
        assert_eq!(row, "split mode row: CUDA0 does not support split buffers; use layer or tensor");
        let older = EngineProfile::named("llama.cpp-2025-09").unwrap();
        let rows = Settings { split_mode: SplitMode::Row, ..Settings::default() };
        assert_eq!(devices_in_use(&rows, &target(&[24, 24]), &older), Ok(vec![0, 1]));
        let many = devices_in_use(&Settings::default(), &target(&[1; 16]), &EngineProfile::bundled());
        assert_eq!(many, Err(FootprintError::TooManyDevices { devices: 16, most: 15 }));
    }
}
