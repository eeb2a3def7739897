//! The one table of flags: every setting with llama.cpp's spellings, the kind of its value, its help, and how its text is
//! read and written. Emission, validation, the command line's pins and configuration files all go by these rows.

use spec::Settings;
use spec::settings::Pins;

/// What text a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// A whole number from zero.
    Count,
    /// A switch: spellings that turn it on, and others that turn it off; no value follows.
    Switch,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// Comma-separated numbers.
    Shares,
    /// `PATTERN=BUFFER`, comma-separated, and may be repeated.
    Overrides,
}

/// A spelling that carries its value: `--no-repack` is `repack` off, `--mlock` is a load mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// The spelling, dashes included.
    pub flag: &'static str,
    /// The value it stands for, as [`Flag::read`] takes it.
    pub value: &'static str,
}

/// One setting as a flag.
#[derive(Debug)]
pub struct Flag {
    /// Field of [`Settings`] and [`Pins`].
    pub setting: &'static str,
    /// Spellings that a value follows, short first; empty for switches.
    pub spellings: &'static [&'static str],
    /// Spellings that carry their value.
    pub fixed: &'static [Fixed],
    /// What follows.
    pub kind: ValueKind,
    /// Placeholder of the value in help: `N`, `TYPE`.
    pub metavar: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Environment variable that llama.cpp reads for it.
    pub env: &'static str,
    read: fn(&str, &mut Pins) -> Result<(), String>,
    write: fn(&Settings) -> String,
}

impl Flag {
    /// Writes the value that `text` stands for into `pins`. `auto`, and -1 where llama.cpp means automatic by it, removes
    /// the pin.
    ///
    /// # Errors
    /// What is wrong with the text, for people.
    pub fn read(&self, text: &str, pins: &mut Pins) -> Result<(), String> {
        (self.read)(text, pins)
    }
    /// The setting's value as text that [`Flag::read`] takes.
    pub fn write(&self, settings: &Settings) -> String {
        (self.write)(settings)
    }
}

/// Every setting, in the order of [`Settings`].
pub fn flags() -> &'static [Flag] {
    &[]
}

/// The row of a setting.
pub fn flag(setting: &str) -> Option<&'static Flag> {
    flags().iter().find(|flag| flag.setting == setting)
}
