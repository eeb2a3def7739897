//! `validate`: the rules that a configuration breaks.

use super::{ModelName, SCHEMA_VERSION, View};
use crate::render::{BAD, CAUTION, DIM, GOOD, Text, styled};
use loadmaster::planner::validate::{Report, Severity, Violation};
use schemars::JsonSchema;
use serde::Serialize;

/// Result of `loadmaster validate`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ValidateView {
    /// Version of this layout.
    pub schema_version: u32,
    /// What was checked.
    pub file: String,
    /// The model it was checked with.
    pub model: ModelName,
    /// The machine it was checked against.
    pub machine: String,
    /// The engine it was checked against.
    pub engine: String,
    /// True without any error.
    pub valid: bool,
    /// Errors first.
    pub violations: Vec<ViolationView>,
}

/// A rule that is broken.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ViolationView {
    /// `error` or `warning`.
    pub severity: String,
    /// Stable name of the rule.
    pub rule: String,
    /// The setting, or `memory`.
    pub setting: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub fix: String,
}

impl From<&Violation> for ViolationView {
    fn from(violation: &Violation) -> Self {
        Self {
            severity: violation.severity.to_string(),
            rule: violation.rule.to_owned(),
            setting: violation.setting.to_owned(),
            message: violation.message.clone(),
            fix: violation.fix.clone(),
        }
    }
}

impl ValidateView {
    /// The view of a report.
    pub fn new(file: String, model: ModelName, machine: String, engine: String, report: &Report) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            file,
            model,
            machine,
            engine,
            valid: report.is_valid(),
            violations: report.violations.iter().map(Into::into).collect(),
        }
    }
}

impl View for ValidateView {
    fn text(&self, text: &mut Text) {
        let verdict = match (self.valid, self.violations.is_empty()) {
            (true, true) => styled(GOOD, "valid"),
            (true, false) => styled(CAUTION, "valid, with warnings"),
            (false, _) => styled(BAD, "not valid"),
        };
        text.line(format_args!("{verdict}  {} for {}", self.file, self.model));
        text.line(styled(DIM, format_args!("on {} with {}", self.machine, self.engine)));
        if !self.violations.is_empty() {
            text.gap();
        }
        for violation in &self.violations {
            let style = if violation.severity == Severity::Error.to_string() { BAD } else { CAUTION };
            text.note(style, &violation.severity, format_args!("{} [{}]: {}", violation.setting, violation.rule, violation.message));
            text.note(DIM, "  fix", &violation.fix);
        }
    }
}
