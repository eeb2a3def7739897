//! `predict MODEL`: speed over depths, and the times of a request.

use super::quantity::Seconds;
use super::{ModelName, Quantity, Rate, View};
use crate::render::plot::{Curve, Point, svg};
use crate::render::{Align, DIM, Table, Text, grouped};
use loadmaster::planner::predict::{Forecast, SpeedAt};
use schemars::JsonSchema;
use serde::Serialize;

/// Result of `loadmaster predict MODEL`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ForecastView {
    /// `loadmaster.predict/1`.
    pub schema: String,
    /// The model.
    pub model: ModelName,
    /// The machine in a few words.
    pub machine: String,
    /// The engine whose rules apply.
    pub engine: String,
    /// The placement, context and cache that the speeds are of.
    pub settings: String,
    /// What the rates rest on: `prior`, `same class`, `this machine`.
    pub basis: &'static str,
    /// What limits decode, half way through the answer: `bandwidth`, `compute`, `link`, `disk`, `launch`.
    pub decode_bottleneck: &'static str,
    /// What limits reading a prompt.
    pub prefill_bottleneck: &'static str,
    /// Speed of one sequence by tokens in its context.
    pub curve: Vec<SpeedAtView>,
    /// Times of a request.
    pub request: RequestView,
    /// Decode with tokens drafted, where something drafts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speculation: Option<SpeculationView>,
    /// Rates that were assumed.
    pub assumptions: Vec<String>,
}

/// Speed at one depth.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SpeedAtView {
    /// Tokens in the context.
    pub depth: u32,
    /// Tokens generated per second; the interval is P10 to P90.
    pub decode_tokens_per_s: Quantity<Rate>,
    /// Tokens of a prompt read per second.
    pub prefill_tokens_per_s: Quantity<Rate>,
}

/// Times of requests that arrive together.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RequestView {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of which the cache holds these already.
    pub shared_prefix_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// Requests at the same time.
    pub users: u32,
    /// Seconds from their arrival to the first token of the last of them.
    pub first_token_s: Quantity<Seconds>,
    /// Seconds from their arrival to the last token.
    pub whole_s: Quantity<Seconds>,
    /// Tokens per second of one answer.
    pub decode_tokens_per_s: Quantity<Rate>,
    /// Tokens per second of all answers together.
    pub together_tokens_per_s: Quantity<Rate>,
}

/// Decode with tokens drafted ahead.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SpeculationView {
    /// Tokens drafted per step.
    pub drafted: u32,
    /// Probability that a drafted token is accepted, assumed.
    pub acceptance: Quantity<f64>,
    /// Tokens that a step gains.
    pub tokens_per_step: Quantity<f64>,
    /// Tokens per second of one sequence, half way through the answer.
    pub decode_tokens_per_s: Quantity<Rate>,
}

/// What a forecast is of.
pub struct Forecasted {
    /// The model.
    pub model: ModelName,
    /// The machine in a few words.
    pub machine: String,
    /// The engine whose rules apply.
    pub engine: String,
    /// Placement, context and cache in words.
    pub settings: String,
}

impl ForecastView {
    /// Of a forecast.
    pub fn new(of: Forecasted, forecast: &Forecast) -> Self {
        let (prediction, request) = (&forecast.prediction, &forecast.request);
        let at = |speed: &SpeedAt| SpeedAtView {
            depth: speed.depth,
            decode_tokens_per_s: Quantity::of(&speed.decode),
            prefill_tokens_per_s: Quantity::of(&speed.prefill),
        };
        Self {
            schema: "loadmaster.predict/1".to_owned(),
            model: of.model,
            machine: of.machine,
            engine: of.engine,
            settings: of.settings,
            basis: prediction.basis.as_str(),
            decode_bottleneck: prediction.decode_bottleneck.as_str(),
            prefill_bottleneck: prediction.prefill_bottleneck.as_str(),
            curve: forecast.curve.iter().map(at).collect(),
            request: RequestView {
                prompt_tokens: request.workload.prompt,
                shared_prefix_tokens: request.workload.shared_prefix,
                output_tokens: request.workload.output,
                users: request.workload.users,
                first_token_s: Quantity::of(&request.first_token),
                whole_s: Quantity::of(&request.whole),
                decode_tokens_per_s: Quantity::of(&request.decode),
                together_tokens_per_s: Quantity::of(&request.together),
            },
            speculation: forecast.speculation.as_ref().map(|speculation| SpeculationView {
                drafted: speculation.drafted,
                acceptance: Quantity::of(&speculation.acceptance),
                tokens_per_step: Quantity::of(&speculation.tokens_per_step),
                decode_tokens_per_s: Quantity::of(&speculation.decode),
            }),
            assumptions: prediction.assumptions.clone(),
        }
    }

