//! ik_llama.cpp: a fork of 2024-06 with operations, quantisations and a scheduler of its own.
//!
//! Read in its source at ddceb0a5 (2025-07-31, build 3826) and 8337e4cd (2026-08-15, build 4840), and confirmed by dry runs of
//! the former on pretended devices. Its flags that llama.cpp has not are part of a profile's name.

use super::eras::ik_rules;
use super::{EngineProfile, Outputs};
use spec::QuantType;

/// When a GPU takes over an operation on host weights (`ggml_backend_cuda_offload_op` of ggml-cuda.cu).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// From 32 tokens on; the fused operation of experts stays on the host.
    NotFusedExperts,
    /// From 32 tokens on (aa8ec5df, 2025-05-12).
    Batch,
    /// Where each expert can expect 32 tokens (dc663fe6, 2025-06-12).
    ActiveExperts,
}

/// What decides ik_llama.cpp's graphs beside the settings that it shares with llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ik {
    /// How latent attention is computed and cached (`-mla`): 0 as whole heads, 1 with a transposed copy of the values where
    /// attention is not fused, 2 and 3 with the compressed rows alone.
    pub mla: u32,
    /// Most MiB that an intermediate result of attention may take before it is computed in parts (`-amb`); 0 for no limit.
    pub attn_max_batch: u32,
    /// Gate and up matrices of experts are one operation (`-fmoe`).
    pub fused_experts: bool,
    /// Weights on the host are rearranged at load (`-rtr`), after which no GPU computes with most of them.
    pub repack: bool,
    /// Gate and up matrices of dense blocks are one operation (`-fug`).
    pub fused_gate_up: bool,
    /// Attention is fused unless it is forbidden.
    pub flash_attn: bool,
    /// When GPUs take over.
    pub offload: Offload,
    /// CUDA multiplies with interleaved rows of some types (pull request 461, 2025-05-26, and later ones).
    pub interleaved: bool,
    /// Copies of each input where several GPUs work as a pipeline (`GGML_SCHED_MAX_COPIES` when it was built).
    pub copies: u32,
}

/// One age of ik_llama.cpp: month, first build, and what its tools do without flags.
struct Age {
    month: &'static str,
    first_build: u32,
    defaults: Ik,
}

const EARLY: Ik = Ik {
    mla: 0,
    attn_max_batch: 0,
    fused_experts: false,
    repack: false,
    fused_gate_up: false,
    flash_attn: false,
    offload: Offload::NotFusedExperts,
    interleaved: false,
    copies: 4,
};
const FROM_2025_05: Ik = Ik { offload: Offload::Batch, ..EARLY };
const FROM_2025_06: Ik = Ik { offload: Offload::ActiveExperts, interleaved: true, ..FROM_2025_05 };
/// Pull requests 741 and 751.
const FROM_2025_09: Ik = Ik { fused_gate_up: true, copies: 1, ..FROM_2025_06 };
/// Pull request 863.
const FROM_2025_10: Ik = Ik { flash_attn: true, fused_experts: true, ..FROM_2025_09 };
/// Pull request 943.
const FROM_2025_11: Ik = Ik { mla: 3, ..FROM_2025_10 };
/// Pull request 2312.
const FROM_2026_08: Ik = Ik { attn_max_batch: 256, ..FROM_2025_11 };

const AGES: &[Age] = &[
    Age { month: "2025-03", first_build: 3580, defaults: EARLY },
    Age { month: "2025-05", first_build: 3683, defaults: FROM_2025_05 },
    Age { month: "2025-06", first_build: 3745, defaults: FROM_2025_06 },
    Age { month: "2025-09", first_build: 3869, defaults: FROM_2025_09 },
    Age { month: "2025-10", first_build: 3928, defaults: FROM_2025_10 },
    Age { month: "2025-11", first_build: 3983, defaults: FROM_2025_11 },
    Age { month: "2026-08", first_build: 4832, defaults: FROM_2026_08 },
];

impl Ik {
    /// What the newest build does without flags.
    fn newest() -> Self {
        AGES.last().map_or(EARLY, |age| age.defaults)
    }
    /// What a build does without flags.
    fn of_build(build: u32) -> Self {
        AGES.iter().take_while(|age| age.first_build <= build).last().map_or(EARLY, |age| age.defaults)
    }
    fn of_month(month: &str) -> Option<Self> {
        let (year, number) = month.split_once('-')?;
        let digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(year, 4) || !digits(number, 2) || !("01"..="12").contains(&number) {
            return None;
        }
        AGES.iter().take_while(|age| age.month <= month).last().map(|age| age.defaults)
    }

