//! What the instruction set of an AMD GPU says about it: part of a processor or not, half-precision rate, transfers per clock
//! of its memory.

use spec::{BytesPerSec, Known, OpsPerSec};

/// One instruction set.
struct Row {
    target: &'static str,
    /// Operations (a multiply-add is two) per clock of a compute unit: dense, FP16 factors; the matrix unit's where there is one.
    ops: u64,
    /// Transfers per clock that the driver names, on one line of the memory's bus.
    transfers: u64,
}

/// Sources: LLVM AMDGPU usage guide (names), AMD's data sheets, peak FP16 rate (matrix, dense) over compute units × peak clock:
/// RX 580 (6.2 TFLOPS), RX Vega 64 (25.3), MI50 (26.5), MI100 (184.6), MI250X (383), MI300X (1307), MI350X (2300), RX 5700 XT
/// (19.5), RX 6900 XT (46.1), RX 7900 XTX (122.8), RX 9070 XT (195). Transfers: HBM and HBM2 two per clock, HBM3 four, GDDR5
/// four, GDDR6 sixteen per memory clock of the driver. Read 2025-11.
const ROWS: [Row; 24] = [
    Row { target: "gfx803", ops: 128, transfers: 4 },
    Row { target: "gfx900", ops: 256, transfers: 2 },
    Row { target: "gfx906", ops: 256, transfers: 2 },
    Row { target: "gfx908", ops: 1024, transfers: 2 },
    Row { target: "gfx90a", ops: 1024, transfers: 2 },
    Row { target: "gfx942", ops: 2048, transfers: 4 },
    Row { target: "gfx950", ops: 4096, transfers: 4 },
    Row { target: "gfx1010", ops: 256, transfers: 16 },
    Row { target: "gfx1011", ops: 256, transfers: 2 },
    Row { target: "gfx1012", ops: 256, transfers: 16 },
    Row { target: "gfx1030", ops: 256, transfers: 16 },
    Row { target: "gfx1031", ops: 256, transfers: 16 },
    Row { target: "gfx1032", ops: 256, transfers: 16 },
    Row { target: "gfx1034", ops: 256, transfers: 16 },
    Row { target: "gfx1100", ops: 512, transfers: 16 },
    Row { target: "gfx1101", ops: 512, transfers: 16 },
    Row { target: "gfx1102", ops: 512, transfers: 16 },
    Row { target: "gfx1103", ops: 512, transfers: 0 },
    Row { target: "gfx1150", ops: 512, transfers: 0 },
    Row { target: "gfx1151", ops: 512, transfers: 0 },
    Row { target: "gfx1152", ops: 512, transfers: 0 },
    Row { target: "gfx1153", ops: 512, transfers: 0 },
    Row { target: "gfx1200", ops: 1024, transfers: 16 },
    Row { target: "gfx1201", ops: 1024, transfers: 16 },
];

/// Instruction sets that only parts of a processor have (LLVM AMDGPU usage guide, "APU").
const INTEGRATED: [&str; 14] = [
    "gfx801", "gfx810", "gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036", "gfx1103", "gfx1150", "gfx1151",
    "gfx1152", "gfx1153",
];

/// Processors' GPUs by device id, for systems without the compute driver (pci.ids 2025-06): Kaveri, Kabini, Mullins, Carrizo,
/// Stoney, Raven, Picasso, Renoir, Van Gogh, Cezanne, Barcelo, Lucienne, Raphael, Rembrandt, Mendocino, Phoenix, Strix, Strix
/// Halo, Krackan, Granite Ridge. The last is the MI300A, whose instruction set is also a card's.
const INTEGRATED_IDS: [(u32, u32); 22] = [
    (0x1304, 0x131d),
    (0x9830, 0x985f),
    (0x9870, 0x9877),
    (0x98e4, 0x98e4),
    (0x15dd, 0x15dd),
    (0x15d8, 0x15d8),
    (0x1636, 0x1636),
    (0x1638, 0x1638),
    (0x15e7, 0x15e7),
    (0x164c, 0x164e),
    (0x163f, 0x163f),
    (0x1435, 0x1435),
    (0x1681, 0x1681),
    (0x1506, 0x1506),
    (0x15bf, 0x15c8),
    (0x1900, 0x1902),
    (0x150e, 0x150e),
    (0x1586, 0x1586),
    (0x1114, 0x1114),
    (0x13c0, 0x13c0),
    (0x13fe, 0x13fe),
    (0x74a0, 0x74a0),
];

/// Clocks under a load of matrix products, as parts of the highest clock.
const SUSTAINED: f64 = 0.85;
const SUSTAINED_LOW: f64 = 0.5;

