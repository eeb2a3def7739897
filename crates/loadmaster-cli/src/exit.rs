//! How the program ends: its exit codes, and a failure with what the user can do about it.

use std::fmt;

/// The exit codes, documented in `--help` and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command did what was asked, possibly after a downgrade that it reported.
    Done = 0,
    /// The command line or a configuration file is wrong, or the engine refuses the settings.
    Usage = 2,
    /// The model does not fit.
    Refused = 3,
    /// It fits only after a downgrade, and `--strict` forbids one.
    Downgraded = 4,
    /// No engine that could run it.
    NoEngine = 5,
    /// The launch disagreed with the plan, or the engine failed.
    Engine = 6,
    /// A file cannot be read, understood or written.
    File = 7,
    /// The doctor found what costs speed or memory.
    Ailing = 8,
}

impl Exit {
    /// Every code with its meaning, for the help text and the man page.
    pub const TABLE: &'static [(Self, &'static str)] = &[
        (Self::Done, "done, also after a downgrade that was reported"),
        (Self::Usage, "wrong usage or configuration, or settings the engine refuses"),
        (Self::Refused, "refused: the model does not fit"),
        (Self::Downgraded, "fits only after a downgrade, with --strict"),
        (Self::NoEngine, "no engine found that can run it"),
        (Self::Engine, "the engine failed, or disagreed with the plan or a prediction"),
        (Self::File, "a file is missing, broken, unreadable or cannot be written"),
        (Self::Ailing, "doctor: something costs speed or memory"),
    ];

    /// The code with this number; what no table names is a failure of a file.
    pub fn from_code(code: u8) -> Self {
        Self::TABLE.iter().map(|(exit, _)| *exit).find(|exit| exit.code() == code).unwrap_or(Self::File)
    }

    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// A command that did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// What the shell sees.
    pub exit: Exit,
    /// One sentence: lower case, no full stop, with file and place.
    pub message: String,
    /// What to do about it, where something is known to help.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with `exit`, told as `error` and its causes.
    pub fn new(exit: Exit, error: impl fmt::Display) -> Self {
        Self { exit, message: error.to_string(), hint: None }
    }
    /// The same failure with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// The same failure, its message begun with where it happened.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }
    /// A failure to write a result.
    pub fn output(place: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(Exit::File, format!("cannot write {place}: {error}"))
    }
}

/// What every command returns.
pub type Outcome = Result<Exit, Failure>;

/// An error and everything that caused it, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors already end with the text of their cause.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_code_once_and_in_order() {
        let codes: Vec<_> = Exit::TABLE.iter().map(|(exit, _)| exit.code()).collect();
        assert_eq!(codes, [0, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_failure_says_where() {
        let failure = Failure::new(Exit::File, "not a GGUF file").at("model.gguf").hint("check the download");
        assert_eq!(failure.message, "model.gguf: not a GGUF file");
        assert_eq!(failure.hint.as_deref(), Some("check the download"));
    }
}
