//! EMIT: a valid plan as the exact command that starts it, from one table of flags.

pub mod flags;
mod invocation;
mod text;

pub use invocation::{Invocation, Listen, Program};
pub use text::{ALL, Fixed};

use crate::validate::ValidPlan;
use std::fmt;

/// The programs of llama.cpp that take a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// The engine built into loadmaster: settings are handed over as they are, no flags.
    Bundled,
    /// `llama-server`.
    Server,
    /// `llama-cli`.
    Cli,
    /// `llama-bench`.
    Bench,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bundled => "bundled engine",
            Self::Server => "llama-server",
            Self::Cli => "llama-cli",
            Self::Bench => "llama-bench",
        })
    }
}

/// The command that starts a plan. Cannot fail: what a program cannot express, [`crate::validate`] has refused.
pub fn emit(_plan: &ValidPlan, program: &Program) -> Invocation {
    Invocation { program: program.path.clone().into_os_string(), args: Vec::new(), env: Default::default(), env_remove: Vec::new() }
}
