//! Vectors that others' packers wrote (`oracle/record.py`): read, and written again to the same bytes.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use bytes::Bytes;
use kernels::{Layout, LookUp, MatrixError, TernaryMatrix, Tiles};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    scale: f32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    r#type: String,
    rows: usize,
    columns: usize,
    #[serde(default)]
    block: usize,
    #[serde(default)]
    bm: usize,
    #[serde(default)]
    bk: usize,
    #[serde(default)]
    bmm: usize,
    bytes: String,
}

impl Case {
    fn data(&self) -> Bytes {
        let digits: Vec<u32> = self.bytes.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
        digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect::<Vec<u8>>().into()
    }

    /// The weights of `record.py`.
    fn weights(&self) -> Vec<i8> {
        let mut state = self.rows as u64 * 65536 + self.columns as u64;
        let mut next = || {
            state = (state * 1_103_515_245 + 12345) % (1 << 31);
            (state >> 16) as i64 % 3 - 1
        };
        (0..self.rows * self.columns).map(|_| next() as i8).collect()
    }

    fn layout(&self) -> Layout {
        if self.block == 64 { Layout::Blocks64 } else { Layout::Blocks128 }
    }

    fn kind(&self) -> (LookUp, Tiles) {
        (if self.r#type == "tl1" { LookUp::Tl1 } else { LookUp::Tl2 }, Tiles { bm: self.bm, bk: self.bk, bmm: self.bmm })
    }
}

fn recorded() -> Recorded {
    serde_json::from_str(include_str!("oracle/packers.json")).unwrap()
}

fn of(case: &Case, scale: f32) -> TernaryMatrix {
    let (data, rows, columns) = (case.data(), case.rows, case.columns);
    match case.r#type.as_str() {
        "i2_s" => TernaryMatrix::from_i2_s(&data, rows, columns, case.layout()),
        "tq1_0" => TernaryMatrix::from_tq1_0(&data, rows, columns),
        "tq2_0" => TernaryMatrix::from_tq2_0(&data, rows, columns),
        _ => {
            let (kind, tiles) = case.kind();
            TernaryMatrix::from_lookup(&data, kind, tiles, rows, columns, scale)
        }
    }
    .unwrap()
}

fn weights(matrix: &TernaryMatrix) -> Vec<i8> {
    (0..matrix.rows()).flat_map(|row| (0..matrix.columns()).map(move |column| (row, column))).map(|(r, c)| matrix.weight(r, c)).collect()
}

