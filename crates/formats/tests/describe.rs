//! What models are described as: the shapes of the sibling crate, and headers made by hand for rules that those lack.

mod support;

use formats::{DescribeError, describe, gguf};
use spec::model::{FeedForward, Layer, Mixer, Model, Support};
use spec::{Bytes, QuantType};
use std::fmt::Write;
use support::{Build, llama};
use synthetic::writer::Value;
use synthetic::{Architecture, FileType, Options, Vocabulary, presets};

/// The model in a few lines, equal neighbours together.
fn text(model: &Model) -> String {
    let mut runs: Vec<(String, u32, u32)> = Vec::new();
    for (number, layer) in (0..).zip(&model.layers) {
        let line = layer_text(layer);
        match runs.last_mut() {
            Some((last, _, end)) if *last == line => *end = number,
            _ => runs.push((line, number, number)),
        }
    }
    let mut text = String::new();
    let support = if model.support == Support::Generic { ", generic" } else { "" };
    let tied = if model.tied_embeddings { ", tied" } else { "" };
    let _ = writeln!(text, "{}{support}: {} wide, {} tokens{tied}", model.architecture, model.n_embd, model.n_vocab);
    for (line, start, end) in runs {
        let _ = writeln!(text, "{start}..={end} {line}");
    }
    text
}

fn layer_text(layer: &Layer) -> String {
    let attention = |a: &spec::model::Attention| {
        let window = a.window.map_or(String::new(), |window| format!(" window {window}"));
        let shared = a.shares_kv_of.map_or(String::new(), |of| format!(" cache of {of}"));
        format!("attention {}/{} x {}/{}{window}{shared}", a.n_head, a.n_head_kv, a.head_dim_k, a.head_dim_v)
    };
    let state = |s: &spec::model::Recurrent| format!("{} {}+{}", s.kind, s.r_elements, s.s_elements);
    let mixer = match &layer.mixer {
        Mixer::Attention(a) => attention(a),
        Mixer::Mla(m) => {
            let index = m.indexer.as_ref().map_or(String::new(), |index| match index.own_keys {
                true => format!(" over {} by {} x {}", index.top_k, index.n_head, index.head_dim),
                false => format!(" over {} as before", index.top_k),
            });
            format!(
                "latent {} x {}/{} rank {}+{} query {}{index}",
                m.n_head, m.head_dim_k, m.head_dim_v, m.kv_lora_rank, m.rope_dim, m.q_lora_rank
            )
        }
        Mixer::Compressed(c) => {
            let beyond = c.beyond.as_ref().map_or(String::new(), |beyond| {
                let index =
                    beyond.indexer.as_ref().map_or(String::new(), |i| format!(" over {} by {} x {}", i.top_k, i.n_head, i.head_dim));
                format!(" and one of {}{index}", beyond.ratio)
            });
            format!("compressed {} x {} window {}{beyond}", c.n_head, c.head_dim, c.window)
        }
        Mixer::Recurrent(s) => state(s),
        Mixer::Both(a, s) => format!("{} beside {}", attention(a), state(s)),
        Mixer::None => "none".to_owned(),
    };
    let block = match &layer.feed_forward {
        FeedForward::Dense { n_ff } => format!("dense {n_ff}"),
        FeedForward::Experts(e) => format!("{} of {} experts of {}, {} shared of {}", e.used, e.count, e.n_ff, e.shared, e.n_ff_shared),
        FeedForward::None => "none".to_owned(),
    };
    format!("{mixer}; {block}")
}

fn describe_one(build: &Build) -> Result<Model, DescribeError> {
    describe(&[build.read()])
}

