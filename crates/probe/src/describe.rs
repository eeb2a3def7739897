//! A machine that one does not have, from a short description.

use spec::Machine;

/// placeholder
#[derive(Debug, thiserror::Error)]
#[error("placeholder")]
pub struct DescribeMachineError;

/// placeholder
///
/// # Errors
/// placeholder
pub fn describe(_text: &str) -> Result<Machine, DescribeMachineError> {
    Err(DescribeMachineError)
}
