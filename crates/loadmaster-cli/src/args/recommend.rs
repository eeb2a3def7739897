//! `recommend`: which models, and how many of them to show.

use super::Wishes;
use clap::{Args, ValueHint};
use std::path::PathBuf;

/// `recommend`
#[derive(Debug, Args)]
pub struct RecommendArgs {
    /// Rank the quantisations of this model: a name such as `qwen3-8b`, or a folder of safetensors. Without it and without
    /// `--models`, the known models that were published in the last two years are ranked
    #[arg(conflicts_with = "models", value_hint = ValueHint::AnyPath)]
    pub model: Option<PathBuf>,
    /// Rank the models of this folder (GGUF files, safetensors), of Ollama's store (`ollama`), or of a list of paths and
    /// names, one a line
    #[arg(long, value_name = "FOLDER|LIST", value_hint = ValueHint::AnyPath)]
    pub models: Option<PathBuf>,
    /// Show so many at most
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// The engine whose rules apply: `bundled`, or the path of a llama-server; without it, the llama-server on PATH, or
    /// the newest one known
    #[arg(long, value_name = "bundled|PATH", value_hint = ValueHint::ExecutablePath)]
    pub engine: Option<String>,
    /// What the models are for.
    #[command(flatten)]
    pub wishes: Wishes,
}
