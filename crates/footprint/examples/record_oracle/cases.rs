//! The cases: every architecture under chosen settings and many drawn at random.

use crate::draw::Draw;
use crate::recorded::Case;

/// Models: small ones whole, large ones with fewer layers.
const MODELS: &[&str] = &[
    "smollm2-135m Q8_0",
    "llama-3.2-1b Q4_0",
    "llama-3.1-8b Q4_K_M",
    "mixtral-8x7b Q4_K_M n_layer=6",
    "qwen2.5-0.5b Q4_K_M",
    "qwen2.5-7b IQ4_XS n_layer=10",
    "qwen3-0.6b Q4_K_M",
    "qwen3-8b Q5_K_M n_layer=9",
    "qwen3-30b-a3b Q4_K_M n_layer=8",
    "gemma3-1b Q4_K_M",
    "gemma3-4b Q6_K",
    "phi-3-mini Q4_0 n_layer=8",
    "phi-4 Q3_K_M n_layer=7",
    "deepseek-v2-lite Q4_K_M",
    "deepseek-v3 Q2_K n_layer=6",
    "gpt-oss-20b MXFP4_MOE",
    "mamba-130m Q8_0",
    "mamba-2.8b F16 n_layer=12",
    "bitnet-2b TQ2_0",
    "bitnet-3b TQ1_0",
];

