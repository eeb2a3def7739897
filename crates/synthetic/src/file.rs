//! A model file as a value: where everything lies, and what any byte of it is.

use crate::outline::Outline;
use crate::shape::{Shape, ShapeError};
use crate::tensors::Plain;
use crate::tokenizer::byte_level;
use crate::writer::{Header, TensorEntry, Value};
use crate::{metadata, noise, tensors, tokenizer, types};
use mixture::FileType;
use spec::{Bytes, QuantType};
use std::ops::Range;

/// Alignment of tensor data, `GGUF_DEFAULT_ALIGNMENT`.
const ALIGNMENT: u64 = 32;

/// What the file's tokenizer section holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vocabulary {
    /// A table of `n_vocab` tokens in SentencePiece's layout, with a chat template.
    #[default]
    Sentencepiece,
    /// A table of `n_vocab` tokens in the layout of Llama 3's byte-level BPE, with the chat template of BitNet b1.58 2B-4T.
    ByteLevel,
    /// No tokens; llama.cpp then takes numbers only.
    None,
}

/// Another type for some tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Part of the names of the tensors; only tensors that quantisation may change are meant.
    pub part: String,
    /// Their type.
    pub ty: QuantType,
}

/// What may differ between files of one shape and type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The tokenizer section.
    pub vocabulary: Vocabulary,
    /// Types that differ from the mixture; the last that matches wins.
    pub overrides: Vec<Override>,
    /// What is asked of `llama-quantize` besides the file type.
    pub quantize: mixture::Options,
}

/// What a tensor's data is when it is not left empty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Content {
    /// One value throughout, in F32 or BF16: norms, and others that keep the arithmetic finite.
    Constant(f32),
    /// Random weights around zero.
    Noise {
        /// Their standard deviation, about.
        deviation: f32,
    },
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Name.
    pub name: String,
    /// Type of its elements.
    pub ty: QuantType,
    /// Extents, fastest first.
    pub shape: Vec<u64>,
    /// Size of its data without padding.
    pub bytes: Bytes,
    /// Where its data begins, from the start of the file.
    pub offset: Bytes,
    /// What its data is.
    pub content: Content,
}

impl TensorSpec {
    fn range(&self) -> Range<u64> {
        self.offset.get()..self.offset.get() + self.bytes.get()
    }
}

/// What to put where trained weights would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Zeros, which a file system need not store; norms are still ones.
    Zero,
    /// Random weights, the same for the same seed.
    Random {
        /// The seed.
        seed: u64,
    },
}

/// A model file.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// The bytes before the tensor data.
    pub header: Vec<u8>,
    /// Tensors in file order.
    pub tensors: Vec<TensorSpec>,
    /// Length of the file.
    pub size: Bytes,
}

impl File {
    /// The ranges of the file that are not zero, in order: what a writer of a sparse file has to write.
    pub fn extents(&self, fill: Fill) -> impl Iterator<Item = Range<u64>> {
        let solid = move |tensor: &&TensorSpec| fill != Fill::Zero || matches!(tensor.content, Content::Constant(_));
        std::iter::once(0..self.header.len() as u64).chain(self.tensors.iter().filter(solid).map(TensorSpec::range))
    }

    /// The bytes of the file from `offset` on; zeros past its end.
    pub fn read_at(&self, fill: Fill, offset: u64, out: &mut [u8]) {
        out.fill(0);
        let end = offset.saturating_add(out.len() as u64);
        let mut copy = |range: Range<u64>, write: &dyn Fn(u64, &mut [u8])| {
            let (from, to) = (range.start.max(offset), range.end.min(end));
            if from < to {
                write(from - range.start, &mut out[(from - offset) as usize..(to - offset) as usize]);
            }
        };
        copy(0..self.header.len() as u64, &|at, part| part.copy_from_slice(&self.header[at as usize..][..part.len()]));
        let first = self.tensors.partition_point(|tensor| tensor.range().end <= offset);
        for tensor in self.tensors[first..].iter().take_while(|tensor| tensor.offset.get() < end) {
            copy(tensor.range(), &|at, part| match (fill, tensor.content) {
                (Fill::Zero, Content::Noise { .. }) => {}
                (Fill::Zero, _) => self::fill(tensor, 0, at, part),
                (Fill::Random { seed }, _) => self::fill(tensor, seed, at, part),
            });
        }
    }
}