/// Lines of a bus from which on it is one of stacked memory, whatever the instruction set: gfx803 has cards of both kinds.
const STACKED_BITS: u64 = 2048;

/// True for the GPU of a processor.
pub(crate) fn is_integrated(target: Option<&str>, device: u32) -> bool {
    INTEGRATED_IDS.iter().any(|(first, last)| (*first..=*last).contains(&device))
        || target.is_some_and(|target| INTEGRATED.contains(&target))
}

fn row(target: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.target == target)
}

/// Dense half-precision rate.
pub(crate) fn half_precision(target: Option<&str>, compute_units: Option<u32>, clock_mhz: Option<u64>) -> Known<OpsPerSec> {
    let (Some(target), Some(units), Some(mhz)) = (target, compute_units, clock_mhz) else {
        return Known::unknown("the compute driver (KFD) does not show this device");
    };
    let Some(row) = row(target) else { return Known::unknown(format!("no half-precision rate in the table for {target}")) };
    let rate = row.ops as f64 * f64::from(units) * mhz as f64 * 1e6;
    match (OpsPerSec::new(rate * SUSTAINED), OpsPerSec::new(rate * SUSTAINED_LOW), OpsPerSec::new(rate)) {
        (Some(value), Some(low), Some(high)) => Known::estimated(value, low, high, "instruction set x compute units x max clock"),
        _ => Known::unknown("the compute driver names no clock"),
    }
}

/// Bandwidth of a card's own memory: bus width × clock × transfers per clock. Against the makers' figures for RX 580, RX 5500 XT,
/// RX 6900 XT, RX 7900 XTX, MI100 and MI300X: 0 to 0.6 % off.
pub(crate) fn bandwidth(target: Option<&str>, bus: Option<(u64, u64)>) -> Known<BytesPerSec> {
    const OFF: f64 = 0.03;
    let (Some(row), Some((bits, mhz))) = (target.and_then(row).filter(|row| row.transfers > 0), bus) else {
        return Known::unknown("the compute driver (KFD) names no memory clock or bus width for this device");
    };
    let transfers = if bits >= STACKED_BITS { row.transfers.min(4) } else { row.transfers };
    let transfers = if bits >= STACKED_BITS && row.target == "gfx803" { 2 } else { transfers };
    let rate = bits as f64 / 8.0 * mhz as f64 * 1e6 * transfers as f64;
    match (BytesPerSec::new(rate), BytesPerSec::new(rate * (1.0 - OFF)), BytesPerSec::new(rate * (1.0 + OFF))) {
        (Some(rate), Some(low), Some(high)) => Known::estimated(rate, low, high, "KFD: bus width x max memory clock x transfers per clock"),
        _ => Known::unknown("the compute driver (KFD) names no memory clock or bus width for this device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_and_rates_of_data_sheets() {
        // Instruction set, bits, MHz, GB/s; compute units, MHz, TFLOPS.
        let cards = [
            ("gfx803", 256, 2000, 256.0, 36, 1340, 6.2),
            ("gfx908", 4096, 1200, 1228.8, 120, 1502, 184.6),
            ("gfx942", 8192, 1300, 5325.0, 304, 2100, 1307.4),
            ("gfx1030", 256, 1000, 512.0, 80, 2250, 46.1),
            ("gfx1100", 384, 1249, 960.0, 96, 2500, 122.8),
            ("gfx1201", 256, 1258, 644.6, 64, 2970, 194.6),
        ];
        for (target, bits, mhz, gigabytes, units, clock, tflops) in cards {
            let rate = bandwidth(Some(target), Some((bits, mhz))).get().unwrap().get() / 1e9;
            assert!((rate / gigabytes - 1.0).abs() < 0.006, "{target}: {rate}");
            let ops = half_precision(Some(target), Some(units), Some(clock)).high().unwrap().get() / 1e12;
            assert!((ops / tflops - 1.0).abs() < 0.01, "{target}: {ops}");
        }
        // R9 Fury: HBM under the same instruction set as RX 580.
        assert_eq!(bandwidth(Some("gfx803"), Some((4096, 500))).get().unwrap().get(), 512e9);
        assert!(bandwidth(Some("gfx1151"), Some((256, 1000))).is_unknown() && bandwidth(None, None).is_unknown());
        assert!(half_precision(Some("gfx601"), Some(6), Some(700)).is_unknown());
    }

    #[test]
    fn processors_gpus() {
        assert!(is_integrated(Some("gfx1151"), 0x1586) && is_integrated(None, 0x15bf) && is_integrated(Some("gfx942"), 0x74a0));
        assert!(!is_integrated(Some("gfx942"), 0x74a1) && !is_integrated(None, 0x744c));
    }
}