/// Models of which fewer cases are drawn, so that the recordings stay small.
const OUTLINES: &[&str] = &[
    "gemma2-2b Q4_K_M n_layer=5",
    "gemma-2b Q8_0 n_layer=5",
    "granite-3.1-8b Q4_0 n_layer=6",
    "ministral-3-8b Q6_K n_layer=5",
    "command-r-35b Q5_K_M n_layer=4",
    "command-r7b IQ4_XS n_layer=6",
    "glm-4-9b-0414 Q3_K_M n_layer=6",
    "phi-2 Q4_K_M n_layer=5",
    "falcon-7b Q8_0 n_layer=4",
    "falcon-40b Q4_0 n_layer=5",
    "pythia-1.4b Q6_K n_layer=6",
    "redpajama-3b Q5_K_M n_layer=5",
    "gpt2 IQ4_XS n_layer=4",
    "starcoderbase-1b Q3_K_M n_layer=5",
    "starcoder2-3b Q4_K_M n_layer=6",
    "stablelm-2-1.6b Q8_0 n_layer=5",
    "stablelm-2-12b Q4_0 n_layer=4",
    "olmo-1.7-7b Q6_K n_layer=5",
    "olmo-2-7b Q5_K_M n_layer=6",
    "olmo-3-7b IQ4_XS n_layer=6",
    "internlm2-7b Q3_K_M n_layer=4",
    "exaone-3.5-7.8b Q4_K_M n_layer=5",
    "exaone-4-1.2b Q8_0 n_layer=6",
    "exaone-4-32b Q4_0",
    "smollm3-3b Q6_K n_layer=6",
    "minitron-4b Q5_K_M n_layer=5",
    "minicpm-2b IQ4_XS n_layer=6",
    "seed-oss-36b Q3_K_M n_layer=5",
    "hunyuan-1.8b Q4_K_M n_layer=4",
    "ernie-4.5-0.3b Q8_0 n_layer=5",
    "qwen2.5-vl-3b Q4_0 n_layer=6",
    "qwen3-vl-8b Q6_K n_layer=5",
    "baichuan2-7b Q5_K_M",
    "baichuan2-13b IQ4_XS n_layer=5",
    "glm-4-9b Q3_K_M n_layer=6",
    "afm-4.5b Q4_K_M n_layer=5",
    "apertus-8b Q8_0 n_layer=4",
    "orion-14b Q4_0 n_layer=5",
    "bloom-1b7 Q6_K n_layer=6",
    "mpt-7b-storywriter Q5_K_M n_layer=5",
    "qwen-7b IQ4_XS n_layer=4",
    "xverse-7b Q3_K_M n_layer=5",
    "plamo-13b Q4_K_M n_layer=6",
    "openelm-270m Q8_0 n_layer=5",
    "jais-family-590m Q4_0 n_layer=4",
    "codeshell-7b Q6_K n_layer=5",
    "refact-1.6b Q5_K_M n_layer=6",
    "nemotron-super-49b Q4_0 n_layer=9",
    "bge-small-en-v1.5 Q8_0",
    "jina-embeddings-v3 Q8_0 n_layer=5",
    "hunyuan-ocr Q5_K_M n_layer=6",
    "bge-reranker-v2-m3 Q6_K n_layer=5",
    "nomic-embed-text-v1.5 F16 n_layer=5",
    "jina-embeddings-v2-base-en Q4_K_M n_layer=5",
    "modernbert-base Q8_0 n_layer=7",
    "embeddinggemma-300m Q4_0 n_layer=7",
    "gemma3n-e2b Q4_K_M",
    "gemma4-e2b Q8_0",
    "gemma4-e2b Q4_0 per_layer_token_embd=f16",
    "gemma4-26b-a4b Q4_0 n_layer=7",
    "gemma4-31b Q6_K n_layer=7",
    "llama4-scout Q5_K_M n_layer=5",
    "llama4-maverick IQ4_XS n_layer=6",
    "glm-4.5-air Q3_K_M n_layer=5",
    "qwen1.5-moe Q4_K_M n_layer=5",
    "qwen3-vl-30b Q8_0 n_layer=5",
    "granite3.1-3b-moe Q4_0 n_layer=5",
    "olmoe-7b Q6_K n_layer=5",
    "ernie4.5-21b Q5_K_M n_layer=5",
    "dots.llm1 IQ4_XS n_layer=5",
    "ling-lite Q3_K_M n_layer=5",
    "ling-mini-2 Q4_K_M n_layer=5",
    "hunyuan-a13b Q8_0 n_layer=5",
    "minimax-m2 Q4_0 n_layer=5",
    "deepseek-moe-16b Q6_K n_layer=5",
    "phi-3.5-moe Q5_K_M n_layer=5",
    "dbrx IQ4_XS n_layer=5",
    "grok-2 Q3_K_M n_layer=5",
    "arctic Q4_K_M n_layer=5",
    "smallthinker-21b Q8_0 n_layer=6",
    "smallthinker-4b Q4_0 n_layer=5",
    "minicpm3-4b Q6_K n_layer=5",
    "mistral-small-4 Q5_K_M n_layer=5",
    "deepseek-v2-lite-whole IQ4_XS",
    "k-exaone-236b Q3_K_M",
    "trinity-mini Q4_K_M n_layer=5",
    "mimo-v2-flash Q8_0 n_layer=7",
    "step-3.5-flash Q4_0",
    "laguna-xs.2 Q6_K n_layer=5",
    "cohere2moe-like Q4_K_M n_layer=6",
    "mellum-like Q8_0 n_layer=6",
    "deepseek-v3.2 Q4_K_M n_layer=5",
    "kimi-k2 Q2_K n_layer=4",
    "deepseek-v4-flash Q4_K_M n_layer=7",
    "glm-4.1v-9b Q4_0 n_layer=5",
    "granite-unrotated-like Q5_K_M n_layer=5",
    "glm-5 Q2_K n_layer=6",
    "glm-5.2 Q3_K_M n_layer=9",
    "nomic-embed-text-v2-moe Q4_K_M n_layer=4",
    "deepseek-ocr Q8_0 n_layer=5",
    "paddleocr-vl Q5_K_M n_layer=5",
    "eurobert-210m Q6_K n_layer=5",
    "neobert Q4_0 n_layer=5",
    "hy3 IQ4_XS n_layer=5",
    "llada-8b Q3_K_M n_layer=4",
    "dream-7b Q4_K_M n_layer=4",
    "llada-moe-7b-a1b Q8_0 n_layer=4",
    "rnd1-base Q5_K_M n_layer=4",
    "jais-2-8b Q6_K n_layer=4",
    "openpangu-embedded-7b Q4_0 n_layer=5",
    "maincoder-1b IQ4_XS n_layer=5",
    "plamo-3-2b Q3_K_M n_layer=9",
    "maple-like Q4_K_M n_layer=5",
    "spark2.5-like Q8_0 n_layer=5",
    "chameleon-7b Q5_K_M n_layer=4",
    "cogvlm-17b Q6_K n_layer=4",
    "granite-swa-like Q4_K_M n_layer=6",
    "grovemoe-like Q4_K_M n_layer=4",
    "muse-glimmer-like Q5_K_M n_layer=6",
];

