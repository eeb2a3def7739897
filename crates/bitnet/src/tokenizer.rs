//! Text to tokens and back.
//!
//! Merging is that of the crate `tokenizers`, which the owners of the models use; what a token prints is kept as bytes, since a
//! character may be spread over several ([`spec::Utf8Stream`] puts it together).

mod pieces;
mod vocabulary;

use pieces::Pieces;
use spec::Vocabulary;
use std::collections::BTreeSet;

/// Marks that end a turn or a text whatever a file calls its end: as `llama_vocab` looks for them (`src/llama-vocab.cpp`, llama.cpp
/// v0.6.0-dev), those of them that BitNet's vocabularies have. The 2B model states `<|end_of_text|>` and ends turns with `<|eot_id|>`.
const ENDS: [&str; 7] = ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<end_of_turn>"];

/// A vocabulary that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// No tokens at all.
    #[error("the file lists no tokens")]
    NoTokens,
    /// A way to split texts that is not known here.
    #[error("vocabularies of this kind are not known (gpt2 and llama are): {0}")]
    Model(String),
    /// A way to cut texts that is not known here.
    #[error("texts are cut in a way that is not known (llama-bpe, llama3 and default are): {0}")]
    Pre(String),
    /// Lists of different lengths.
    #[error("{what} for {tokens} tokens: {found}")]
    Length {
        /// What there are too many or too few of.
        what: &'static str,
        /// Tokens.
        tokens: usize,
        /// How many there are.
        found: usize,
    },
    /// A merge that is no pair of tokens.
    #[error("merge {number} is no pair of tokens: {merge}")]
    Merge {
        /// Its place in the list.
        number: usize,
        /// The merge.
        merge: String,
    },
    /// A token that is not in the vocabulary.
    #[error("token {token} is not in a vocabulary of {tokens}")]
    Token {
        /// The token.
        token: u32,
        /// Tokens.
        tokens: usize,
    },
    /// What the crate `tokenizers` says.
    #[error("tokenizer: {0}")]
    Crate(String),
}

impl From<tokenizers::Error> for TokenizerError {
    fn from(error: tokenizers::Error) -> Self {
        Self::Crate(error.to_string())
    }
}

/// Text to tokens and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Pieces,
    bos: Option<u32>,
    ends: BTreeSet<u32>,
}

impl Tokenizer {
    /// From the vocabulary of a GGUF file.
    ///
    /// # Errors
    /// No tokens, a kind of vocabulary that is not known, or lists that contradict each other.
    pub fn from_vocabulary(vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let inner = vocabulary::tokenizer(vocabulary)?;
        let tokens = vocabulary.tokens.len();
        for id in [vocabulary.bos, vocabulary.eos, vocabulary.eot].into_iter().flatten() {
            if id as usize >= tokens {
                return Err(TokenizerError::Token { token: id, tokens });
            }
        }
        let bos = vocabulary.bos.filter(|_| vocabulary.add_bos.unwrap_or(true));
        let pieces = Pieces::of(vocabulary);
        Ok(Self::new(inner, pieces, bos, [vocabulary.eos, vocabulary.eot].into_iter().flatten()))
    }

    /// From the bytes of a `tokenizer.json`, with the ends that a `generation_config.json` states. A text begins as that file's
    /// own rule for a text alone makes it begin.
    ///
    /// # Errors
    /// A file that is none.
    pub fn from_json(json: &[u8], ends: &[u32]) -> Result<Self, TokenizerError> {
        let inner = tokenizers::Tokenizer::from_bytes(json)?;
        let bos = inner.encode("", true)?.get_ids().first().copied();
        let pieces = Pieces::of_tokenizer(&inner);
        let tokens = pieces.len();
        match ends.iter().find(|&&end| end as usize >= tokens) {
            Some(&token) => Err(TokenizerError::Token { token, tokens }),
            None => Ok(Self::new(inner, pieces, bos, ends.iter().copied())),
        }
    }

    fn new(inner: tokenizers::Tokenizer, pieces: Pieces, bos: Option<u32>, stated: impl Iterator<Item = u32>) -> Self {
        let known = ENDS.iter().filter_map(|end| inner.token_to_id(end));
        let ends = stated.chain(known).collect();
        Self { inner, pieces, bos, ends }
    }

    /// Tokens of a text, the beginning of a text before them unless it is there already. Marks that the text spells are understood.
    ///
    /// # Errors
    /// A text that the vocabulary cannot write.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, false)?;
        let ids = encoding.get_ids();
        let begin = self.bos.filter(|bos| ids.first() != Some(bos));
        Ok(begin.into_iter().chain(ids.iter().copied()).collect())
    }

    /// The bytes that a token prints: none for marks, and for tokens that do not exist.
    pub fn piece(&self, token: u32) -> &[u8] {
        self.pieces.get(token)
    }

    /// Whether a token ends a text or a turn.
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// The spelling of a token: `<|eot_id|>`.
    pub fn spelling(&self, token: u32) -> Option<String> {
        self.inner.id_to_token(token)
    }

    /// Tokens of the vocabulary.
    pub fn n_tokens(&self) -> usize {
        self.pieces.len()
    }
}

#[cfg(test)]
mod tests;
