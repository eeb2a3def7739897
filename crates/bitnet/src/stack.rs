//! The seam at which something else than the CPU computes layers.

use crate::config::Config;
use crate::weights::{Layer, Weights};
use kernels::{DenseMatrix, DenseType};
use spec::QuantType;
use std::ops::Range;
use workspace::Head;

/// Why layers could not be computed.
pub type StackError = Box<dyn std::error::Error + Send + Sync>;

/// The last layers of a model, with their own keys and values, on a device, and the output head where it is there as well. The CPU computes
/// what comes before them: embeddings and the other layers; and logits where the device has no head.
pub trait Stack: std::fmt::Debug + Send {
    /// How many layers it has, the head not counted.
    fn n_layer(&self) -> usize;

    /// Whether it computes logits.
    fn has_head(&self) -> bool {
        false
    }

    /// Adds what these layers add to the residual streams `x` of tokens one after the other, the first of them at position `start`. Keys and
    /// values from `start` on are replaced; those before it are the ones of earlier calls. Where there is a head, nothing comes after it that
    /// needs the streams: what `x` holds then is not said.
    ///
    /// # Errors
    /// The device's own. The tokens are not computed then, and the stack may be of no more use.
    fn add(&mut self, start: usize, x: &mut [f32]) -> Result<(), StackError>;

    /// The same, and the logits of what follows the last of these tokens: one float for each token of the vocabulary.
    ///
    /// # Errors
    /// As [`Stack::add`]; no head.
    fn add_and_tell(&mut self, start: usize, x: &mut [f32], logits: &mut [f32]) -> Result<(), StackError> {
        let _ = (start, x, logits);
        Err("there is no output head".into())
    }
}

impl Weights {
    /// The layers of a range in which `n_layer` stands for the output head, as llama.cpp counts layers: the layers themselves, and what
    /// `workspace` knows of them with the head if it is one of them. `None` for an empty range, or one beyond the model.
    pub fn part(&self, layers: Range<usize>) -> Option<(&[Layer], workspace::Stack)> {
        let all = self.config().n_layer;
        let head = layers.contains(&all).then(|| self.head_shape());
        let chosen = self.layers().get(layers.start..layers.end.min(all))?;
        let whole = !layers.is_empty() && chosen.len() + usize::from(head.is_some()) == layers.len();
        whole.then(|| (chosen, shape(self.config(), chosen.len(), head)))
    }

    /// The output head as a device has it.
    fn head_shape(&self) -> Head {
        let head: &DenseMatrix = self.head();
        let ty = match head.ty() {
            DenseType::F32 => QuantType::F32,
            DenseType::F16 => QuantType::F16,
            DenseType::Bf16 => QuantType::BF16,
            DenseType::Q8_0 => QuantType::Q8_0,
        };
        Head { n_vocab: head.rows() as u64, n_embd: head.columns() as u64, ty }
    }
}

fn shape(config: &Config, n_layer: usize, head: Option<Head>) -> workspace::Stack {
    let count = |number: usize| number as u64;
    workspace::Stack {
        n_layer: count(n_layer),
        n_embd: count(config.n_embd),
        n_ff: count(config.n_ff),
        q_width: count(config.q_width()),
        kv_width: count(config.kv_width()),
        head_dim: count(config.head_dim),
        head,
    }
}
