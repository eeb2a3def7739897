//! The cases: every architecture under a spread of settings.

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

/// All cases.
pub fn all() -> Vec<Case> {
    MODELS.iter().flat_map(|model| of(model)).collect()
}

fn of(model: &str) -> Vec<Case> {
    let with = |devices: &[u64], args: &str| Case { model: model.into(), devices: devices.into(), pipeline: false, args: args.into() };
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
    cases
}
