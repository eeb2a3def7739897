//! The planner's table of flags as arguments of a command line.
//!
//! The table knows every setting with llama-server's spellings; here each row becomes one argument that takes a value
//! and one switch per value that has a spelling of its own. Parser, help, completions, manual page and
//! [`crate::rewrite`] all go by these.

use loadmaster::planner::emit::flags::{Flag, flags};

/// What follows a spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: the spelling stands for this value.
    Fixed(&'static str),
    /// A value.
    Value,
    /// One of these words, or nothing, which stands for the second part.
    Maybe(&'static [&'static str], &'static str),
}

/// One argument: all spellings that mean the same.
#[derive(Clone, Debug)]
pub struct Form {
    /// The setting it writes.
    pub row: &'static Flag,
    /// The spelling that clap sees, with its dashes.
    pub long: &'static str,
    /// Every spelling, with dashes.
    pub spellings: Vec<&'static str>,
    /// What follows.
    pub takes: Takes,
}

impl Form {
    /// The canonical spelling without dashes; also its id in the parser.
    pub fn name(&self) -> &'static str {
        self.long.trim_start_matches('-')
    }
}

/// Every form, in the order of the table.
pub fn forms() -> Vec<Form> {
    flags().iter().flat_map(row_forms).collect()
}

/// Words that llama-server takes after `-fa`, beside those of the table (`common/arg.cpp`, `is_truthy`, `is_falsey`,
/// `is_autoy`): the next argument is a value only if it is one of these.
const FLASH_WORDS: &[&str] = &["on", "off", "auto", "enabled", "disabled", "true", "false", "1", "0", "-1"];

fn row_forms(row: &'static Flag) -> Vec<Form> {
    let mut forms = Vec::new();
    if !row.spellings.is_empty() {
        // llama-server's help has `-fa [on|off|auto]`: alone it means on.
        let takes = if row.setting == "flash_attn" { Takes::Maybe(FLASH_WORDS, "on") } else { Takes::Value };
        forms.push(Form { row, long: row.long(), spellings: row.spellings.to_vec(), takes });
    }
    let mut values: Vec<&'static str> = Vec::new();
    for fixed in row.fixed {
        if !values.contains(&fixed.value) {
            values.push(fixed.value);
        }
    }
    for value in values {
        let spellings: Vec<_> = row.fixed.iter().filter(|fixed| fixed.value == value).map(|fixed| fixed.flag).collect();
        if let Some(long) = spellings.iter().copied().find(|spelling| spelling.starts_with("--")) {
            forms.push(Form { row, long, spellings, takes: Takes::Fixed(value) });
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_spelling_of_the_table_is_one_argument() {
        let mut seen = BTreeSet::new();
        for form in forms() {
            assert!(form.spellings.contains(&form.long));
            for spelling in form.spellings {
                assert!(spelling.starts_with('-') && seen.insert(spelling), "{spelling} twice");
            }
        }
        for row in flags() {
            for spelling in row.spellings.iter().chain(row.fixed.iter().map(|fixed| &fixed.flag)) {
                assert!(seen.contains(spelling), "{spelling} is no argument");
            }
        }
    }
}
