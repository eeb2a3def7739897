//! What an engine loads beside a model: projectors, adapters, control vectors.

use crate::model::{MetaValue, Tensor};
use crate::words;
use std::collections::BTreeMap;

words! {
    /// What a file is that is no language model.
    AttachmentKind {
        /// Turns images or sound into tokens of a model (`--mmproj`).
        Projector = "projector",
        /// Low-rank changes of a model's weights (`--lora`).
        Lora = "lora",
        /// Directions that are added to the residual stream (`--control-vector`).
        ControlVector = "control-vector",
    }
}

/// A projector, adapter or control vector, read from its file.
#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    /// What it is.
    pub kind: AttachmentKind,
    /// The architecture that its file names: of an adapter that of its base, of a projector `clip`.
    pub architecture: String,
    /// Its tensors in file order.
    pub tensors: Vec<Tensor>,
    /// Scalar metadata by full key.
    pub metadata: BTreeMap<String, MetaValue>,
}

impl Attachment {
    /// An unsigned metadata value by full key.
    pub fn uint(&self, key: &str) -> Option<u64> {
        match self.metadata.get(key)? {
            MetaValue::Uint(value) => Some(*value),
            MetaValue::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }
}
