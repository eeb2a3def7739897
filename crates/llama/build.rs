//! Compiles the C++ shim against the sources of the bundled llama.cpp and records what the engine was built for.
//!
//! The crate llama-cpp-sys-2 leaves its CMake cache below its output folder, which cargo names in `DEP_LLAMA_ROOT`; the cache
//! holds the folder of the sources and every ggml option.

use std::fs;
use std::path::{Path, PathBuf};

/// A value of a CMake cache.
fn cached<'a>(cache: &'a str, key: &str) -> Option<&'a str> {
    cache.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.split_once('=').map(|(_, value)| value))
}

/// The output folder of llama-cpp-sys-2.
fn engine_output() -> PathBuf {
    if let Some(root) = std::env::var_os("DEP_LLAMA_ROOT") {
        return root.into();
    }
    // OUT/lib/cmake, named by the build script itself.
    let cmake = std::env::var_os("DEP_LLAMA_GGML_CMAKE_DIR").map(PathBuf::from);
    match cmake.as_deref().and_then(Path::parent).and_then(Path::parent) {
        Some(out) => out.to_owned(),
        None => panic!("llama-cpp-sys-2 no longer names its output folder; see crates/llama/README.md, upgrading"),
    }
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=shim");

    let out = engine_output();
    let path = out.join("build/CMakeCache.txt");
    println!("cargo:rerun-if-changed={}", path.display());
    let cache = match fs::read_to_string(&path) {
        Ok(cache) => cache,
        Err(error) => panic!("{}: {error}; see crates/llama/README.md, upgrading", path.display()),
    };
    let Some(source) = cached(&cache, "CMAKE_HOME_DIRECTORY").map(Path::new) else {
        panic!("{}: no CMAKE_HOME_DIRECTORY", path.display());
    };

    // .../llama-cpp-sys-2-0.1.161/llama.cpp
    let version = source.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.rsplit('-').next().map(str::to_owned));
    println!("cargo:rustc-env=LM_ENGINE_CRATE={}", version.as_deref().unwrap_or("of unknown version"));
    let on: Vec<_> = cache.lines().filter_map(|line| line.strip_prefix("GGML_")?.strip_suffix(":BOOL=ON")).collect();
    println!("cargo:rustc-env=LM_GGML_OPTIONS={}", on.join(","));
    println!("cargo:rustc-env=LM_ENGINE_COMPILER={}", cached(&cache, "CMAKE_CXX_COMPILER").unwrap_or("unknown"));
    println!("cargo:rustc-env=LM_ENGINE_PROFILE={}", cached(&cache, "CMAKE_BUILD_TYPE").unwrap_or("unknown"));

    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .files(["shim/shim.cpp", "shim/pretended.cpp"])
        .include("shim")
        .include(source.join("include"))
        .include(source.join("src"))
        .include(source.join("ggml/include"))
        .include(source.join("ggml/src"))
        .warnings(false)
        .extra_warnings(false)
        .cpp_link_stdlib(None) // llama-cpp-sys-2 links the one that it was compiled with
        .compile("lm_shim");
}
