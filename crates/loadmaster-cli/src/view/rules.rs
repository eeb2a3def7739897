//! `validate --rules`: every rule that there is.

use super::{SCHEMA_VERSION, View};
use crate::render::{BAD, CAUTION, DIM, Text, styled};
use loadmaster::planner::validate::{RULES, Rule, Severity};
use schemars::JsonSchema;
use serde::Serialize;

/// Result of `loadmaster validate --rules`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RulesView {
    /// Version of this layout.
    pub schema_version: u32,
    /// Every rule.
    pub rules: Vec<RuleView>,
}

/// A rule.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RuleView {
    /// Its stable name.
    pub id: &'static str,
    /// `error` or `warning`.
    pub severity: String,
    /// When it is broken.
    pub condition: &'static str,
    /// What shows it, or who says so.
    pub evidence: &'static str,
    /// What to do.
    pub fix: &'static str,
}

impl RulesView {
    /// The table.
    pub fn new() -> Self {
        Self { schema_version: SCHEMA_VERSION, rules: RULES.iter().map(RuleView::from).collect() }
    }
}

impl From<&Rule> for RuleView {
    fn from(rule: &Rule) -> Self {
        let &Rule { id, severity, condition, evidence, fix, quiet: _ } = rule;
        Self { id, severity: severity.to_string(), condition, evidence, fix }
    }
}

impl View for RulesView {
    fn text(&self, text: &mut Text) {
        for rule in &self.rules {
            let style = if rule.severity == Severity::Error.to_string() { BAD } else { CAUTION };
            text.note(style, &rule.severity, format_args!("{}: {}", rule.id, rule.condition));
            text.note(DIM, "  shown by", rule.evidence);
            text.note(DIM, "  fix", rule.fix);
        }
        text.line(styled(DIM, format_args!("{} rules", self.rules.len())));
    }
}
