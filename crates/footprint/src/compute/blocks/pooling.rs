//! From the embeddings of tokens to what is handed out of them (`build_pooling` and `build_dense_out`, llama-graph.cpp:3772-3900).

use super::super::builder::{Builder, Missing, Norm};
use super::super::tensor::{Id, Op};
use super::super::weights::{Part, Suffix};
use spec::QuantType;
use spec::settings::Pooling;

/// One embedding per sequence, or per token where nothing is pooled; a score where it ranks.
pub(in super::super) fn pooled(b: &mut Builder<'_>, x: Id) -> Result<Id, Missing> {
    let mut y = match b.options.pooling {
        Some(Pooling::Mean) => mean(b, x),
        Some(Pooling::Cls | Pooling::Last) => of_one_token(b, x),
        Some(Pooling::Rank) => score(b, x)?,
        _ => x,
    };
    b.graph.expand(y);
    // Two projections behind the pooling (EmbeddingGemma).
    for part in [Part::Dense2, Part::Dense3] {
        if let Some(matrix) = b.find(None, part, Suffix::Weight) {
            y = b.graph.mul_mat(matrix, y);
        }
    }
    b.graph.expand(y);
    b.graph.tensor_mut(y).output = true;
    Ok(y)
}

/// The mean over each sequence: a product with a matrix that the application fills in.
fn mean(b: &mut Builder<'_>, x: Id) -> Id {
    let weights = b.graph.input(QuantType::F32, [b.batch.n_tokens, b.batch.n_seqs, 1, 1]);
    let columns = b.graph.transpose(x);
    let columns = b.graph.cont(columns);
    b.graph.mul_mat(columns, weights)
}

fn of_one_token(b: &mut Builder<'_>, x: Id) -> Id {
    let tokens = b.graph.input(QuantType::I32, [b.batch.n_seqs, 1, 1, 1]);
    b.graph.get_rows(x, tokens)
}

/// A classifier over the pooled embedding.
fn score(b: &mut Builder<'_>, x: Id) -> Result<Id, Missing> {
    let averaged = b.model.architecture == "modern-bert";
    let mut y = if averaged { mean(b, x) } else { of_one_token(b, x) };
    if b.find(None, Part::Classifier, Suffix::Weight).is_some() {
        y = b.linear_bias(None, Part::Classifier, y)?;
        y = b.graph.function(y);
        if b.find(None, Part::ClassifierNorm, Suffix::Weight).is_some() {
            y = b.norm_as(Norm::Layer, None, Part::ClassifierNorm, y, None)?;
        }
    }
    if b.find(None, Part::ClassifierOutput, Suffix::Weight).is_some() {
        y = b.linear_bias(None, Part::ClassifierOutput, y)?;
    }
    if matches!(b.model.architecture.as_str(), "qwen3" | "qwen3vl") {
        y = b.graph.like(Op::SoftMax, &[y]);
    }
    Ok(y)
}
