//! What the engine was built for, and what of that a CPU lacks.

use std::collections::BTreeSet;

/// The engine as it was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// Version of llama.cpp and of the crate that carries it.
    pub version: String,
    /// The C++ compiler, by its path or name.
    pub compiler: String,
    /// CMake's build type: anything but `Release` or `RelWithDebInfo` is slow.
    pub profile: String,
    /// Instruction sets that the engine's kernels use without asking, in the kernel's spelling (`avx2`, `avx512f`,
    /// `amx_int8`), in the order of the alphabet.
    pub cpu_features: BTreeSet<String>,
}

/// What each option of ggml lets the compiler use (llama.cpp v0.6.0-dev, `ggml/src/ggml-cpu/CMakeLists.txt`, the branch of
/// GCC and clang on x86), in the spelling of `/proc/cpuinfo`.
const X86: &[(&str, &[&str])] = &[
    ("SSE42", &["sse4_2"]),
    ("AVX", &["avx"]),
    ("AVX2", &["avx2"]),
    ("F16C", &["f16c"]),
    ("FMA", &["fma"]),
    ("BMI2", &["bmi2"]),
    ("AVX_VNNI", &["avx_vnni"]),
    ("AVX512", &["avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"]),
    ("AVX512_VBMI", &["avx512vbmi"]),
    ("AVX512_VNNI", &["avx512_vnni"]),
    ("AVX512_BF16", &["avx512_bf16"]),
    ("AMX_TILE", &["amx_tile"]),
    ("AMX_INT8", &["amx_int8"]),
    ("AMX_BF16", &["amx_bf16"]),
];

/// The engine as it was built. Runs no code of the engine, so that it can be asked on any CPU.
pub fn build_info() -> BuildInfo {
    let options: BTreeSet<_> = env!("LM_GGML_OPTIONS").split(',').collect();
    let mut cpu_features = BTreeSet::new();
    if cfg!(target_arch = "x86_64") {
        for (_, features) in X86.iter().filter(|(option, _)| options.contains(option)) {
            cpu_features.extend(features.iter().map(|feature| (*feature).to_owned()));
        }
    }
    BuildInfo {
        version: concat!("0.6.0-dev (crate llama-cpp-sys-2 ", env!("LM_ENGINE_CRATE"), ")").to_owned(),
        compiler: env!("LM_ENGINE_COMPILER").to_owned(),
        profile: env!("LM_ENGINE_PROFILE").to_owned(),
        cpu_features,
    }
}

impl BuildInfo {
    /// What the kernels use and a CPU with these features lacks; empty: they run there. The features are spelt as in
    /// `/proc/cpuinfo`; underscores do not matter.
    pub fn missing_features<'a>(&self, features: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let has: BTreeSet<_> = features.into_iter().map(squeezed).collect();
        self.cpu_features.iter().filter(|feature| !has.contains(&squeezed(feature))).cloned().collect()
    }

    /// What a CPU with these features offers to ggml and the kernels do not use: a build on that machine is faster.
    pub fn unused_features<'a>(&self, features: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let has: BTreeSet<_> = features.into_iter().map(squeezed).collect();
        let known = X86.iter().flat_map(|(_, features)| features.iter());
        let unused = known.filter(|feature| has.contains(&squeezed(feature)) && !self.cpu_features.contains(**feature));
        unused.map(|feature| (*feature).to_owned()).collect()
    }

    /// As [`BuildInfo::missing_features`], for the CPU that runs this.
    pub fn missing_here(&self) -> Vec<String> {
        let here = here();
        self.missing_features(here.iter().copied())
    }
}

/// The spelling without underscores, for the kernel and the vendors set them differently (`avx512vbmi`, `avx512_vnni`).
fn squeezed(feature: &str) -> String {
    feature.replace('_', "").to_ascii_lowercase()
}

/// What of [`X86`] this CPU and its kernel let programs use.
#[cfg(target_arch = "x86_64")]
fn here() -> Vec<&'static str> {
    use std::arch::is_x86_feature_detected as has;
    let mut features: Vec<_> = [
        ("sse4_2", has!("sse4.2")),
        ("avx", has!("avx")),
        ("avx2", has!("avx2")),
        ("f16c", has!("f16c")),
        ("fma", has!("fma")),
        ("bmi2", has!("bmi2")),
        ("avx_vnni", has!("avxvnni")),
        ("avx512f", has!("avx512f")),
        ("avx512cd", has!("avx512cd")),
        ("avx512vl", has!("avx512vl")),
        ("avx512dq", has!("avx512dq")),
        ("avx512bw", has!("avx512bw")),
        ("avx512vbmi", has!("avx512vbmi")),
        ("avx512_vnni", has!("avx512vnni")),
        ("avx512_bf16", has!("avx512bf16")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect();
    features.extend(amx());
    features
}

/// AMX, which the standard library does not detect yet: leaf 7 of `cpuid`, register edx (Intel SDM, volume 2A, CPUID).
#[cfg(target_arch = "x86_64")]
fn amx() -> impl Iterator<Item = &'static str> {
    let leaf = std::arch::x86_64::__cpuid(0).eax;
    let edx = if leaf >= 7 { std::arch::x86_64::__cpuid_count(7, 0).edx } else { 0 };
    [(22, "amx_bf16"), (24, "amx_tile"), (25, "amx_int8")].into_iter().filter_map(move |(bit, name)| (edx >> bit & 1 == 1).then_some(name))
}

#[cfg(not(target_arch = "x86_64"))]
fn here() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built_for(features: &[&str]) -> BuildInfo {
        BuildInfo { cpu_features: features.iter().map(|feature| (*feature).to_owned()).collect(), ..build_info() }
    }

    #[test]
    fn what_is_missing_is_named_whatever_the_spelling() {
        let info = built_for(&["avx2", "avx512_vnni", "avx512vbmi"]);
        assert_eq!(info.missing_features(["avx2", "fma"]), ["avx512_vnni", "avx512vbmi"]);
        assert_eq!(info.missing_features(["avx2", "avx512vnni", "avx512_vbmi"]), Vec::<String>::new());
        assert_eq!(info.unused_features(["avx2", "avx512f", "sse2"]), ["avx512f"]);
    }

    #[test]
    fn the_engine_of_this_test_runs_here() {
        assert_eq!(build_info().missing_here(), Vec::<String>::new());
    }
}
