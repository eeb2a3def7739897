//! What `--version` says.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The version of an engine's build.
///
/// Two spellings exist: `version: 4589 (0123abcd)` until 2025, and `version: 0.7.0 (build 11669, commit Debian)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// As printed, without `version:`.
    pub text: String,
    /// Release, where it has one.
    pub release: Option<(u32, u32, u32)>,
    /// Number of the build; it grows by one with each commit upstream.
    pub build: Option<u32>,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.release, self.build) {
            (Some((major, minor, patch)), Some(build)) => f.pad(&format!("{major}.{minor}.{patch} (b{build})")),
            (Some((major, minor, patch)), None) => f.pad(&format!("{major}.{minor}.{patch}")),
            (None, Some(build)) => f.pad(&format!("b{build}")),
            (None, None) => f.pad(&self.text),
        }
    }
}

/// The version in what a tool of llama.cpp prints for `--version`; `None` for the output of another program.
pub(crate) fn parse(output: &str) -> Option<Version> {
    let text = output.lines().find_map(|line| line.trim().strip_prefix("version:"))?.trim();
    let first = text.split_whitespace().next()?;
    let release = release(first);
    let build = match release {
        Some(_) => text.split_once("build ").and_then(|(_, rest)| leading_number(rest)),
        None => leading_number(first),
    };
    // "version:" alone is not rare; a number and the compiler's line are llama.cpp's.
    let ours = (release.is_some() || build.is_some()) && output.lines().any(|line| line.trim().starts_with("built with"));
    ours.then(|| Version { text: text.to_owned(), release, build })
}

fn release(word: &str) -> Option<(u32, u32, u32)> {
    let mut parts = word.trim_start_matches('v').splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    Some((major, minor, leading_number(parts.next()?)?))
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read() {
        let new = parse("version: 0.7.0 (build 11669, commit Debian)\nbuilt with GNU 16.2.0 for Linux x86_64\n").unwrap();
        assert_eq!((new.release, new.build, new.to_string().as_str()), (Some((0, 7, 0)), Some(11669), "0.7.0 (b11669)"));
        let old = parse("ggml_cuda_init: found 1 device\nversion: 4589 (0a1b2c3d)\nbuilt with cc 12 for x86_64-linux-gnu\n").unwrap();
        assert_eq!((old.release, old.build, old.to_string().as_str()), (None, Some(4589), "b4589"));
        let dev = parse("version: 0.6.0-dev (build 11000, commit unknown)\nbuilt with Clang 14").unwrap();
        assert_eq!((dev.release, dev.build), (Some((0, 6, 0)), Some(11000)));
    }

    #[test]
    fn other_programs_are_no_engine() {
        for output in ["", "GNU bash, version 5.2.15(1)-release", "version: 1.2.3", "Python 3.11.2", "version: unknown\nbuilt with love"] {
            assert_eq!(parse(output), None, "{output:?}");
        }
    }
}
