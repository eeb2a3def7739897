//! Everything that can go wrong, with the exit code of each and a way out.
//!
//! Messages state the fact; [`Error::hint`] says what to do. Printing is the caller's.

use std::path::PathBuf;

pub use crate::config::ConfigError;
pub use crate::engine::EngineError;
pub use crate::launch::LaunchError;
pub use crate::machine::MachineError;
pub use crate::open::OpenError;

/// Exit codes of the program; stable.
pub mod exit {
    /// Done, also after a reported downgrade.
    pub const DONE: u8 = 0;
    /// The command line or the configuration is wrong, or the engine refuses the settings.
    pub const USAGE: u8 = 2;
    /// It does not fit.
    pub const REFUSED: u8 = 3;
    /// It fits only after a downgrade, and that was forbidden.
    pub const DOWNGRADED: u8 = 4;
    /// No engine was found, or what was found is none.
    pub const NO_ENGINE: u8 = 5;
    /// The engine failed, or used more than planned.
    pub const LAUNCH: u8 = 6;
    /// An input cannot be read.
    pub const UNREADABLE: u8 = 7;
    /// The system refuses what no other code names, such as a full disk.
    pub const SYSTEM: u8 = 1;
}

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// The system's reason.
    pub source: std::io::Error,
}

impl WriteError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        use std::io::ErrorKind as Kind;
        Some(match self.source.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => "free some space there, or name a file on another disk".into(),
            Kind::ReadOnlyFilesystem => "that file system is mounted read-only: name a file elsewhere".into(),
            Kind::PermissionDenied => "name a file in a folder that you may write to".into(),
            Kind::NotFound => "its folder does not exist: create it first".into(),
            _ => return None,
        })
    }
}

/// Any failure of the pipeline.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be opened or read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A known model that cannot be in the file type asked for.
    #[error(transparent)]
    Shape(crate::known::ShapeError),
    /// The machine cannot be detected, replayed or described.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The configuration file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nothing fits: what was tried, and what ruled each out.
    #[error("{0}")]
    Refused(Box<planner::NoPlan>),
    /// The plan breaks rules of the engine or the machine.
    #[error("the plan is not valid: {}", summary(.0))]
    Invalid(Box<planner::Report>),
    /// The engine would refuse the settings.
    #[error(transparent)]
    Settings(footprint::FootprintError),
    /// Servers of remote devices are named, and what they have is not known.
    #[error("{}: {servers}", if *bundled { "the bundled engine uses no remote devices" } else { "no device of these servers is known here" })]
    NoRemoteDevices {
        /// The servers.
        servers: String,
        /// It is the bundled engine's fault.
        bundled: bool,
    },
    /// The model is one for another engine.
    #[error("llama.cpp cannot load tensor {tensor}: it is of type {ty} of {}", if ty.is_bitnet_fork() { "the BitNet fork" } else { "packed safetensors" })]
    BitNetFork {
        /// The first such tensor.
        tensor: String,
        /// Its type.
        ty: spec::QuantType,
    },
    /// The model is one for ik_llama.cpp.
    #[error("llama.cpp cannot load tensor {tensor}: it is of type {ty} of ik_llama.cpp")]
    IkFork {
        /// The first such tensor.
        tensor: String,
        /// Its type.
        ty: spec::QuantType,
    },
    /// No usable engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine failed.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Error {
    /// The exit code that this failure has.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Open(error) => error.exit_code(),
            Self::Machine(error) => error.exit_code(),
            Self::Config(error) => error.exit_code(),
            Self::Refused(refusal) if refusal.is_of_settings() => exit::USAGE,
            Self::Invalid(report) if !report.lacks_memory() => exit::USAGE,
            Self::Refused(_) | Self::Invalid(_) => exit::REFUSED,
            Self::Settings(_) | Self::NoRemoteDevices { .. } | Self::Shape(_) => exit::USAGE,
            Self::Engine(_) | Self::BitNetFork { .. } | Self::IkFork { .. } => exit::NO_ENGINE,
            Self::Launch(error) => error.exit_code(),
            Self::Write(_) => exit::SYSTEM,
        }
    }

    /// What to do about it, where we know.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::IkFork { .. } => {
                Some("give --engine the llama-server of ik_llama.cpp, or fetch a file of llama.cpp's own types".to_owned())
            }
            Self::NoRemoteDevices { bundled: true, .. } => Some("name a llama-server with --engine".to_owned()),
            Self::NoRemoteDevices { .. } => {
                Some("the engine sees them on this machine only; elsewhere say what they have: --device RPC[CUDA]:24GiB".to_owned())
            }
            Self::BitNetFork { .. } => {
                Some("`loadmaster run` runs such BitNet models on our own engine (`--engine bitnet`), which is no server; llama.cpp serves those of its architecture bitnet in TQ1_0 or TQ2_0".to_owned())
            }
            Self::Open(error) => error.hint(),
            Self::Machine(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Refused(_) | Self::Invalid(_) | Self::Settings(_) | Self::Shape(_) => None,
            Self::Engine(error) => error.hint(),
            Self::Launch(error) => error.hint(),
            Self::Write(error) => error.hint(),
        }
    }
}

/// The first error, and how many more there are.
fn summary(report: &planner::Report) -> String {
    let mut errors = report.errors();
    match (errors.next(), errors.count()) {
        (None, _) => "no rule is broken".to_owned(),
        (Some(first), 0) => first.message.clone(),
        (Some(first), more) => format!("{}, and {more} more", first.message),
    }
}
