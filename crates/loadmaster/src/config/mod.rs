//! The configuration file: a model, a use case, preferences and pinned settings, versioned.
//!
//! ```toml
//! loadmaster = 1                     # version of this format
//! model = "models/qwen3-8b.gguf"     # relative to this file
//! use_case = "general"
//! engine = "bitnet:q8_0"             # how our own engine computes a BitNet model; all others are not named here
//!
//! [preferences]
//! device = "auto"
//! margin = "2GiB"                    # or a share of the memory: 0.1
//!
//! [workload]                         # what requests look like, where the use case has it wrong
//! prompt_tokens = 6000
//! users = 2
//!
//! [beside]                           # what is loaded beside the model, as llama-server spells it
//! lora = ["adapter.gguf"]            # relative to this file
//!
//! [settings]                         # llama-server's names; what is not here is planned
//! n_ctx = 16384
//! cache_type_k = "q8_0"
//!
//! [metadata]                         # written by `plan --output`: what it was planned for
//! machine = "rtx4090,ram=64GiB"
//! file_type = "Q4_K_M"
//!
//! [expected.decode_tokens_per_s]     # and what was promised
//! low = 61.2
//! typical = 84.0
//! high = 102.5
//! ```
//!
//! The same as JSON is taken too; the content decides, not the file's name. Reading is strict: an unknown key is an error
//! that names its line and the nearest key that exists. Older versions are migrated, newer ones refused.

mod beside;
mod error;
mod json;
mod metadata;
mod migrate;
mod read;
mod schema;
mod write;

pub use error::{ConfigError, ConfigErrorKind};
pub use metadata::{Expected, Interval, Metadata};
pub use schema::schema;
pub use write::Format;

use crate::advise::Advice;
use crate::beside::Beside;
use crate::error::WriteError;
use crate::known::precision::Choice;
use crate::open::Origin;
use footprint::bitnet::BitNet;
use planner::{Asked, Preferences, UseCase};
use spec::settings::Pins;
use std::path::{Path, PathBuf};

/// The version that this build writes, and the newest that it reads.
pub const VERSION: u64 = 1;

/// A larger file is no configuration.
const MAX_SIZE: u64 = 1 << 20;

/// What a configuration file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigFile {
    /// The model, as written; see [`ConfigFile::model_path`].
    pub model: Option<PathBuf>,
    /// What the model is for; `None` where the file does not say.
    pub use_case: Option<UseCase>,
    /// How our own engine computes the model, where it does and the file says it.
    pub engine: Option<BitNet>,
    /// What of its requests and floors is otherwise.
    pub workload: Asked,
    /// What matters beyond that; what the file does not say has its default.
    pub preferences: Preferences,
    /// What is loaded beside the model, paths as written; see [`ConfigFile::beside_from`].
    pub beside: Beside,
    /// Settings that are fixed.
    pub settings: Pins,
    /// What it was planned for, where a plan wrote it.
    pub metadata: Metadata,
    /// What that plan promised.
    pub expected: Expected,
    /// What was changed while reading an older version, for people.
    pub migrated: Vec<String>,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is no TOML or JSON, has an unknown key or a value out of range, or is of a newer version.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let at = |kind| ConfigError { path: Some(path.to_owned()), line: None, kind };
        let about = std::fs::metadata(path).map_err(|source| at(ConfigErrorKind::Read(source)))?;
        if about.len() > MAX_SIZE {
            return Err(at(ConfigErrorKind::TooLarge { size: about.len(), most: MAX_SIZE }));
        }
        let bytes = std::fs::read(path).map_err(|source| at(ConfigErrorKind::Read(source)))?;
        let text = String::from_utf8(bytes).map_err(|error| at(ConfigErrorKind::NotUtf8 { offset: error.utf8_error().valid_up_to() }))?;
        Self::parse(&text).map_err(|error| ConfigError { path: Some(path.to_owned()), ..error })
    }

    /// Reads a text.
    ///
    /// # Errors
    /// As [`ConfigFile::read`], without a path.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        read::parse(text)
    }

    /// The file's text.
    pub fn to_text(&self, format: Format) -> String {
        write::to_text(self, format)
    }

    /// Writes the file, whole or not at all: JSON where its name ends in `.json`, else TOML.
    ///
    /// # Errors
    /// The folder does not exist or is not writable, or the disk is full.
    pub fn save(&self, path: &Path) -> Result<(), WriteError> {
        crate::store::write_atomically(path, self.to_text(Format::of(path)).as_bytes())
    }

    /// The model's path; a relative one is relative to the folder of `config`, the file it was read from.
    pub fn model_path(&self, config: &Path) -> Option<PathBuf> {
        Some(config.parent().unwrap_or(Path::new("")).join(self.model.as_ref()?))
    }

    /// What is loaded beside the model; relative paths are relative to the folder of `config`, the file it was read from.
    pub fn beside_from(&self, config: &Path) -> Beside {
        let folder = config.parent().unwrap_or(Path::new(""));
        self.beside.clone().with_paths(|path| folder.join(path))
    }

    /// Everything of a plan fixed, but for what is loaded beside the model: the same settings again on the same machine. `model` is the
    /// file as the configuration should name it, `hardware` says in a few words what the machine is. A model of which no file was read
    /// is only named in the metadata.
    pub fn from_advice(advice: &Advice, model: &Path, hardware: &str, choice: Option<&Choice>) -> Self {
        let plan = advice.plan.plan();
        Self {
            model: (!matches!(advice.origin, Origin::Assumed(_))).then(|| model.to_owned()),
            metadata: Metadata::of(advice, hardware, choice),
            expected: Expected::of(plan),
            use_case: Some(plan.request.use_case),
            engine: advice.engine.rules.profile.bitnet,
            workload: plan.request.asked,
            preferences: plan.request.preferences,
            beside: Beside::default(),
            settings: Pins::from(plan.settings.clone()),
            migrated: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
