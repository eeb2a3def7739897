//! What differs between engine versions and between the tools of one engine, as data.
//!
//! An [`EngineProfile`] is a tool and the [`Rules`] of its age. It is chosen by name ([`EngineProfile::named`]) or follows
//! from what an engine says of itself ([`EngineProfile::of_build`]).

mod eras;
mod ik;
mod rules;

pub(crate) use ik::interleaved;
pub use ik::{Ik, Offload};
pub use rules::{BatchKinds, LatentCache, Rules, WindowCells};

use crate::bitnet::BitNet;
use eras::{ERAS, Era};

/// How many rows of logits a tool reserves per micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// One per sequence (llama-server since 2026-06: `n_parallel × (1 + draft)`; pull request 23861).
    PerSequence,
    /// One per token of the batch (llama-bench, llama-fit-params, the C API's default, and every tool before 2026-06).
    PerBatch,
}

/// The rules of one engine version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineProfile {
    /// For people: `llama.cpp v0.6.0-dev (bundled)`.
    pub name: String,
    /// Rows of logits that the tool reserves.
    pub outputs: Outputs,
    /// Extra buffer types for repacked CPU weights exist and are on by default.
    pub repack: bool,
    /// AMX kernels are built in (their repacking takes precedence where the CPU has AMX).
    pub amx: bool,
    /// The program keeps llama-server's prompt cache and context checkpoints in host memory.
    pub prompt_cache: bool,
    /// Where embeddings are handed out, the batch is made as small as the micro-batch: tools do so, the library does not.
    pub one_micro_batch: bool,
    /// Threads can be held to CPUs (`--cpu-mask`, since 2024-08).
    pub cpu_masks: bool,
    /// What the engine's age decides.
    pub rules: Rules,
    /// The BitNet engine of this program, which is no llama.cpp: none of the rest counts then.
    pub bitnet: Option<BitNet>,
}

/// The fork that runs BitNet's own tensor types, and the build of llama.cpp that it follows (microsoft/BitNet, 406a5036).
const BITNET_CPP: (&str, u32) = ("bitnet.cpp", 3947);

type Make = fn() -> EngineProfile;

/// Profiles of this engine generation, by name: which tool, with which extras.
const TOOLS: &[(&str, Make)] = &[
    ("bundled", EngineProfile::bundled),
    ("bitnet", || EngineProfile::bitnet(BitNet::default())),
    ("server-0.7.0", EngineProfile::server_0_7),
    ("cli-0.7.0", EngineProfile::cli_0_7),
    ("bench-0.7.0", EngineProfile::bench_0_7),
    ("fit-params-0.7.0", EngineProfile::fit_params_0_7),
];

impl EngineProfile {
    /// The bundled llama.cpp (crate llama-cpp-sys-2 0.1.161) as loadmaster runs it: logits for one token per sequence.
    pub fn bundled() -> Self {
        Self {
            name: "llama.cpp v0.6.0-dev (bundled)".into(),
            outputs: Outputs::PerSequence,
            repack: true,
            amx: false,
            prompt_cache: false,
            one_micro_batch: false,
            cpu_masks: true,
            rules: Rules::CURRENT,
            bitnet: None,
        }
    }
    /// The BitNet engine of this program.
    pub fn bitnet(engine: BitNet) -> Self {
        Self { name: "BitNet engine".into(), repack: false, cpu_masks: false, bitnet: Some(engine), ..Self::bundled() }
    }
    /// llama-server 0.7.0 (ggml 0.27).
    pub fn server_0_7() -> Self {
        Self {
            name: "llama-server 0.7.0".into(),
            amx: true,
            prompt_cache: true,
            one_micro_batch: true,
            rules: Rules::OF_0_7,
            ..Self::bundled()
        }
    }
    /// llama-cli 0.7.0: the server without its HTTP half.
    pub fn cli_0_7() -> Self {
        Self { name: "llama-cli 0.7.0".into(), ..Self::server_0_7() }
    }
    /// llama-bench 0.7.0.
    pub fn bench_0_7() -> Self {
        Self { name: "llama-bench 0.7.0".into(), outputs: Outputs::PerBatch, amx: true, rules: Rules::OF_0_7, ..Self::bundled() }
    }
    /// llama-fit-params 0.7.0.
    pub fn fit_params_0_7() -> Self {
        Self { name: "llama-fit-params 0.7.0".into(), ..Self::bench_0_7() }
    }

