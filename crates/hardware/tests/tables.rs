//! Laws of the tables: products come out, keys are unique, every row has its source.

use hardware::{Accelerator, Build, Confidence, RateBasis, Tables};
use proptest::prelude::*;
use spec::Bytes;
use std::collections::{BTreeMap, BTreeSet};

fn tables() -> &'static Tables {
    Tables::built_in()
}

#[test]
fn every_row_is_read() {
    assert!(tables().problems().is_empty(), "{:?}", tables().problems());
    assert!(tables().accelerators().len() > 350 && tables().processors().len() > 650);
}

#[test]
fn the_readme_counts_right() {
    let readme = include_str!("../../../README.md");
    let counts = format!("{} GPUs and modules, {} processors", tables().accelerators().len(), tables().processors().len());
    assert!(readme.contains(&counts), "the README does not say {counts:?}");
}

#[test]
fn bandwidth_is_bus_times_transfer_rate() {
    for row in tables().accelerators() {
        match (row.bus_bits, row.transfer_mtps, row.bandwidth) {
            (Some(bits), Some(rate), Some(bandwidth)) => {
                let product = f64::from(bits) * f64::from(rate) * 1e6 / 8.0;
                assert!((bandwidth.get() - product).abs() <= 0.06e9, "{}: {bandwidth} is not {product}", row.title());
            }
            (None, None, None) => assert!(row.build == Build::Integrated || row.name.ends_with("GT 730"), "{}", row.title()),
            other => panic!("{}: only a part of {other:?}", row.title()),
        }
    }
    for row in tables().processors() {
        match (row.channels, row.channel_bits, row.memory.first(), row.bandwidth) {
            (Some(channels), Some(bits), Some((_, rate)), Some(bandwidth)) => {
                let product = f64::from(channels * bits) * f64::from(*rate) * 1e6 / 8.0;
                assert!((bandwidth.get() - product).abs() <= 0.06e9, "{}: {bandwidth} is not {product}", row.name);
                assert!(row.memory.iter().all(|(_, other)| other <= rate), "{}: the fastest memory stands first", row.name);
            }
            (None, None, None, None) => assert_eq!(row.segment, hardware::Segment::Module, "{}", row.name),
            other => panic!("{}: only a part of {other:?}", row.name),
        }
    }
}

/// A data sheet's rates are at a clock of its choice, often not the boost clock, and some parts are cut: within these of the product.
const STATED_LOW: f64 = 0.45;
const STATED_HIGH: f64 = 1.15;

#[test]
fn rates_are_units_times_clock_times_architecture() {
    let mut computed = 0;
    for row in tables().accelerators() {
        let architecture = tables().architecture(row).unwrap_or_else(|| panic!("{}: no architecture {}", row.title(), row.architecture));
        let pairs = [
            (row.fp16, architecture.fp16),
            (row.bf16, architecture.bf16),
            (row.int8, architecture.int8),
            (row.fp8, architecture.fp8),
            (row.fp4, architecture.fp4),
        ];
        assert_eq!(row.rates.is_some(), pairs.iter().any(|(rate, _)| rate.is_some()), "{}", row.title());
        for (rate, ops) in pairs {
            let Some((rate, units, mhz)) = rate.and_then(|rate| Some((rate.get(), row.units?, row.boost_mhz?))) else { continue };
            let Some(ops) = ops else {
                assert_eq!(row.rates, Some(RateBasis::Stated), "{}: a rate that the architecture lacks", row.title());
                continue;
            };
            let product = ops * f64::from(units) * f64::from(mhz) * 1e6;
            let ratio = rate / product;
            match row.rates {
                Some(RateBasis::Computed) => {
                    computed += 1;
                    assert!((rate - product).abs() <= 0.051e12, "{}: {rate} is not {product}", row.title());
                }
                _ => assert!((STATED_LOW..=STATED_HIGH).contains(&ratio), "{}: {ratio} of the product", row.title()),
            }
        }
    }
    assert!(computed > 500, "{computed}");
}

#[test]
fn keys_are_unique() {
    let mut rows = BTreeSet::new();
    for row in tables().accelerators() {
        let sizes: Vec<u64> = row.memory.iter().map(|size| size.get()).collect();
        assert!(sizes.windows(2).all(|pair| pair[0] < pair[1]), "{}: sizes ascend", row.title());
        for size in if sizes.is_empty() { vec![0] } else { sizes } {
            assert!(rows.insert((row.name.clone(), size)), "{} stands twice", row.title());
        }
    }
    let processors: BTreeSet<&str> = tables().processors().iter().map(|row| row.name.as_str()).collect();
    assert_eq!(processors.len(), tables().processors().len());
}

#[test]
fn pci_ids_are_well_formed_and_unique_with_the_memory_unless_stated() {
    let mut holders: BTreeMap<(&str, u64), Vec<&Accelerator>> = BTreeMap::new();
    for row in tables().accelerators() {
        for id in &row.pci_ids {
            let (vendor, device) = id.split_once(':').unwrap_or_default();
            let hex = |text: &str| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            assert!(hex(device) && matches!(vendor, "10de" | "1002" | "8086"), "{}: {id}", row.title());
            let sizes: Vec<u64> = row.memory.iter().map(|size| size.get()).collect();
            for size in if sizes.is_empty() { vec![0] } else { sizes } {
                holders.entry((id, size)).or_default().push(row);
            }
        }
    }
    let shared: BTreeSet<String> = holders.values().filter(|rows| rows.len() > 1).flatten().map(|row| row.title()).collect();
    let stated: BTreeSet<String> = tables().accelerators().iter().filter(|row| row.ambiguous).map(|row| row.title()).collect();
    assert_eq!(shared, stated, "the rows that share an id with the same memory are those that say so");
    assert!(holders.len() > 300);
}

