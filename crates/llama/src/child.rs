//! The engine as a child process: one request per line in, messages out.

use std::process::ExitCode;

/// Serves requests from standard input until it ends. See [`crate::protocol`].
pub fn main() -> ExitCode {
    ExitCode::FAILURE
}
