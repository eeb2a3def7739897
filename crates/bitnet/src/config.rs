//! The shape of a model, from its metadata.

use spec::Model;
use spec::model::MetaValue;

/// What stands between gate and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0)²: `bitnet-b1.58`, `bitnet-25`.
    Relu2,
    /// x · sigmoid(x): `bitnet`.
    Silu,
}

/// The shape of a BitNet model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Tokens of the vocabulary.
    pub n_vocab: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Layers.
    pub n_layer: usize,
    /// Width between gate/up and down.
    pub n_ff: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads.
    pub n_head_kv: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Base of the rotary angles.
    pub rope_base: f32,
    /// What is added to the mean square before its root.
    pub rms_eps: f32,
    /// Between gate and up.
    pub activation: Activation,
    /// Context that the model was trained for.
    pub n_ctx_train: usize,
}

/// Metadata that is no BitNet model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Another architecture.
    #[error("the architecture is {0}, not bitnet-b1.58, bitnet-25 or bitnet")]
    Architecture(String),
    /// A key that is needed.
    #[error("the file does not state {0}")]
    Missing(String),
    /// A number that cannot be.
    #[error("{key} cannot be {value}")]
    Number {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Heads that do not divide.
    #[error("{n_head} query heads cannot share {n_head_kv} key heads")]
    Heads {
        /// Query heads.
        n_head: usize,
        /// Key heads.
        n_head_kv: usize,
    },
}

/// More than any model has; keeps products of sizes far from overflow.
const MOST: u64 = 1 << 24;

impl Config {
    fn activation_of(architecture: &str) -> Option<Activation> {
        match architecture {
            "bitnet-b1.58" | "bitnet-25" => Some(Activation::Relu2),
            "bitnet" => Some(Activation::Silu),
            _ => None,
        }
    }

    /// From a model's metadata, as `llama.cpp` names its keys.
    ///
    /// # Errors
    /// Another architecture, a missing key, or numbers that cannot be.
    pub fn of(model: &Model) -> Result<Self, ConfigError> {
        let activation = Self::activation_of(&model.architecture).ok_or_else(|| ConfigError::Architecture(model.architecture.clone()))?;
        let keys = Keys { model };
        let n_embd = keys.count("embedding_length")?;
        let n_head = keys.count("attention.head_count")?;
        let n_head_kv = keys.count_or("attention.head_count_kv", n_head)?;
        if n_head % n_head_kv != 0 {
            return Err(ConfigError::Heads { n_head, n_head_kv });
        }
        let head_dim = keys.count_or("attention.key_length", n_embd / n_head)?;
        let rotated = keys.count_or("rope.dimension_count", head_dim)?;
        if head_dim % 2 != 0 || rotated != head_dim {
            return Err(keys.wrong("rope.dimension_count", rotated));
        }
        let n_vocab = usize::try_from(model.n_vocab).ok().filter(|&n| n > 0).ok_or_else(|| keys.wrong("vocab_size", model.n_vocab))?;
        Ok(Self {
            n_vocab,
            n_embd,
            n_layer: keys.count("block_count")?,
            n_ff: keys.count("feed_forward_length")?,
            n_head,
            n_head_kv,
            head_dim,
            rope_base: keys.float("rope.freq_base", 10_000.0)?,
            rms_eps: keys.float("attention.layer_norm_rms_epsilon", 1e-5)?,
            activation,
            n_ctx_train: keys.count("context_length")?,
        })
    }

    /// Width of all keys, and of all values, of a token.
    pub const fn kv_width(&self) -> usize {
        self.n_head_kv * self.head_dim
    }

    /// Width of all queries of a token.
    pub const fn q_width(&self) -> usize {
        self.n_head * self.head_dim
    }
}

struct Keys<'a> {
    model: &'a Model,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.model.architecture)
    }

    fn wrong(&self, name: &str, value: impl ToString) -> ConfigError {
        ConfigError::Number { key: self.key(name), value: value.to_string() }
    }

    fn found(&self, name: &str) -> Option<&MetaValue> {
        self.model.metadata.get(&self.key(name))
    }

    fn count(&self, name: &str) -> Result<usize, ConfigError> {
        match self.found(name) {
            Some(MetaValue::Uint(number)) if (1..MOST).contains(number) => Ok(*number as usize),
            Some(MetaValue::Int(number)) if (1..MOST as i64).contains(number) => Ok(*number as usize),
            Some(other) => Err(self.wrong(name, format!("{other:?}"))),
            None => Err(ConfigError::Missing(self.key(name))),
        }
    }

    fn count_or(&self, name: &str, default: usize) -> Result<usize, ConfigError> {
        if self.found(name).is_some() { self.count(name) } else { Ok(default) }
    }

    fn float(&self, name: &str, default: f32) -> Result<f32, ConfigError> {
        match self.found(name) {
            None => Ok(default),
            Some(MetaValue::Float(number)) if number.is_finite() && *number > 0.0 => Ok(*number as f32),
            Some(other) => Err(self.wrong(name, format!("{other:?}"))),
        }
    }
}
