//! `recommend`: models ranked for a machine and a use case.

use super::requirement::central;
use super::{Quantity, Rate, SCHEMA_VERSION, Size, View};
use crate::render::{Align, BAD, CAUTION, Cell, DIM, GOOD, HEADING, Table, Text, styled};
use loadmaster::planner::Request;
use loadmaster::recommend::{Figures, Outcome, Ranked, Recommendations, needed};
use schemars::JsonSchema;
use serde::Serialize;

/// Result of `loadmaster recommend`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RecommendView {
    /// `loadmaster.recommend/1`.
    pub schema: String,
    /// Version of this layout.
    pub schema_version: u32,
    /// The machine planned for.
    pub machine: String,
    /// The engine planned for.
    pub engine: String,
    /// The use case planned for.
    pub use_case: String,
    /// Tokens per second that the use case needs.
    pub needed_tokens_per_s: f64,
    /// Candidates that could be opened.
    pub candidates: usize,
    /// The best of them, best first.
    pub ranked: Vec<RankedView>,
    /// Candidates that could not be looked at.
    pub skipped: Vec<SkippedView>,
}

/// One candidate.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RankedView {
    /// Its rank, from 1.
    pub rank: usize,
    /// As it was named: a path or a name.
    pub name: String,
    /// What the model calls itself.
    pub model: String,
    /// `qwen3`, `llama`, ...
    pub architecture: String,
    /// `Q4_K_M`, where it is known.
    pub file_type: Option<String>,
    /// Where the shape was published, of a model of which no file was read; absent where one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assumed: Option<String>,
    /// Weights in all.
    pub parameters: u64,
    /// Weights that one token passes.
    pub active_parameters: u64,
    /// Size of the weights.
    pub weight_bytes: Size,
    /// Bits of one weight, all tensors together.
    pub bits_per_weight: f64,
    /// Proxy of quality by size and bits alone, in nats per token: lower is better.
    pub expected_loss: f64,
    /// `fits`, `fits_after_downgrade`, `refused`.
    pub verdict: &'static str,
    /// Figures of its plan; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<FiguresView>,
    /// Why it stands where it stands.
    pub reasons: Vec<String>,
}

/// Figures of a plan.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FiguresView {
    /// `CPU only`, `GPU only`, `hybrid`.
    pub strategy: String,
    /// Tokens of context.
    pub n_ctx: u32,
    /// Tokens per second while generating.
    pub decode_tokens_per_s: Quantity<Rate>,
    /// Tokens per second while a prompt is read.
    pub prefill_tokens_per_s: Quantity<Rate>,
    /// Memory of all pools, weights in the page cache included.
    pub memory_bytes: Quantity<Size>,
}

/// A candidate that could not be looked at.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SkippedView {
    /// As it was named.
    pub name: String,
    /// Why not.
    pub reason: String,
}

impl RecommendView {
    /// The view of what was found, `limit` candidates of it.
    pub fn new(found: &Recommendations, request: &Request, machine: String, engine: String, limit: u32) -> Self {
        let shown = found.ranked.iter().take(usize::try_from(limit).unwrap_or(usize::MAX));
        Self {
            schema: "loadmaster.recommend/1".to_owned(),
            schema_version: SCHEMA_VERSION,
            machine,
            engine,
            use_case: request.use_case.to_string(),
            needed_tokens_per_s: needed(request),
            candidates: found.ranked.len(),
            ranked: shown.enumerate().map(|(index, ranked)| RankedView::new(index + 1, ranked)).collect(),
            skipped: found
                .skipped
                .iter()
                .map(|(name, reason)| SkippedView { name: name.display().to_string(), reason: reason.clone() })
                .collect(),
        }
    }
}

impl RankedView {
    fn new(rank: usize, ranked: &Ranked) -> Self {
        let (verdict, plan) = match &ranked.outcome {
            Outcome::Planned(figures) => {
                (if figures.in_full { "fits" } else { "fits_after_downgrade" }, Some(FiguresView::from(&**figures)))
            }
            Outcome::Refused { .. } => ("refused", None),
        };
        Self {
            rank,
            name: ranked.name.display().to_string(),
            model: ranked.model.clone(),
            architecture: ranked.architecture.clone(),
            file_type: ranked.file_type.clone(),
            assumed: ranked.assumed.clone(),
            parameters: ranked.parameters,
            active_parameters: ranked.active_parameters,
            weight_bytes: ranked.weights.into(),
            bits_per_weight: ranked.bits_per_weight,
            expected_loss: ranked.loss,
            verdict,
            plan,
            reasons: ranked.reasons.clone(),
        }
    }

