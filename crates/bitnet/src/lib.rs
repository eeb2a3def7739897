//! BitNet b1.58 on the CPU: weights of −1, 0 and 1, activations in 8 bits, everything else in floats.
//!
//! * [`Config`]: what the metadata of a model says of its shape
//! * [`Weights`]: its tensors, in place in a mapped file where their layout allows it
//! * [`ShapeTiles`]: what a file of `TL1` or `TL2` does not state
//! * [`Session`]: a context that reads prompts and generates; its sizes are those of [`memory`]
//! * [`Stack`]: layers that something else than the CPU computes
//! * [`Sampler`]: the next token from logits
//! * [`Tokenizer`] and [`ChatTemplate`]: text to tokens and back, a conversation to text
//! * [`Dialogue`]: a session that reads text and writes text
//!
//! The model is that of transformers' `BitNetForCausalLM` (5.23.0, `models/bitnet/modeling_bitnet.py`): RMS norms, rotary positions in
//! halves, grouped-query attention, a norm of its own before the output and down projections, ReLU² (or SiLU, in models of 2024) between
//! gate and up, and an output head that is dense and often the embedding table itself.
#![forbid(unsafe_code)]

mod attention;
mod batches;
mod cache;
mod chat;
mod config;
mod dialogue;
mod layer;
pub mod memory;
mod rope;
mod sampler;
mod session;
mod stack;
mod tiles;
mod tokenizer;
mod weights;

pub use batches::{BatchError, Batches, Pass, Sizes};
pub use cache::CacheType;
pub use chat::{ChatError, ChatTemplate, Message};
pub use config::{Activation, Config, ConfigError};
pub use dialogue::{Dialogue, DialogueError, Step};
pub use rope::Rope;
pub use sampler::{Sampler, Sampling};
pub use session::{Options, Session, SessionError};
pub use stack::{Stack, StackError};
pub use tiles::{ShapeTiles, TilesError};
pub use tokenizer::{Tokenizer, TokenizerError};
pub use weights::{Layer, LoadOptions, WeightError, Weights};

pub use footprint::bitnet::Head as HeadType;

/// True for models that this engine computes: a BitNet architecture whose layers are ternary, and whose tables are not packed more than
/// to `q8_0`.
pub fn computes(model: &spec::Model) -> bool {
    use spec::QuantType::{BF16, F16, F32, HF_U2, I2_S, Q8_0, TL1, TL2, TQ1_0, TQ2_0};
    let computed = |tensor: &spec::model::Tensor| match tensor.name.as_str() {
        "token_embd.weight" | "output.weight" => matches!(tensor.ty, F32 | F16 | BF16 | Q8_0),
        name if name.starts_with("blk.") && name.ends_with(".weight") && !name.ends_with("norm.weight") => {
            matches!(tensor.ty, I2_S | TL1 | TL2 | TQ1_0 | TQ2_0 | HF_U2)
        }
        _ => true,
    };
    footprint::bitnet::is_bitnet(&model.architecture) && !model.tensors.is_empty() && model.tensors.iter().all(computed)
}
