//! What a model measures: the figures from which every tensor and every key of its file follows.

use std::fmt;

/// A family of models that llama.cpp builds with one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Architecture {
    /// Llama, Mistral, SmolLM; with experts Mixtral.
    Llama,
    /// Qwen2 and Qwen2.5: biases on Q, K and V.
    Qwen2,
    /// Qwen3: norms on Q and K.
    Qwen3,
    /// Qwen3 with routed experts.
    Qwen3Moe,
    /// Gemma 3: five windowed layers to each full one.
    Gemma3,
    /// Phi-3 and Phi-4: fused QKV and fused gate.
    Phi3,
    /// DeepSeek V2 and V3: latent attention, routed and shared experts.
    DeepSeek2,
    /// gpt-oss: windowed layers in alternation, attention sinks, biases everywhere.
    GptOss,
    /// Mamba: no attention, a state of fixed size.
    Mamba,
    /// BitNet b1.58 as mainline llama.cpp runs it.
    BitNet,
}

impl Architecture {
    /// Every architecture, in the order of the list above.
    pub const ALL: [Self; 10] = [
        Self::Llama,
        Self::Qwen2,
        Self::Qwen3,
        Self::Qwen3Moe,
        Self::Gemma3,
        Self::Phi3,
        Self::DeepSeek2,
        Self::GptOss,
        Self::Mamba,
        Self::BitNet,
    ];

    /// The value of `general.architecture`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3moe",
            Self::Gemma3 => "gemma3",
            Self::Phi3 => "phi3",
            Self::DeepSeek2 => "deepseek2",
            Self::GptOss => "gpt-oss",
            Self::Mamba => "mamba",
            Self::BitNet => "bitnet",
        }
    }

    /// The architecture of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == name)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is wrong with a shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// No such figure.
    #[error("no such figure of a shape: {key}; there are {}", Shape::KEYS.join(", "))]
    UnknownKey {
        /// What was given.
        key: String,
    },
    /// A figure with a value of the wrong kind.
    #[error("{key} is no {expected}: {value}")]
    BadValue {
        /// The figure.
        key: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What was given.
        value: String,
    },
    /// A figure that the architecture needs and the shape lacks, or one that contradicts another.
    #[error("shape {shape}: {problem}")]
    Inconsistent {
        /// Name of the shape.
        shape: String,
        /// What does not go together.
        problem: String,
    },
    /// A tensor whose size passes 2^63 bytes or whose rows no block divides.
    #[error("shape {shape}: tensor {tensor} cannot be stored as {ty}")]
    Tensor {
        /// Name of the shape.
        shape: String,
        /// Name of the tensor.
        tensor: String,
        /// The tensor type.
        ty: spec::QuantType,
    },
    /// Tensors that the file type has no place for.
    #[error("shape {shape}: {source}")]
    Mixture {
        /// Name of the shape.
        shape: String,
        /// The tensor, and what stands against it.
        source: mixture::MixtureError,
    },
}

/// A figure that text can set.
trait Figure: Sized {
    const KIND: &'static str;
    fn parse(text: &str) -> Option<Self>;
}

impl Figure for u64 {
    const KIND: &'static str = "whole number";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Figure for f32 {
    const KIND: &'static str = "finite number";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number: &f32| number.is_finite())
    }
}

