//! What a model and a context take, before anything is loaded: the sums of [`footprint::bitnet`], which the planner uses, too.

use crate::cache::CacheType;
use crate::config::{Config, ConfigError};
use crate::session::Options;
use crate::weights::LoadOptions;
use footprint::bitnet::{BitNet, Buffers, Figures, Sizes};
use kernels::Layout;
use spec::{Model, QuantType};

pub use footprint::bitnet::Buffers as Requirement;

/// What [`crate::Weights::load`] and [`crate::Session::new`] allocate for `model` with these options.
///
/// # Errors
/// A model that is no BitNet model.
pub fn requirement(model: &Model, load: &LoadOptions<'_>, options: &Options) -> Result<Requirement, ConfigError> {
    beside(model, load, options, 0, false)
}

/// What is allocated here with the last `on_device` layers on a device ([`crate::Session::with_device`]), and the output head if it `has_head`.
///
/// # Errors
/// As [`requirement`].
pub fn beside(
    model: &Model,
    load: &LoadOptions<'_>,
    options: &Options,
    on_device: usize,
    has_head: bool,
) -> Result<Requirement, ConfigError> {
    let config = Config::of(model)?;
    let count = |number: usize| number as u64;
    let figures = Figures {
        n_vocab: count(config.n_vocab),
        n_embd: count(config.n_embd),
        n_ff: count(config.n_ff),
        n_head: count(config.n_head),
        n_head_kv: count(config.n_head_kv),
        head_dim: count(config.head_dim),
        n_layer: count(config.n_layer),
    };
    let (n_ctx, n_ubatch, cache) = (count(options.n_ctx), count(options.n_ubatch), options.cache.into());
    let sizes = Sizes { n_ctx, n_ubatch, cache, on_device: count(on_device), head_on_device: has_head };
    Ok(Buffers::of(model, &figures, load.into(), &sizes))
}

impl From<CacheType> for QuantType {
    fn from(cache: CacheType) -> Self {
        match cache {
            CacheType::F32 => Self::F32,
            CacheType::F16 => Self::F16,
            CacheType::Q8_0 => Self::Q8_0,
        }
    }
}

impl CacheType {
    /// The type of this name in settings; `None` for those that this engine does not keep.
    pub fn of(ty: QuantType) -> Option<Self> {
        [Self::F32, Self::F16, Self::Q8_0].into_iter().find(|cache| QuantType::from(*cache) == ty)
    }
}

impl From<&LoadOptions<'_>> for BitNet {
    fn from(load: &LoadOptions<'_>) -> Self {
        Self { head: Some(load.head), in_place: load.layout == Layout::Blocks128 }
    }
}