/// The same, of models that keep a state.
const RECURRENT: &[&str] = &[
    "qwen3.5-2b Q4_K_M n_layer=8",
    "qwen3.5-9b Q8_0 n_layer=6",
    "qwen3.5-35b-a3b Q4_K_M n_layer=6",
    "qwen3-next-80b Q4_0 n_layer=5",
    "lfm2-1.2b Q4_K_M n_layer=7",
    "lfm2-8b-a1b Q6_K n_layer=7",
    "nemotron-h-8b Q5_K_M n_layer=9",
    "nemotron-3-nano-30b Q4_K_M n_layer=7",
    "granite4-h-tiny Q8_0 n_layer=7",
    "granite4-h-micro Q4_K_M n_layer=6",
    "falcon-h1-1.5b Q4_0 n_layer=5",
    "jamba-v0.1 IQ4_XS n_layer=6",
    "mamba-codestral-7b Q4_K_M n_layer=6",
    "rwkv7-1.5b Q8_0 n_layer=6",
    "rwkv6-1.6b Q4_0 n_layer=7",
    "qrwkv6-32b Q3_K_M n_layer=4",
    "arwkv7-7b Q6_K n_layer=5",
    "plamo-2-1b Q5_K_M n_layer=6",
    "kimi-linear-48b Q4_K_M n_layer=5",
    "minimax-text-01 IQ4_XS n_layer=9",
    "falcon-mamba-7b Q4_K_M n_layer=5",
    "lfm2-window-like Q8_0 n_layer=7",
];

/// Models that hand out embeddings: generators made to, and encoders that pool otherwise than their files say.
const EMBEDDING: &[&str] = &[
    "qwen3-0.6b Q4_K_M",
    "llama-3.2-1b Q4_0",
    "gemma3-1b Q4_K_M",
    "qwen2.5-0.5b Q4_K_M",
    "qwen3.5-2b Q4_K_M n_layer=8",
    "gpt-oss-20b MXFP4_MOE",
    "bge-small-en-v1.5 Q8_0",
    "embeddinggemma-300m Q4_0 n_layer=7",
];

/// All cases.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, model) in MODELS.iter().enumerate() {
        cases.extend(of(model));
        let mut draw = Draw(1 + index as u64);
        cases.extend((0..DRAWN).map(|_| drawn(model, &mut draw)));
    }
    for model in OUTLINES.iter().chain(RECURRENT) {
        cases.extend(of(model));
        let mut draw = Draw(seed(model));
        cases.extend((0..DRAWN_OF_OUTLINES).map(|_| drawn(model, &mut draw)));
    }
    cases.extend(EMBEDDING.iter().flat_map(|model| embedding(model)));
    cases
}