#[test]
fn every_name_finds_its_own_row() {
    for row in tables().accelerators() {
        let sizes: Vec<String> = row.memory.iter().map(|size| format!(" {}GiB", size.as_gib())).collect();
        for size in if sizes.is_empty() { vec![String::new()] } else { sizes } {
            // A part of a GiB stands for what a driver shows and is not written in names.
            let asked = if size.contains('.') { row.name.clone() } else { format!("{}{size}", row.name) };
            let found = tables().accelerator(&asked);
            assert!(found.as_ref().is_ok_and(|choice| std::ptr::eq(choice.row, row)), "{asked}: {found:?}");
        }
        for alias in &row.aliases {
            let found = tables().accelerator(alias);
            assert!(found.as_ref().is_ok_and(|choice| std::ptr::eq(choice.row, row)), "{alias}: {found:?}");
        }
    }
    for row in tables().processors() {
        for name in row.names() {
            let found = tables().processor(name);
            assert!(found.as_ref().is_ok_and(|other| std::ptr::eq(*other, row)), "{name}: {found:?}");
        }
    }
}

#[test]
fn modules_name_their_processor_and_it_exists() {
    for row in tables().accelerators().iter().filter(|row| row.processor.is_some() || row.build == Build::Module) {
        let name = row.processor.as_deref().unwrap_or_else(|| panic!("{}: no processor", row.title()));
        assert!(tables().processors().iter().any(|processor| processor.name == name), "{}: {name}", row.title());
        assert!(row.unified, "{}", row.title());
    }
}

#[test]
fn processors_add_up() {
    for row in tables().processors() {
        let (cores, threads) = (row.cores(), row.threads);
        assert!(cores >= 1 && threads >= cores && threads <= cores * 2, "{}: {cores} cores, {threads} threads", row.name);
        assert_eq!(row.features.iter().any(|name| name == "neon"), row.arch() == "aarch64", "{}", row.name);
    }
}

#[test]
fn a_row_that_is_sure_says_what_it_was_compared_with() {
    for row in tables().accelerators().iter().filter(|row| row.confidence == Confidence::High) {
        assert!(row.checked.is_some(), "{}", row.title());
    }
    for row in tables().processors().iter().filter(|row| row.confidence == Confidence::High) {
        assert!(row.checked.is_some(), "{}", row.name);
    }
}

#[test]
fn the_platforms_that_the_requirements_name_are_there() {
    let named = [
        "Apple M1 8-core 16GB",
        "Apple M2 Ultra 76-core 192GB",
        "Apple M3 8-core 8GB",
        "Apple M4 Max 40-core 128GB",
        "Apple M5 16GB",
        "RTX 3060 12GB",
        "RTX 3070",
        "RTX 3080 10GB",
        "RTX 3090",
        "RTX 4060",
        "RTX 4070",
        "RTX 4080",
        "RTX 4090",
        "RTX 5060",
        "RTX 5070",
        "RTX 5080",
        "RTX 5090",
        "T4",
        "V100 SXM2 32GB",
        "A100 SXM4 80GB",
        "H100 SXM 80GB",
        "B200",
        "B300",
        "GB10",
        "Jetson Nano 4GB",
        "Jetson AGX Xavier 32GB",
        "Jetson AGX Orin 64GB",
        "Jetson Thor",
        "RX 7900 XT",
        "RX 7900 XTX",
        "RX 9060 XT 16GB",
        "RX 9070 XT",
        "MI250",
        "MI300X",
        "MI355X",
        "Strix Halo 128GB",
        "Arc A770 16GB",
        "Arc B580",
    ];
    let missing: Vec<String> = named.iter().filter_map(|name| tables().accelerator(name).err().map(|error| error.to_string())).collect();
    assert_eq!(missing, [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_name_is_a_row_or_an_error(text in "[a-zA-Z0-9 ()+.,@/®™-]{0,40}") {
        let _ = tables().accelerator(&text).map(|choice| choice.row.title());
        let _ = tables().processor(&text).map(|row| row.name.clone());
    }

    #[test]
    fn what_a_driver_shows_of_the_memory_finds_the_row(index in 0usize..300, part in 0.93f64..1.0) {
        let row = &tables().accelerators()[index];
        if let (Some(id), Some(size)) = (row.pci_ids.first(), row.memory.first()) {
            let found = tables().by_pci_id(id, Some(Bytes::from_f64(size.as_f64() * part)));
            prop_assert!(!found.is_empty());
            let alone = tables().by_pci_id(id, Some(*size));
            prop_assert!(alone.iter().any(|other| std::ptr::eq(*other, row)));
            prop_assert!(row.ambiguous || alone.len() == 1);
        }
    }
}
