//! The same interface in a build without an engine.

use super::{BundledOptions, DryRun, Generated, Generation, Prompt};
use crate::advise::Advice;
use crate::engine::EngineError;
use crate::launch::{Event, Interrupts, LaunchError, Outcome};
use spec::Settings;
use std::path::Path;

/// A loaded model. In this build there is none.
#[derive(Debug)]
pub enum Session {}

/// Starts the engine inside this program.
///
/// # Errors
/// Always [`EngineError::NotBundled`].
pub fn start(
    _advice: &Advice,
    _options: &BundledOptions,
    _interrupts: &Interrupts,
    _on: &mut dyn FnMut(Event<'_>),
) -> Result<Session, LaunchError> {
    Err(EngineError::NotBundled.into())
}

/// Asks the engine what it would allocate.
///
/// # Errors
/// Always [`EngineError::NotBundled`].
pub fn dry_run(
    _model: &Path,
    _settings: &Settings,
    _devices: &[footprint::Device],
    _n_outputs: u32,
    _options: &BundledOptions,
    _interrupts: &Interrupts,
) -> Result<DryRun, LaunchError> {
    Err(EngineError::NotBundled.into())
}

impl Session {
    /// Whether the model has a chat template that the engine knows.
    pub fn has_chat_template(&self) -> bool {
        match *self {}
    }

    /// Continues a prompt.
    ///
    /// # Errors
    /// None: there is no session.
    pub fn generate(
        &mut self,
        _prompt: &Prompt,
        _generation: &Generation,
        _interrupts: &Interrupts,
        _on: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generated, LaunchError> {
        match *self {}
    }

    /// Ends the engine and tells what it used.
    pub fn finish(self) -> Outcome {
        match self {}
    }
}
