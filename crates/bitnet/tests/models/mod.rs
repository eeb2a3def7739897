//! Tiny models made from a formula: the one of ../oracle/record.py.
#![allow(dead_code, reason = "each test uses its part")]

pub mod plain;
pub mod stacks;

use bytes::Bytes as Data;
use kernels::{Layout, LookUp, Tiles};
use serde::Deserialize;
use spec::model::{MetaValue, ModelFile, Support, Tensor};
use spec::{Bytes, Model, QuantType};
use std::collections::BTreeMap;

/// A recorded case.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    pub seed: u64,
    pub hidden_act: String,
    #[serde(default)]
    pub linear_class: String,
    pub n_vocab: usize,
    pub n_embd: usize,
    pub n_ff: usize,
    pub n_layer: usize,
    pub n_head: usize,
    pub n_head_kv: usize,
    pub head_dim: usize,
    pub rope_base: f64,
    pub tokens: Vec<u32>,
    #[serde(default)]
    pub greedy: Vec<u32>,
    #[serde(default)]
    pub logits: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Recorded {
    cases: Vec<Case>,
}

/// All recorded cases.
pub fn cases() -> Vec<Case> {
    serde_json::from_str::<Recorded>(include_str!("../oracle/transformers.json")).unwrap().cases
}

fn splitmix(x: u64) -> u64 {
    let mut x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

/// Numbers of a tensor.
pub fn noise(seed: u64, name: &str, count: usize) -> impl Iterator<Item = u64> {
    let key = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |key, byte| (key ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    let start = key ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..count as u64).map(move |i| splitmix(start.wrapping_add(i)))
}

fn unit(number: u64) -> f32 {
    ((number >> 53) as f64 / 1024.0 - 1.0) as f32
}

/// Weights of −1, 0, 1.
pub fn weights(seed: u64, name: &str, count: usize) -> Vec<i8> {
    noise(seed, name, count).map(|number| (number % 3) as i8 - 1).collect()
}

pub fn scale(seed: u64, name: &str) -> f32 {
    let number = noise(seed, &format!("{name}.scale"), 1).next().unwrap();
    0.25 + (number >> 58) as f32 / 128.0
}

pub fn norm(seed: u64, name: &str, width: usize) -> Vec<f32> {
    noise(seed, name, width).map(|number| 1.0 + 0.25 * unit(number)).collect()
}

pub fn embedding(seed: u64, count: usize) -> Vec<f32> {
    noise(seed, "token_embd", count).map(|number| unit(number) / 16.0).collect()
}

/// How a case's file is written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub ternary: QuantType,
    pub layout: Layout,
    pub embedding: QuantType,
}

impl Default for Written {
    fn default() -> Self {
        Self { ternary: QuantType::I2_S, layout: Layout::Blocks128, embedding: QuantType::F32 }
    }
}

/// A model, and the bytes of its one file.
pub struct Built {
    pub model: Model,
    pub data: Data,
}

impl Case {
    /// The model as a GGUF file holds it: all tensors after each other, aligned at 32.
    pub fn build(&self, written: Written) -> Built {
        let mut file = File { seed: self.seed, written, tensors: Vec::new(), data: vec![0; 64] };
        let (e, q, kv) = (self.n_embd, self.n_head * self.head_dim, self.n_head_kv * self.head_dim);
        file.embedding(self.n_vocab, e);
        for i in 0..self.n_layer {
            let name = |part: &str| format!("blk.{i}.{part}");
            file.norm(&name("attn_norm"), e);
            file.linear(&name("attn_q"), q, e);
            file.linear(&name("attn_k"), kv, e);
            file.linear(&name("attn_v"), kv, e);
            file.norm(&name("attn_sub_norm"), q);
            file.linear(&name("attn_output"), e, q);
            file.norm(&name("ffn_norm"), e);
            file.linear(&name("ffn_gate"), self.n_ff, e);
            file.linear(&name("ffn_up"), self.n_ff, e);
            file.norm(&name("ffn_sub_norm"), self.n_ff);
            file.linear(&name("ffn_down"), e, self.n_ff);
        }
        file.norm("output_norm", e);
        let size = Bytes::new(file.data.len() as u64);
        let model = Model {
            metadata: self.metadata(),
            architecture: self.architecture().into(),
            support: Support::Described,
            name: None,
            file_type: None,
            n_ctx_train: Some(512),
            n_embd: e as u64,
            n_vocab: self.n_vocab as u64,
            layers: Vec::new(),
            n_layer_nextn: 0,
            encoder: false,
            tied_embeddings: true,
            tensors: file.tensors,
            files: vec![ModelFile { size, data_offset: Bytes::new(64) }],
            tokenizer: None,
            arrays: BTreeMap::new(),
        };
        Built { model, data: file.data.into() }
    }

