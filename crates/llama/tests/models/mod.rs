//! Small model files for the tests of this folder, written once per process and removed at its end.

use std::path::PathBuf;
use synthetic::{FileType, Fill, Options, Shape};

/// A folder with model files, gone when dropped.
pub struct Models(tempfile::TempDir);

impl Models {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a model with random weights.
    pub fn write(&self, shape: &Shape, ty: FileType) -> PathBuf {
        let path = self.0.path().join(format!("{}-{ty:?}.gguf", shape.name));
        let file = synthetic::gguf(shape, ty, &Options::default()).unwrap();
        synthetic::write::write(&file, Fill::Random { seed: 7 }, &path).unwrap();
        path
    }
}

/// Two layers of the architecture that the demonstration uses, with a small vocabulary: half a megabyte.
pub fn tiny() -> Shape {
    let mut shape = synthetic::demo();
    shape.name = "tiny".to_owned();
    for (key, value) in [("n_layer", "2"), ("n_embd", "256"), ("n_ff", "512"), ("n_head", "4"), ("n_head_kv", "2"), ("n_vocab", "1000")] {
        shape.set(key, value).unwrap();
    }
    shape
}
