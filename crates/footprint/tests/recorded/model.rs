//! The model of a case: a synthetic file's header, read and described as any other.

use spec::Model;
use synthetic::{File, FileType, Options, Shape, Vocabulary, gguf, preset};

/// The file of `PRESET FILE_TYPE figure=value ...`, without a vocabulary: it changes no buffer and takes the engine longest.
pub fn file(name: &str) -> File {
    let mut words = name.split_whitespace();
    let mut shape = words.next().and_then(preset).unwrap_or_else(|| panic!("no preset in {name:?}"));
    let file_type: FileType = words.next().unwrap_or_default().parse().unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut options = Options { vocabulary: Vocabulary::None, ..Options::default() };
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("no figure: {word}"));
        if let Ok(ty) = value.parse() {
            options.overrides.push(synthetic::Override { part: key.to_owned(), ty });
        } else {
            shape.set(key, value).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    gguf(&shape, file_type, &options).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The model of the same name. TEMPORARY until formats::describe exists.
pub fn model(name: &str) -> Model {
    use spec::Bytes;
    use spec::model::*;
    use synthetic::Architecture as A;
    let file = file(name);
    let mut words = name.split_whitespace();
    let mut shape: Shape = words.next().and_then(preset).unwrap();
    for word in words.skip(1) {
        let (key, value) = word.split_once('=').unwrap();
        let _ = shape.set(key, value);
    }
    let s = &shape;
    let u = |n: u64| n as u32;
    let data = file.tensors[0].offset;
    let tensors: Vec<Tensor> = file
        .tensors
        .iter()
        .map(|t| {
            let mut extents = [1; 4];
            extents[..t.shape.len()].copy_from_slice(&t.shape);
            Tensor {
                name: t.name.clone(),
                ty: t.ty,
                shape: extents,
                bytes: t.bytes,
                file: 0,
                offset: Bytes::new(t.offset.get() - data.get()),
            }
        })
        .collect();
    let layers = (0..s.n_layer)
        .map(|il| {
            let windowed = match s.architecture {
                A::Gemma3 => (il + 1) % 6 != 0,
                A::GptOss => il % 2 == 0,
                _ => false,
            };
            let mixer = match s.architecture {
                A::Mamba => Mixer::Recurrent(Recurrent {
                    kind: "mamba".into(),
                    r_elements: (s.d_conv - 1) * s.d_inner,
                    s_elements: s.d_state * s.d_inner,
                }),
                A::DeepSeek2 => Mixer::Mla(Mla {
                    n_head: u(s.n_head),
                    kv_lora_rank: u(s.kv_lora),
                    rope_dim: u(s.rope_dim),
                    q_lora_rank: u(s.q_lora),
                    head_dim_k: u(s.nope_dim + s.rope_dim),
                    head_dim_v: u(s.v_dim),
                }),
                _ => Mixer::Attention(Attention {
                    n_head: u(s.n_head),
                    n_head_kv: u(s.n_head_kv),
                    head_dim_k: u(s.head_width()),
                    head_dim_v: u(s.head_width()),
                    window: windowed.then(|| u(s.window)),
                    shares_kv_of: None,
                }),
            };
            let feed_forward = match s.architecture {
                A::Mamba => FeedForward::None,
                _ if s.n_expert > 0 && il >= s.n_dense_lead => FeedForward::Experts(Experts {
                    count: u(s.n_expert),
                    used: u(s.n_expert_used),
                    shared: u(s.n_expert_shared),
                    n_ff: s.expert_width(),
                    n_ff_shared: s.n_expert_shared * s.expert_width(),
                }),
                _ => FeedForward::Dense { n_ff: s.n_ff },
            };
            Layer { mixer, feed_forward }
        })
        .collect();
    Model {
        architecture: s.architecture.name().into(),
        support: Support::Described,
        name: None,
        file_type: None,
        n_ctx_train: Some(u(s.n_ctx)),
        n_embd: s.n_embd,
        n_vocab: s.n_vocab,
        layers,
        n_layer_nextn: 0,
        encoder: false,
        tied_embeddings: s.tied,
        tensors,
        files: vec![ModelFile { size: file.size, data_offset: data }],
        tokenizer: None,
        metadata: Default::default(),
        arrays: Default::default(),
    }
}