/// Cases for one device of a real backend: of every model the chosen ones and a few of the drawn.
pub fn on(backend: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for model in MODELS.iter().chain(OUTLINES).chain(RECURRENT) {
        let mut draw = Draw(seed(model) ^ seed(backend));
        let drawn = (0..24).map(|_| drawn(model, &mut draw)).filter(|case| case.devices.len() == 1).take(DRAWN_OF_BACKENDS);
        let fits = |case: &Case| case.devices.len() == 1 && !case.pipeline && !case.host_buffer && !case.args.contains("FAKE");
        let all = of(model).into_iter().filter(fits).chain(drawn.filter(|case| !case.args.contains("FAKE")));
        cases.extend(all.map(|case| Case { backend: Some(backend.to_owned()), pipeline: false, host_buffer: false, ..case }));
    }
    cases
}

/// Every way of pooling on the host alone, on one device and on two.
fn embedding(model: &str) -> Vec<Case> {
    let places: [(&[u64], &str); 3] = [
        (&[], "--ngl 0 --ctx 2048 --batch 512 --seqs 4 --kv-unified 1"),
        (&[24576], "--ngl 999 --ctx 4096 --batch 1024 --ubatch 1024 --seqs 1"),
        (&[24576, 24576], "--ngl 3 --ctx 4096 --batch 256 --ubatch 256 --seqs 2 --fa off"),
    ];
    let ways = ["model", "none", "mean", "cls", "last", "rank"];
    let case = |pooling: &str, (devices, args): (&[u64], &str)| Case {
        backend: None,
        model: model.into(),
        devices: devices.into(),
        pipeline: false,
        host_buffer: false,
        args: format!("{args} --embeddings 1 --pooling {pooling}"),
    };
    ways.iter().flat_map(|pooling| places.map(|place| case(pooling, place))).collect()
}

/// A few cases per model that are small enough to be loaded.
pub fn loads() -> Vec<Case> {
    let with = |model: &str, devices: &[u64], pipeline, args: &str| Case {
        model: model.into(),
        devices: devices.into(),
        pipeline,
        host_buffer: false,
        backend: None,
        args: args.into(),
    };
    let of = |model: &&str| {
        [
            with(model, &[], false, "--ngl 0 --ctx 2048 --seqs 1 --outputs 1"),
            with(model, &[24576], false, "--ngl 999 --ctx 2048 --ubatch 256 --seqs 2 --outputs 2"),
            with(model, &[24576], false, "--ngl 3 --ctx 1024 --ubatch 128 --fa off --seqs 1 --outputs 1"),
            with(model, &[16384, 16384], true, "--ngl 999 --ctx 2048 --ubatch 128 --seqs 4 --outputs 4"),
        ]
    };
    // The bundled engine does not return from loading PLaMo 2.
    let returns = |model: &&&str| !model.starts_with("plamo-2");
    MODELS.iter().chain(RECURRENT).filter(returns).flat_map(of).collect()
}

/// Models that are loaded with split mode `tensor`: one or two per family that has been looked at.
const SLICED: &[&str] = &[
    "llama-3.2-1b Q4_K_M n_layer=4",
    "llama-3.1-8b Q6_K n_layer=3",
    "smollm2-135m Q8_0 n_layer=5",
    "qwen2.5-0.5b Q4_K_M n_layer=5",
    "qwen3-0.6b Q4_K_M n_layer=5",
    "qwen3-30b-a3b Q4_K_M n_layer=2",
    "gemma3-1b Q4_K_M n_layer=7",
    "phi-3-mini Q4_K_M n_layer=3",
    "gpt-oss-20b MXFP4_MOE n_layer=2",
    "qwen3.5-2b Q4_K_M n_layer=5",
    "qwen3.5-35b-a3b Q4_K_M n_layer=4",
    "lfm2-1.2b Q4_K_M n_layer=5",
];

