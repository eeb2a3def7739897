//! From tokens to the residual stream (`build_inp_embd`, llama-graph.cpp:2413-2535).

use super::super::builder::{Builder, Missing};
use super::super::tensor::{Id, Op};
use super::super::weights::Part;
use spec::QuantType;

/// How token embeddings are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Scaling {
    /// As they are.
    None,
    /// By one factor.
    Factor,
    /// By an input with one factor per token, so that embeddings of images stay as they are (Gemma 3).
    PerToken,
}

/// Embeddings of the batch. The engine reserves for token batches, embedding batches and mixed ones in one graph.
pub(in super::super) fn embedding(b: &mut Builder<'_>, scaling: Scaling) -> Result<Id, Missing> {
    let (n_embd, n_tokens) = (b.model.n_embd, b.batch.n_tokens);
    let table = b.weight(None, Part::TokenEmbd)?;
    let tokens = b.graph.input(QuantType::I32, [n_tokens, 1, 1, 1]);
    let given = b.graph.input(QuantType::F32, [n_embd, n_tokens, 1, 1]);
    let mixed_tokens = b.graph.input(QuantType::I32, [n_tokens, 1, 1, 1]);
    let mixed_slots = b.graph.input(QuantType::I64, [n_tokens, 1, 1, 1]);
    let mixed_given = b.graph.input(QuantType::F32, [n_embd, n_tokens, 1, 1]);

    let looked_up = b.graph.get_rows(table, tokens);
    let base = b.graph.like(Op::Duplicate, &[mixed_given]);
    let rows = b.graph.get_rows(table, mixed_tokens);
    let mixed = b.graph.set_rows(base, rows, mixed_slots);
    for branch in [looked_up, given, mixed] {
        b.graph.expand(branch);
    }

    let embeddings = match scaling {
        Scaling::None => looked_up,
        Scaling::Factor => b.graph.scale(looked_up),
        Scaling::PerToken => {
            let factors = b.graph.input(QuantType::F32, [1, n_tokens, 1, 1]);
            b.graph.mul(looked_up, factors)
        }
    };
    b.graph.expand(embeddings);
    Ok(embeddings)
}
