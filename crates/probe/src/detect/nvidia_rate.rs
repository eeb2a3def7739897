//! Dense half-precision rate of an NVIDIA GPU from its compute capability, multiprocessors and clock.

use spec::{Known, OpsPerSec};

/// One compute capability.
struct Row {
    capability: (u32, u32),
    /// CUDA cores in a multiprocessor.
    cores: u64,
    /// Operations (a multiply-add is two) per clock in the tensor cores of a multiprocessor: dense, FP16 factors.
    ops: u64,
}

/// Sources: NVIDIA architecture white papers, peak FP16 tensor rate (dense) over multiprocessors × boost clock: Volta V100
/// (125 TFLOPS), Turing (T4: 65), Ampere GA100 (A100: 312), GA102 (A40: 149.7), Ada (L40S: 362), Hopper (H100 SXM: 989);
/// data sheets of AGX Orin (42.5), B200 (2250), RTX PRO 6000 Blackwell (504), Jetson Thor (258),
/// GB10 (125: an eighth of 1000 for sparse FP4). Read 2025-10.
const ROWS: [Row; 13] = [
    Row { capability: (7, 0), cores: 64, ops: 1024 },
    Row { capability: (7, 2), cores: 64, ops: 1024 },
    Row { capability: (7, 5), cores: 64, ops: 1024 },
    Row { capability: (8, 0), cores: 64, ops: 2048 },
    Row { capability: (8, 6), cores: 128, ops: 1024 },
    Row { capability: (8, 7), cores: 128, ops: 2048 },
    Row { capability: (8, 9), cores: 128, ops: 1024 },
    Row { capability: (9, 0), cores: 128, ops: 4096 },
    Row { capability: (10, 0), cores: 128, ops: 8192 },
    Row { capability: (10, 3), cores: 128, ops: 8192 },
    Row { capability: (11, 0), cores: 128, ops: 8192 },
    Row { capability: (12, 0), cores: 128, ops: 1024 },
    Row { capability: (12, 1), cores: 128, ops: 1024 },
];

/// Clocks under a load of matrix products, as parts of the highest clock that the driver names (boost clocks of data sheets
/// lie 5 to 20 % below it).
const SUSTAINED: f64 = 0.85;
const SUSTAINED_LOW: f64 = 0.6;

fn row(capability: (u32, u32)) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.capability == capability)
}

/// CUDA cores of a multiprocessor.
pub(crate) fn cores_each(capability: (u32, u32)) -> Option<u64> {
    // Without tensor cores, so not in the table of rates: Kepler, Maxwell, Pascal (CUDA C++ Programming Guide, "Compute Capabilities").
    match capability {
        (3, _) => Some(192),
        (5, _) | (6, 1 | 2) => Some(128),
        (6, 0) => Some(64),
        _ => row(capability).map(|row| row.cores),
    }
}

/// The rate with FP32 sums; GeForce cards run that at half the rate of FP16 sums, which is then the upper end.
pub(crate) fn half_precision(
    name: &str,
    capability: Option<(u32, u32)>,
    cuda_cores: Option<u64>,
    clock_mhz: Option<u64>,
) -> Known<OpsPerSec> {
    let (Some(capability), Some(cuda_cores), Some(clock_mhz)) = (capability, cuda_cores, clock_mhz) else {
        return Known::unknown("NVML names no cores or no clock for this device");
    };
    let Some(row) = row(capability) else {
        return Known::unknown(format!("no half-precision rate in the table for compute capability {}.{}", capability.0, capability.1));
    };
    // Turing without tensor cores under the same capability.
    if name.contains("GTX 16") {
        return Known::unknown("no tensor cores");
    }
    let consumer = name.contains("GeForce") || name.contains("TITAN");
    let multiprocessors = cuda_cores / row.cores;
    let full = row.ops as f64 * multiprocessors as f64 * clock_mhz as f64 * 1e6;
    let rate = if consumer { full / 2.0 } else { full };
    match (OpsPerSec::new(rate * SUSTAINED), OpsPerSec::new(rate * SUSTAINED_LOW), OpsPerSec::new(full)) {
        (Some(value), Some(low), Some(high)) => Known::estimated(value, low, high, "compute capability x multiprocessors x max clock"),
        _ => Known::unknown("NVML names no cores or no clock for this device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rates_of_data_sheets_lie_inside() {
        // Name, capability, CUDA cores, max clock as NVML names it, dense TFLOPS with FP32 sums of the maker.
        let cards = [
            ("Tesla V100-SXM2-32GB", (7, 0), 5120, 1530, 125.0),
            ("NVIDIA A100-SXM4-80GB", (8, 0), 6912, 1410, 312.0),
            ("NVIDIA GeForce RTX 3090", (8, 6), 10496, 2100, 71.0),
            ("NVIDIA GeForce RTX 4090", (8, 9), 16384, 3105, 165.2),
            ("NVIDIA L40S", (8, 9), 18176, 2520, 362.0),
            ("NVIDIA H100 80GB HBM3", (9, 0), 16896, 1980, 989.0),
            ("NVIDIA GeForce RTX 5090", (12, 0), 21760, 3090, 209.5),
        ];
        for (name, capability, cores, mhz, tflops) in cards {
            let rate = half_precision(name, Some(capability), Some(cores), Some(mhz));
            let (low, high) = (rate.low().unwrap().get() / 1e12, rate.high().unwrap().get() / 1e12);
            assert!(low < tflops && tflops < high * 1.01, "{name}: {low} < {tflops} < {high}");
            assert!((rate.get().unwrap().get() / 1e12 / tflops - 1.0).abs() < 0.25, "{name}: {rate:?}");
        }
        assert!(half_precision("NVIDIA GeForce GTX 1660", Some((7, 5)), Some(1408), Some(2100)).is_unknown());
        assert!(half_precision("GTX 1080", Some((6, 1)), Some(2560), Some(1900)).is_unknown());
    }
}
