//! The engine inside this program, in a child process of the same executable.
//!
//! llama.cpp ends its process where it cannot go on. In a child of our own that is an error with the last lines of its
//! log, and memory is given back to the last byte. Without the feature `bundled`, [`start`] says so and nothing else is
//! missing.

use super::{GRACE, SILENCE};
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "bundled")]
mod session;
#[cfg(feature = "bundled")]
pub use session::{Session, dry_run, start};

#[cfg(not(feature = "bundled"))]
mod absent;
#[cfg(not(feature = "bundled"))]
pub use absent::{Session, dry_run, start};

/// The hidden subcommand of the executable that runs the engine: it calls `llama::child::main`.
pub const SUBCOMMAND: &str = "engine-child";

/// How to start the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundledOptions {
    /// The executable with the hidden subcommand; `None` takes the running one.
    pub executable: Option<PathBuf>,
    /// How long it may show no sign of life.
    pub silence: Duration,
    /// How long it may take to end when asked to.
    pub grace: Duration,
    /// Compute one token while loading, so that the first prompt pays no page faults.
    pub warm_up: bool,
}

impl Default for BundledOptions {
    fn default() -> Self {
        Self { executable: None, silence: SILENCE, grace: GRACE, warm_up: true }
    }
}

/// What the engine would allocate.
#[derive(Clone, Debug, PartialEq)]
pub struct DryRun {
    /// The engine's version.
    pub engine: String,
    /// Its buffers.
    pub buffers: Vec<super::ReportedBuffer>,
}

/// What to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A text as it is.
    Text(String),
    /// A conversation, written out by the model's own chat template.
    Chat(Vec<ChatMessage>),
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// How to continue it.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Tokens at most; cut to what the context holds.
    pub n_predict: u32,
    /// Softmax temperature; 0 always takes the likeliest token.
    pub temperature: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens up to this probability mass; 1 keeps all.
    pub top_p: f32,
    /// Seed of the choice.
    pub seed: u32,
}

impl Default for Generation {
    /// llama.cpp's temperature, top-k and top-p, with a fixed seed and 128 tokens.
    fn default() -> Self {
        Self { n_predict: 128, temperature: 0.8, top_k: 40, top_p: 0.95, seed: 0 }
    }
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model ended it.
    EndOfText,
    /// The number of tokens asked for.
    Length,
    /// The context is full.
    ContextFull,
    /// A signal.
    Cancelled,
}

/// A text that was generated.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The text.
    pub text: String,
    /// Why it ended.
    pub stop: Stop,
    /// Computing the prompt.
    pub prefill: super::Timing,
    /// Generating the text.
    pub decode: super::Timing,
}

/// Whether this build has an engine inside, and its version.
pub fn version() -> Option<String> {
    #[cfg(feature = "bundled")]
    return Some(llama::build_info().version);
    #[cfg(not(feature = "bundled"))]
    None
}

/// Instruction sets that the engine inside uses and this machine lacks; empty where it can run.
pub fn missing_features() -> Vec<String> {
    #[cfg(feature = "bundled")]
    return llama::build_info().missing_here();
    #[cfg(not(feature = "bundled"))]
    Vec::new()
}

/// Instruction sets that the kernels of the engine inside were built for; `None` where there is no engine or they are not
/// known by name.
pub fn cpu_features() -> Option<std::collections::BTreeSet<String>> {
    #[cfg(feature = "bundled")]
    return Some(llama::build_info().cpu_features).filter(|features| !features.is_empty());
    #[cfg(not(feature = "bundled"))]
    None
}

/// Time that a prompt may take: the silence that is allowed, and four times what the plan predicts for it at worst.
#[cfg(feature = "bundled")]
fn prefill_allowance(slowest: Option<spec::TokensPerSec>, prompt_bytes: usize, silence: Duration) -> Duration {
    // A token is at least one byte.
    let predicted = slowest.map(|rate| prompt_bytes as f64 / rate.get());
    let allowed = predicted.and_then(|seconds| Duration::try_from_secs_f64(seconds * 4.0).ok());
    silence.saturating_add(allowed.unwrap_or(silence * 10))
}
