//! The blocks that graphs of language models are made of, each a function from tensors to tensors.

pub(super) mod altup;
mod attend;
pub(super) mod attention;
mod cache;
pub(super) mod compressed;
mod compressor;
mod delta_net;
pub(super) mod embedding;
pub(super) mod experts;
pub(super) mod feed_forward;
mod gated_attention;
pub(super) mod hyper_connection;
mod indexer;
mod kimi_delta;
pub(super) mod latent;
pub(super) mod latent_unmerged;
mod lightning;
mod mamba;
pub(super) mod per_layer;
pub(super) mod pooling;
pub(super) mod recurrent;
pub(super) mod rwkv;
mod rwkv_time;
mod short_conv;
mod state;