    /// The model and the machine.
    pub fn title(&self) -> String {
        format!("{} on {}", self.model, self.machine)
    }

    /// The two curves as a picture.
    pub fn picture(&self) -> String {
        svg(&self.title(), "tokens in the context", &self.curves())
    }

    fn curves(&self) -> [Curve; 2] {
        let curve = |name: &str, of: &dyn Fn(&SpeedAtView) -> &Quantity<Rate>| Curve {
            name: name.to_owned(),
            points: self.curve.iter().filter_map(|speed| point(speed.depth, of(speed))).collect(),
        };
        [
            curve("decode, tok/s (P10 to P90)", &|speed| &speed.decode_tokens_per_s),
            curve("prompt, tok/s (P10 to P90)", &|speed| &speed.prefill_tokens_per_s),
        ]
    }

    fn request_text(&self, text: &mut Text) {
        let request = &self.request;
        let users = if request.users > 1 { format!(", {} at the same time", request.users) } else { String::new() };
        let cached = match request.shared_prefix_tokens {
            0 => String::new(),
            tokens => format!(" ({} of them cached)", grouped(u64::from(tokens))),
        };
        let (prompt, output) = (grouped(u64::from(request.prompt_tokens)), grouped(u64::from(request.output_tokens)));
        text.section(format_args!("A request: {prompt} tokens{cached} in, {output} out{users}"));
        let mut fields = vec![
            ("first token", text.quantity(&request.first_token_s)),
            ("whole request", text.quantity(&request.whole_s)),
            ("decode", text.quantity(&request.decode_tokens_per_s)),
        ];
        if request.users > 1 {
            fields.push(("together", text.quantity(&request.together_tokens_per_s)));
        }
        if let Some(speculation) = &self.speculation {
            fields.push((
                "with drafts",
                format!("{}, {} drafted per step", text.quantity(&speculation.decode_tokens_per_s), speculation.drafted),
            ));
        }
        text.fields(fields);
    }
}

/// What a quantity is on a curve.
fn point(depth: u32, quantity: &Quantity<Rate>) -> Option<Point> {
    let at = if depth >= 1024 && depth.is_multiple_of(1024) { format!("{}k", depth / 1024) } else { depth.to_string() };
    match quantity {
        Quantity::Exact { value, .. } => Some(Point { at, low: value.0, value: value.0, high: value.0 }),
        Quantity::Estimated { value, low, high, .. } => Some(Point { at, low: low.0, value: value.0, high: high.0 }),
        Quantity::Unknown { .. } => None,
    }
}

impl View for ForecastView {
    fn text(&self, text: &mut Text) {
        text.line(self.title());
        text.note(DIM, "-", &self.settings);
        text.note(
            DIM,
            "-",
            format_args!(
                "rates rest on: {}; decode is limited by {}, the prompt by {}",
                self.basis, self.decode_bottleneck, self.prefill_bottleneck
            ),
        );
        text.section("Speed by tokens in the context, P50 (P10 to P90)");
        let mut table = Table::new([Align::Right, Align::Left, Align::Left]);
        table.header(["depth", "decode", "prompt"]);
        for speed in &self.curve {
            table.row([grouped(u64::from(speed.depth)), text.brief(&speed.decode_tokens_per_s), text.brief(&speed.prefill_tokens_per_s)]);
        }
        text.table(&table);
        for curve in self.curves().iter().filter(|curve| curve.points.len() > 1) {
            text.gap();
            curve.text(text);
        }
        self.request_text(text);
        if !self.assumptions.is_empty() {
            text.section("Assumed");
            text.notes(&self.assumptions);
        }
    }
}