/// Split mode `tensor`, really loaded. The engine tells the largest of what the devices hold, so shares change places.
pub fn sliced() -> Vec<Case> {
    let with = |model: &str, devices: usize, args: &str| Case {
        model: model.into(),
        devices: vec![16384; devices],
        pipeline: false,
        host_buffer: false,
        backend: None,
        args: format!("--split tensor {args}"),
    };
    let of = |model: &&str| {
        [
            with(model, 2, "--ngl 999 --ctx 2048 --seqs 1 --outputs 1"),
            with(model, 2, "--ts 3,1 --ngl 999 --ctx 4096 --ubatch 128 --seqs 2 --outputs 2"),
            with(model, 2, "--ts 1,3 --ngl 999 --ctx 4096 --ubatch 128 --seqs 2 --kv-unified 1 --outputs 2 --ctk q8_0 --ctv q8_0"),
            with(model, 3, "--ngl 3 --ctx 2048 --seqs 1 --outputs 1"),
            with(model, 3, "--ts 1,2,4 --ngl 999 --ctx 2048 --ubatch 256 --seqs 1 --outputs 1"),
        ]
    };
    SLICED.iter().flat_map(of).collect()
}

fn of(model: &str) -> Vec<Case> {
    let with = |devices: &[u64], args: &str| Case {
        model: model.into(),
        devices: devices.into(),
        pipeline: false,
        host_buffer: false,
        backend: None,
        args: args.into(),
    };
    let mut cases = vec![
        // The host alone.
        with(&[], "--ngl 0 --ctx 4096 --seqs 1 --outputs 1"),
        with(&[], "--ngl 0 --ctx 4096 --ubatch 128 --repack 0"),
        with(&[], "--ngl 0 --ctx 10000 --seqs 4 --outputs 4 --fa off"),
        with(&[], "--ngl 0 --ctx 8192 --seqs 4 --kv-unified 1 --outputs 4 --ubatch 1024 --batch 1024"),
        with(&[], "--ngl 0 --ctx 2048 --seqs 1 --outputs 1 --fa on --ctk q8_0 --ctv q8_0"),
        // One device.
        with(&[24576], "--ngl 0 --ctx 4096 --seqs 1 --outputs 1"),
        with(&[24576], "--ngl 3 --ctx 4096 --seqs 1 --outputs 1"),
        with(&[24576], "--ngl 999 --ctx 4096 --seqs 1 --outputs 1"),
        with(&[24576], "--ngl 999 --ctx 16384 --seqs 1 --outputs 1 --fa off --ubatch 256"),
        with(&[24576], "--ngl 999 --ctx 6000 --seqs 3 --outputs 3 --kv-offload 0"),
        with(&[24576], "--ngl 5 --ctx 4096 --seqs 1 --outputs 1 --op-offload 0"),
        with(&[24576], "--ngl 999 --ctx 8192 --seqs 2 --kv-unified 1 --outputs 2 --swa-full 1"),
        with(&[24576], "--ngl 999 --ctx 4096 --ctk q4_0 --ctv f16 --seqs 1 --outputs 1"),
        with(&[24576], r"--ngl 999 --ctx 4096 --ot blk\.[02]\.ffn=CPU --seqs 1 --outputs 1"),
        with(&[24576], r"--ngl 0 --ctx 4096 --ot token_embd=FAKE0 --seqs 1 --outputs 1"),
        with(&[24576], "--ngl 999 --ncmoe 3 --ctx 4096 --seqs 1 --outputs 1"),
        // Two and three devices.
        with(&[24576, 24576], "--ngl 999 --ctx 4096 --seqs 1 --outputs 1"),
        with(&[24576, 8192], "--ngl 999 --ctx 4096 --seqs 1 --outputs 1"),
        with(&[24576, 8192], "--ngl 4 --ctx 4096 --ts 1,3 --seqs 1 --outputs 1"),
        with(&[24576, 8192], "--ngl 999 --ctx 4096 --split none --mg 1 --seqs 1 --outputs 1"),
        with(&[24576, 12288, 8192], "--ngl 999 --ctx 32768 --ubatch 1024 --seqs 2 --outputs 2"),
    ];
    cases.push(Case { pipeline: true, ..with(&[24576, 24576], "--ngl 999 --ctx 4096 --seqs 1 --outputs 1") });
    cases.push(Case { host_buffer: true, ..with(&[24576], "--ngl 3 --ctx 4096 --seqs 1 --outputs 1") });
    cases.push(Case { host_buffer: true, pipeline: true, ..with(&[24576, 8192], "--ngl 999 --ncmoe 3 --ctx 4096 --seqs 1 --outputs 1") });
    cases
}

