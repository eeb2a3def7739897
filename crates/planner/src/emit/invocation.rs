//! A command as data, and as text for a shell.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

/// The program to start, and what of the command is no setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Path or name of the executable.
    pub path: PathBuf,
    /// Path of the model, the first shard of a split one.
    pub model: PathBuf,
    /// Where a server listens; ignored by other tools.
    pub listen: Option<Listen>,
    /// Further arguments, appended as they are: `["-p", "Hello"]`.
    pub extra: Vec<OsString>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address: `127.0.0.1`.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A command: program, arguments and environment. Prints as a line that a POSIX shell runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Path or name of the executable.
    pub program: OsString,
    /// Arguments.
    pub args: Vec<OsString>,
    /// Environment variables to set.
    pub env: BTreeMap<String, String>,
    /// Environment variables to remove, because they would change settings.
    pub env_remove: Vec<String>,
}

impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = std::iter::once(&self.program).chain(&self.args).map(|word| OsStr::as_encoded_bytes(word));
        // Only a NUL byte cannot be quoted, and no argument of a process can hold one.
        f.write_str(&String::from_utf8_lossy(&shlex::bytes::try_join(words).unwrap_or_default()))
    }
}
