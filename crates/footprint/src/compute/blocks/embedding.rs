//! From tokens to the residual stream (`build_inp_embd`, llama-graph.cpp:2413-2535).

use super::super::builder::{Builder, Missing};
use super::super::tensor::{Id, Op};
use super::super::weights::{Part, Suffix};
use crate::profile::BatchKinds;
use spec::QuantType;

/// How token embeddings are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Scaling {
    /// As they are.
    None,
    /// By one factor.
    Factor,
    /// By their root mean square (Muse Glimmer).
    Normed,
    /// By an input with one factor per token, so that embeddings of images stay as they are (Gemma 3).
    PerToken,
}

/// Embeddings of the batch. The engine reserves for token batches, embedding batches and mixed ones in one graph. Given
/// embeddings are as wide as `deepstack` further ones beside them, for as many of the first layers (Qwen3-VL); those of
/// tokens are padded.
pub(in super::super) fn embedding(b: &mut Builder<'_>, scaling: Scaling, deepstack: u64) -> Result<Embedded, Missing> {
    let n_tokens = b.batch.n_tokens;
    let n_embd = b.model.n_embd.saturating_mul(deepstack.saturating_add(1));
    let table = b.weight(None, Part::TokenEmbd)?;
    let tokens = b.graph.input(QuantType::I32, [n_tokens, 1, 1, 1]);
    b.tokens = Some(tokens);
    let given = b.graph.input(QuantType::F32, [n_embd, n_tokens, 1, 1]);
    let mixed_tokens = b.graph.input(QuantType::I32, [n_tokens, 1, 1, 1]);
    let mixed_slots = b.graph.input(QuantType::I64, [n_tokens, 1, 1, 1]);
    let mixed_given = b.graph.input(QuantType::F32, [n_embd, n_tokens, 1, 1]);

    let padded = |b: &mut Builder<'_>, rows: Id| if deepstack > 0 { b.graph.pad_rows(rows, n_embd) } else { rows };
    let looked_up = b.graph.get_rows(table, tokens);
    let looked_up = padded(b, looked_up);
    let base = b.graph.like(Op::Duplicate, &[mixed_given]);
    let rows = b.graph.get_rows(table, mixed_tokens);
    let rows = padded(b, rows);
    let mixed = b.graph.set_rows(base, rows, mixed_slots);
    // CogVLM has other weights for pieces of images, and DeepSeek V4 other experts, so that no batch mixes them with tokens
    // (`llm_arch_supports_mixed_batch`).
    let apart = ["cogvlm", "deepseek4"].contains(&b.model.architecture.as_str());
    let kinds = b.options.rules.batches.min(if apart { BatchKinds::TokensOrEmbeddings } else { BatchKinds::Mixed });
    for (kind, branch) in [(BatchKinds::Tokens, looked_up), (BatchKinds::TokensOrEmbeddings, given), (BatchKinds::Mixed, mixed)] {
        if kind <= kinds {
            b.graph.expand(branch);
        }
    }

    let mut x = looked_up;
    if deepstack > 0 {
        let row = b.graph.tensor(x).nb[1];
        x = b.graph.view_2d(x, b.model.n_embd, n_tokens, row);
    }
    x = match scaling {
        Scaling::None => x,
        // Before batches could mix tokens and embeddings, one factor was enough.
        Scaling::PerToken if kinds < BatchKinds::Mixed => b.graph.scale(x),
        Scaling::Factor => b.graph.scale(x),
        Scaling::Normed => b.graph.like(Op::RmsNorm, &[x]),
        Scaling::PerToken => {
            let factors = b.graph.input(QuantType::F32, [1, n_tokens, 1, 1]);
            b.graph.mul(x, factors)
        }
    };
    b.graph.expand(x);
    Ok(Embedded { x, all: looked_up })
}

/// What the first layers read.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Embedded {
    /// The stream.
    pub(in super::super) x: Id,
    /// The same with the further embeddings beside it.
    pub(in super::super) all: Id,
}

/// What is added to embeddings where the file has it: the type of the first segment, learned positions, and a norm that
/// belongs to the first layer (LFM2 calls its last norm so).
pub(in super::super) fn position(b: &mut Builder<'_>, mut x: Id, positions: Id) -> Result<Id, Missing> {
    if let Some(types) = b.find(None, Part::TokenTypes, Suffix::Weight) {
        let first = b.graph.view_1d(types, b.model.n_embd);
        x = b.graph.add(x, first);
    }
    if let Some(table) = b.find(None, Part::PositionEmbd, Suffix::Weight) {
        let rows = b.graph.get_rows(table, positions);
        x = if b.model.encoder { b.graph.add(rows, x) } else { b.graph.add(x, rows) };
    }
    let last = b.model.architecture.starts_with("lfm2");
    if !last && b.find(None, Part::TokenEmbdNorm, Suffix::Weight).is_some() {
        x = b.norm(None, Part::TokenEmbdNorm, x, Some(0))?;
    }
    Ok(x)
}