    fn renamed(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// Names that [`EngineProfile::named`] takes, this generation's tools first, then llama.cpp by age, newest first, then
    /// forks.
    pub fn names() -> Vec<&'static str> {
        let tools = TOOLS.iter().map(|(name, _)| *name);
        tools.chain(ERAS.iter().rev().map(|era| era.name)).chain([ik::NAME, BITNET_CPP.0]).collect()
    }

    /// The profile of this name: one of [`EngineProfile::names`], `llama.cpp-YYYY-MM` for any month since 2024-03,
    /// `llama.cpp-bN` for a build, or `ik_llama.cpp`, `ik_llama.cpp-YYYY-MM` or `ik_llama.cpp-bN` with that fork's own flags behind it
    /// (`ik_llama.cpp-2025-07 -mla 3 -amb 512 -fmoe`); `None` for others.
    pub fn named(name: &str) -> Option<Self> {
        if let Some((_, profile)) = TOOLS.iter().find(|(tool, _)| *tool == name) {
            return Some(profile());
        }
        if name == BITNET_CPP.0 {
            return Some(Self { repack: false, amx: false, ..Self::of_build(BITNET_CPP.1) }.renamed(name));
        }
        if name.starts_with(ik::NAME) {
            return ik::named(name);
        }
        let age = name.strip_prefix("llama.cpp-")?;
        match age.strip_prefix('b') {
            Some(build) => Some(Self::of_build(build.parse().ok()?)),
            None => Some(Era::of_month(age)?.profile(age)),
        }
    }

    /// The profile of a build of ik_llama.cpp, which counts its own commits: `version: 3826 (ddceb0a5)`.
    pub fn of_ik_build(build: u32) -> Self {
        ik::of_build(build)
    }

    /// The profile of llama-server of a build (`version: 5192 (...)`; the number grows by one with each commit). Builds from
    /// before 2024-03 are taken to be like those.
    pub fn of_build(build: u32) -> Self {
        Era::of_build(build).profile(&format!("b{build}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_profile_and_eras_follow_each_other() {
        for name in EngineProfile::names() {
            assert!(EngineProfile::named(name).is_some(), "{name}");
        }
        assert!(ERAS.is_sorted_by(|a, b| a.first_build < b.first_build && a.name < b.name));
        for unknown in
            ["", "llama.cpp", "llama.cpp-", "llama.cpp-2023-01", "llama.cpp-2025-13", "llama.cpp-b", "llama.cpp-latest", "ollama"]
        {
            assert_eq!(EngineProfile::named(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_month_and_a_build_lead_to_the_rules_of_their_age() {
        let rules = |name: &str| EngineProfile::named(name).unwrap().rules;
        assert_eq!(EngineProfile::named("llama.cpp-2025-03").unwrap().name, "llama.cpp-2024-12 (2025-03)");
        assert_eq!(rules("llama.cpp-2025-03"), rules("llama.cpp-b4905"));
        assert_eq!(rules("llama.cpp-2025-03").window, WindowCells::Full);
        assert_eq!(rules("llama.cpp-b5331").latent, LatentCache::KeysAndValues);
        assert_eq!(rules("llama.cpp-b5781").window, WindowCells::MicroBatch);
        assert_eq!(rules("llama.cpp-b11669"), Rules::CURRENT);
        assert!(!rules("llama.cpp-2026-05").half_mask && rules("llama.cpp-b9849").half_mask);
        assert!(!rules("llama.cpp-2025-08").auto_flash_attention && rules("llama.cpp-2025-09").auto_flash_attention);
    }
}
