//! A test program once more with libraries in front of the system's: a driver without a GPU (`driver.cpp`, which a C++ compiler makes of the crate's
//! own kernels), or the real NVRTC.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    dead_code,
    reason = "a test that cannot be set up has failed, and says when it is left out"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Set in a program that was started again.
const AGAIN: &str = "LOADMASTER_STARTED_AGAIN";

/// Whether this program was started again by one of its tests.
pub fn is_again() -> bool {
    std::env::var_os(AGAIN).is_some()
}

/// A folder with `libcuda.so` and `libnvrtc.so` of the pretended device; `None` where no compiler makes them, which is said.
pub fn driver() -> Option<TempDir> {
    if !cfg!(target_os = "linux") {
        eprintln!("SKIPPED: the pretended CUDA driver is for Linux");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cuda/tests/pretended/driver.cpp");
    let named = std::env::var("CXX").ok();
    let compiled = named.iter().map(String::as_str).chain(["c++", "g++", "clang++"]).any(|compiler| {
        let mut command = Command::new(compiler);
        command.args(["-std=c++17", "-O2", "-ffp-contract=off", "-fno-stack-protector", "-U_FORTIFY_SOURCE", "-fvisibility=hidden"]);
        command.args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"]).arg(folder.path().join("libcuda.so")).arg(&source);
        match command.output() {
            Ok(output) => {
                assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
                true
            }
            Err(_) => false,
        }
    });
    if !compiled {
        eprintln!("SKIPPED: no C++ compiler for the pretended CUDA driver");
        return None;
    }
    std::fs::copy(folder.path().join("libcuda.so"), folder.path().join("libnvrtc.so")).unwrap();
    Some(folder)
}

/// A folder with the real NVRTC, as `./x test` puts it or as `LOADMASTER_TEST_NVRTC` names it; `None` where there is none, which is said.
pub fn nvrtc() -> Option<PathBuf> {
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    let kept = cache.map(|cache| cache.join("loadmaster/tools/nvrtc/nvidia/cuda_nvrtc/lib"));
    let found = std::env::var_os("LOADMASTER_TEST_NVRTC").map(PathBuf::from).into_iter().chain(kept).find(|folder| folder.is_dir());
    if found.is_none() {
        eprintln!("SKIPPED: no NVRTC; ./x test fetches one, LOADMASTER_TEST_NVRTC names a folder");
    }
    found
}

/// Runs the tests of this program whose names contain `filter` again, with the libraries of a folder before the system's. What it printed; it has
/// passed, and has run a test.
pub fn again(folder: &Path, filter: &str, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([filter, "--nocapture", "--skip", "again"]).env("LD_LIBRARY_PATH", folder).env(AGAIN, "1");
    let Output { status, stdout, stderr } = command.envs(environment.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(status.success() && !said.contains("running 0 tests"), "{environment:?}: {status}\n{said}");
    assert!(!said.contains("SKIPPED"), "{environment:?}: {said}");
    said
}