impl Figure for bool {
    const KIND: &'static str = "true or false";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

macro_rules! figures {
    ($($(#[$doc:meta])* $key:ident: $ty:ty = $default:expr,)*) => {
        /// The figures of one model. A figure that the architecture does not use stays at its default.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Shape {
            /// What people call the model: `qwen3-0.6b`.
            pub name: String,
            /// Where the figures were published.
            pub source: String,
            /// Its family.
            pub architecture: Architecture,
            $($(#[$doc])* pub $key: $ty,)*
        }

        impl Shape {
            /// Names of all figures that [`Shape::set`] takes.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            /// A shape with every figure at its default.
            pub fn new(name: &str, architecture: Architecture) -> Self {
                Self { name: name.to_owned(), source: String::new(), architecture, $($key: $default,)* }
            }

            /// Changes one figure by name, as from `n_layer=4` on a command line.
            ///
            /// # Errors
            /// The name is none of [`Shape::KEYS`], or the text is no value of that figure.
            pub fn set(&mut self, key: &str, value: &str) -> Result<(), ShapeError> {
                match key {
                    $(stringify!($key) => {
                        self.$key = <$ty as Figure>::parse(value).ok_or_else(|| ShapeError::BadValue {
                            key: stringify!($key),
                            expected: <$ty as Figure>::KIND,
                            value: value.to_owned(),
                        })?;
                    })*
                    _ => return Err(ShapeError::UnknownKey { key: key.to_owned() }),
                }
                Ok(())
            }
        }
    };
}

figures! {
    /// Layers.
    n_layer: u64 = 0,
    /// Width of the residual stream.
    n_embd: u64 = 0,
    /// Inner width of a dense feed-forward block.
    n_ff: u64 = 0,
    /// Query heads.
    n_head: u64 = 0,
    /// Key/value heads.
    n_head_kv: u64 = 0,
    /// Width of a head; 0 means `n_embd / n_head` and no key in the file.
    head_dim: u64 = 0,
    /// Tokens of the vocabulary.
    n_vocab: u64 = 0,
    /// Trained context.
    n_ctx: u64 = 0,
    /// True where the output head reuses the token embedding.
    tied: bool = false,
    /// Base of the rotary frequencies.
    rope_base: f32 = 10000.0,
    /// True where the file carries a table of rotary factors (Llama 3.1 and later).
    rope_freqs: bool = false,
    /// Factor of linear rotary scaling; 0 for none.
    rope_linear: f32 = 0.0,
    /// Sliding window in tokens; 0 for none.
    window: u64 = 0,
    /// Routed experts; 0 for none.
    n_expert: u64 = 0,
    /// Experts that a token visits.
    n_expert_used: u64 = 0,
    /// Shared experts.
    n_expert_shared: u64 = 0,
    /// Inner width of an expert; 0 means `n_ff` and no key in the file.
    n_ff_exp: u64 = 0,
    /// Leading layers without experts.
    n_dense_lead: u64 = 0,
    /// True where the router has a bias per expert (DeepSeek V3).
    expert_bias: bool = false,
    /// Rank of the compressed KV of latent attention.
    kv_lora: u64 = 0,
    /// Rank of the compressed query; 0 where it is not compressed.
    q_lora: u64 = 0,
    /// Rotary part of a latent key.
    rope_dim: u64 = 0,
    /// Part of a latent key without rotation.
    nope_dim: u64 = 0,
    /// Width of a latent value head.
    v_dim: u64 = 0,
    /// Inner width of a Mamba layer.
    d_inner: u64 = 0,
    /// State per channel of a Mamba layer.
    d_state: u64 = 0,
    /// Kernel of a Mamba layer's convolution.
    d_conv: u64 = 0,
    /// Rank of a Mamba layer's time step.
    dt_rank: u64 = 0,
}

/// Most layers that llama.cpp accepts (`LLAMA_MAX_LAYERS`, `src/llama-hparams.h`), so that a typing error stays small.
const MAX_LAYERS: u64 = 512;

impl Shape {
    /// Width of a head.
    pub fn head_width(&self) -> u64 {
        match (self.head_dim, self.n_head) {
            (0, 0) => 0,
            (0, heads) => self.n_embd / heads,
            (width, _) => width,
        }
    }

    /// Key/value heads as the file states them: one for latent attention.
    pub fn kv_heads(&self) -> u64 {
        if self.architecture == Architecture::DeepSeek2 { 1 } else { self.n_head_kv }
    }

    /// Inner width of one expert.
    pub fn expert_width(&self) -> u64 {
        if self.n_ff_exp == 0 { self.n_ff } else { self.n_ff_exp }
    }

    /// Checks that the architecture's figures are all there.
    ///
    /// # Errors
    /// Names the first figure that is missing or contradicts another.
    pub fn check(&self) -> Result<(), ShapeError> {
        let problem = |problem: String| Err(ShapeError::Inconsistent { shape: self.name.clone(), problem });
        let needs: &[(&str, u64)] = match self.architecture {
            Architecture::Mamba => {
                &[("d_inner", self.d_inner), ("d_state", self.d_state), ("d_conv", self.d_conv), ("dt_rank", self.dt_rank)]
            }
            Architecture::DeepSeek2 => &[
                ("n_head", self.n_head),
                ("n_ff", self.n_ff),
                ("kv_lora", self.kv_lora),
                ("rope_dim", self.rope_dim),
                ("nope_dim", self.nope_dim),
                ("v_dim", self.v_dim),
                ("n_expert", self.n_expert),
                ("n_expert_used", self.n_expert_used),
                ("n_ff_exp", self.n_ff_exp),
            ],
            Architecture::Qwen3Moe | Architecture::GptOss => &[
                ("n_head", self.n_head),
                ("n_head_kv", self.n_head_kv),
                ("n_expert", self.n_expert),
                ("n_expert_used", self.n_expert_used),
                ("n_ff_exp", self.n_ff_exp),
            ],
            _ => &[("n_head", self.n_head), ("n_head_kv", self.n_head_kv), ("n_ff", self.n_ff)],
        };
        let always = [("n_layer", self.n_layer), ("n_embd", self.n_embd), ("n_vocab", self.n_vocab), ("n_ctx", self.n_ctx)];
        for (key, value) in always.iter().chain(needs) {
            if *value == 0 {
                return problem(format!("{key} is zero"));
            }
            if *value > u64::from(u32::MAX) {
                return problem(format!("{key} does not fit into 32 bits: {value}"));
            }
        }
        if self.n_layer > MAX_LAYERS {
            return problem(format!("n_layer is above the {MAX_LAYERS} that llama.cpp accepts: {}", self.n_layer));
        }
        if self.n_expert_used > self.n_expert {
            return problem(format!("n_expert_used {} is above n_expert {}", self.n_expert_used, self.n_expert));
        }
        // `is_lite` of `src/models/deepseek2.cpp`; any other depth must compress its queries.
        if self.architecture == Architecture::DeepSeek2 && self.q_lora == 0 && !matches!(self.n_layer, 26 | 27) {
            return problem(format!("llama.cpp takes uncompressed queries (q_lora=0) at 26 or 27 layers only: {}", self.n_layer));
        }
        if self.architecture == Architecture::GptOss && self.window == 0 {
            return problem("window is zero".to_owned());
        }
        if self.n_head_kv != 0 && !self.n_head.is_multiple_of(self.n_head_kv) {
            return problem(format!("n_head {} is no multiple of n_head_kv {}", self.n_head, self.n_head_kv));
        }
        Ok(())
    }
}
