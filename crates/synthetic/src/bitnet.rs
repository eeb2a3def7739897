//! Files of BitNet b1.58 as their owners publish them: exact shapes in `I2_S` with an f16 embedding, random ternary weights, and a made-up
//! vocabulary of the right kind and size. Their text is noise.

use crate::file::{File, Options, Override, Parts, Vocabulary, file, parts};
use crate::preset::preset;
use crate::shape::{Architecture, Shape, ShapeError};
use crate::writer::Value;
use mixture::FileType;
use spec::QuantType;

/// `general.file_type` of files in `I2_S` (`LLAMA_FTYPE_MOSTLY_I2_S` of microsoft/BitNet).
const MOSTLY_I2_S: u32 = 40;

/// A published file: how it is called, its shape, its architecture, its kind of vocabulary.
struct Published {
    name: &'static str,
    architecture: &'static str,
    vocabulary: Vocabulary,
    shape: fn() -> Option<Shape>,
}

const PUBLISHED: [Published; 4] = [
    Published {
        name: "bitnet-b1.58-2b-4t",
        architecture: "bitnet-b1.58",
        vocabulary: Vocabulary::ByteLevel,
        shape: || preset("bitnet-2b"),
    },
    Published { name: "bitnet-b1.58-3b", architecture: "bitnet", vocabulary: Vocabulary::Sentencepiece, shape: || preset("bitnet-3b") },
    Published { name: "bitnet-b1.58-large", architecture: "bitnet", vocabulary: Vocabulary::Sentencepiece, shape: large },
    Published { name: "bitnet-b1.58-tiny", architecture: "bitnet-b1.58", vocabulary: Vocabulary::ByteLevel, shape: tiny },
];

/// 1bitLLM/bitnet_b1_58-large, 729 million parameters.
fn large() -> Option<Shape> {
    let base = preset("bitnet-3b")?;
    Some(Shape { name: "bitnet-large".into(), n_layer: 24, n_embd: 1536, n_ff: 4096, n_head: 16, n_head_kv: 16, ..base })
}

/// The 2B model's proportions at a size for tests.
fn tiny() -> Option<Shape> {
    let base = preset("bitnet-2b")?;
    let sizes = Shape { n_layer: 3, n_embd: 256, n_ff: 768, n_head: 4, n_head_kv: 2, n_vocab: 2304, n_ctx: 1024, ..base };
    Some(Shape { name: "bitnet-tiny".into(), source: "loadmaster".into(), ..sizes })
}

/// Names of the files that [`bitnet`] makes.
pub fn bitnets() -> impl Iterator<Item = &'static str> {
    PUBLISHED.iter().map(|published| published.name)
}

/// The file of this name, one of [`bitnets`].
///
/// ```
/// let file = synthetic::bitnet("bitnet-b1.58-2b-4t").unwrap().unwrap();
/// let ternary = file.tensors.iter().filter(|tensor| tensor.ty == spec::QuantType::I2_S);
/// assert_eq!(ternary.map(|tensor| tensor.bytes.get()).sum::<u64>(), 521_017_920);
/// ```
///
/// # Errors
/// None for these shapes, which can be stored.
pub fn bitnet(name: &str) -> Option<Result<File, ShapeError>> {
    let published = PUBLISHED.iter().find(|published| published.name == name)?;
    let shape = (published.shape)()?;
    let ternary = Override { part: "blk.".into(), ty: QuantType::I2_S };
    let options = Options { vocabulary: published.vocabulary, overrides: vec![ternary], ..Options::default() };
    Some(parts(&shape, FileType::F16, &options).map(|Parts { mut metadata, tensors }| {
        for (key, value) in &mut metadata {
            published.rename(key, value);
        }
        file(metadata, tensors)
    }))
}

/// The shape of this name, where its vocabulary is byte-level.
pub(crate) fn published(name: &str) -> Option<Shape> {
    let published = PUBLISHED.iter().find(|published| published.name == name && published.vocabulary == Vocabulary::ByteLevel)?;
    (published.shape)()
}

impl Published {
    /// Keys under the architecture's own name.
    fn rename(&self, key: &mut String, value: &mut Value) {
        match key.as_str() {
            "general.architecture" => *value = self.architecture.into(),
            "general.file_type" => *value = MOSTLY_I2_S.into(),
            _ => {}
        }
        if let Some(rest) = key.strip_prefix(Architecture::BitNet.name()).and_then(|rest| rest.strip_prefix('.')) {
            *key = format!("{}.{rest}", self.architecture);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Fill;

    #[test]
    fn the_2b_model_has_the_published_bytes() {
        let file = bitnet("bitnet-b1.58-2b-4t").unwrap().unwrap();
        let data: u64 = file.tensors.iter().map(|tensor| tensor.bytes.get()).sum();
        // The published file has 1,179,449,920 bytes of tensors in 332 of them.
        assert_eq!((file.tensors.len(), data), (332, 1_179_449_920));
    }

    #[test]
    fn codes_are_ternary_and_a_scale_follows_them() {
        let file = bitnet("bitnet-b1.58-tiny").unwrap().unwrap();
        let tensor = file.tensors.iter().find(|tensor| tensor.name == "blk.1.attn_q.weight").unwrap();
        let mut bytes = vec![0xff; tensor.bytes.get() as usize];
        file.read_at(Fill::Random { seed: 1 }, tensor.offset.get(), &mut bytes);
        let (codes, tail) = bytes.split_at(256 * 256 / 4);
        let mut counts = [0_u32; 4];
        for byte in codes {
            (0..4).for_each(|i| counts[usize::from(byte >> (2 * i) & 3)] += 1);
        }
        assert_eq!(counts[3], 0);
        assert!((counts[0] as f64 / counts[2] as f64 - 1.0).abs() < 0.1 && counts[1] > counts[0], "{counts:?}");
        let scale = f32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
        // The root of 256 columns, over the deviation of the codes.
        assert!((scale * 16.0 * 0.71 - 1.0).abs() < 1e-3, "{scale}");
        assert_eq!(tail[4..], [0; 28]);
    }

    #[test]
    fn every_name_makes_a_file() {
        for name in bitnets() {
            assert!(bitnet(name).unwrap().is_ok(), "{name}");
        }
        assert!(bitnet("bitnet").is_none());
    }
}