/// Cases per model drawn at random beside the chosen ones.
const DRAWN: usize = 80;

const DRAWN_OF_OUTLINES: usize = 36;

const DRAWN_OF_BACKENDS: usize = 3;

/// A number of the model's own, so that its cases stay the same when others join the list.
fn seed(model: &str) -> u64 {
    model.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(131).wrapping_add(u64::from(byte)))
}

fn has_experts(model: &str) -> bool {
    let outline = model.split_whitespace().next().and_then(synthetic::outline);
    let preset = ["a3b", "x7b", "gpt-oss"].iter().any(|part| model.contains(part));
    preset || outline.is_some_and(|outline| outline.number("expert_count").is_some())
}

fn drawn(model: &str, draw: &mut Draw) -> Case {
    let count = draw.of(&[0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 4]);
    let devices: Vec<u64> = (0..count).map(|_| draw.of(&[4096, 8192, 12288, 16384, 24576, 49152])).collect();
    let layers = draw.of(&[0, 1, 2, 4, 7, 13, 24, 999, 999, 999, 999, 999]);
    let mut args = format!("--ngl {}", if count == 0 { 0 } else { layers });
    let mut add = |text: String| {
        args.push(' ');
        args.push_str(&text);
    };
    add(format!("--ctx {}", draw.of(&[512, 1000, 2048, 4096, 4096, 6000, 8192, 16384, 32768, 131_072])));
    add(format!("--batch {} --ubatch {}", draw.of(&[512, 2048, 2048, 4096]), draw.of(&[32, 64, 128, 256, 512, 512, 512, 1024, 2048])));
    let sequences = draw.of(&[1, 1, 1, 2, 3, 4, 8]);
    add(format!("--seqs {sequences} --kv-unified {}", draw.below(2)));
    if draw.percent(70) {
        add(format!("--outputs {sequences}"));
    }
    add(format!("--fa {}", draw.of(&["auto", "auto", "on", "off"])));
    if draw.percent(30) {
        add(format!("--ctk {}", draw.of(&["q8_0", "q4_0", "bf16", "f32", "q5_1"])));
    }
    if draw.percent(25) {
        add(format!("--ctv {}", draw.of(&["q8_0", "q4_0", "bf16", "f32", "iq4_nl"])));
    }
    for (switch, chance) in [("--kv-offload 0", 12), ("--op-offload 0", 15), ("--repack 0", 15), ("--swa-full 1", 10)] {
        if draw.percent(chance) {
            add(switch.to_owned());
        }
    }
    if count > 0 && draw.percent(20) {
        let pattern =
            draw.of(&["ffn_down=CPU", r"blk\.[1-3]\.=CPU", "attn=CPU", "exps=CPU", "output=CPU", "token_embd=FAKE0", r"\.0\.ffn=FAKE0"]);
        add(format!("--ot {pattern}"));
    }
    if count > 0 && draw.percent(if has_experts(model) { 40 } else { 4 }) {
        add(format!("--ncmoe {}", draw.of(&[1, 2, 4, 6, 99])));
    }
    if count > 1 && draw.percent(25) {
        let shares: Vec<String> = (0..count).map(|_| draw.of(&["1", "2", "3", "0.5", "0"]).to_owned()).collect();
        add(format!("--ts {}", shares.join(",")));
    }
    if count > 1 && draw.percent(10) {
        add(format!("--split none --mg {}", draw.below(count)));
    }
    let pipeline = count > 1 && draw.percent(35);
    Case { model: model.into(), pipeline, host_buffer: count > 0 && draw.percent(20), backend: None, devices, args }
}