    /// What it is called in a table: its own name, or that of its file where the name says less.
    fn shown(&self) -> String {
        match &self.file_type {
            Some(ty) if !self.model.to_ascii_lowercase().ends_with(&ty.to_ascii_lowercase()) => format!("{} {ty}", self.model),
            _ => self.model.clone(),
        }
    }
}

impl From<&Figures> for FiguresView {
    fn from(figures: &Figures) -> Self {
        Self {
            strategy: figures.strategy.to_string(),
            n_ctx: figures.n_ctx,
            decode_tokens_per_s: Quantity::of(&figures.decode),
            prefill_tokens_per_s: Quantity::of(&figures.prefill),
            memory_bytes: Quantity::of(&figures.memory),
        }
    }
}

/// Parameters in a few signs: `8.2 B`, with experts `30.5 B, 3.4 B at work`.
fn parameters(view: &RankedView) -> String {
    let short = |n: u64| if n >= 1_000_000_000 { format!("{:.1} B", n as f64 / 1e9) } else { format!("{:.0} M", n as f64 / 1e6) };
    // Embeddings are not multiplied with; only experts halve what is at work.
    if view.active_parameters.saturating_mul(2) < view.parameters {
        format!("{}/{}", short(view.parameters), short(view.active_parameters))
    } else {
        short(view.parameters)
    }
}

/// The middle of an interval of rates.
fn typical(rate: &Quantity<Rate>) -> String {
    match rate {
        Quantity::Exact { value, .. } | Quantity::Estimated { value, .. } => format!("~{value}"),
        Quantity::Unknown { .. } => "unknown".to_owned(),
    }
}

impl View for RecommendView {
    fn text(&self, text: &mut Text) {
        text.line(format_args!("{} of {} models for {}", self.ranked.len(), self.candidates, styled(HEADING, &self.use_case)));
        text.line(styled(DIM, format_args!("on {} with {}", self.machine, self.engine)));
        let quality = "best by size and bits first that fit and are fast enough";
        text.line(styled(DIM, format_args!("{quality} ({:.1} tok/s); all speeds are estimates", self.needed_tokens_per_s)));
        if self.ranked.is_empty() {
            return;
        }
        text.gap();
        let mut table =
            Table::new([Align::Right, Align::Left, Align::Right, Align::Right, Align::Left, Align::Right, Align::Right, Align::Left]);
        table.header(["", "model", "weights", "bits", "", "decode", "context", ""]);
        for ranked in &self.ranked {
            let (style, verdict) = match ranked.verdict {
                "fits" => (GOOD, "fits"),
                "refused" => (BAD, "refused"),
                _ => (CAUTION, "downgraded"),
            };
            let (decode, context, strategy) = match &ranked.plan {
                Some(plan) => (typical(&plan.decode_tokens_per_s), plan.n_ctx.to_string(), plan.strategy.clone()),
                None => (String::new(), String::new(), String::new()),
            };
            table.row([
                Cell::plain(ranked.rank.to_string()),
                Cell::styled(HEADING, ranked.shown()),
                Cell::plain(parameters(ranked)),
                Cell::plain(format!("{:.1}", ranked.bits_per_weight)),
                Cell::styled(style, verdict),
                Cell::plain(decode),
                Cell::plain(context),
                Cell::styled(DIM, strategy),
            ]);
        }
        text.table(&table);
        let told = if text.verbose() { self.ranked.len() } else { 1 };
        for ranked in self.ranked.iter().take(told) {
            text.gap();
            let from = ranked.assumed.as_ref().map_or_else(|| ranked.name.clone(), |source| format!("shape of {source}, no file was read"));
            text.line(format_args!("{}  {}", styled(HEADING, ranked.shown()), styled(DIM, from)));
            if let Some(plan) = &ranked.plan {
                let speed = format!("decode {}, prompt {}", plan.decode_tokens_per_s, plan.prefill_tokens_per_s);
                text.note(DIM, "-", format_args!("{speed}; {} in all", central(&plan.memory_bytes)));
            }
            for reason in &ranked.reasons {
                text.note(DIM, "-", reason);
            }
        }
    }
}
