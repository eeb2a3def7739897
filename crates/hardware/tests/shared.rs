//! Differences from a table that others compiled, where the workspace has it: all are printed, only explained ones are allowed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot be set up has failed; differences are told")]

use hardware::{Accelerator, Tables};
use spec::Bytes;
use std::path::Path;

/// Name and column of each difference, and why ours is kept.
const EXPLAINED: [(&str, &str, &str); 27] = [
    ("Tesla P100 PCIe 12 GB", "fp16_dense_tflops", "NVIDIA states 18.7, at a boost of 1303 MHz"),
    ("Arc 130T Mobile", "bandwidth_gb_s", "Arrow Lake H takes LPDDR5X-8400, the other has the rate of Meteor Lake"),
    ("Arc 140T Mobile", "bandwidth_gb_s", "Arrow Lake H takes LPDDR5X-8400, the other has the rate of Meteor Lake"),
    ("GeForce RTX 3050 8 GB GA107", "found", "the figures of the card with the larger chip, of which it has the name"),
    ("Radeon 860M", "bandwidth_gb_s", "Krackan Point takes LPDDR5X-8000, the other has the rate of Strix Point"),
    ("Radeon VII", "int8_dense_tops", "Vega 20 has INT8 dot products, the other leaves it empty"),
    ("GeForce GTX 1650", "int8_dense_tops", "dp4a, the other counts tensor cores only"),
    ("GeForce GTX 1650 SUPER", "int8_dense_tops", "dp4a, the other counts tensor cores only"),
    ("GeForce GTX 1660", "int8_dense_tops", "dp4a, the other counts tensor cores only"),
    ("GeForce GTX 1660 SUPER", "int8_dense_tops", "dp4a, the other counts tensor cores only"),
    ("GeForce GTX 1660 Ti", "int8_dense_tops", "dp4a, the other counts tensor cores only"),
    ("GeForce GTX 1650 GDDR6", "int8_dense_tops", "dp4a, the other counts tensor cores only"),
    ("Instinct MI350X", "fp4_dense_tflops", "CDNA4 has FP4, the other leaves it empty"),
    ("Instinct MI355X", "fp4_dense_tflops", "CDNA4 has FP4, the other leaves it empty"),
    ("Arc A750", "fp16_dense_tflops", "Intel states 229 INT8 TOPS, the other computes at a higher clock"),
    ("Arc A750", "int8_dense_tops", "Intel states 229 INT8 TOPS, the other computes at a higher clock"),
    ("Arc A770", "fp16_dense_tflops", "Intel states 262 INT8 TOPS, the other computes at a higher clock"),
    ("Arc A770", "int8_dense_tops", "Intel states 262 INT8 TOPS, the other computes at a higher clock"),
    ("Instinct MI250", "bandwidth_gb_s", "ours is one of the two devices of the card"),
    ("Instinct MI250", "fp16_dense_tflops", "ours is one of the two devices of the card"),
    ("Instinct MI250", "int8_dense_tops", "ours is one of the two devices of the card"),
    ("Instinct MI250X", "bandwidth_gb_s", "ours is one of the two devices of the card"),
    ("Instinct MI250X", "fp16_dense_tflops", "ours is one of the two devices of the card"),
    ("Instinct MI250X", "int8_dense_tops", "ours is one of the two devices of the card"),
    ("Instinct MI60", "found", "an MI50 of 32 GB has its id and memory"),
    ("Arc Graphics 112EU Mobile", "found", "the driver names both parts Arc Graphics"),
    ("Arc Graphics 128EU Mobile", "found", "the driver names both parts Arc Graphics"),
];

/// Rounding of published figures.
const OFF: f64 = 0.02;

#[test]
fn differences_from_the_shared_table_are_explained() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/hardware/accelerators.csv");
    if !path.exists() {
        println!("SKIPPED: no table of others at {}", path.display());
        return;
    }
    let mut reader = csv::Reader::from_path(path).unwrap();
    let header = reader.headers().unwrap().clone();
    let (mut compared, mut unexplained) = (0, Vec::new());
    for record in reader.records().map(Result::unwrap) {
        let cell =
            |column: &str| header.iter().position(|name| name == column).and_then(|at| record.get(at)).unwrap_or("").trim().to_owned();
        if cell("kind") == "cpu" {
            continue;
        }
        let name = cell("name");
        let mut differ = |column: &str, theirs: &str, ours: &str| {
            let reason = EXPLAINED.iter().find(|known| known.0 == name && known.1 == column).map(|known| known.2);
            println!("{name}, {column}: {theirs} there, {ours} here: {}", reason.unwrap_or("NOT EXPLAINED"));
            if reason.is_none() {
                unexplained.push(format!("{name}, {column}: {theirs} there, {ours} here"));
            }
        };
        match row(&name, &cell("memory_gb"), &cell("pci_ids")) {
            None => differ("found", "a row", "none"),
            Some(row) => {
                compared += 1;
                let bandwidth = row.bandwidth.map(|rate| rate.get() / 1e9);
                let tera = |rate: Option<spec::OpsPerSec>| rate.map(|rate| rate.get() / 1e12);
                let pairs = [
                    ("bandwidth_gb_s", bandwidth),
                    ("fp16_dense_tflops", tera(row.fp16)),
                    ("int8_dense_tops", tera(row.int8)),
                    ("fp8_dense_tflops", tera(row.fp8)),
                    ("fp4_dense_tflops", tera(row.fp4)),
                ];
                for (column, ours) in pairs {
                    let theirs: Option<f64> = cell(column).parse().ok();
                    let same = match (theirs, ours) {
                        (None, None) => true,
                        (Some(a), Some(b)) => (a / b - 1.0).abs() <= OFF,
                        _ => false,
                    };
                    if !same {
                        differ(column, &cell(column), &format!("{ours:?}"));
                    }
                }
            }
        }
    }
    println!("{compared} rows compared");
    assert!(compared > 280, "{compared}");
    assert_eq!(unexplained, [""; 0]);
}

/// Our row for one of theirs: by name, else by PCI id and memory.
fn row(name: &str, memory: &str, ids: &str) -> Option<&'static Accelerator> {
    let tables = Tables::built_in();
    let name = name.trim_end_matches(" Mobile").trim_end_matches(" (per GPU)");
    let memory: Option<Bytes> = memory.parse::<f64>().ok().and_then(|gib| format!("{gib}GiB").parse().ok());
    let asked = memory.filter(|_| !name.contains("GB")).map_or(name.to_owned(), |memory| format!("{name} {}GB", memory.as_gib()));
    let by_name = tables.accelerator(&asked).or_else(|_| tables.accelerator(name)).ok().map(|choice| choice.row);
    by_name.or_else(|| match tables.by_pci_id(ids.split(' ').next()?, memory).as_slice() {
        [row] => Some(*row),
        _ => None,
    })
}
