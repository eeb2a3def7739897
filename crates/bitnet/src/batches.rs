//! How tokens go through layers on a device: in batches, of which the last one may tell logits.

use crate::cache::CacheType;
use std::ops::Range;
use thiserror::Error;

/// Sizes of a context on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens that it holds at most.
    pub n_ctx: usize,
    /// Tokens that are computed together, if there is memory for them.
    pub tokens: usize,
    /// How keys and values are stored: F32 or F16.
    pub cache: CacheType,
}

impl Sizes {
    /// The same as memory is counted by.
    pub fn context(self) -> workspace::Context {
        workspace::Context { n_ctx: self.n_ctx as u64, tokens: self.tokens as u64, element: self.cache.bytes(1) as u64 }
    }
}

/// What a device can be given at a time.
///
/// ```
/// # use bitnet::Batches;
/// let device = Batches { n_embd: 4, n_ctx: 16, n_layer: 2, n_vocab: 100, tokens: 2 };
/// // Three tokens behind five others, and the logits of what follows them.
/// let passes: Vec<_> = device.passes(5, 12, Some(100))?.map(|pass| (pass.start, pass.values, pass.tells)).collect();
/// assert_eq!(passes, [(5, 0..8, false), (7, 8..12, true)]);
/// // A head alone needs the last token only.
/// let head = Batches { n_layer: 0, ..device };
/// let passes: Vec<_> = head.passes(5, 12, Some(100))?.map(|pass| (pass.start, pass.values, pass.tells)).collect();
/// assert_eq!(passes, [(7, 8..12, true)]);
/// # Ok::<(), bitnet::BatchError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// Floats of a token's stream.
    pub n_embd: usize,
    /// Tokens that the context holds at most.
    pub n_ctx: usize,
    /// Layers, the head not counted.
    pub n_layer: usize,
    /// Tokens of the head's vocabulary; 0 without a head.
    pub n_vocab: usize,
    /// Tokens that are computed together; 0 after there was no memory for any.
    pub tokens: usize,
}

/// A batch on its way through the layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Position of its first token.
    pub start: usize,
    /// Which of all floats its streams are.
    pub values: Range<usize>,
    /// Whether logits are told behind its last token, instead of its streams.
    pub tells: bool,
}

/// What layers on a device cannot be given.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchError {
    /// A batch before this one could not be made.
    #[error("there was no memory for any batch")]
    NoBatch,
    /// No whole tokens, or more than the context holds.
    #[error("{values} values from position {start} in a context of {n_ctx}")]
    Beyond {
        /// Floats of the streams.
        values: usize,
        /// Position of the first token.
        start: usize,
        /// Tokens that the context holds at most.
        n_ctx: usize,
    },
    /// No head, one of another vocabulary, or no token that logits could follow.
    #[error("{asked} logits of a head of {n_vocab}, behind {values} values")]
    Logits {
        /// How many logits there is room for.
        asked: usize,
        /// How many the head has.
        n_vocab: usize,
        /// Floats of the streams.
        values: usize,
    },
}

impl Batches {
    /// Batches of streams of `values` floats from position `start` on; `logits`: how many are to be told behind the last token, if any are.
    /// A head alone adds nothing to streams: without logits there is nothing to do.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn passes(self, start: usize, values: usize, logits: Option<usize>) -> Result<impl Iterator<Item = Pass>, BatchError> {
        let Self { n_embd, n_ctx, n_vocab, .. } = self;
        if let Some(asked) = logits.filter(|&asked| asked != n_vocab || values == 0) {
            return Err(BatchError::Logits { asked, n_vocab, values });
        }
        let tokens = values.checked_div(n_embd).filter(|tokens| tokens * n_embd == values);
        let Some(end) = tokens.and_then(|tokens| start.checked_add(tokens)).filter(|&end| end <= n_ctx) else {
            return Err(BatchError::Beyond { values, start, n_ctx });
        };
        let first = match (self.n_layer, self.tokens) {
            (_, 0) => return Err(BatchError::NoBatch),
            // Only the last token's logits are asked for.
            (0, _) if logits.is_some() => end - 1,
            (0, _) => end,
            _ => start,
        };
        Ok((first..end).step_by(self.tokens).map(move |position| {
            let behind = end.min(position.saturating_add(self.tokens));
            let values = (position - start) * n_embd..(behind - start) * n_embd;
            Pass { start: position, values, tells: logits.is_some() && behind == end }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Batches = Batches { n_embd: 4, n_ctx: 16, n_layer: 2, n_vocab: 100, tokens: 3 };

    /// What a device is given: in order, without gaps, no more than it takes, and told at the end alone.
    #[test]
    fn all_tokens_go_through_once() {
        for (tokens, start, count) in
            (1..=17).flat_map(|tokens| (0..=16).flat_map(move |start| (0..=16 - start).map(move |count| (tokens, start, count))))
        {
            for logits in [None, Some(100)].into_iter().filter(|logits| logits.is_none() || count > 0) {
                let passes: Vec<Pass> = Batches { tokens, ..DEVICE }.passes(start, 4 * count, logits).unwrap().collect();
                let mut next = 0;
                for (i, pass) in passes.iter().enumerate() {
                    assert_eq!((pass.start, pass.values.start), (start + next / 4, next));
                    assert!(!pass.values.is_empty() && pass.values.len() <= 4 * tokens && pass.values.len() % 4 == 0);
                    assert_eq!(pass.tells, logits.is_some() && i + 1 == passes.len());
                    next = pass.values.end;
                }
                assert_eq!(next, 4 * count, "{tokens} {start} {count}");
            }
        }
    }

    #[test]
    fn a_head_alone_has_nothing_to_add() {
        let head = Batches { n_layer: 0, ..DEVICE };
        assert_eq!(head.passes(5, 12, None).unwrap().count(), 0);
        assert_eq!(head.passes(5, 12, Some(100)).unwrap().collect::<Vec<_>>(), [Pass { start: 7, values: 8..12, tells: true }]);
    }

    #[test]
    fn what_cannot_be_given_is_named() {
        let said =
            |device: Batches, start, values, logits| device.passes(start, values, logits).map(Iterator::count).unwrap_err().to_string();
        assert_eq!(said(DEVICE, 0, 5, None), "5 values from position 0 in a context of 16");
        assert_eq!(said(DEVICE, 16, 4, None), "4 values from position 16 in a context of 16");
        assert_eq!(said(DEVICE, usize::MAX, 4, None), format!("4 values from position {} in a context of 16", usize::MAX));
        assert_eq!(said(Batches { n_embd: 0, ..DEVICE }, 0, 4, None), "4 values from position 0 in a context of 16");
        assert_eq!(said(Batches { tokens: 0, ..DEVICE }, 0, 4, None), "there was no memory for any batch");
        assert_eq!(said(Batches { n_vocab: 0, ..DEVICE }, 0, 4, Some(100)), "100 logits of a head of 0, behind 4 values");
        assert_eq!(said(DEVICE, 0, 0, Some(100)), "100 logits of a head of 100, behind 0 values");
    }
}