/// Writes bytes `offset..` of a tensor's data into `out`: valid blocks of its type, the same for the same seed and
/// tensor name whatever the ranges in which they are asked for.
pub fn fill(tensor: &TensorSpec, seed: u64, offset: u64, out: &mut [u8]) {
    match tensor.content {
        Content::Noise { deviation } if tensor.ty == QuantType::I2_S => {
            let codes = tensor.bytes.get().saturating_sub(noise::I2_S_TAIL);
            noise::i2_s(deviation, noise::key(seed, &tensor.name), codes, offset, out);
        }
        Content::Noise { deviation } => noise::fill(tensor.ty, deviation, noise::key(seed, &tensor.name), offset, out),
        Content::Constant(value) => {
            let single = value.to_le_bytes();
            // The upper half of a single is the number in bf16, rounded toward zero.
            let bytes = if tensor.ty == QuantType::BF16 { &single[2..] } else { &single };
            for (at, byte) in (offset..).zip(out) {
                *byte = bytes[(at % bytes.len() as u64) as usize];
            }
        }
    }
}

/// The file of this shape and type.
///
/// # Errors
/// The shape lacks a figure or contradicts itself ([`Shape::check`]), or a tensor cannot be stored.
pub fn gguf(shape: &Shape, file_type: FileType, options: &Options) -> Result<File, ShapeError> {
    let parts = parts(shape, file_type, options)?;
    Ok(file(parts.metadata, parts.tensors))
}

/// The same model as `count` files, to be named `NAME-00001-of-0000N.gguf` and so on. All metadata is in the first, as
/// `llama-gguf-split` does.
///
/// # Errors
/// As [`gguf`]; also a count of zero, or more files than tensors.
pub fn shards(shape: &Shape, file_type: FileType, options: &Options, count: u16) -> Result<Vec<File>, ShapeError> {
    let Parts { mut metadata, mut tensors } = parts(shape, file_type, options)?;
    let total = tensors.len();
    if count == 0 || usize::from(count) > total {
        let problem = format!("{total} tensors do not make {count} files");
        return Err(ShapeError::Inconsistent { shape: shape.name.clone(), problem });
    }
    let per_file = total.div_ceil(usize::from(count));
    let mut files = Vec::new();
    for number in 0..count {
        let rest = tensors.split_off(per_file.min(tensors.len()));
        let mut keys = std::mem::take(&mut metadata);
        keys.push(("split.no".to_owned(), number.into()));
        keys.push(("split.count".to_owned(), count.into()));
        keys.push(("split.tensors.count".to_owned(), Value::I32(i32::try_from(total).unwrap_or(i32::MAX))));
        files.push(file(keys, std::mem::replace(&mut tensors, rest)));
    }
    Ok(files)
}

pub(crate) struct Parts {
    pub(crate) metadata: Vec<(String, Value)>,
    pub(crate) tensors: Vec<TensorSpec>,
}

pub(crate) fn parts(shape: &Shape, file_type: FileType, options: &Options) -> Result<Parts, ShapeError> {
    shape.check()?;
    let tensors = tensors::tensors(shape);
    let types = types::types(&types::figures(shape), &tensors, file_type, &options.quantize)
        .map_err(|source| ShapeError::Mixture { shape: shape.name.clone(), source })?;
    let parameters = tensors.iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum();
    let mut metadata = metadata::metadata(shape, file_type, parameters);
    metadata.extend(vocabulary(&shape.name, shape.n_vocab, options)?);
    Ok(Parts { metadata, tensors: typed(&shape.name, tensors, types, options)? })
}

/// The file of an outline and type.
///
/// # Errors
/// The outline has too few tokens for a tokenizer, or a tensor cannot be stored.
pub fn outline_file(outline: &Outline, file_type: FileType, options: &Options) -> Result<File, ShapeError> {
    let tensors = outline.tensors();
    let types = types::types(&types::outline_figures(outline), &tensors, file_type, &options.quantize)
        .map_err(|source| ShapeError::Mixture { shape: outline.name.clone(), source })?;
    let parameters = tensors.iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum();
    let mut metadata = metadata::general(&outline.name, &outline.architecture, file_type, parameters);
    metadata.extend(outline.keys.iter().cloned());
    if !metadata.iter().any(|(key, _)| key == "tokenizer.ggml.model") {
        let n_vocab = tensors.iter().find(|tensor| tensor.name == "token_embd.weight").and_then(|tensor| tensor.shape.get(1));
        metadata.extend(vocabulary(&outline.name, n_vocab.copied().unwrap_or(0), options)?);
    }
    Ok(file(metadata, typed(&outline.name, tensors, types, options)?))
}

