//! Writes headers of every architecture, with tiny shapes, as seeds: `cargo run --example seeds -- corpus/gguf`.

use std::error::Error;
use std::path::Path;
use synthetic::{FileType, Options, Vocabulary, gguf, presets, shards};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("name the folder to write into")?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    let options = Options { vocabulary: Vocabulary::None, ..Options::default() };
    for mut shape in presets() {
        // A fuzzer learns more from a few tensors than from thousands.
        if shape.n_layer != 27 {
            shape.n_layer = 2;
        }
        let file = gguf(&shape, FileType::Q4_K_M, &options)?;
        std::fs::write(folder.join(&shape.name), &file.header)?;
        let part = shards(&shape, FileType::Q4_K_M, &options, 2)?.remove(0);
        std::fs::write(folder.join(format!("{}-part", shape.name)), &part.header)?;
    }
    Ok(())
}
