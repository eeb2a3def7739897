//! llama.cpp by age: which rules hold from which build on.
//!
//! Each era is the next one with what was different before it; the change that ended it is named. Build numbers are those
//! of the month where the change's own is not known.

use super::{BatchKinds, EngineProfile, Ik, LatentCache, Outputs, Rules, WindowCells};

/// One age of llama.cpp.
pub(super) struct Era {
    /// Its name: the month from which on it holds.
    pub(super) name: &'static str,
    /// The first build of it.
    pub(super) first_build: u32,
    rules: Rules,
    /// Kernels that want rearranged weights exist.
    repack: bool,
    amx: bool,
    /// Threads can be held to CPUs.
    cpu_masks: bool,
    /// The server keeps a prompt cache in host memory.
    prompt_cache: bool,
    outputs: Outputs,
}

/// Until batches could mix tokens and embeddings, and CUDA dropped buffers for rows (the change's own build is not known).
const RULES_2026_06: Rules = Rules { batches: BatchKinds::TokensOrEmbeddings, cuda_splits_rows: true, confirmed: false, ..Rules::CURRENT };
/// Until pull request 23764 (F16 masks, 2026-05-29), 23861 (rows of logits, 2026-06) and 22787 (one context for the drafts of
/// all sequences, as long as the model's, 2026-05).
const RULES_2026_04: Rules = Rules { half_mask: false, attention_scratch: false, draft_context: true, ..RULES_2026_06 };
/// Until quantised caches were rotated.
const RULES_2026_01: Rules = Rules { rotated_cache: false, ..RULES_2026_04 };
/// Until values of latent caches were dropped, and graphs were reserved for embeddings too (pull request 18550; both 2026-01).
const RULES_2025_12: Rules =
    Rules { latent: LatentCache::KeysAndValues, batches: BatchKinds::Tokens, overrides_repack: false, ..RULES_2026_01 };
/// Until the output was offloaded before the layers (pull request 18148, 2025-12-18).
const RULES_2025_11: Rules = Rules { output_last: true, ..RULES_2025_12 };
/// Until contexts and windows were padded to 256 (pull requests 16812 and 17046).
const RULES_2025_09: Rules = Rules { context_padding: 32, ..RULES_2025_11 };
/// Until flash attention became automatic (pull request 15434, 2025-08-30), and backends ordered their nodes (15850, 2025-09-08).
const RULES_2025_08: Rules = Rules { auto_flash_attention: false, reorders: false, ..RULES_2025_09 };
/// Until sequences got caches of their own (pull request 14363) and caches were written at given places.
const RULES_2025_07: Rules = Rules { streams: false, indexed_store: false, ..RULES_2025_08 };
/// Until gates got an operation of their own (pull request 14158).
const RULES_2025_06: Rules = Rules { fused_gate: false, ..RULES_2025_07 };
/// Until windows held a micro-batch instead of a batch.
const RULES_2025_05: Rules = Rules { window: WindowCells::Batch, ..RULES_2025_06 };
/// Until windows had caches of their own (pull request 13194, 2025-05-20).
const RULES_2025_04: Rules = Rules { window: WindowCells::Full, ..RULES_2025_05 };
/// Until latent attention was cached compressed (pull request 12801, 2025-04-15).
const RULES_2024_05: Rules = Rules { latent: LatentCache::PerHead, ..RULES_2025_04 };
/// Until contexts without flash attention were padded less (pull request 7257, 2024-05-13).
const RULES_2024_03: Rules = Rules { context_padding: 256, ..RULES_2024_05 };

const fn era(name: &'static str, first_build: u32, rules: Rules) -> Era {
    Era { name, first_build, rules, repack: true, amx: true, cpu_masks: true, prompt_cache: false, outputs: Outputs::PerBatch }
}

/// Ages of llama.cpp, oldest first.
pub(super) const ERAS: &[Era] = &[
    Era { repack: false, amx: false, cpu_masks: false, ..era("llama.cpp-2024-03", 2400, RULES_2024_03) },
    Era { repack: false, amx: false, cpu_masks: false, ..era("llama.cpp-2024-05", 2880, RULES_2024_05) },
    era("llama.cpp-2024-12", 4255, RULES_2024_05),
    era("llama.cpp-2025-04", 5138, RULES_2025_04),
    era("llama.cpp-2025-05", 5435, RULES_2025_05),
    era("llama.cpp-2025-06", 5580, RULES_2025_06),
    era("llama.cpp-2025-07", 5775, RULES_2025_07),
    era("llama.cpp-2025-08", 6050, RULES_2025_08),
    era("llama.cpp-2025-09", 6325, RULES_2025_09),
    Era { prompt_cache: true, ..era("llama.cpp-2025-11", 6920, RULES_2025_11) },
    Era { prompt_cache: true, ..era("llama.cpp-2025-12", 7450, RULES_2025_12) },
    Era { prompt_cache: true, ..era("llama.cpp-2026-01", 7826, RULES_2026_01) },
    Era { prompt_cache: true, ..era("llama.cpp-2026-04", 8600, RULES_2026_04) },
    Era { prompt_cache: true, outputs: Outputs::PerSequence, ..era("llama.cpp-2026-06", 9450, RULES_2026_06) },
    Era { prompt_cache: true, outputs: Outputs::PerSequence, ..era("llama.cpp-2026-09", 11_200, Rules::CURRENT) },
];

/// ik_llama.cpp: contexts padded by 32, or 256 with fused attention (`llama_kv_cache_get_padding`, src/llama.cpp:3974,
/// ddceb0a5), gates in one operation, masks of 64 rows (`GGML_KQ_MASK_PAD`).
pub(super) const fn ik_rules(ik: Ik) -> Rules {
    Rules { ik: Some(ik), fused_gate: true, mask_padding: 64, overrides_repack: false, output_last: true, ..RULES_2024_05 }
}

impl Era {
    /// The era of a build; the oldest for builds before it.
    pub(super) fn of_build(build: u32) -> &'static Self {
        let later = ERAS.iter().take_while(|era| era.first_build <= build).last();
        later.unwrap_or(&ERAS[0])
    }
    /// The era of a month, `2025-03`.
    pub(super) fn of_month(month: &str) -> Option<&'static Self> {
        let (year, number) = month.split_once('-')?;
        let digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(year, 4) || !digits(number, 2) || !("01"..="12").contains(&number) {
            return None;
        }
        let began = |era: &&Self| era.name.strip_prefix("llama.cpp-").is_some_and(|first| first <= month);
        ERAS.iter().take_while(began).last()
    }
    /// Its profile; `asked` is the month or build that led to it.
    pub(super) fn profile(&self, asked: &str) -> EngineProfile {
        EngineProfile {
            name: if self.name.ends_with(asked) { self.name.to_owned() } else { format!("{} ({asked})", self.name) },
            outputs: self.outputs,
            repack: self.repack,
            amx: self.amx,
            prompt_cache: self.prompt_cache,
            one_micro_batch: true,
            cpu_masks: self.cpu_masks,
            rules: self.rules,
            bitnet: None,
        }
    }
}
