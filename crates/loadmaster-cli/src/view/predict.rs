//! `predict --table`: how far predictions for a table of measurements are off.

use super::{ForecastView, View};
use crate::render::{Align, DIM, Table, Text};
use loadmaster::benchmarks::evaluate::{Outcome, errors};
use loadmaster::benchmarks::{Annotated, Sample};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Result of `loadmaster predict`: of a model, or of a table.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is wanted")]
pub enum PredictOutput {
    /// Of a model.
    Model(Box<ForecastView>),
    /// Of a table.
    Table(PredictView),
}

/// Result of `loadmaster predict --table`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PredictView {
    /// `loadmaster.predict/1`.
    pub schema: String,
    /// The table that was read.
    pub table: String,
    /// The table that was written.
    pub output: String,
    /// Rows in it.
    pub rows: usize,
    /// Rows of which device, model and test could be told.
    pub understood: usize,
    /// Rows for which a speed is predicted; the column `basis` says of the others what is missing.
    pub predicted: usize,
    /// Errors by phase, source and class.
    pub errors: Vec<ErrorsView>,
}

/// How far predictions of one kind are off, every device weighing the same.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ErrorsView {
    /// `decode` or `prefill`.
    pub phase: String,
    /// Who measured: `llama-bench`, `localscore`, `community`, `other engines`.
    pub source: String,
    /// Class of the devices: `nvidia-gddr`.
    pub class: String,
    /// Devices.
    pub devices: usize,
    /// Rows.
    pub rows: usize,
    /// Median of |predicted ÷ measured − 1|.
    pub median: f64,
    /// Its 90th percentile.
    pub p90: f64,
    /// Median of predicted ÷ measured.
    pub ratio: f64,
    /// Share of rows whose measured speed lies between P10 and P90, every row weighing the same.
    pub within: Option<f64>,
}

impl PredictView {
    /// Of a table that was read from `table` and written to `output`.
    pub fn new(annotated: &Annotated, table: &Path, output: &Path) -> Self {
        let outcomes = annotated.outcomes();
        let mut groups: BTreeMap<_, Vec<Outcome<'_>>> = BTreeMap::new();
        let key = |sample: &Sample| (sample.phase, sample.source, sample.class());
        for outcome in &outcomes {
            groups.entry(key(outcome.sample)).or_default().push(*outcome);
        }
        let errors = groups.into_iter().map(|(group, outcomes)| {
            let (phase, source, class) = group;
            let errors = errors(&outcomes);
            ErrorsView {
                phase: phase.as_str().to_owned(),
                source: source.as_str().to_owned(),
                class: class.as_str().to_owned(),
                devices: errors.devices,
                rows: errors.rows,
                median: errors.median,
                p90: errors.p90,
                ratio: errors.bias,
                within: annotated.covered(&|sample| key(sample) == group),
            }
        });
        Self {
            schema: "loadmaster.predict/1".to_owned(),
            table: table.display().to_string(),
            output: output.display().to_string(),
            rows: annotated.rows,
            understood: annotated.samples.len(),
            predicted: annotated.predicted.iter().flatten().count(),
            errors: errors.collect(),
        }
    }
}

impl View for PredictView {
    fn text(&self, text: &mut Text) {
        text.line(format_args!("{} of {} rows predicted, written to {}", self.predicted, self.rows, self.output));
        if self.errors.is_empty() {
            return;
        }
        text.section("Error, every device weighing the same");
        let right = [Align::Right; 6];
        let mut table = Table::new([Align::Left; 3].into_iter().chain(right));
        table.header(["phase", "source", "class", "devices", "rows", "median", "P90", "ratio", "within P10-P90"]);
        let percent = |value: f64| format!("{:.1} %", value * 100.0);
        for line in &self.errors {
            table.row([
                line.phase.clone(),
                line.source.clone(),
                line.class.clone(),
                line.devices.to_string(),
                line.rows.to_string(),
                percent(line.median),
                percent(line.p90),
                format!("{:.2}", line.ratio),
                line.within.map_or_else(String::new, percent),
            ]);
        }
        text.table(&table);
        text.note(DIM, "-", "devices that the parameters were fitted to are predicted better than others; SPEED.md has both");
    }
}
