//! The blocks that graphs of language models are made of, each a function from tensors to tensors.

pub(super) mod altup;
pub(super) mod attention;
pub(super) mod embedding;
pub(super) mod experts;
pub(super) mod feed_forward;
pub(super) mod latent;
pub(super) mod mamba;
pub(super) mod per_layer;
