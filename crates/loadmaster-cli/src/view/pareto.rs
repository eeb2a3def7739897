//! A plan among its alternatives: what each is worth, in words and as a picture.

use super::{Quantity, Rate, SettingView};
use crate::render::axes::{Line, Scale, svg};
use loadmaster::planner::emit::flags::{flags, value_text};
use loadmaster::planner::plan::{Alternative, Aspect, Merits};
use loadmaster::spec::Settings;
use schemars::JsonSchema;
use serde::Serialize;

/// What a plan is worth in each aspect.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct MeritsView {
    /// Seconds of a typical request to its first token.
    pub first_token_s: f64,
    /// Seconds of a typical request.
    pub request_s: f64,
    /// Tokens of context.
    pub context_tokens: u32,
    /// Bits of one element of the KV cache, the mean of K and V.
    pub cache_bits: f64,
    /// Share of the devices' memory, or without devices of the host's, that is left.
    pub memory_left: f64,
    /// Processors kept at work times the seconds of a typical request.
    pub processor_s: f64,
}

impl From<&Merits> for MeritsView {
    fn from(merits: &Merits) -> Self {
        Self {
            first_token_s: merits.first_token,
            request_s: merits.seconds,
            context_tokens: merits.n_ctx,
            cache_bits: merits.cache_bits,
            memory_left: merits.memory_left,
            processor_s: merits.processor_seconds,
        }
    }
}

/// Another plan that fits.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AlternativeView {
    /// What it is.
    pub what: String,
    /// In what it is better: `speed`, `speed to the first token`, `context`, `quality`, `memory left`, ...
    pub better: Vec<String>,
    /// In what it is worse.
    pub worse: Vec<String>,
    /// Its settings that differ from the plan's.
    pub settings: Vec<SettingView>,
    /// Its decode speed.
    pub decode_tokens_per_s: Quantity<Rate>,
    /// What it is worth.
    #[serde(flatten)]
    pub merits: MeritsView,
    /// By how much it is better and worse.
    pub why_not: String,
}

impl AlternativeView {
    /// An alternative to a plan with these settings.
    pub fn new(other: &Alternative, plan: &Settings) -> Self {
        let words = |aspects: &[Aspect]| aspects.iter().map(ToString::to_string).collect();
        let differs =
            flags().iter().map(|flag| flag.setting).filter(|setting| value_text(plan, setting) != value_text(&other.settings, setting));
        Self {
            what: other.what.clone(),
            better: words(&other.better),
            worse: words(&other.worse),
            settings: differs.map(|setting| SettingView::new(setting, value_text(&other.settings, setting))).collect(),
            decode_tokens_per_s: Quantity::of(&other.decode),
            merits: (&other.merits).into(),
            why_not: other.why_not.clone(),
        }
    }
}

/// An axis of the picture, and what a plan has on it.
type Axis = (&'static str, Scale, fn(&MeritsView) -> f64);

const AXES: [Axis; 6] = [
    ("request, s", Scale::LessIsBetter, |merits| merits.request_s),
    ("first token, s", Scale::LessIsBetter, |merits| merits.first_token_s),
    ("context", Scale::MoreIsBetter, |merits| merits.context_tokens as f64),
    ("cache, bits", Scale::MoreIsBetter, |merits| merits.cache_bits),
    ("memory left, %", Scale::MoreIsBetter, |merits| merits.memory_left * 100.0),
    ("processors × s", Scale::LessIsBetter, |merits| merits.processor_s),
];

/// A plan and its alternatives as a picture: decode with its interval, and each as a line over the aspects.
pub fn picture(title: &str, (what, decode, merits): (&str, &Quantity<Rate>, &MeritsView), alternatives: &[AlternativeView]) -> String {
    let chosen = line(format!("the plan: {what}"), decode, merits);
    let others = alternatives.iter().map(|other| line(other.what.clone(), &other.decode_tokens_per_s, &other.merits));
    let lines: Vec<Line> = std::iter::once(chosen).chain(others).collect();
    svg(title, "decode, tok/s (P10 to P90)", &AXES.map(|(name, scale, _)| (name, scale)), &lines)
}

fn line(name: String, decode: &Quantity<Rate>, merits: &MeritsView) -> Line {
    let interval = match decode {
        Quantity::Exact { value, .. } => Some((value.0, value.0, value.0)),
        Quantity::Estimated { value, low, high, .. } => Some((low.0, value.0, high.0)),
        Quantity::Unknown { .. } => None,
    };
    Line { name, interval, values: AXES.iter().map(|(_, _, of)| of(merits)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merits(request_s: f64, context_tokens: u32) -> MeritsView {
        MeritsView {
            first_token_s: request_s / 10.0,
            request_s,
            context_tokens,
            cache_bits: 16.0,
            memory_left: 0.0,
            processor_s: request_s,
        }
    }

    #[test]
    fn a_plan_and_its_alternatives_are_drawn() {
        let rate =
            |value: f64| Quantity::Estimated { value: Rate(value), low: Rate(value * 0.8), high: Rate(value * 1.1), source: "test".into() };
        let other = |what: &str, request_s, context_tokens, decode| AlternativeView {
            what: what.into(),
            better: Vec::new(),
            worse: Vec::new(),
            settings: Vec::new(),
            decode_tokens_per_s: decode,
            merits: merits(request_s, context_tokens),
            why_not: String::new(),
        };
        let alternatives = [
            other("41 of 81 layers <GPU>", 80.0, 131_072, rate(2.0)),
            other("unknown", 10.0, 2048, Quantity::Unknown { reason: "no".into() }),
        ];
        insta::assert_snapshot!(picture("m on \u{1} a & b", ("all layers", &rate(25.0), &merits(10.0, 8192)), &alternatives));
    }
}
