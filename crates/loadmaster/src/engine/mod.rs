//! External engines: find a tool of llama.cpp, and ask it what it is and what it accepts.
//!
//! The tool's own `--version` and `--help` are the only authority on its flags: they differ between builds. Answers are
//! kept per file content, so the questions are asked once per build.

mod ambient;
mod cache;
mod devices;
mod find;
mod help;
pub(crate) mod run;
mod version;

pub use ambient::{AmbientSetting, Interference, ambient};
pub use devices::list_devices;
pub use find::{install_hint, locate};
pub use help::{Flag, Flags};
pub use version::Version;

use crate::error::exit;
use footprint::bitnet::BitNet;
use footprint::{EngineProfile, Outputs};
use planner::{EngineRules, Tool};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A tool of llama.cpp that was found and asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// The executable.
    pub path: PathBuf,
    /// Which tool it is.
    pub tool: Tool,
    /// Its version.
    pub version: Version,
    /// Every flag that it accepts.
    pub flags: Flags,
    /// SHA-256 of the executable, in hex.
    pub hash: String,
}

impl Engine {
    /// What the planner has to know of it.
    pub fn rules(&self) -> EngineRules {
        EngineRules {
            tool: self.tool,
            version: Some(self.version.to_string()),
            accepted: Some(self.flags.spellings()),
            profile: self.profile(),
        }
    }

    /// The memory rules of this tool and version, as far as its version and its flags tell them. Versions after the newest
    /// that we know are taken to be like it.
    pub fn profile(&self) -> EngineProfile {
        let newest = match self.tool {
            Tool::Bundled => return EngineProfile::bundled(),
            Tool::BitNet => return EngineProfile::bitnet(BitNet::default()),
            Tool::Server | Tool::Cli => EngineProfile::server_0_7(),
            Tool::Bench => EngineProfile::bench_0_7(),
        };
        // Releases are numbered since 0.5; of older ones and bare builds the age tells.
        let aged = match (self.version.release, self.version.build) {
            (Some(release), _) if release >= (0, 6, 0) => newest,
            (_, Some(build)) if self.tool == Tool::Bench => EngineProfile { outputs: Outputs::PerBatch, ..EngineProfile::of_build(build) },
            (_, Some(build)) => EngineProfile::of_build(build),
            _ => EngineProfile { outputs: Outputs::PerBatch, ..newest },
        };
        // A fork of llama.cpp whose builds count its own commits; only its tools choose how latent attention is computed.
        if self.flags.accepts("-mla") {
            let fork = self.version.build.map(EngineProfile::of_ik_build).or_else(|| EngineProfile::named("ik_llama.cpp"));
            if let Some(fork) = fork {
                return EngineProfile { name: format!("{} of ik_llama.cpp {}", self.tool, self.version), ..fork };
            }
        }
        EngineProfile {
            name: format!("{} {}", self.tool, self.version),
            repack: self.tool == Tool::Bench || self.flags.accepts("--no-repack"),
            prompt_cache: self.tool != Tool::Bench && self.flags.accepts("--cache-ram"),
            cpu_masks: self.flags.accepts("--cpu-mask"),
            ..aged
        }
    }
}

/// How long a tool may take to answer `--version` or `--help`. Drivers of several GPUs can take seconds to start.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(20);

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// None on `PATH`, and none was named.
    #[error("no {tool} found on PATH")]
    NotFound {
        /// The tool.
        tool: Tool,
    },
    /// The file or folder that was named does not lead to one.
    #[error("no {tool} at {}", path.display())]
    NotThere {
        /// The tool.
        tool: Tool,
        /// The file or folder.
        path: PathBuf,
    },
    /// It cannot be executed.
    #[error("cannot run {}: {source}", path.display())]
    CannotRun {
        /// The executable.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It did not answer in time.
    #[error("{} {question} did not end within {} s", path.display(), deadline.as_secs_f64())]
    Hangs {
        /// The executable.
        path: PathBuf,
        /// What it was asked.
        question: &'static str,
        /// How long we waited.
        deadline: Duration,
    },
    /// It answered, but not as a tool of llama.cpp does.
    #[error("{} is not llama.cpp: {why}", path.display())]
    NotLlamaCpp {
        /// The executable.
        path: PathBuf,
        /// What is missing, with the start of what it said.
        why: String,
    },
    /// It is one, but it failed to answer.
    #[error("{} {question} failed, {status}: {said}", path.display())]
    Fails {
        /// The executable.
        path: PathBuf,
        /// What it was asked.
        question: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it said.
        said: String,
    },
    /// It has no flag for the value of a setting.
    #[error("{} cannot be told {setting}", path.display())]
    Inexpressible {
        /// The executable.
        path: PathBuf,
        /// The setting.
        setting: String,
    },
    /// This build has no engine inside.
    #[error("this build of loadmaster has no engine inside")]
    NotBundled,
    /// The engine inside was built for another processor.
    #[error("the engine inside was built for a processor with {}", missing.join(", "))]
    MissingFeatures {
        /// Instruction sets that this machine lacks.
        missing: Vec<String>,
    },
}

