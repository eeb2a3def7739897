//! Headers for tests, built by the writer of the sibling crate.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]

use formats::Gguf;
use spec::{Bytes, QuantType};
use synthetic::writer::{Header, TensorEntry, Value};

/// A header under construction; tensors lie one after another as the format demands.
#[derive(Clone)]
pub struct Build {
    pub header: Header,
    architecture: String,
}

impl Build {
    pub fn new(architecture: &str) -> Self {
        let build = Self { header: Header::new(), architecture: architecture.to_owned() };
        build.raw("general.architecture", architecture)
    }
    /// A key as it stands.
    pub fn raw(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.header.metadata.push((key.to_owned(), value.into()));
        self
    }
    /// A key of the architecture.
    pub fn key(self, key: &str, value: impl Into<Value>) -> Self {
        let full = format!("{}.{key}", self.architecture);
        self.raw(&full, value)
    }
    pub fn without(mut self, key: &str) -> Self {
        self.header.metadata.retain(|(have, _)| have != key);
        self
    }
    pub fn tensor(mut self, name: &str, ty: QuantType, shape: &[u64]) -> Self {
        let offset = self.data_size();
        self.header.tensors.push(TensorEntry { name: name.to_owned(), shape: shape.to_vec(), type_id: ty.id(), offset });
        self
    }
    /// Where the next tensor begins.
    pub fn data_size(&self) -> u64 {
        let Some(last) = self.header.tensors.last() else { return 0 };
        let ty = QuantType::from_id(last.type_id).unwrap();
        let (columns, rows) = last.shape.split_first().unwrap();
        let bytes = ty.row_bytes(*columns).unwrap().get() * rows.iter().product::<u64>();
        (last.offset + bytes).next_multiple_of(self.header.alignment)
    }
    pub fn bytes(&self) -> Vec<u8> {
        self.header.encode()
    }
    pub fn file_size(&self) -> Bytes {
        Bytes::new(self.bytes().len() as u64 + self.data_size())
    }
    pub fn read(&self) -> Gguf {
        formats::gguf::read(&self.bytes(), self.file_size()).unwrap()
    }
}

/// A Llama of one layer.
pub fn llama() -> Build {
    Build::new("llama")
        .key("block_count", 1_u32)
        .key("context_length", 512_u32)
        .key("embedding_length", 64_u32)
        .key("feed_forward_length", 128_u32)
        .key("attention.head_count", 4_u32)
        .key("attention.head_count_kv", 2_u32)
        .raw("tokenizer.ggml.model", "llama")
        .raw("tokenizer.ggml.tokens", Value::array(["a", "b", "c"]))
        .tensor("token_embd.weight", QuantType::F16, &[64, 3])
        .tensor("blk.0.attn_q.weight", QuantType::Q8_0, &[64, 64])
        .tensor("blk.0.ffn_down.weight", QuantType::Q8_0, &[128, 64])
}
