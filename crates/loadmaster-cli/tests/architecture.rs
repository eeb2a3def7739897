//! The rules of ARCHITECTURE.md that a compiler does not hold: who may depend on whom, where `unsafe` may stand, that
//! every file says what it is for, that nothing names the machine it was written on.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("workspace root")
}

/// Every crate of the workspace that `package` reaches through normal dependencies, with all features on.
fn reaches(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "-p", package, "-e", "normal", "--all-features", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "cargo tree -p {package}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("utf-8");
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn dependencies_run_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("spec", [].as_slice()),
        ("mixture", &["spec"]),
        ("formats", &["spec", "mixture"]),
        ("hardware", &["spec"]),
        ("probe", &["spec", "hardware"]),
        ("roofline", &[]),
        ("benchmarks", &["spec", "hardware", "mixture", "roofline"]),
        ("synthetic", &["spec", "mixture"]),
        ("footprint", &["spec", "workspace"]),
        ("planner", &["spec", "footprint", "workspace", "roofline"]),
        ("llama", &["spec"]),
        ("kernels", &[]),
        ("workspace", &["spec"]),
        ("gpu", &["spec", "bitnet", "footprint", "kernels", "workspace"]),
        ("cuda", &["spec", "bitnet", "footprint", "kernels", "workspace"]),
        ("bitnet", &["spec", "kernels", "footprint", "workspace"]),
    ]);
    for (&package, may) in &allowed {
        let is_ours = |name: &String| name.starts_with("loadmaster") || allowed.contains_key(name.as_str());
        let ours: BTreeSet<String> = reaches(package).into_iter().filter(|name| is_ours(name) && name != package).collect();
        let may: BTreeSet<String> = may.iter().map(|&name| name.to_owned()).collect();
        assert!(ours.is_subset(&may), "{package} reaches {:?}", ours.difference(&may).collect::<Vec<_>>());
    }
}

#[test]
fn the_nouns_depend_on_nothing_and_the_pure_crates_reach_no_system() {
    assert_eq!(reaches("spec"), BTreeSet::from(["spec".to_owned()]));
    for package in ["formats", "mixture", "hardware", "footprint", "planner", "synthetic", "roofline", "benchmarks", "workspace"] {
        let reached = reaches(package);
        for system in ["libc", "rustix", "memmap2", "ureq", "libloading", "tokio", "llama-cpp-sys-2"] {
            assert!(!reached.contains(system), "{package} reaches {system}");
        }
    }
}

/// Rust sources of the workspace with their path below the root, tests included.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("folder").flatten() {
            let path = entry.path();
            match path.file_name().and_then(|name| name.to_str()) {
                Some("target" | ".git" | ".toolchain") => {}
                _ if path.is_dir() => walk(&path, into),
                _ if path.extension().is_some_and(|ext| ext == "rs") => into.push(path),
                _ => {}
            }
        }
    }
    let root = root();
    let mut paths = Vec::new();
    walk(&root.join("crates"), &mut paths);
    paths.sort();
    assert!(paths.len() > 30, "found only {} sources", paths.len());
    let name = |path: &Path| path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).expect("source"))).collect()
}

#[test]
fn unsafe_stands_only_where_the_architecture_allows_it() {
    // Put together here, so that this file does not hold what it looks for.
    let words = ["{", "fn ", "impl ", "extern ", "trait "].map(|rest| ["unsafe ", rest].concat());
    let block = |text: &str| {
        let code = |line: &str| line.split("//").next().unwrap_or("").to_owned();
        text.lines().map(code).any(|line| words.iter().any(|word| line.contains(word)))
    };
    let allowed = [
        "crates/llama/",
        "crates/probe/src/ffi/",
        "crates/cuda/src/ffi/",
        "crates/gpu/src/memory/vulkan.rs",
        "crates/kernels/src/simd/",
        "crates/kernels/src/pool.rs",
        "crates/kernels/src/map.rs",
        "crates/kernels/tests/emulated/",
    ];
    for (name, text) in sources() {
        if block(&text) {
            assert!(allowed.iter().any(|place| name.starts_with(place)), "unsafe code in {name}");
        }
    }
}

#[test]
fn every_source_says_what_it_is_for() {
    for (name, text) in sources() {
        assert!(text.starts_with("//!"), "{name} does not begin with a //! line");
    }
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let patterns = [["/wo", "rk/"].concat(), ["/ro", "ot/."].concat(), ["/tm", "p/t-"].concat(), ["/tm", "p/oracle"].concat()];
    for (name, text) in sources() {
        for pattern in &patterns {
            assert!(!text.contains(pattern.as_str()), "{name} contains {pattern}");
        }
    }
}

#[test]
fn the_toolchain_is_the_one_that_the_workspace_states() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let stated = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")).and_then(|rest| rest.strip_suffix('"'));
    let rustc = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into())).arg("--version").output().expect("rustc");
    let version = String::from_utf8(rustc.stdout).expect("utf-8");
    let minor = |text: &str| text.split('.').nth(1).and_then(|part| part.parse::<u32>().ok());
    let (Some(stated), Some(running)) = (stated.and_then(minor), version.split_whitespace().nth(1).and_then(minor)) else {
        panic!("no version in {version:?}")
    };
    assert!(running >= stated, "built with 1.{running}, the workspace states 1.{stated}");
}
