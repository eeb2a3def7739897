//! The tiles of `TL1` and `TL2` tensors, which no model file states: from the `kernel_config.ini` of the build that a file was made for.

use kernels::Tiles;

/// The tiles of all matrices of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeTiles {
    /// Outputs: `m`.
    pub rows: usize,
    /// Inputs: `k`.
    pub columns: usize,
    /// Its tiles.
    pub tiles: Tiles,
}

/// A text that is no `kernel_config.ini`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TilesError {
    /// A line that is no section, entry, comment or blank.
    #[error("line {line} is neither [a section] nor key = value: {text}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// An entry that is no size.
    #[error("line {line}: {key} is no whole number above 0: {value}")]
    Number {
        /// Its number, from 1.
        line: usize,
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// A section without a key that each has.
    #[error("section [{section}] does not state {key}")]
    Missing {
        /// The section.
        section: String,
        /// The key.
        key: &'static str,
    },
    /// No section at all.
    #[error("no section states the tiles of a shape")]
    Empty,
}

/// A section's keys: rows, columns, and what [`Tiles`] has.
const KEYS: [&str; 5] = ["m", "k", "bm", "bk", "bmm"];

impl ShapeTiles {
    /// The sections of such a text, one per shape, in its order (microsoft/BitNet 16da220, written by `utils/codegen_tl1.py` and
    /// `codegen_tl2.py`). Entries beside the five that count are not read.
    ///
    /// ```
    /// use bitnet::ShapeTiles;
    /// let shapes = ShapeTiles::of_config("[Kernels_0]\nm = 1536\nk = 4096\nbm = 256\nbk = 128\nbmm = 32\n")?;
    /// assert_eq!((shapes[0].rows, shapes[0].columns, shapes[0].tiles.bk), (1536, 4096, 128));
    /// # Ok::<(), bitnet::TilesError>(())
    /// ```
    ///
    /// # Errors
    /// The first line, number or section that is not as in such a file.
    pub fn of_config(text: &str) -> Result<Vec<Self>, TilesError> {
        let mut sections: Vec<(&str, [Option<usize>; KEYS.len()])> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let (line, text) = (number + 1, line.trim());
            if text.is_empty() || text.starts_with(['#', ';']) {
                continue;
            }
            let other = || TilesError::Line { line, text: text.to_owned() };
            if let Some(name) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
                sections.push((name, [None; KEYS.len()]));
                continue;
            }
            let (key, value) = text.split_once(['=', ':']).ok_or_else(other)?;
            let (key, value) = (key.trim().to_lowercase(), value.trim());
            let (_, found) = sections.last_mut().ok_or_else(other)?;
            if let Some(place) = KEYS.iter().position(|known| *known == key) {
                let size = value.parse().ok().filter(|&size: &usize| size > 0);
                found[place] = Some(size.ok_or_else(|| TilesError::Number { line, key, value: value.to_owned() })?);
            }
        }
        let shape = |(section, found): (&str, [Option<usize>; KEYS.len()])| {
            let mut sizes = [0; KEYS.len()];
            for ((size, found), key) in sizes.iter_mut().zip(found).zip(KEYS) {
                *size = found.ok_or_else(|| TilesError::Missing { section: section.to_owned(), key })?;
            }
            let [rows, columns, bm, bk, bmm] = sizes;
            Ok(Self { rows, columns, tiles: Tiles { bm, bk, bmm } })
        };
        if sections.is_empty() { Err(TilesError::Empty) } else { sections.into_iter().map(shape).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_shapes_and_comments_are_nothing() {
        let text = "; of a build\n[Kernels_0]\nM = 3200\nk : 8640\nbm=160\nbk = 96\n bmm = 32 \nthreads = x\n\n# more\n\
                    [Kernels_1]\r\nm = 32\r\nk = 256\r\nbm = 32\r\nbk = 96\r\nbmm = 32\r\n";
        let tiles = |bm| Tiles { bm, bk: 96, bmm: 32 };
        let expected =
            [ShapeTiles { rows: 3200, columns: 8640, tiles: tiles(160) }, ShapeTiles { rows: 32, columns: 256, tiles: tiles(32) }];
        assert_eq!(ShapeTiles::of_config(text).unwrap(), expected);
    }

    #[test]
    fn what_is_none_is_named() {
        let error = |text: &str| ShapeTiles::of_config(text).unwrap_err().to_string();
        assert_eq!(error("# nothing\n"), "no section states the tiles of a shape");
        assert_eq!(error("m = 3\n"), "line 1 is neither [a section] nor key = value: m = 3");
        assert_eq!(error("[a]\nGGUF\n"), "line 2 is neither [a section] nor key = value: GGUF");
        assert_eq!(error("[a]\nm = 3\nk = 0\n"), "line 3: k is no whole number above 0: 0");
        assert_eq!(error("[a]\nm = 3\nk = 8\nbm = 1\nbmm = 1\n"), "section [a] does not state bk");
    }
}