fn vocabulary(name: &str, n_vocab: u64, options: &Options) -> Result<Vec<(String, Value)>, ShapeError> {
    match options.vocabulary {
        Vocabulary::None => Ok(tokenizer::none()),
        Vocabulary::Sentencepiece if n_vocab < tokenizer::MIN_TOKENS => {
            let problem = format!("n_vocab is below the {} that the tokenizer needs: {n_vocab}", tokenizer::MIN_TOKENS);
            Err(ShapeError::Inconsistent { shape: name.to_owned(), problem })
        }
        Vocabulary::ByteLevel if n_vocab < byte_level::MIN_TOKENS => {
            let problem = format!("n_vocab is below the {} that the tokenizer needs: {n_vocab}", byte_level::MIN_TOKENS);
            Err(ShapeError::Inconsistent { shape: name.to_owned(), problem })
        }
        Vocabulary::Sentencepiece => Ok(tokenizer::sentencepiece(n_vocab)),
        Vocabulary::ByteLevel => Ok(byte_level::byte_level(n_vocab)),
    }
}

/// Tensors with their types; where they lie is not settled yet.
fn typed(name: &str, tensors: Vec<Plain>, types: Vec<QuantType>, options: &Options) -> Result<Vec<TensorSpec>, ShapeError> {
    let tensors = tensors.into_iter().zip(types).map(|(tensor, ty)| {
        let over = options.overrides.iter().rfind(|over| ty != QuantType::F32 && tensor.name.contains(&over.part));
        let ty = over.map_or(ty, |over| over.ty);
        let bytes =
            bytes(&tensor.shape, ty).ok_or_else(|| ShapeError::Tensor { shape: name.to_owned(), tensor: tensor.name.clone(), ty })?;
        let content = content(&tensor.name, &tensor.shape, ty);
        Ok(TensorSpec { name: tensor.name, ty, shape: tensor.shape, bytes, offset: Bytes::ZERO, content })
    });
    tensors.collect()
}

fn bytes(shape: &[u64], ty: QuantType) -> Option<Bytes> {
    let mut extents = [1; 4];
    extents.get_mut(..shape.len())?.copy_from_slice(shape);
    let bytes = ty.tensor_bytes(extents)?;
    // Offsets are signed on the engine's side.
    (bytes.get() < 1 << 62).then_some(bytes)
}

/// Lays tensors out one after another, each padded to the alignment, as the format demands.
pub(crate) fn file(metadata: Vec<(String, Value)>, mut tensors: Vec<TensorSpec>) -> File {
    let mut end = Bytes::ZERO;
    let mut header = Header { metadata, alignment: ALIGNMENT, ..Header::new() };
    for tensor in &mut tensors {
        tensor.offset = end;
        end = (end + tensor.bytes).pad_to(ALIGNMENT);
        header.tensors.push(TensorEntry {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            type_id: tensor.ty.id(),
            offset: tensor.offset.get(),
        });
    }
    let header = header.encode();
    let start = Bytes::new(header.len() as u64);
    for tensor in &mut tensors {
        tensor.offset += start;
    }
    File { header, tensors, size: start + end }
}

