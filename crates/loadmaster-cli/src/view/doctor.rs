//! `doctor`: what a machine could do better, and how.

use super::View;
use crate::render::{BAD, CAUTION, COMMAND, DIM, GOOD, Text, styled};
use loadmaster::doctor::{Finding, Severity, findings};
use schemars::JsonSchema;
use serde::Serialize;
use spec::Machine;

/// Result of `loadmaster doctor`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DoctorView {
    /// `loadmaster.doctor/1`.
    pub schema: String,
    /// `live`, the path of a recording, or the description of the machine.
    pub origin: String,
    /// Everything that was found, the gravest first.
    pub findings: Vec<Finding>,
}

impl DoctorView {
    /// The findings of a machine.
    pub fn new(machine: &Machine) -> Self {
        Self { schema: "loadmaster.doctor/1".to_owned(), origin: machine.origin.clone(), findings: findings(machine) }
    }

    /// True where something costs speed or memory.
    pub fn ails(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity > Severity::Note)
    }
}

impl View for DoctorView {
    fn text(&self, text: &mut Text) {
        if self.findings.is_empty() {
            text.line(styled(GOOD, "nothing found that slows models down here"));
            return;
        }
        write(text, &self.findings);
    }
}

/// Findings as remarks, each with its evidence and the way out.
pub fn write(text: &mut Text, findings: &[Finding]) {
    for finding in findings {
        let (style, mark) = match finding.severity {
            Severity::Problem => (BAD, "x"),
            Severity::Caution => (CAUTION, "!"),
            Severity::Note => (DIM, "-"),
        };
        text.note(style, mark, &finding.what);
        if text.verbose() {
            text.line(format_args!("    {}", styled(DIM, format_args!("[{}] {}", finding.id, finding.evidence))));
        }
        if let Some(fix) = &finding.fix {
            text.line(format_args!("    {} {}", styled(DIM, "fix"), styled(COMMAND, fix)));
        }
    }
}
