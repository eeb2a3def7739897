//! What the engine was built for.

/// The engine as it was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// Version of llama.cpp, with its crate.
    pub version: String,
    /// Instruction sets that the compiled code uses, in the kernel's spelling (`avx2`, `avx512f`, `amx_int8`, ...).
    pub cpu_features: Vec<String>,
}

/// The engine as it was built. Runs no code of the engine.
pub fn build_info() -> BuildInfo {
    BuildInfo { version: "llama-cpp-sys-2 0.1.161".into(), cpu_features: Vec::new() }
}
