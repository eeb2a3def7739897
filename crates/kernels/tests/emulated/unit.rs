//! The tile registers of one thread, and what instructions do to them: the operations and exceptions of the Intel 64 and IA-32
//! Architectures Software Developer's Manual, volume 2 (LDTILECFG, TILERELEASE, TILELOADD, TILESTORED, TDPBSUD), over plain arrays.

/// Tiles of palette 1, their rows, and bytes of a row.
const TILES: usize = 8;
const ROWS: usize = 16;
const BYTES: usize = 64;

/// What the processor raises instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// #UD.
    Undefined(&'static str),
    /// #GP.
    Protection(&'static str),
}

/// Size of a tile; without rows it is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shape {
    rows: usize,
    bytes: usize,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times that tiles were configured.
    pub configured: u64,
    /// Times that they were released.
    pub released: u64,
    /// Products of tiles.
    pub products: u64,
}

/// Registers.
pub struct Unit {
    shapes: Option<[Shape; TILES]>,
    start_row: usize,
    tiles: [[[u8; BYTES]; ROWS]; TILES],
    counts: Counts,
    /// Products come out wrong in one bit.
    pub broken: bool,
}

impl Unit {
    /// As a thread begins: not configured.
    pub const fn new() -> Self {
        Self {
            shapes: None,
            start_row: 0,
            tiles: [[[0; BYTES]; ROWS]; TILES],
            counts: Counts { configured: 0, released: 0, products: 0 },
            broken: false,
        }
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// LDTILECFG.
    pub fn configure(&mut self, memory: &[u8; 64]) -> Result<(), Fault> {
        let (palette, start_row) = (memory[0], usize::from(memory[1]));
        match palette {
            0 => self.shapes = None,
            1 => {
                let mut shapes = [Shape::default(); TILES];
                for (tile, shape) in shapes.iter_mut().enumerate() {
                    let bytes = u16::from_le_bytes([memory[16 + 2 * tile], memory[17 + 2 * tile]]);
                    *shape = Shape { rows: memory[48 + tile].into(), bytes: bytes.into() };
                    if shape.rows > ROWS || shape.bytes > BYTES {
                        return Err(Fault::Protection("a tile larger than the palette's"));
                    }
                    if (shape.rows == 0) != (shape.bytes == 0) {
                        return Err(Fault::Protection("a tile with rows or bytes alone"));
                    }
                }
                let reserved = [2..16, 16 + 2 * TILES..48, 48 + TILES..64];
                if reserved.into_iter().any(|bytes| memory[bytes].iter().any(|byte| *byte != 0)) {
                    return Err(Fault::Protection("reserved bytes that are not 0"));
                }
                self.shapes = Some(shapes);
            }
            _ => return Err(Fault::Protection("a palette that there is not")),
        }
        self.start_row = if palette == 0 { 0 } else { start_row };
        self.tiles = [[[0; BYTES]; ROWS]; TILES];
        self.counts.configured += 1;
        Ok(())
    }

    /// TILERELEASE.
    pub fn release(&mut self) {
        (self.shapes, self.start_row, self.tiles) = (None, 0, [[[0; BYTES]; ROWS]; TILES]);
        self.counts.released += 1;
    }

    /// TILELOADD: `read` fills bytes from a row's beginning on.
    pub fn load(&mut self, tile: u8, read: impl Fn(usize, &mut [u8])) -> Result<(), Fault> {
        let shape = self.for_memory(tile)?;
        let start = self.start_row;
        for (row, bytes) in self.tiles[usize::from(tile)].iter_mut().enumerate().skip(start) {
            *bytes = [0; BYTES];
            if row < shape.rows {
                read(row, &mut bytes[..shape.bytes]);
            }
        }
        self.start_row = 0;
        Ok(())
    }

    /// TILESTORED: `write` is given the bytes of a row.
    pub fn store(&mut self, tile: u8, mut write: impl FnMut(usize, &[u8])) -> Result<(), Fault> {
        let shape = self.for_memory(tile)?;
        for row in self.start_row..shape.rows {
            write(row, &self.tiles[usize::from(tile)][row][..shape.bytes]);
        }
        self.start_row = 0;
        Ok(())
    }

    /// TDPBSUD: `sums` += `signed` × `unsigned`, where four bytes of a row of the one meet those of a column of the other.
    pub fn multiply(&mut self, sums: u8, signed: u8, unsigned: u8) -> Result<(), Fault> {
        if sums == signed || sums == unsigned || signed == unsigned {
            return Err(Fault::Undefined("a tile named twice"));
        }
        let (c, a, b) = (self.shape(sums)?, self.shape(signed)?, self.shape(unsigned)?);
        if self.start_row != 0 {
            return Err(Fault::Undefined("a product that starts at a row"));
        }
        if c.bytes != b.bytes || c.rows != a.rows || a.bytes / 4 != b.rows {
            return Err(Fault::Undefined("tiles whose shapes do not meet"));
        }
        let [signed, unsigned] = [signed, unsigned].map(|tile| self.tiles[usize::from(tile)]);
        let sums = &mut self.tiles[usize::from(sums)];
        for (m, row) in sums.iter_mut().enumerate() {
            let before = *row;
            *row = [0; BYTES];
            if m >= c.rows {
                continue;
            }
            for n in (0..c.bytes).step_by(4) {
                let mut sum = i32::from_le_bytes([before[n], before[n + 1], before[n + 2], before[n + 3]]);
                for k in 0..b.rows {
                    for i in 0..4 {
                        let product = i32::from(signed[m][4 * k + i] as i8) * i32::from(unsigned[k][n + i]);
                        sum = sum.wrapping_add(product);
                    }
                }
                row[n..n + 4].copy_from_slice(&(sum ^ i32::from(self.broken)).to_le_bytes());
            }
        }
        self.counts.products += 1;
        Ok(())
    }

    fn shape(&self, tile: u8) -> Result<Shape, Fault> {
        let shapes = self.shapes.as_ref().ok_or(Fault::Undefined("tiles that are not configured"))?;
        let shape = shapes.get(usize::from(tile)).filter(|shape| shape.rows > 0);
        let shape = shape.ok_or(Fault::Undefined("a tile that is not there"))?;
        if shape.bytes.is_multiple_of(4) { Ok(*shape) } else { Err(Fault::Undefined("rows that are no whole numbers")) }
    }

    fn for_memory(&self, tile: u8) -> Result<Shape, Fault> {
        let shape = self.shape(tile)?;
        if self.start_row < shape.rows { Ok(shape) } else { Err(Fault::Undefined("a row beyond the tile")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Palette 1 with tiles of so many rows and bytes.
    fn memory(shapes: &[(u8, u16)]) -> [u8; 64] {
        let mut memory = [0; 64];
        memory[0] = 1;
        for (tile, (rows, bytes)) in shapes.iter().enumerate() {
            memory[48 + tile] = *rows;
            memory[16 + 2 * tile..18 + 2 * tile].copy_from_slice(&bytes.to_le_bytes());
        }
        memory
    }

    fn configured(shapes: &[(u8, u16)]) -> Unit {
        let mut unit = Unit::new();
        unit.configure(&memory(shapes)).unwrap();
        unit
    }

    #[test]
    fn products_are_those_of_matrices() {
        // 2 × 8 signed times 8 × 3 unsigned.
        let mut unit = configured(&[(2, 12), (2, 8), (2, 12)]);
        let signed = |m: usize, k: usize| [[-128_i8, 127, 0, -1, 5, 6, -7, 8], [1, -2, 3, -4, 100, -100, 127, -128]][m][k];
        let unsigned = |k: usize, n: usize| [255_u8, 3, 0, 1, 128, 2, 200, 7][k].wrapping_add(5 * n as u8);
        unit.load(0, |row, bytes| bytes.fill(row as u8)).unwrap();
        unit.load(1, |row, bytes| bytes.iter_mut().enumerate().for_each(|(k, byte)| *byte = signed(row, k) as u8)).unwrap();
        unit.load(2, |row, bytes| bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = unsigned(4 * row + i % 4, i / 4))).unwrap();
        unit.multiply(0, 1, 2).unwrap();
        let mut seen = Vec::new();
        unit.store(0, |row, bytes| seen.push((row, bytes.as_chunks().0.iter().map(|x| i32::from_le_bytes(*x)).collect::<Vec<_>>())))
            .unwrap();
        let sum =
            |m: usize, n: usize| (0..8).map(|k| i32::from(signed(m, k)) * i32::from(unsigned(k, n))).sum::<i32>() + m as i32 * 0x0101_0101;
        assert_eq!(seen, [0, 1].map(|m| (m, (0..3).map(|n| sum(m, n)).collect())));
        assert_eq!(unit.counts(), Counts { configured: 1, released: 0, products: 1 });
        unit.release();
        assert_eq!(unit.load(1, |_, _| ()), Err(Fault::Undefined("tiles that are not configured")));
    }

    #[test]
    fn configurations_that_cannot_be_are_refused() {
        let protection = |change: &dyn Fn(&mut [u8; 64])| {
            let mut memory = memory(&[(16, 64); 8]);
            change(&mut memory);
            let mut unit = Unit::new();
            let refused = unit.configure(&memory);
            assert_eq!(unit.counts().configured, u64::from(refused.is_ok()));
            refused
        };
        let refused = |why| Err(Fault::Protection(why));
        assert_eq!(protection(&|_| ()), Ok(()));
        assert_eq!(protection(&|memory| memory[0] = 2), refused("a palette that there is not"));
        assert_eq!(protection(&|memory| memory[55] = 17), refused("a tile larger than the palette's"));
        assert_eq!(protection(&|memory| memory[17] = 1), refused("a tile larger than the palette's"));
        assert_eq!(protection(&|memory| memory[48] = 0), refused("a tile with rows or bytes alone"));
        for reserved in [2, 15, 32, 47, 56, 63] {
            assert_eq!(protection(&|memory| memory[reserved] = 1), refused("reserved bytes that are not 0"), "{reserved}");
        }
    }

    #[test]
    fn tiles_that_do_not_meet_are_refused() {
        let refused = |shapes: &[(u8, u16)], [c, a, b]: [u8; 3]| configured(shapes).multiply(c, a, b).err();
        let undefined = |why| Some(Fault::Undefined(why));
        let whole = [(16, 64); 8];
        assert_eq!(refused(&whole, [0, 1, 2]), None);
        assert_eq!(refused(&whole, [0, 1, 1]), undefined("a tile named twice"));
        assert_eq!(refused(&whole[..2], [0, 1, 2]), undefined("a tile that is not there"));
        assert_eq!(refused(&[(16, 64), (16, 64), (15, 64)], [0, 1, 2]), undefined("tiles whose shapes do not meet"));
        assert_eq!(refused(&[(16, 64), (15, 64), (16, 64)], [0, 1, 2]), undefined("tiles whose shapes do not meet"));
        assert_eq!(refused(&[(16, 60), (16, 64), (16, 64)], [0, 1, 2]), undefined("tiles whose shapes do not meet"));
        assert_eq!(refused(&[(16, 63), (16, 64), (16, 63)], [0, 1, 2]), undefined("rows that are no whole numbers"));
        assert_eq!(Unit::new().multiply(0, 1, 2), Err(Fault::Undefined("tiles that are not configured")));
        let mut memory = memory(&whole);
        memory[1] = 1;
        let mut unit = Unit::new();
        unit.configure(&memory).unwrap();
        assert_eq!(unit.multiply(0, 1, 2), Err(Fault::Undefined("a product that starts at a row")));
        memory[1] = 16;
        unit.configure(&memory).unwrap();
        assert_eq!(unit.store(0, |_, _| ()), Err(Fault::Undefined("a row beyond the tile")));
    }
}
