//! `plan --explain`: every setting with its value, where that comes from, and what it would cost to change it.

use super::quantity::Seconds;
use super::{Quantity, SettingView};
use crate::render::{Align, Cell, DIM, HEADING, Table, Text};
use loadmaster::planner::plan::{Knob, Other};
use schemars::JsonSchema;
use serde::Serialize;

/// A setting of a plan, and what it would cost to change it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct KnobView {
    /// Its name and value.
    #[serde(flatten)]
    pub setting: SettingView,
    /// `pinned`, `searched`, `rule`, `engine default`.
    pub origin: String,
    /// Why it has that value.
    pub because: String,
    /// Other values, each evaluated anew; empty where no other changes memory or speed.
    pub others: Vec<OtherView>,
}

/// Another value of a setting.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OtherView {
    /// The value.
    pub value: String,
    /// Seconds of a typical request over those of the plan; null where the value cannot be had.
    pub time_ratio: Option<f64>,
    /// Seconds of a typical request then; absent where the value cannot be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    pub request_s: Option<Quantity<Seconds>>,
    /// What it costs, or why it cannot be had.
    pub cost: String,
}

impl From<&Knob> for KnobView {
    fn from(knob: &Knob) -> Self {
        let other = |other: &Other| OtherView {
            value: other.value.clone(),
            time_ratio: other.cost.as_ref().ok().map(|cost| cost.time),
            request_s: other.cost.as_ref().ok().map(|cost| Quantity::of(&cost.request)),
            cost: other.cost.as_ref().map_or_else(|why| format!("cannot be had: {why}"), ToString::to_string),
        };
        Self {
            setting: SettingView::new(knob.setting, knob.value.clone()),
            origin: knob.origin.to_string(),
            because: knob.because.clone(),
            others: knob.others.iter().map(other).collect(),
        }
    }
}

/// Each setting as a line, with a line for each other value below it.
pub fn knobs_text(knobs: &[KnobView], text: &mut Text) {
    text.section("Every setting: where it comes from, and a typical request with another value (P50, P10 to P90)");
    let mut table = Table::new([Align::Left; 4]);
    table.header(["setting", "value", "source", "why, or what changing it costs"]);
    for knob in knobs {
        table.row([
            Cell::plain(knob.setting.flag.clone()),
            Cell::styled(HEADING, if knob.setting.value.is_empty() { "-" } else { &knob.setting.value }),
            Cell::plain(knob.origin.clone()),
            Cell::styled(DIM, knob.because.clone()),
        ]);
        for other in &knob.others {
            let value = if other.value.is_empty() { "none" } else { &other.value };
            table.row([Cell::plain(""), Cell::plain(format!("  or {value}")), Cell::plain(""), Cell::plain(other.cost.clone())]);
        }
    }
    text.table(&table);
}
