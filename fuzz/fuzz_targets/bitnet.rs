//! Models for the BitNet engine, nearly right in every way: each loads and computes, or is an error, and takes the memory that is predicted.
#![no_main]

use bitnet::memory::requirement;
use bitnet::{CacheType, HeadType, LoadOptions, Options, Session, ShapeTiles, Weights};
use kernels::{Kernel, Layout, Tiles};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use spec::model::{MetaValue, Model, ModelFile, Support, Tensor};
use spec::{Bytes, QuantType};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A file is never longer.
const LONGEST: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let _ = raw(data);
    let _ = run(&mut Unstructured::new(data));
});

/// The bytes as a GGUF file.
fn raw(data: &[u8]) -> Option<()> {
    let header = formats::gguf::read(data, Bytes::new(data.len() as u64)).ok()?;
    let model = formats::describe(&[header]).ok()?;
    compute(&model, data.to_vec(), LoadOptions::default(), CacheType::F16);
    Some(())
}

/// Figures of a model, most of them as they should be.
struct Figures {
    embd: u64,
    ff: u64,
    heads: u64,
    kv: u64,
    width: u64,
    vocab: u64,
    layers: u64,
}

fn figure(u: &mut Unstructured<'_>, usual: &[u64]) -> Result<u64> {
    Ok(match u.int_in_range(0..=31)? {
        0 => u.int_in_range(0..=700)?,
        1 if u.ratio(1, 8)? => u.arbitrary()?,
        _ => *u.choose(usual)?,
    })
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let figures = Figures {
        embd: figure(u, &[128, 192, 256, 64])?,
        ff: figure(u, &[256, 128, 320])?,
        heads: figure(u, &[4, 2, 1])?,
        kv: figure(u, &[1, 2, 4])?,
        width: figure(u, &[32, 64, 16])?,
        vocab: figure(u, &[8, 33, 1])?,
        layers: figure(u, &[1, 1, 2])?,
    };
    let types = [QuantType::I2_S, QuantType::I2_S, QuantType::TQ1_0, QuantType::TQ2_0, QuantType::HF_U2, QuantType::TL1, QuantType::TL2];
    let ternary = *u.choose(&types)?;
    let mut file = File { tensors: Vec::new(), end: 0, ternary };
    file.all(u, &figures)?;
    let length = if u.ratio(1, 16)? { u.int_in_range(0..=file.end.min(LONGEST))? } else { file.end.min(LONGEST) };
    let architecture = *u.choose(&["bitnet-b1.58", "bitnet", "bitnet-25", "llama"])?;
    let model = Model {
        metadata: metadata(u, architecture, &figures)?,
        architecture: architecture.to_owned(),
        support: Support::Described,
        name: None,
        file_type: None,
        n_ctx_train: Some(64),
        n_embd: figures.embd,
        n_vocab: figures.vocab,
        layers: Vec::new(),
        n_layer_nextn: 0,
        encoder: false,
        tied_embeddings: true,
        tensors: file.tensors,
        files: vec![ModelFile { size: Bytes::new(length), data_offset: Bytes::ZERO }],
        tokenizer: None,
        arrays: BTreeMap::new(),
    };
    let head = if u.arbitrary()? { HeadType::Q8_0 } else { HeadType::File };
    let layout = if u.arbitrary()? { Layout::Blocks64 } else { Layout::Blocks128 };
    let kernel = *u.choose(&Kernel::available())?;
    let cache = *u.choose(&[CacheType::F16, CacheType::F32, CacheType::Q8_0])?;
    let threads = u.int_in_range(1..=2)?;
    let tiles = if ternary == QuantType::TL1 || ternary == QuantType::TL2 { tiles(u, &figures)? } else { Vec::new() };
    let seed: u8 = u.arbitrary()?;
    let rest = u.len();
    let bytes = if rest > 1 && u.arbitrary()? { u.bytes(rest - 1)?.to_vec() } else { vec![seed] };
    // What the fuzzer gives, again and again.
    let data = (0..length as usize).map(|i| bytes.get(i % bytes.len().max(1)).copied().unwrap_or(seed)).collect();
    compute(&model, data, LoadOptions { head, layout, tiles: &tiles, kernel, threads }, cache);
    Ok(())
}

fn metadata(u: &mut Unstructured<'_>, architecture: &str, figures: &Figures) -> Result<BTreeMap<String, MetaValue>> {
    let counts = [
        ("embedding_length", figures.embd),
        ("block_count", figures.layers),
        ("feed_forward_length", figures.ff),
        ("attention.head_count", figures.heads),
        ("attention.head_count_kv", figures.kv),
        ("attention.key_length", figures.width),
        ("rope.dimension_count", figures.width),
        ("context_length", 64),
    ];
    let mut metadata = BTreeMap::new();
    for (key, count) in counts {
        if !u.ratio(1, 64)? {
            metadata.insert(format!("{architecture}.{key}"), MetaValue::Uint(count));
        }
    }
    let base = if u.ratio(1, 16)? { u.arbitrary()? } else { 10_000.0 };
    metadata.insert(format!("{architecture}.rope.freq_base"), MetaValue::Float(base));
    let class = *u.choose(&["autobitlinear", "bitlinear", "?"])?;
    metadata.insert("quantization_config.linear_class".to_owned(), MetaValue::Text(class.to_owned()));
    Ok(metadata)
}

