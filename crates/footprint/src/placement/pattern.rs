//! Patterns of tensor names, as the engine reads them: `std::regex_search` in ECMAScript's grammar
//! (`src/llama-model-loader.cpp:1237-1239`).

use regex::Regex;

/// Steps that a pattern with look-ahead or a back-reference may take in one name. A name has fewer than 128 bytes, so what
/// needs more would keep the engine busy without end.
const MOST_STEPS: usize = 100_000;

/// A pattern that is searched in names.
#[derive(Clone, Debug)]
pub struct Pattern(Machine);

#[derive(Clone, Debug)]
enum Machine {
    /// Linear in the length of the name.
    Linear(Regex),
    /// With look-ahead or back-references.
    Backtracking(Box<fancy_regex::Regex>),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    ///
    /// ```
    /// let experts_but_the_shared = footprint::Pattern::new(r"ffn_(?!norm).*_exps\.")?;
    /// assert_eq!(experts_but_the_shared.is_match("blk.3.ffn_up_exps.weight"), Ok(true));
    /// assert_eq!(experts_but_the_shared.is_match("blk.3.ffn_up_shexp.weight"), Ok(false));
    /// assert_eq!(footprint::Pattern::new("exps(").unwrap_err(), "unclosed group");
    /// # Ok::<(), String>(())
    /// ```
    pub fn new(text: &str) -> Result<Self, String> {
        let plain = match Regex::new(text) {
            Ok(regex) => return Ok(Self(Machine::Linear(regex))),
            Err(error) => last_line(&error.to_string()),
        };
        match fancy_regex::RegexBuilder::new(text).backtrack_limit(MOST_STEPS).build() {
            Ok(regex) => Ok(Self(Machine::Backtracking(Box::new(regex)))),
            // What neither knows is told in the plain reader's words.
            Err(_) => Err(plain),
        }
    }

    /// Whether it is found in `name`.
    ///
    /// # Errors
    /// A search that was given up, for people. Only patterns with look-ahead or back-references can take that long.
    pub fn is_match(&self, name: &str) -> Result<bool, String> {
        match &self.0 {
            Machine::Linear(regex) => Ok(regex.is_match(name)),
            Machine::Backtracking(regex) => {
                regex.is_match(name).map_err(|_| format!("the search in {name:?} was given up after {MOST_STEPS} steps"))
            }
        }
    }

    /// True where [`Pattern::is_match`] cannot fail.
    pub(super) fn is_linear(&self) -> bool {
        matches!(self.0, Machine::Linear(_))
    }
}

/// The reason of a multi-line regex error, without its drawing.
fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_without_end_is_given_up() {
        let pattern = Pattern::new(r"(?!x)(a|a|a)*(a|a|a)*(a|a|a)*(a|a|a)*b\1$").unwrap();
        let error = pattern.is_match(&"a".repeat(120)).unwrap_err();
        assert!(error.ends_with("was given up after 100000 steps"), "{error}");
        assert!(!pattern.is_linear());
    }
}
