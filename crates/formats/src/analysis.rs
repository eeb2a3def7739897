//! What a model computes and reads per token.

use spec::Model;

/// The analysis of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    /// Weights in all.
    pub parameters: u64,
    /// Weights that one token touches.
    pub active_parameters: u64,
}

/// Analyses a model.
pub fn analyze(model: &Model) -> Analysis {
    Analysis { parameters: model.parameters(), active_parameters: model.parameters() }
}