/// Tiles for the shapes of a model, most of them ones that divide it.
fn tiles(u: &mut Unstructured<'_>, figures: &Figures) -> Result<Vec<ShapeTiles>> {
    let Figures { embd, ff, heads, kv, width, .. } = *figures;
    let (q, kv) = (heads.saturating_mul(width), kv.saturating_mul(width));
    let mut size = |usual: &[u64]| figure(u, usual).map(|size| size as usize);
    let tiles = Tiles { bm: size(&[32, 64, 128])?, bk: size(&[32, 64, 96, 24])?, bmm: size(&[32, 32, 64])? };
    let shapes = [(q, embd), (kv, embd), (embd, q), (ff, embd), (embd, ff)];
    Ok(shapes.map(|(rows, columns)| ShapeTiles { rows: rows as usize, columns: columns as usize, tiles }).into())
}

struct File {
    tensors: Vec<Tensor>,
    end: u64,
    ternary: QuantType,
}

impl File {
    fn all(&mut self, u: &mut Unstructured<'_>, figures: &Figures) -> Result<()> {
        let Figures { embd, ff, heads, kv, width, vocab, layers } = *figures;
        let (q, kv) = (heads.saturating_mul(width), kv.saturating_mul(width));
        let table = *u.choose(&[QuantType::F16, QuantType::BF16, QuantType::F32, QuantType::Q8_0])?;
        self.add(u, "token_embd.weight", table, [embd, vocab])?;
        self.add(u, "output_norm.weight", QuantType::F32, [embd, 1])?;
        if u.ratio(1, 8)? {
            self.add(u, "output.weight", table, [embd, vocab])?;
        }
        for layer in 0..layers.min(3) {
            for (part, columns) in [("attn_norm", embd), ("attn_sub_norm", q), ("ffn_norm", embd), ("ffn_sub_norm", ff)] {
                let ty = *u.choose(&[QuantType::F32, QuantType::BF16, QuantType::F16])?;
                self.add(u, &format!("blk.{layer}.{part}.weight"), ty, [columns, 1])?;
            }
            for (part, columns, rows) in [
                ("attn_q", embd, q),
                ("attn_k", embd, kv),
                ("attn_v", embd, kv),
                ("attn_output", q, embd),
                ("ffn_gate", embd, ff),
                ("ffn_up", embd, ff),
                ("ffn_down", ff, embd),
            ] {
                self.add(u, &format!("blk.{layer}.{part}.weight"), self.ternary, [columns, rows])?;
                self.add(u, &format!("blk.{layer}.{part}.weight_scale"), QuantType::F32, [1, 1])?;
                if u.ratio(1, 16)? {
                    self.add(u, &format!("blk.{layer}.{part}.scale"), QuantType::F32, [1, 1])?;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, u: &mut Unstructured<'_>, name: &str, ty: QuantType, [columns, rows]: [u64; 2]) -> Result<()> {
        let mut tensor = Tensor {
            name: name.to_owned(),
            ty,
            shape: [columns, rows, 1, 1],
            bytes: ty.tensor_bytes([columns, rows, 1, 1]).unwrap_or(Bytes::new(64)),
            file: 0,
            offset: Bytes::new(self.end),
        };
        match u.int_in_range(0..=255)? {
            0 => return Ok(()),
            1 => tensor.bytes = Bytes::new(u.arbitrary()?),
            2 => tensor.offset = Bytes::new(u.arbitrary()?),
            3 => tensor.shape[usize::from(u.int_in_range(0..=3_u8)?)] = u.arbitrary()?,
            4 => tensor.file = 1,
            5 => tensor.ty = *u.choose(QuantType::ALL)?,
            _ => {}
        }
        self.end = self.end.saturating_add(tensor.bytes.get());
        self.tensors.push(tensor);
        Ok(())
    }
}

fn compute(model: &Model, data: Vec<u8>, load: LoadOptions<'_>, cache: CacheType) {
    let options = Options { n_ctx: 6, n_ubatch: 4, cache, threads: 1 };
    let predicted = requirement(model, &load, &options);
    let Ok(weights) = Weights::load(model, &[data.into()], &load) else { return };
    let predicted = predicted.expect("what loads has figures");
    // A tensor that nothing reads may stand in a file; of a model without any the copies are equal.
    assert!(weights.copied_bytes() <= predicted.weights_copied.get(), "{} copied, {predicted:?}", weights.copied_bytes());
    let Ok(mut session) = Session::new(Arc::new(weights), options) else { return };
    let last = session.extend(&[0, 0, 0, 0, 0]).map(|logits| logits.len());
    assert_eq!(last.expect("five tokens fit"), model.n_vocab as usize);
}
