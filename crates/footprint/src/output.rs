//! The buffer in which logits are handed to the application.
//!
//! Upstream: `src/llama-context.cpp:2118-2260`. Allocated when the context is made, for one row per sequence; it grows when
//! a batch asks for more rows, up to what the tool reserves.

use spec::{Bytes, Model, QuantType};

/// Bytes of the output buffer for so many rows of logits, in F32, without alignment: after load one per sequence, later as
/// many as a batch asks for. Encoders hand out embeddings beside logits that they do not compute.
pub fn output(model: &Model, rows: u32) -> Bytes {
    let row = QuantType::F32.row_bytes(model.n_vocab).unwrap_or(Bytes::MAX);
    // T5 hands out embeddings too.
    let width = model.arch_uint("embedding_length_out").filter(|&width| width > 0).unwrap_or(model.n_embd);
    let both = model.encoder || model.architecture == "t5";
    let embeddings = if both { QuantType::F32.row_bytes(width).unwrap_or(Bytes::MAX) } else { Bytes::ZERO };
    (row + embeddings).times(u64::from(rows))
}
