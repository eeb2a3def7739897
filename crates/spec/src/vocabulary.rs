//! The tokens of a model, as its file lists them: what a tokenizer is made from.

/// What a token is (`llama_token_type` of `include/llama.h`, llama.cpp v0.6.0-dev).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenKind {
    /// A piece of text.
    #[default]
    Normal,
    /// What stands for text that no token can write.
    Unknown,
    /// A mark that is no text: beginnings, ends, turns.
    Control,
    /// A text that is always one token, and is printed.
    UserDefined,
    /// A place in the table that nothing uses.
    Unused,
    /// One byte, spelled `<0x0A>`.
    Byte,
}

impl TokenKind {
    /// The kind of a number in a file.
    pub const fn from_id(id: i64) -> Option<Self> {
        Some(match id {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// The section `tokenizer` of a GGUF file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vocabulary {
    /// How texts are split: `gpt2` (byte-level BPE), `llama` (SentencePiece), ...
    pub model: String,
    /// How a text is cut before it is split, where the file says so: `llama-bpe`, ...
    pub pre: Option<String>,
    /// Tokens by their ids.
    pub tokens: Vec<String>,
    /// Scores of tokens, parallel to them, or none.
    pub scores: Vec<f32>,
    /// Kinds of tokens, parallel to them, or none.
    pub kinds: Vec<TokenKind>,
    /// Pairs that are merged, first the first, a space between their halves.
    pub merges: Vec<String>,
    /// Beginning of a text.
    pub bos: Option<u32>,
    /// End of a text.
    pub eos: Option<u32>,
    /// End of a turn.
    pub eot: Option<u32>,
    /// What stands for text that no token can write.
    pub unknown: Option<u32>,
    /// Whether a text begins with `bos`, where the file says so.
    pub add_bos: Option<bool>,
    /// Whether a space comes before a text, where the file says so.
    pub add_space_prefix: Option<bool>,
    /// Jinja template of a conversation.
    pub chat_template: Option<String>,
}

impl Vocabulary {
    /// Kind of a token; [`TokenKind::Normal`] where the file lists no kinds.
    pub fn kind(&self, token: usize) -> TokenKind {
        self.kinds.get(token).copied().unwrap_or_default()
    }
}
