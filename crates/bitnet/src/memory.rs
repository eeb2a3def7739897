//! What a model and a context take, before anything is loaded.

use crate::config::{Config, ConfigError};
use crate::layer::Buffers;
use crate::rope::Rope;
use crate::session::Options;
use crate::weights::{HeadType, LoadOptions};
use kernels::Layout;
use spec::{Bytes, Model, QuantType};

/// Memory by what it is for. Buffers are exact to the byte: what [`crate::Weights::load`] and [`crate::Session::new`] allocate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requirement {
    /// Weights that are used where they are in the file: pages that the system can drop and read again.
    pub weights_mapped: Bytes,
    /// Norms, and weights in another layout than the file's.
    pub weights_copied: Bytes,
    /// Keys and values of the whole context.
    pub kv_cache: Bytes,
    /// What a micro-batch is computed in, and the table of rotary angles.
    pub compute: Bytes,
    /// Logits of one token, and the stream that they come from.
    pub output: Bytes,
}

impl Requirement {
    /// Everything but mapped weights.
    pub fn anonymous(&self) -> Bytes {
        self.weights_copied + self.kv_cache + self.compute + self.output
    }

    /// Everything.
    pub fn total(&self) -> Bytes {
        self.weights_mapped + self.anonymous()
    }

    /// What `model` takes with these options.
    ///
    /// # Errors
    /// A model that is no BitNet model.
    pub fn of(model: &Model, load: &LoadOptions, options: &Options) -> Result<Self, ConfigError> {
        let config = Config::of(model)?;
        let (mapped, copied) = weights(model, &config, load);
        let floats = |count: usize| Bytes::new((count * size_of::<f32>()) as u64);
        let row = Bytes::new(options.cache.bytes(config.kv_width()) as u64);
        let buffers = Buffers::bytes(&config, options.n_ubatch.min(options.n_ctx));
        let compute = buffers.saturating_add(Rope::bytes(options.n_ctx, config.head_dim));
        Ok(Self {
            weights_mapped: mapped,
            weights_copied: copied,
            kv_cache: row.times(options.n_ctx as u64).times(2 * config.n_layer as u64),
            compute: Bytes::new(compute as u64),
            output: floats(config.n_vocab) + floats(config.n_embd),
        })
    }
}

/// Bytes used in place, and bytes of copies.
fn weights(model: &Model, config: &Config, load: &LoadOptions) -> (Bytes, Bytes) {
    let head = if model.tensors.iter().any(|tensor| tensor.name == "output.weight") { "output.weight" } else { "token_embd.weight" };
    let (mut mapped, mut copied) = (Bytes::ZERO, Bytes::ZERO);
    for tensor in &model.tensors {
        let (columns, rows) = (tensor.shape[0], tensor.shape[1]);
        let in_whole_blocks = rows.saturating_mul(columns.checked_next_multiple_of(128).unwrap_or(u64::MAX) / 4);
        match tensor.ty {
            QuantType::I2_S if load.layout == Layout::Blocks128 && columns.is_multiple_of(128) => mapped += tensor.bytes,
            QuantType::I2_S | QuantType::TQ1_0 | QuantType::TQ2_0 => copied += Bytes::new(in_whole_blocks),
            _ if rows == 1 && tensor.name.ends_with("norm.weight") => copied += Bytes::new(columns.saturating_mul(4)),
            _ if tensor.name.ends_with(".scale") => {}
            _ => mapped += tensor.bytes,
        }
        if tensor.name == head && load.head == HeadType::Q8_0 && tensor.ty != QuantType::Q8_0 {
            copied += Bytes::new((config.n_vocab * (config.n_embd / 32) * 34) as u64);
        }
    }
    (mapped, copied)
}
