//! `run`: what was generated, and the receipt: what was planned against what happened.

use super::{SCHEMA_VERSION, Size, View};
use crate::render::{Align, BAD, CAUTION, Cell, DIM, GOOD, HEADING, Table, Text, styled};
use loadmaster::receipt::{Proof, Receipt, SizeLine, SpeedLine};
use schemars::JsonSchema;
use serde::Serialize;

/// Result of `loadmaster run`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RunView {
    /// Version of this layout.
    pub schema_version: u32,
    /// What the model wrote.
    pub text: String,
    /// What was planned against what happened.
    pub receipt: Receipt,
}

impl RunView {
    /// The view of a text and its receipt.
    pub fn new(text: String, receipt: Receipt) -> Self {
        Self { schema_version: SCHEMA_VERSION, text, receipt }
    }
}

impl View for RunView {
    fn text(&self, text: &mut Text) {
        text.line(&self.text);
        ReceiptView(&self.receipt).text(text);
    }
}

/// A receipt for people.
#[derive(Serialize)]
#[serde(transparent)]
pub struct ReceiptView<'a>(pub &'a Receipt);

impl View for ReceiptView<'_> {
    fn text(&self, text: &mut Text) {
        let receipt = self.0;
        let verdict = if receipt.disagreements.is_empty() { styled(GOOD, "the plan held") } else { styled(BAD, "the plan did not hold") };
        text.section(format_args!("Receipt  {verdict}"));
        let mut table = Table::new([Align::Left, Align::Left, Align::Right, Align::Right, Align::Right]);
        table.header(["memory", "", "planned", "reported", "difference"]);
        for place in &receipt.places {
            for part in place.parts.iter().filter(|part| !is_nothing(part)) {
                size_row(&mut table, &place.name, part, false);
            }
            size_row(&mut table, &place.name, &place.total, true);
        }
        for part in [&receipt.process.anonymous, &receipt.process.mapped] {
            size_row(&mut table, "process", part, false);
        }
        text.table(&table);
        text.gap();
        let mut table = Table::new([Align::Left, Align::Right, Align::Left, Align::Right, Align::Right]);
        table.header(["speed", "predicted", "from, to", "measured", "difference"]);
        speed_row(&mut table, "prefill", &receipt.prefill);
        speed_row(&mut table, "decode", &receipt.decode);
        text.table(&table);
        if let Some(ms) = receipt.load_ms {
            text.note(DIM, "-", format_args!("loaded in {:.2} s by {}", ms / 1e3, receipt.engine.name));
        }
        for (name, line) in [("prefill", &receipt.prefill), ("decode", &receipt.decode)] {
            slow_note(name, line, text);
        }
        for difference in &receipt.disagreements {
            text.note(BAD, "!", difference);
        }
        for note in &receipt.notes {
            text.note(CAUTION, "!", note);
        }
    }
}

/// The engine's dry run beside what was computed.
pub fn proof_text(proof: &Proof, text: &mut Text) {
    let verdict = if proof.agrees { styled(GOOD, "the engine agrees") } else { styled(BAD, "the engine disagrees") };
    text.section(format_args!("Proof  {verdict}"));
    let mut table = Table::new([Align::Left, Align::Left, Align::Right, Align::Right, Align::Right]);
    table.header(["memory", "", "computed", "dry run", "difference"]);
    for place in &proof.places {
        for part in place.parts.iter().filter(|part| !is_nothing(part)) {
            size_row(&mut table, &place.name, part, false);
        }
        size_row(&mut table, &place.name, &place.total, true);
    }
    text.table(&table);
    text.note(DIM, "-", format_args!("dry run of {} on this CPU; nothing is mapped in a dry run", proof.engine));
}

/// A part that neither the plan nor the engine knows of.
fn is_nothing(line: &SizeLine) -> bool {
    line.planned.as_ref().is_none_or(|planned| planned.high == 0) && line.reported.unwrap_or(0) == 0
}

fn size_row(table: &mut Table, place: &str, line: &SizeLine, sum: bool) {
    let style = if sum { HEADING } else { anstyle::Style::new() };
    let planned = line.planned.as_ref().map_or_else(
        || "unknown".to_owned(),
        |planned| if planned.low == planned.high { Size(planned.value).to_string() } else { format!("~{}", Size(planned.value)) },
    );
    table.row([
        Cell::styled(style, place),
        Cell::styled(style, line.component.replace('_', " ")),
        Cell::styled(style, planned),
        Cell::styled(style, line.reported.map_or_else(|| "unknown".to_owned(), |bytes| Size(bytes).to_string())),
        Cell::styled(DIM, difference(line.relative_error)),
    ]);
}

fn speed_row(table: &mut Table, name: &str, line: &SpeedLine) {
    let rate = |rate: Option<f64>| rate.map_or_else(|| "unknown".to_owned(), |rate| super::Rate(rate).to_string());
    let interval = match (line.low, line.high) {
        (Some(low), Some(high)) => format!("{} to {}", super::Rate(low), super::Rate(high)),
        _ => line.source.clone(),
    };
    let depth = line.depth.map_or_else(String::new, |depth| format!(" at depth {depth:.0}"));
    let measured = if line.tokens == 0 { "nothing".to_owned() } else { format!("{} ({} tokens{depth})", rate(line.measured), line.tokens) };
    table.row([
        Cell::plain(name),
        Cell::plain(line.predicted.map_or_else(|| "unknown".to_owned(), |value| format!("~{}", super::Rate(value)))),
        Cell::styled(DIM, interval),
        Cell::plain(measured),
        Cell::styled(if line.within == Some(false) { CAUTION } else { DIM }, difference(line.relative_error)),
    ]);
}

/// What to look at where a phase was far slower than predicted.
fn slow_note(name: &str, line: &SpeedLine, text: &mut Text) {
    if let (false, Some(error)) = (line.anomaly.is_empty(), line.relative_error) {
        let share = (1.0 + error) * 100.0;
        text.note(CAUTION, "!", format_args!("{name} is at {share:.0} % of the prediction; look at: {}", line.anomaly.join("; ")));
    }
}

fn difference(share: Option<f64>) -> String {
    match share {
        None => String::new(),
        Some(share) if share.abs() < 0.00005 => "equal".to_owned(),
        Some(share) => format!("{:+.1} %", share * 100.0),
    }
}
