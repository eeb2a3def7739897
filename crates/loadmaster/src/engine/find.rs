//! Where the tools of llama.cpp are: on `PATH`, or where the user says.

use super::EngineError;
use planner::Tool;
use std::path::{Path, PathBuf};

/// The path of a tool. `given` is a file, or a folder that holds the tool (itself or in `bin`); without it `PATH` is
/// searched. The tool is not run.
///
/// # Errors
/// It is not there.
pub fn locate(tool: Tool, given: Option<&Path>) -> Result<PathBuf, EngineError> {
    let name = tool.to_string();
    let Some(given) = given else {
        return which::which(&name).map_err(|_| EngineError::NotFound { tool });
    };
    let not_there = || EngineError::NotThere { tool, path: given.to_owned() };
    if given.is_dir() {
        let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        let places = [given.join(&file), given.join("bin").join(&file), given.join("build").join("bin").join(&file)];
        return places.into_iter().find(|path| path.is_file()).ok_or_else(not_there);
    }
    if given.is_file() {
        return Ok(given.to_owned());
    }
    // A bare name, as a shell would find it.
    match given.components().count() {
        1 => which::which(given).map_err(|_| not_there()),
        _ => Err(not_there()),
    }
}

/// How to get llama.cpp on this platform.
pub fn install_hint(tool: Tool) -> String {
    let ways = match std::env::consts::OS {
        "linux" => {
            "install llama.cpp (Debian 14 or newer: apt install llama.cpp-tools; Nix: nixpkgs#llama-cpp; Homebrew: \
             brew install llama.cpp) or build it from source"
        }
        "macos" => "install llama.cpp (brew install llama.cpp, or port install llama.cpp)",
        "windows" => "install llama.cpp (winget install llama.cpp)",
        _ => "build llama.cpp from source",
    };
    format!("{ways}, or name the {tool} that you have with --engine")
}