#[test]
fn tensors_of_every_packer_are_read() {
    let recorded = recorded();
    let mut kinds: Vec<&str> = recorded.cases.iter().map(|case| case.r#type.as_str()).collect();
    kinds.dedup();
    assert_eq!(kinds, ["i2_s", "tl1", "tl2", "tq1_0", "tq2_0"]);
    for case in &recorded.cases {
        let matrix = of(case, recorded.scale);
        assert_eq!(weights(&matrix), case.weights(), "{} {} x {}", case.r#type, case.rows, case.columns);
        assert_eq!(matrix.scale(), recorded.scale, "{}", case.r#type);
        assert_eq!(matrix.invalid_codes(), 0);
    }
}

#[test]
fn tensors_are_written_as_every_packer_writes_them() {
    let recorded = recorded();
    for case in &recorded.cases {
        let weights = case.weights();
        let written = match case.r#type.as_str() {
            "i2_s" => {
                let mut bytes = case.layout().pack(weights.iter().copied());
                bytes.truncate(weights.len() / 4);
                bytes.extend(recorded.scale.to_le_bytes());
                bytes.extend([0; 28]);
                bytes
            }
            "tl1" | "tl2" => {
                let (kind, tiles) = case.kind();
                kind.pack(tiles, case.rows, case.columns, |row, column| weights[row * case.columns + column]).unwrap()
            }
            _ => continue,
        };
        assert_eq!(written, case.data(), "{} {} x {} {}", case.r#type, case.rows, case.columns, case.block);
    }
}

/// Nothing in a file says which of the two it is: read as the other, the weights are others.
#[test]
fn the_two_layouts_of_i2_s_are_told_apart_by_the_reader_alone() {
    for case in recorded().cases.iter().filter(|case| case.r#type == "i2_s") {
        let other = if case.block == 64 { Layout::Blocks128 } else { Layout::Blocks64 };
        let matrix = TernaryMatrix::from_i2_s(&case.data(), case.rows, case.columns, other).unwrap();
        assert_ne!(weights(&matrix), case.weights());
    }
}

/// The tiles that microsoft/BitNet ships (`preset_kernels/*/kernel_config_*.ini`): sizes of tensors, and a trip there and back.
#[test]
fn shipped_tiles_fit_their_shapes() {
    let shapes = [
        (LookUp::Tl1, 1536, 4096, Tiles { bm: 256, bk: 128, bmm: 32 }, 1_572_864),
        (LookUp::Tl1, 1536, 1536, Tiles { bm: 128, bk: 64, bmm: 64 }, 589_824),
        (LookUp::Tl1, 3200, 3200, Tiles { bm: 320, bk: 128, bmm: 64 }, 2_560_000),
        (LookUp::Tl2, 3200, 3200, Tiles { bm: 320, bk: 96, bmm: 32 }, 2_167_466),
        (LookUp::Tl2, 1536, 1536, Tiles { bm: 128, bk: 192, bmm: 32 }, 507_904),
    ];
    let weight = |row: usize, column: usize| ((row * 7 + column * 5 + column / 11) % 3) as i8 - 1;
    for (kind, rows, columns, tiles, bytes) in shapes {
        let packed = kind.pack(tiles, rows, columns, weight).unwrap();
        assert_eq!(packed.len(), bytes, "{kind:?} {rows} x {columns}");
        let matrix = TernaryMatrix::from_lookup(&packed, kind, tiles, rows, columns, 1.0).unwrap();
        for row in (0..rows).step_by(37) {
            assert!((0..columns).all(|column| matrix.weight(row, column) == weight(row, column)), "{kind:?} row {row}");
        }
    }
}

#[test]
fn tiles_that_do_not_fit_and_tensors_that_are_cut_are_named() {
    let tiles = Tiles { bm: 48, bk: 96, bmm: 32 };
    let error = TernaryMatrix::from_lookup(&[], LookUp::Tl2, tiles, 96, 288, 1.0).unwrap_err();
    assert_eq!(error.to_string(), "tiles of 48 rows (32 at once) and 96 columns do not divide a matrix of 96 rows and 288 columns");
    for tiles in [Tiles { bm: 0, bk: 96, bmm: 32 }, Tiles { bm: 32, bk: 0, bmm: 32 }, Tiles { bm: 32, bk: 96, bmm: 0 }] {
        for kind in [LookUp::Tl1, LookUp::Tl2] {
            assert!(matches!(kind.pack(tiles, 32, 288, |_, _| 0), Err(MatrixError::Tiles { .. })));
        }
    }
    let tiles = Tiles { bm: 32, bk: 96, bmm: 32 };
    assert!(matches!(TernaryMatrix::from_lookup(&[0; 9], LookUp::Tl1, tiles, usize::MAX - 31, 96, 1.0), Err(MatrixError::Tiles { .. })));
    let error = TernaryMatrix::from_lookup(&[0; 9], LookUp::Tl1, tiles, 32, 96, 1.0).unwrap_err();
    assert_eq!(error, MatrixError::Length { rows: 32, columns: 96, needed: 768, found: 9 });
    // No packer writes index 15; it reads as some weight of -1 to 1 all the same.
    let matrix = TernaryMatrix::from_lookup(&[0xff; 768], LookUp::Tl1, tiles, 32, 96, 1.0).unwrap();
    assert_eq!(matrix.invalid_codes(), 0);
}