    fn architecture(&self) -> &'static str {
        if self.hidden_act == "silu" { "bitnet" } else { "bitnet-b1.58" }
    }

    fn metadata(&self) -> BTreeMap<String, MetaValue> {
        let counts = [
            ("embedding_length", self.n_embd),
            ("block_count", self.n_layer),
            ("feed_forward_length", self.n_ff),
            ("attention.head_count", self.n_head),
            ("attention.head_count_kv", self.n_head_kv),
            ("attention.key_length", self.head_dim),
            ("rope.dimension_count", self.head_dim),
            ("context_length", 512),
        ];
        let floats = [("rope.freq_base", self.rope_base), ("attention.layer_norm_rms_epsilon", 1e-5)];
        let key = |name: &str| format!("{}.{name}", self.architecture());
        let counts = counts.into_iter().map(|(name, count)| (key(name), MetaValue::Uint(count as u64)));
        counts.chain(floats.into_iter().map(|(name, number)| (key(name), MetaValue::Float(number)))).collect()
    }
}

struct File {
    seed: u64,
    written: Written,
    tensors: Vec<Tensor>,
    data: Vec<u8>,
}

impl File {
    fn add(&mut self, name: String, ty: QuantType, columns: usize, rows: usize, bytes: &[u8]) {
        let offset = self.data.len() - 64;
        let shape = [columns as u64, rows as u64, 1, 1];
        self.tensors.push(Tensor { name, ty, shape, bytes: Bytes::new(bytes.len() as u64), file: 0, offset: Bytes::new(offset as u64) });
        self.data.extend(bytes);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
    }

    fn embedding(&mut self, rows: usize, columns: usize) {
        let values = embedding(self.seed, rows * columns);
        let bytes: Vec<u8> = match self.written.embedding {
            QuantType::F16 => values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
            QuantType::BF16 => values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        self.add("token_embd.weight".into(), self.written.embedding, columns, rows, &bytes);
    }

    fn norm(&mut self, name: &str, width: usize) {
        let bytes: Vec<u8> = norm(self.seed, name, width).iter().flat_map(|x| x.to_le_bytes()).collect();
        self.add(format!("{name}.weight"), QuantType::F32, width, 1, &bytes);
    }

    fn linear(&mut self, name: &str, rows: usize, columns: usize) {
        let (weights, scale) = (weights(self.seed, name, rows * columns), scale(self.seed, name));
        let bytes = match self.written.ternary {
            QuantType::TQ2_0 => tq2_0(&weights, scale),
            QuantType::TL1 => tiled(LookUp::Tl1, &weights, rows, columns),
            QuantType::TL2 => tiled(LookUp::Tl2, &weights, rows, columns),
            _ => {
                let mut bytes = self.written.layout.pack(weights.iter().copied());
                bytes.truncate(rows * columns / 4);
                bytes.extend(scale.to_le_bytes());
                bytes.extend([0; 28]);
                bytes
            }
        };
        self.add(format!("{name}.weight"), self.written.ternary, columns, rows, &bytes);
        if matches!(self.written.ternary, QuantType::TL1 | QuantType::TL2) {
            self.add(format!("{name}.weight_scale"), QuantType::F32, 1, 1, &scale.to_le_bytes());
        }
    }
}

/// Tiles for a shape, others for others: what a build chooses where it measures.
pub fn tiles(kind: LookUp, rows: usize, columns: usize) -> Tiles {
    let bm = if rows.is_multiple_of(64) { 64 } else { 32 };
    match kind {
        LookUp::Tl1 => Tiles { bm, bk: if columns.is_multiple_of(128) { 128 } else { 64 }, bmm: if columns > rows { 32 } else { bm } },
        LookUp::Tl2 => Tiles { bm, bk: 96, bmm: 32 },
    }
}

/// A tensor as the converter writes it: filled up to the alignment, its scale in a tensor of its own.
fn tiled(kind: LookUp, weights: &[i8], rows: usize, columns: usize) -> Vec<u8> {
    let mut bytes = kind.pack(tiles(kind, rows, columns), rows, columns, |row, column| weights[row * columns + column]).unwrap();
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes
}

fn tq2_0(weights: &[i8], scale: f32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in weights.as_chunks::<256>().0 {
        let code = |i: usize| (block[i] + 1) as u8;
        bytes.extend((0..64).map(|byte| (0..4).map(|l| code(128 * (byte / 32) + 32 * l + byte % 32) << (2 * l)).sum::<u8>()));
        bytes.extend(half::f16::from_f32(scale).to_le_bytes());
    }
    bytes
}