    /// These with flags as ik_llama.cpp's tools take them, `-mla 3 -amb 512 -fmoe -rtr`, and `GGML_SCHED_MAX_COPIES=1` of its
    /// build; `None` where one is not known.
    fn with_flags(mut self, flags: &str) -> Option<Self> {
        let mut words = flags.split_whitespace();
        while let Some(flag) = words.next() {
            let mut number = || words.next()?.parse::<u32>().ok();
            match flag {
                "-mla" | "--mla-use" => self.mla = number().filter(|mla| *mla <= 3)?,
                "-amb" | "--attention-max-batch" => self.attn_max_batch = number()?,
                "-fmoe" | "--fused-moe" => self.fused_experts = true,
                "-no-fmoe" | "--no-fused-moe" => self.fused_experts = false,
                "-no-fug" | "--no-fused-up-gate" => self.fused_gate_up = false,
                "-rtr" | "--run-time-repack" => self.repack = true,
                _ => self.copies = flag.strip_prefix("GGML_SCHED_MAX_COPIES=")?.parse().ok().filter(|copies| (1..=16).contains(copies))?,
            }
        }
        Some(self)
    }
}

/// The type that weights of this type on the host have once their rows are interleaved (`-rtr`); `None` where there is none
/// (`iqk_repack_tensor`, ggml/src/iqk/iqk_quantize.cpp, ddceb0a5).
pub(crate) fn interleaved(ty: QuantType) -> Option<QuantType> {
    use QuantType as Q;
    Some(match ty {
        Q::IQ2_K => Q::IQ2_K_R4,
        Q::IQ3_K => Q::IQ3_K_R4,
        Q::IQ4_K => Q::IQ4_K_R4,
        Q::IQ5_K => Q::IQ5_K_R4,
        Q::IQ4_XS => Q::IQ4_XS_R8,
        Q::IQ4_KS => Q::IQ4_KS_R4,
        Q::IQ5_KS => Q::IQ5_KS_R4,
        Q::IQ4_NL => Q::IQ4_NL_R4,
        Q::IQ2_BN => Q::IQ2_BN_R4,
        Q::IQ2_XXS => Q::IQ2_XXS_R4,
        Q::IQ2_XS => Q::IQ2_XS_R4,
        Q::IQ2_S => Q::IQ2_S_R4,
        Q::IQ3_XXS => Q::IQ3_XXS_R4,
        Q::IQ3_S => Q::IQ3_S_R4,
        Q::Q2_K => Q::Q2_K_R4,
        Q::Q3_K => Q::Q3_K_R4,
        Q::Q4_K => Q::Q4_K_R4,
        Q::Q5_K => Q::Q5_K_R4,
        Q::Q6_K => Q::Q6_K_R4,
        Q::Q4_0 => Q::Q4_0_R8,
        Q::Q5_0 => Q::Q5_0_R4,
        Q::Q6_0 => Q::Q6_0_R4,
        Q::Q8_0 => Q::Q8_0_R8,
        Q::Q8_KV => Q::Q8_KV_R8,
        Q::F16 | Q::BF16 => Q::BF16_R16,
        _ => return None,
    })
}

/// The name without age and flags.
pub(super) const NAME: &str = "ik_llama.cpp";

fn profile(name: String, ik: Ik) -> EngineProfile {
    EngineProfile {
        name,
        outputs: Outputs::PerBatch,
        repack: false,
        amx: false,
        prompt_cache: false,
        one_micro_batch: true,
        cpu_masks: false,
        rules: ik_rules(ik),
        bitnet: None,
    }
}

/// `ik_llama.cpp`, `ik_llama.cpp-2025-07` or `ik_llama.cpp-b3826`, with its own flags behind it.
pub(super) fn named(name: &str) -> Option<EngineProfile> {
    let rest = name.strip_prefix(NAME)?;
    let (age, flags) = rest.split_once(' ').unwrap_or((rest, ""));
    let ik = match age.strip_prefix('-') {
        None if age.is_empty() => Ik::newest(),
        None => return None,
        Some(age) => match age.strip_prefix('b') {
            Some(build) => Ik::of_build(build.parse().ok()?),
            None => Ik::of_month(age)?,
        },
    };
    Some(profile(name.into(), ik.with_flags(flags)?))
}

/// The profile of a build, without flags.
pub(super) fn of_build(build: u32) -> EngineProfile {
    profile(format!("{NAME} b{build}"), Ik::of_build(build))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_and_flags_are_part_of_the_name() {
        let ik = |name: &str| named(name).and_then(|profile| profile.rules.ik);
        assert_eq!(ik("ik_llama.cpp"), Some(Ik::newest()));
        assert_eq!((ik("ik_llama.cpp-2025-04"), ik("ik_llama.cpp-b3700")), (Some(EARLY), Some(FROM_2025_05)));
        let asked = Ik { mla: 3, attn_max_batch: 512, fused_experts: true, repack: true, copies: 1, ..FROM_2025_06 };
        assert_eq!(ik("ik_llama.cpp-2025-07 -mla 3 -amb 512 -fmoe -rtr GGML_SCHED_MAX_COPIES=1"), Some(asked));
        let unknown = [
            "ik_llama.cpp -mla",
            "ik_llama.cpp -mla 4",
            "ik_llama.cpp-fast",
            "ik_llama.cpp -ngl 3",
            "ik",
            "ik_llama.cpp-2024-01",
            "ik_llama.cpp3",
        ];
        for name in unknown {
            assert_eq!(ik(name), None, "{name}");
        }
        assert!(AGES.is_sorted_by(|a, b| a.first_build < b.first_build && a.month < b.month));
    }
}