#[test]
fn every_shape_is_described_as_it_was_made() {
    let options = Options { vocabulary: Vocabulary::None, ..Options::default() };
    let mut all = String::new();
    for shape in presets() {
        let file = synthetic::gguf(&shape, FileType::Q4_K_M, &options).unwrap();
        let header = gguf::read(&file.header, file.size).unwrap();
        let model = describe(&[header]).unwrap();
        assert_eq!(model.support, Support::Described, "{}", shape.name);
        assert_eq!(model.n_layer_all() as u64, shape.n_layer);
        assert_eq!(model.tensor_bytes(), file.tensors.iter().map(|tensor| tensor.bytes).sum());
        assert_eq!(model.file_type.as_deref(), Some("Q4_K_M"));
        if !matches!(shape.architecture, Architecture::Mamba | Architecture::DeepSeek2) {
            for layer in &model.layers {
                let Mixer::Attention(attention) = &layer.mixer else { panic!("{layer:?}") };
                assert_eq!((u64::from(attention.n_head), u64::from(attention.head_dim_v)), (shape.n_head, shape.head_width()));
                assert_eq!(attention.k_width(), shape.n_head_kv * shape.head_width());
            }
        }
        let told = ["mixtral-8x7b", "qwen3-30b-a3b", "gemma3-1b", "phi-4", "deepseek-v2-lite", "deepseek-v3", "gpt-oss-20b", "mamba-130m"];
        if told.contains(&shape.name.as_str()) {
            all.extend(text(&model).split_inclusive('\n').take(4));
        }
    }
    insta::assert_snapshot!(all, @r"
    llama: 4096 wide, 32000 tokens
    0..=31 attention 32/8 x 128/128; 2 of 8 experts of 14336, 0 shared of 0
    qwen3moe: 2048 wide, 151936 tokens
    0..=47 attention 32/4 x 128/128; 8 of 128 experts of 768, 0 shared of 0
    gemma3: 1152 wide, 262144 tokens, tied
    0..=4 attention 4/1 x 256/256 window 512; dense 6912
    5..=5 attention 4/1 x 256/256; dense 6912
    6..=10 attention 4/1 x 256/256 window 512; dense 6912
    phi3: 5120 wide, 100352 tokens
    0..=39 attention 40/10 x 128/128; dense 17920
    deepseek2: 2048 wide, 102400 tokens
    0..=0 latent 16 x 192/128 rank 512+64 query 0; dense 10944
    1..=26 latent 16 x 192/128 rank 512+64 query 0; 6 of 64 experts of 1408, 2 shared of 2816
    deepseek2: 7168 wide, 129280 tokens
    0..=2 latent 128 x 192/128 rank 512+64 query 1536; dense 18432
    3..=60 latent 128 x 192/128 rank 512+64 query 1536; 8 of 256 experts of 2048, 1 shared of 2048
    gpt-oss: 2880 wide, 201088 tokens
    0..=0 attention 64/8 x 64/64 window 128; 4 of 32 experts of 2880, 0 shared of 0
    1..=1 attention 64/8 x 64/64; 4 of 32 experts of 2880, 0 shared of 0
    2..=2 attention 64/8 x 64/64 window 128; 4 of 32 experts of 2880, 0 shared of 0
    mamba: 768 wide, 50280 tokens, tied
    0..=23 mamba 4608+24576; none
    ");
}

/// A header with the keys that every transformer has, and a few small tensors.
fn base(architecture: &str, layers: u32) -> Build {
    Build::new(architecture)
        .key("block_count", layers)
        .key("context_length", 4096_u32)
        .key("embedding_length", 256_u32)
        .key("attention.head_count", 8_u32)
        .tensor("token_embd.weight", QuantType::F16, &[256, 100])
}

fn ssm(build: Build, groups: u32) -> Build {
    build
        .key("ssm.conv_kernel", 4_u32)
        .key("ssm.inner_size", 512_u32)
        .key("ssm.state_size", 16_u32)
        .key("ssm.time_step_rank", 8_u32)
        .key("ssm.group_count", groups)
}

#[test]
fn windows_follow_each_architecture() {
    let window = |build: Build| build.key("attention.sliding_window", 512_u32);
    let start = |text: String| text.split_inclusive('\n').take(5).collect::<String>();
    let with = |build: &Build| describe_one(build).map_or_else(|error| format!("{error}\n"), |model| start(text(&model)));
    let flags = Value::array([true, true, false, true]);
    let all = [
        with(&base("gemma2", 4)),
        with(&window(base("gemma3", 8))),
        with(&base("gemma3", 2)),
        with(&window(base("gemma3", 4)).key("attention.sliding_window_pattern", 2_u32)),
        with(&base("gpt-oss", 2)),
        with(&window(base("cohere2", 5))),
        with(&window(base("cohere2moe", 5))),
        with(&base("llama4", 5)),
        with(&base("llama4", 2).key("attention.sliding_window", 0_u32)),
        with(&base("exaone4", 64).key("nextn_predict_layers", 0_u32)),
        with(&window(base("exaone4", 2))),
        with(&window(base("mimo2", 4))),
        with(&window(base("mimo2", 4)).key("attention.sliding_window_pattern", flags.clone())),
        with(
            &window(base("gemma4", 4))
                .key("attention.sliding_window_pattern", flags)
                .key("attention.shared_kv_layers", 2_u32)
                .key("attention.key_length", 64_u32)
                .key("attention.key_length_swa", 16_u32)
                .key("attention.value_length_swa", 16_u32),
        ),
        with(&window(base("phi3", 2))),
        with(&window(base("modern-bert", 4))),
    ];
    insta::assert_snapshot!(all.concat(), @r"
    gemma2: 256 wide, 100 tokens, tied
    0..=0 attention 8/8 x 32/32 window 4096; none
    1..=1 attention 8/8 x 32/32; none
    2..=2 attention 8/8 x 32/32 window 4096; none
    3..=3 attention 8/8 x 32/32; none
    gemma3: 256 wide, 100 tokens, tied
    0..=4 attention 8/8 x 32/32 window 512; none
    5..=5 attention 8/8 x 32/32; none
    6..=7 attention 8/8 x 32/32 window 512; none
    gemma3: 256 wide, 100 tokens, tied
    0..=1 attention 8/8 x 32/32; none
    gemma3: 256 wide, 100 tokens, tied
    0..=0 attention 8/8 x 32/32 window 512; none
    1..=1 attention 8/8 x 32/32; none
    2..=2 attention 8/8 x 32/32 window 512; none
    3..=3 attention 8/8 x 32/32; none
    key is missing: gpt-oss.attention.sliding_window
    cohere2: 256 wide, 100 tokens, tied
    0..=2 attention 8/8 x 32/32 window 512; none
    3..=3 attention 8/8 x 32/32; none
    4..=4 attention 8/8 x 32/32 window 512; none
    cohere2moe: 256 wide, 100 tokens, tied
    0..=0 attention 8/8 x 32/32; none
    1..=3 attention 8/8 x 32/32 window 512; none
    4..=4 attention 8/8 x 32/32; none
    llama4: 256 wide, 100 tokens, tied
    0..=2 attention 8/8 x 32/32 window 8192; none
    3..=3 attention 8/8 x 32/32; none
    4..=4 attention 8/8 x 32/32 window 8192; none
    llama4: 256 wide, 100 tokens, tied
    0..=1 attention 8/8 x 32/32; none
    exaone4: 256 wide, 100 tokens, tied
    0..=2 attention 8/8 x 32/32 window 4096; none
    3..=3 attention 8/8 x 32/32; none
    4..=6 attention 8/8 x 32/32 window 4096; none
    7..=7 attention 8/8 x 32/32; none
    exaone4: 256 wide, 100 tokens, tied
    0..=1 attention 8/8 x 32/32; none
    key is missing: mimo2.attention.sliding_window_pattern
    mimo2: 256 wide, 100 tokens, tied
    0..=1 attention 8/8 x 32/32 window 512; none
    2..=2 attention 8/8 x 32/32; none
    3..=3 attention 8/8 x 32/32 window 512; none
    gemma4: 256 wide, 100 tokens, tied
    0..=1 attention 8/8 x 16/16 window 512; none
    2..=2 attention 8/8 x 64/32 cache of 1; none
    3..=3 attention 8/8 x 16/16 window 512 cache of 0; none
    phi3: 256 wide, 100 tokens, tied
    0..=1 attention 8/8 x 32/32; none
    modern-bert: 256 wide, 100 tokens, tied
    0..=0 attention 8/8 x 32/32; none
    1..=2 attention 8/8 x 32/32 window 512; none
    3..=3 attention 8/8 x 32/32; none
    ");
}

#[test]
fn states_and_hybrids_follow_each_architecture() {
    let with = |build: &Build| describe_one(build).map_or_else(|error| format!("{error}\n"), |model| text(&model));
    let kv = |build: Build, heads: [u32; 4]| build.key("attention.head_count_kv", Value::array(heads));
    let kimi = kv(base("kimi-linear", 4), [0, 0, 0, 1])
        .key("ssm.conv_kernel", 4_u32)
        .key("kda.head_dim", 32_u32)
        .key("attention.kv_lora_rank", 64_u32)
        .key("attention.key_length", 80_u32)
        .key("attention.key_length_mla", 48_u32)
        .key("attention.value_length_mla", 32_u32);
    let all = [
        with(&ssm(base("mamba2", 2), 2)),
        with(&base("mamba2", 2)),
        with(&base("rwkv6", 2).key("wkv.head_size", 64_u32)),
        with(&base("rwkv7", 2).key("wkv.head_size", 64_u32).key("token_shift_count", 1_u32)),
        with(&kv(ssm(base("jamba", 4), 0), [0, 0, 8, 0])),
        with(&ssm(base("falcon-h1", 2), 1).key("attention.head_count_kv", 2_u32)),
        with(&kv(base("lfm2", 4), [0, 2, 0, 2]).key("shortconv.l_cache", 3_u32)),
        with(&ssm(base("qwen3next", 6), 2).key("nextn_predict_layers", 1_u32)),
        with(&kv(ssm(base("nemotron_h", 4), 1), [0, 2, 0, 0]).key("feed_forward_length", Value::array([0_u32, 0, 1024, 0]))),
        with(&base("minimax-01", 8)),
        with(&kimi),
        with(&ssm(base("plamo2", 1), 0).key("attention.head_count_kv", 0_u32)),
    ];
    insta::assert_snapshot!(all.concat(), @r"
    mamba2: 256 wide, 100 tokens, tied
    0..=1 mamba2 1728+8192; none
    key is missing: mamba2.ssm.conv_kernel
    rwkv6: 256 wide, 100 tokens, tied
    0..=1 rwkv 512+16384; none
    rwkv7: 256 wide, 100 tokens, tied
    0..=1 rwkv 256+16384; none
    jamba: 256 wide, 100 tokens, tied
    0..=1 mamba 1536+8192; none
    2..=2 attention 8/8 x 32/32; none
    3..=3 mamba 1536+8192; none
    falcon-h1: 256 wide, 100 tokens, tied
    0..=1 attention 8/2 x 32/32 beside mamba2 1632+8192; none
    lfm2: 256 wide, 100 tokens, tied
    0..=0 short-conv 512+0; none
    1..=1 attention 8/2 x 32/32; none
    2..=2 short-conv 512+0; none
    3..=3 attention 8/2 x 32/32; none
    qwen3next: 256 wide, 100 tokens, tied
    0..=2 gated-delta-net 1728+8192; none
    3..=3 attention 8/8 x 32/32; none
    4..=4 gated-delta-net 1728+8192; none
    5..=5 attention 8/8 x 32/32; none
    nemotron_h: 256 wide, 100 tokens, tied
    0..=0 mamba2 1632+8192; none
    1..=1 attention 8/2 x 32/32; none
    2..=2 none; none
    3..=3 mamba2 1632+8192; none
    minimax-01: 256 wide, 100 tokens, tied
    0..=6 linear-attention 0+8192; none
    7..=7 attention 8/8 x 32/32; none
    kimi-linear: 256 wide, 100 tokens, tied
    0..=2 kda 2304+8192; none
    3..=3 latent 8 x 48/32 rank 64+16 query 0; none
    plamo2: 256 wide, 100 tokens, tied
    0..=0 plamo2-mamba 1536+8192; none
    ");
}

#[test]
fn indexers_choose_tokens_where_the_family_has_them() {
    let with = |build: &Build| describe_one(build).map_or_else(|error| format!("{error}\n"), |model| text(&model));
    let latent = |architecture: &str| {
        base(architecture, 8)
            .key("attention.q_lora_rank", 96_u32)
            .key("attention.kv_lora_rank", 64_u32)
            .key("attention.key_length", 80_u32)
            .key("attention.key_length_mla", 48_u32)
            .key("attention.value_length_mla", 32_u32)
            .key("attention.indexer.head_count", 4_u32)
            .key("attention.indexer.key_length", 64_u32)
    };
    let glm = || latent("glm-dsa").key("attention.indexer.top_k", 32_u32).key("nextn_predict_layers", 1_u32);
    let long = || glm().without("glm-dsa.context_length").key("context_length", 1_048_576_u32);
    let listed = Value::array([true, false, true, true, false, false, false]);
    let all = [
        with(&latent("deepseek32")),
        with(&latent("deepseek32").key("attention.indexer.top_k", 32_u32)),
        with(&glm()),
        with(&long()),
        with(&long().key("attention.indexer.types", listed)),
    ];
    insta::assert_snapshot!(all.concat(), @r"
    key is missing: deepseek32.attention.indexer.top_k
    deepseek32: 256 wide, 100 tokens, tied
    0..=7 latent 8 x 48/32 rank 64+16 query 96 over 32 by 4 x 64; none
    glm-dsa: 256 wide, 100 tokens, tied
    0..=6 latent 8 x 48/32 rank 64+16 query 96 over 32 by 4 x 64; none
    7..=7 latent 8 x 48/32 rank 64+16 query 96; none
    glm-dsa: 256 wide, 100 tokens, tied
    0..=2 latent 8 x 48/32 rank 64+16 query 96 over 32 by 4 x 64; none
    3..=5 latent 8 x 48/32 rank 64+16 query 96 over 32 as before; none
    6..=6 latent 8 x 48/32 rank 64+16 query 96 over 32 by 4 x 64; none
    7..=7 latent 8 x 48/32 rank 64+16 query 96; none
    glm-dsa: 256 wide, 100 tokens, tied
    0..=0 latent 8 x 48/32 rank 64+16 query 96 over 32 by 4 x 64; none
    1..=1 latent 8 x 48/32 rank 64+16 query 96 over 32 as before; none
    2..=3 latent 8 x 48/32 rank 64+16 query 96 over 32 by 4 x 64; none
    4..=6 latent 8 x 48/32 rank 64+16 query 96 over 32 as before; none
    7..=7 latent 8 x 48/32 rank 64+16 query 96; none
    ");
}

#[test]
fn compressed_rows_follow_the_ratios() {
    let with = |build: &Build| describe_one(build).map_or_else(|error| format!("{error}\n"), |model| text(&model));
    let without_ratios = || {
        base("deepseek4", 5)
            .key("attention.key_length", 64_u32)
            .key("attention.q_lora_rank", 96_u32)
            .key("attention.output_group_count", 2_u32)
            .key("attention.output_lora_rank", 32_u32)
            .key("attention.sliding_window", 128_u32)
            .key("attention.indexer.head_count", 4_u32)
            .key("attention.indexer.key_length", 32_u32)
            .key("attention.indexer.top_k", 16_u32)
            .key("hyper_connection.count", 4_u32)
            .key("nextn_predict_layers", 1_u32)
    };
    let of = |ratios: &[u32]| without_ratios().key("attention.compress_ratios", Value::array(ratios.to_vec()));
    let predicting = of(&[0, 4, 128, 4, 0, 0]).tensor("blk.4.nextn.eh_proj.weight", QuantType::F16, &[512, 256]);
    assert_eq!(describe_one(&predicting).unwrap().n_layer_nextn, 1);
    assert_eq!(describe_one(&of(&[0; 5])).unwrap().n_layer_nextn, 0, "the file has no such layer");
    let all = [with(&without_ratios()), with(&of(&[0, 4, 128, 4])), with(&of(&[0, 8, 0, 0, 0])), with(&predicting)];
    insta::assert_snapshot!(all.concat(), @r"
    key is missing: deepseek4.attention.compress_ratios
    key deepseek4.attention.compress_ratios has 4 entries, the model 5 layers
    key deepseek4.attention.compress_ratios is outside 0 to 128: 8
    deepseek4: 256 wide, 100 tokens, tied
    0..=0 compressed 8 x 64 window 128; none
    1..=1 compressed 8 x 64 window 128 and one of 4 over 16 by 4 x 32; none
    2..=2 compressed 8 x 64 window 128 and one of 128; none
    3..=3 compressed 8 x 64 window 128 and one of 4 over 16 by 4 x 32; none
    4..=4 compressed 8 x 64 window 128; none
    ");
}

#[test]
fn an_unknown_architecture_is_guessed_and_says_so() {
    let with = |build: &Build| text(&describe_one(build).unwrap());
    let experts = base("novel", 2)
        .without("novel.context_length")
        .key("attention.head_count_kv", 2_u32)
        .key("expert_count", 4_u32)
        .key("expert_used_count", 2_u32)
        .key("expert_shared_count", 1_u32)
        .tensor("blk.0.ffn_down.weight", QuantType::F16, &[512, 256])
        .tensor("blk.1.ffn_down_exps.weight", QuantType::F16, &[64, 256, 4])
        .tensor("blk.1.ffn_down_shexp.weight", QuantType::F16, &[96, 256]);
    let hybrid = ssm(base("novel", 2), 1).tensor("blk.1.ssm_in.weight", QuantType::F16, &[256, 16]);
    let latent = base("novel", 1)
        .key("attention.kv_lora_rank", 64_u32)
        .key("attention.key_length_mla", 48_u32)
        .key("attention.value_length_mla", 32_u32)
        .key("rope.dimension_count", 16_u32);
    let window = base("novel", 3)
        .key("attention.sliding_window", 128_u32)
        .key("attention.sliding_window_pattern", Value::array([true, false, true]));
    insta::assert_snapshot!([with(&experts), with(&hybrid), with(&latent), with(&window)].concat(), @r"
    novel, generic: 256 wide, 100 tokens, tied
    0..=0 attention 8/2 x 32/32; dense 512
    1..=1 attention 8/2 x 32/32; 2 of 4 experts of 64, 1 shared of 96
    novel, generic: 256 wide, 100 tokens, tied
    0..=0 attention 8/8 x 32/32; none
    1..=1 mamba2 1632+8192; none
    novel, generic: 256 wide, 100 tokens, tied
    0..=0 latent 8 x 48/32 rank 64+16 query 0; none
    novel, generic: 256 wide, 100 tokens, tied
    0..=0 attention 8/8 x 32/32 window 128; none
    1..=1 attention 8/8 x 32/32; none
    2..=2 attention 8/8 x 32/32 window 128; none
    ");
}

#[test]
fn models_without_what_the_engine_needs() {
    let mut all = String::new();
    let mut tell = |name: &str, result: Result<Model, DescribeError>| {
        let error = result.unwrap_err();
        let _ = writeln!(all, "{name}: {error}");
        if let Some(hint) = error.hint() {
            let _ = writeln!(all, "    hint: {hint}");
        }
    };
    for key in ["general.architecture", "llama.block_count", "llama.embedding_length", "llama.context_length", "llama.attention.head_count"]
    {
        tell("key left out", describe_one(&llama().without(key)));
    }
    let with = |key: &str, value: Value| describe_one(&llama().without(&format!("llama.{key}")).key(key, value));
    tell("no layers", with("block_count", 0_u32.into()));
    tell("2^31 layers", with("block_count", (1_u32 << 31).into()));
    tell("layers as text", with("block_count", "one".into()));
    tell("negative width", with("embedding_length", (-64_i32).into()));
    tell("width past 32 bits", with("embedding_length", (1_u64 << 40).into()));
    tell("heads of two layers", with("attention.head_count_kv", Value::array([1_u32, 2])));
    tell("heads as fractions", with("attention.head_count_kv", Value::array([0.5_f32])));
    tell("more experts used than there are", describe_one(&llama().key("expert_count", 2_u32).key("expert_used_count", 3_u32)));
    tell("experts, none used", describe_one(&llama().key("expert_count", 2_u32)));
    tell("more experts than any engine takes", describe_one(&llama().key("expert_count", 5000_u32)));
    tell("a latent model without its rank", describe_one(&base("deepseek2", 1)));
    tell("adapter", describe_one(&llama().raw("general.type", "adapter")));
    tell("projector", describe_one(&base("clip", 1)));
    let mut vocabulary = llama();
    vocabulary.header.tensors.clear();
    tell("vocabulary only", describe_one(&vocabulary));
    tell("no file", describe(&[]));
    insta::assert_snapshot!(all, @r#"
    key left out: key is missing: general.architecture
    key left out: key is missing: llama.block_count
    key left out: key is missing: llama.embedding_length
    key left out: key is missing: llama.context_length
    key left out: key is missing: llama.attention.head_count
    no layers: key llama.block_count is outside 1 to 512: 0
    2^31 layers: key llama.block_count is outside 1 to 512: 2147483648
    layers as text: key llama.block_count is no count: "one"
    negative width: key llama.embedding_length is no count: -64
    width past 32 bits: key llama.embedding_length is outside 0 to 4294967295: 1099511627776
    heads of two layers: key llama.attention.head_count_kv has 2 entries, the model 1 layers
    heads as fractions: key llama.attention.head_count_kv is no list of counts: an array of 1
    more experts used than there are: key llama.expert_used_count is outside 0 to 2: 3
    experts, none used: key is missing: llama.expert_used_count
    more experts than any engine takes: key llama.expert_count is outside 0 to 1024: 5000
    a latent model without its rank: key is missing: deepseek2.attention.kv_lora_rank
    adapter: the file holds no language model: a LoRA adapter
        hint: give the file of the language model itself; adapters and projectors go with it
    projector: the file holds no language model: a multimodal projector
        hint: give the file of the language model itself; adapters and projectors go with it
    vocabulary only: the file holds a vocabulary and no weights
        hint: such files test tokenizers; fetch the model itself
    no file: no file given
    "#);
}

#[test]
fn parts_of_a_split_model_are_checked_against_each_other() {
    let shape = synthetic::Shape { n_layer: 2, ..synthetic::demo() };
    let read = |file: &synthetic::File| gguf::read(&file.header, file.size).unwrap();
    let whole = synthetic::gguf(&shape, FileType::Q4_K_M, &Options::default()).unwrap();
    let parts: Vec<_> = synthetic::shards(&shape, FileType::Q4_K_M, &Options::default(), 3).unwrap().iter().map(read).collect();
    let other: Vec<_> = synthetic::shards(&shape, FileType::Q4_K_M, &Options::default(), 2).unwrap().iter().map(read).collect();
    let pick = |numbers: &[usize]| numbers.iter().map(|&number| parts[number].clone()).collect::<Vec<_>>();

    let split = describe(&parts).unwrap();
    let one = describe(&[read(&whole)]).unwrap();
    assert_eq!(split.layers, one.layers);
    assert_eq!(split.tensor_bytes(), one.tensor_bytes());
    assert_eq!(split.files.len(), 3);
    assert_eq!(split.tensors.last().unwrap().file, 2);

    let mut twice = parts.clone();
    twice[2].tensors[0].name = parts[0].tensors[0].name.clone();
    let mut fewer = parts.clone();
    fewer[1].tensors.pop();
    let cases = [
        ("first only", pick(&[0])),
        ("second only", pick(&[1])),
        ("last missing", pick(&[0, 1])),
        ("second twice", pick(&[0, 1, 1])),
        ("out of order", pick(&[0, 2, 1])),
        ("second before first", pick(&[1, 0, 2])),
        ("too many", pick(&[0, 1, 2, 0])),
        ("of another split", vec![parts[0].clone(), other[1].clone()]),
        ("two models", vec![read(&whole), read(&whole)]),
        ("a model among parts", vec![parts[0].clone(), read(&whole), parts[2].clone()]),
        ("tensor twice", twice),
        ("tensors missing", fewer),
    ];
    let all = cases.iter().fold(String::new(), |mut all, (name, files)| {
        let error = describe(files).unwrap_err();
        let _ = writeln!(all, "{name}: {error}");
        all
    });
    insta::assert_snapshot!(all, @r"
    first only: the model is split into 3 files, missing: 2, 3
    second only: the model is split into 3 files, missing: 1, 3
    last missing: the model is split into 3 files, missing: 3
    second twice: part 2 of the split model was given twice, as file 2 and file 3
    out of order: files of the split model are out of order: file 3 is part 2
    second before first: files of the split model are out of order: file 2 is part 1
    too many: part 1 of the split model was given twice, as file 1 and file 4
    of another split: file 2 is part of another model: it is split into 2 files instead of 3
    two models: 2 files given, file 1 is no part of a split model
    a model among parts: 3 files given, file 2 is no part of a split model
    tensor twice: tensor stands in files 1 and 3: token_embd.weight
    tensors missing: split.tensors.count is 24, the files hold 23 tensors
    ");
}

#[test]
fn long_texts_and_vocabularies_are_not_kept() {
    let build = llama()
        .raw("tokenizer.chat_template", "x".repeat(5000))
        .raw("general.name", "small")
        .raw("tokenizer.ggml.scores", Value::array((0..5000).map(|n| n as f32)))
        .raw("llama.rope.dimension_sections", Value::array([1_u32, 2]));
    let model = describe_one(&build).unwrap();
    assert_eq!(model.name.as_deref(), Some("small"));
    let tokenizer = model.tokenizer.as_ref().unwrap();
    assert_eq!((tokenizer.n_tokens, tokenizer.chat_template), (3, true));
    assert!(!model.metadata.contains_key("tokenizer.chat_template"));
    assert!(!model.arrays.contains_key("tokenizer.ggml.scores"));
    assert_eq!(model.arrays["llama.rope.dimension_sections"], [1.0, 2.0]);
    assert_eq!(model.files[0].size, build.file_size());
    assert_eq!(model.arch_uint("block_count"), Some(1));
    assert_eq!(model.tensor("blk.0.ffn_down.weight").unwrap().bytes, Bytes::new(128 / 32 * 34 * 64));
}