impl EngineError {
    /// The exit code: always [`exit::NO_ENGINE`].
    pub fn exit_code(&self) -> u8 {
        exit::NO_ENGINE
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { tool } | Self::NotThere { tool, .. } => Some(install_hint(*tool)),
            Self::CannotRun { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("make it executable, or name another with --engine".into())
            }
            Self::NotBundled => Some(format!("build with `--features bundled`, or use an external engine; {}", install_hint(Tool::Server))),
            Self::Inexpressible { setting, .. } => Some(format!("leave {setting} at its default, or name another engine with --engine")),
            Self::MissingFeatures { .. } => Some("build loadmaster on this machine, or use an external engine".into()),
            Self::CannotRun { .. } | Self::Hangs { .. } | Self::NotLlamaCpp { .. } | Self::Fails { .. } => {
                Some("run it by hand to see what is wrong, or name another with --engine".into())
            }
        }
    }
}

/// Finds a tool and asks it; a known file content is not asked again. `given` is a file, or a folder that holds the tool.
///
/// # Errors
/// Nothing found, or what was found is no llama.cpp, fails, or does not answer within [`PROBE_DEADLINE`].
pub fn find(tool: Tool, given: Option<&Path>) -> Result<Engine, EngineError> {
    let path = locate(tool, given)?;
    let folder = crate::store::cache_dir();
    probe(&path, tool, PROBE_DEADLINE, folder.as_deref())
}

/// Asks the tool at `path`, unless `cache` holds what this very file answered before. A cache that cannot be used is
/// done without.
///
/// # Errors
/// As [`find`].
pub fn probe(path: &Path, tool: Tool, deadline: Duration, cache: Option<&Path>) -> Result<Engine, EngineError> {
    cache::probe_cached(path, tool, cache, || ask(path, deadline))
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Answers {
    version: Version,
    flags: Flags,
}

fn ask(path: &Path, deadline: Duration) -> Result<Answers, EngineError> {
    let said = question(path, "--version", deadline)?;
    let not_ours = |why: &str, text: &str| EngineError::NotLlamaCpp { path: path.to_owned(), why: format!("{why}: {:?}", start(text)) };
    let Some(version) = version::parse(&said.text) else {
        // One that dies of a signal was perhaps an engine; one that answers otherwise was not.
        return Err(match said.status.code() {
            None => failed(path, "--version", &said),
            Some(_) => not_ours("--version names no version", &said.text),
        });
    };
    let said = question(path, "--help", deadline)?;
    if !said.status.success() {
        return Err(failed(path, "--help", &said));
    }
    let flags = Flags::parse(&said.text);
    if !flags.accepts("--model") {
        return Err(not_ours("--help has no --model", &said.text));
    }
    Ok(Answers { version, flags })
}

fn question(path: &Path, question: &'static str, deadline: Duration) -> Result<run::Said, EngineError> {
    asked(path, &[question], question, deadline)
}

/// What it says to these arguments, which are told as the question.
fn asked(path: &Path, arguments: &[&str], question: &'static str, deadline: Duration) -> Result<run::Said, EngineError> {
    run::ask(path, arguments, deadline).map_err(|error| match error {
        run::Unasked::Start(source) => EngineError::CannotRun { path: path.to_owned(), source },
        run::Unasked::Deadline => EngineError::Hangs { path: path.to_owned(), question, deadline },
    })
}

/// A dry run takes as long as reading the header, which holds the vocabulary.
const DRY_RUN_DEADLINE: Duration = Duration::from_secs(60);

/// What a program says when it is asked for its dry run.
pub(crate) fn ask_dry_run(path: &Path, arguments: &[&str]) -> Result<String, EngineError> {
    const QUESTION: &str = "--fit-print on";
    let said = asked(path, arguments, QUESTION, DRY_RUN_DEADLINE)?;
    if said.status.success() { Ok(said.text) } else { Err(failed(path, QUESTION, &said)) }
}

fn failed(path: &Path, question: &'static str, said: &run::Said) -> EngineError {
    let lines: Vec<&str> = said.text.lines().filter(|line| !line.trim().is_empty()).collect();
    let end = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("; ");
    EngineError::Fails { path: path.to_owned(), question, status: run::describe_exit(said.status), said: end }
}

/// The start of an output, short enough for a message.
fn start(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
