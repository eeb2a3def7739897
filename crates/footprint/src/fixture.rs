//! Models that consist of layers only, for unit tests.

use crate::profile::Rules;
use crate::requirement::ResolvedContext;
use crate::target::{Backend, Device, Target};
use spec::model::{Attention, FeedForward, Layer, Mixer, Recurrent, Support};
use spec::{Bytes, Known, Model};

/// A model of these mixers without tensors.
pub(crate) fn model(mixers: impl IntoIterator<Item = Mixer>) -> Model {
    let layer = |mixer| Layer { mixer, feed_forward: FeedForward::Dense { n_ff: 1024 } };
    Model {
        architecture: "llama".into(),
        support: Support::Described,
        name: None,
        file_type: None,
        n_ctx_train: Some(32768),
        n_embd: 1024,
        n_vocab: 1000,
        layers: mixers.into_iter().map(layer).collect(),
        n_layer_nextn: 0,
        encoder: false,
        tied_embeddings: false,
        tensors: Vec::new(),
        files: Vec::new(),
        tokenizer: None,
        metadata: [].into(),
        arrays: [].into(),
    }
}

/// Attention with equal heads.
pub(crate) fn attention(n_head_kv: u32, head_dim: u32, window: Option<u32>) -> Mixer {
    let (head_dim_k, head_dim_v) = (head_dim, head_dim);
    Mixer::Attention(Attention { n_head: n_head_kv, n_head_kv, head_dim_k, head_dim_v, window, shares_kv_of: None })
}

/// A recurrence with states of these sizes.
pub(crate) fn recurrent(r_elements: u64, s_elements: u64) -> Mixer {
    Mixer::Recurrent(Recurrent { kind: "gated-delta-net".into(), r_elements, s_elements })
}

/// A host with GPUs of these sizes in GiB.
pub(crate) fn target(gpus: &[u64]) -> Target {
    let device = |(index, &gib): (usize, &u64)| {
        Device::of_its_own(format!("CUDA{index}"), Backend::cuda(false), Known::exact(Bytes::from_gib(gib), "test"))
    };
    Target { devices: gpus.iter().enumerate().map(device).collect(), idle: Vec::new(), cpu_features: [].into(), cpu_arch: "x86_64".into() }
}

/// A context of one sequence.
pub(crate) fn context(n_ctx: u32, n_ubatch: u32) -> ResolvedContext {
    ResolvedContext {
        n_ctx,
        n_ctx_seq: n_ctx,
        n_batch: 2048,
        n_ubatch,
        n_outputs: 1,
        n_rows: 1,
        n_states: 1,
        flash_attn: true,
        rules: Rules::CURRENT,
    }
}
