//! The buffer in which logits and embeddings are handed to the application.
//!
//! Upstream: `src/llama-context.cpp:2118-2260`. Allocated when the context is made, for one row per sequence; it grows when
//! a batch asks for more rows, up to what the tool reserves.

use spec::settings::Pooling;
use spec::{Bytes, Model, QuantType, Settings};

/// Bytes of the output buffer for so many rows of logits, in F32, without alignment: after load one per sequence, later as
/// many as a batch asks for. Embeddings lie beside logits, whether these are computed or not.
pub fn output(model: &Model, settings: &Settings, rows: u32) -> Bytes {
    let row = QuantType::F32.row_bytes(model.n_vocab).unwrap_or(Bytes::MAX);
    // T5 hands out embeddings too.
    let width = model.arch_uint("embedding_length_out").filter(|&width| width > 0).unwrap_or(model.n_embd);
    let both = hands_out_embeddings(model, settings) || model.architecture == "t5";
    let embeddings = if both { QuantType::F32.row_bytes(width).unwrap_or(Bytes::MAX) } else { Bytes::ZERO };
    (row + embeddings).times(u64::from(rows))
}

/// True where embeddings are what is asked for, or all that there is.
pub(crate) fn hands_out_embeddings(model: &Model, settings: &Settings) -> bool {
    settings.embeddings || model.encoder
}

/// What is handed out of the embeddings: what is set, else what the file says (`llama_pooling_type`,
/// src/llama-context.cpp:218-224).
pub(crate) fn pooling(model: &Model, settings: &Settings) -> Pooling {
    match (settings.pooling, model.arch_uint("pooling_type")) {
        (Pooling::Model, Some(1)) => Pooling::Mean,
        (Pooling::Model, Some(2)) => Pooling::Cls,
        (Pooling::Model, Some(3)) => Pooling::Last,
        (Pooling::Model, Some(4)) => Pooling::Rank,
        (Pooling::Model, _) => Pooling::None,
        (set, _) => set,
    }
}
