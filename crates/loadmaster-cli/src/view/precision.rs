//! How the file type of a model was chosen of which no file was read.

use crate::render::{DIM, Text, styled};
use loadmaster::known::precision::Choice;
use schemars::JsonSchema;
use serde::Serialize;

/// How a file type came to be planned.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PrecisionView {
    /// The type: `Q4_K_M`.
    pub file_type: String,
    /// True where it was named; false where the use case chose it.
    pub named: bool,
    /// Better types, best first, and what each would give up.
    pub passed_over: Vec<PassedOverView>,
}

/// A type that was not taken.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PassedOverView {
    /// The type.
    pub file_type: String,
    /// What it would give up, or why it has no plan.
    pub because: String,
}

impl PrecisionView {
    /// The view of a choice.
    pub fn new(choice: &Choice) -> Self {
        let passed_over = choice
            .passed_over
            .iter()
            .map(|(file_type, because)| PassedOverView { file_type: file_type.to_string(), because: because.clone() })
            .collect();
        Self { file_type: choice.file_type.to_string(), named: choice.named, passed_over }
    }

    /// Where the shape is from, and why this type.
    pub fn text(&self, source: &str, use_case: &str, text: &mut Text) {
        let why = match (self.named, self.passed_over.first()) {
            (true, _) => "the type is the one named".to_owned(),
            (false, None) => format!("{} is the best type that {use_case} asks for", self.file_type),
            (false, Some(_)) => {
                let passed: Vec<&str> = self.passed_over.iter().map(|passed| passed.file_type.as_str()).collect();
                format!("{} after {}, each of which gives something up", self.file_type, passed.join(", "))
            }
        };
        text.line(styled(DIM, format_args!("no file was read: shape of {source}; {why}")));
        self.passed_over_text(text);
    }

    /// Where the shape is from, and of which type the refusal is.
    pub fn refusal_text(&self, source: &str, text: &mut Text) {
        let passed: Vec<&str> = self.passed_over.iter().map(|passed| passed.file_type.as_str()).collect();
        let why = match passed.as_slice() {
            [] => format!("in {}", self.file_type),
            passed => format!("in {}, after {}, which have no plan either", self.file_type, passed.join(", ")),
        };
        text.line(styled(DIM, format_args!("no file was read: shape of {source}, {why}")));
        self.passed_over_text(text);
    }

    fn passed_over_text(&self, text: &mut Text) {
        if text.verbose() {
            for passed in &self.passed_over {
                text.note(DIM, "-", format_args!("{}: {}", passed.file_type, passed.because));
            }
        }
    }
}