/// What keeps a model of random weights finite: ones where the engine multiplies by a learnt factor, a decay of one per
/// step for Mamba, and else noise that leaves the size of activations as it is.
pub(crate) fn content(name: &str, shape: &[u64], ty: QuantType) -> Content {
    let factor = name.contains("norm") || name.ends_with("ssm_d") || name == "rope_freqs.weight";
    match ty {
        QuantType::F32 if factor => Content::Constant(1.0),
        QuantType::F32 if name.ends_with("ssm_a") => Content::Constant(-1.0),
        _ if name.ends_with(".bias") => Content::Noise { deviation: 0.02 },
        // Rows of the embedding are looked up, not summed over.
        _ if name == "token_embd.weight" => Content::Noise { deviation: 0.05 },
        _ => Content::Noise { deviation: 1.0 / (shape.first().copied().unwrap_or(1).max(1) as f32).sqrt() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::{demo, preset};

    fn small() -> File {
        let shape = Shape { n_layer: 2, n_vocab: 300, ..demo() };
        gguf(&shape, FileType::Q4_K_M, &Options::default()).unwrap()
    }

    #[test]
    fn a_file_reads_the_same_in_any_pieces() {
        let file = small();
        let whole_length = file.size.get() as usize;
        for fill in [Fill::Zero, Fill::Random { seed: 5 }] {
            let mut whole = vec![0; whole_length];
            file.read_at(fill, 0, &mut whole);
            let mut pieces = Vec::new();
            while pieces.len() < whole_length {
                let mut piece = vec![0xff; 7777.min(whole_length - pieces.len())];
                file.read_at(fill, pieces.len() as u64, &mut piece);
                pieces.extend(piece);
            }
            assert!(whole == pieces);
            let mut sparse = vec![0; whole_length];
            for extent in file.extents(fill) {
                file.read_at(fill, extent.start, &mut sparse[extent.start as usize..extent.end as usize]);
            }
            assert!(whole == sparse);
        }
    }

    #[test]
    fn seeds_differ_and_repeat() {
        let file = small();
        let read = |seed| {
            let mut bytes = vec![0; 4096];
            file.read_at(Fill::Random { seed }, file.tensors[0].offset.get(), &mut bytes);
            bytes
        };
        assert!(read(1) == read(1) && read(1) != read(2));
        let mut past = [1; 16];
        file.read_at(Fill::Random { seed: 1 }, file.size.get(), &mut past);
        assert_eq!(past, [0; 16]);
    }

    #[test]
    fn shards_hold_every_tensor_once() {
        let shape = Shape { n_layer: 2, ..demo() };
        let one = gguf(&shape, FileType::Q8_0, &Options::default()).unwrap();
        let three = shards(&shape, FileType::Q8_0, &Options::default(), 3).unwrap();
        let names = |file: &File| file.tensors.iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&one), three.iter().flat_map(names).collect::<Vec<_>>());
        assert!(shards(&shape, FileType::Q8_0, &Options::default(), 0).is_err());
        assert!(shards(&shape, FileType::Q8_0, &Options::default(), 1000).is_err());
    }

    #[test]
    fn the_demonstration_is_small() {
        let size = gguf(&demo(), FileType::Q4_K_M, &Options::default()).unwrap().size;
        assert!((Bytes::from_mib(15)..Bytes::from_mib(60)).contains(&size), "{size}");
    }

    #[test]
    fn impossible_shapes_say_why() {
        let error = |shape: Shape| gguf(&shape, FileType::Q4_K_M, &Options::default()).unwrap_err().to_string();
        insta::assert_snapshot!(error(Shape { n_layer: 0, ..demo() }), @"shape loadmaster-demo: n_layer is zero");
        insta::assert_snapshot!(error(Shape { n_layer: 4096, ..demo() }), @"shape loadmaster-demo: n_layer is above the 512 that llama.cpp accepts: 4096");
        insta::assert_snapshot!(error(Shape { n_vocab: 12, ..demo() }), @"shape loadmaster-demo: n_vocab is below the 261 that the tokenizer needs: 12");
        insta::assert_snapshot!(error(Shape { n_head_kv: 3, ..demo() }), @"shape loadmaster-demo: n_head 8 is no multiple of n_head_kv 3");
        insta::assert_snapshot!(error(Shape { kv_lora: 0, ..preset("deepseek-v3").unwrap() }), @"shape deepseek-v3: kv_lora is zero");
        let options = Options { overrides: vec![Override { part: "attn_q".into(), ty: QuantType::IQ4_XS }], ..Options::default() };
        let odd = Shape { n_embd: 288, ..demo() };
        insta::assert_snapshot!(gguf(&odd, FileType::Q8_0, &options).unwrap_err().to_string(), @"shape loadmaster-demo: tensor blk.0.attn_q.weight cannot be stored as iq4_xs");
    }
}
