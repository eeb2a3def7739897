//! Which model to run on a machine: files at hand, known models, or one model in every type, planned and ranked.
//!
//! Each candidate is opened and planned as `plan` would do it. Ranked are, in this order: what fits in full before what fits after giving
//! something up, before what has no plan; what generates at least as fast as the use case needs ([`needed`]) before what is slower; then
//! by [`quality::loss`], and of equal ones the faster. Slower ones are ranked by speed.

mod find;
pub mod quality;

pub use find::{Candidate, FindError, QUANTISATIONS, candidates, known_today, quantisations};

use crate::advise::{Advice, Ground};
use crate::error::Error;
use crate::known::precision;
use crate::open::{self, Origin};
use planner::{Plan, UseCase};
use spec::{Bytes, Known, TokensPerSec};
use std::path::PathBuf;
use std::sync::Mutex;

/// A candidate that could be opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// As it was named.
    pub name: PathBuf,
    /// What the model calls itself.
    pub model: String,
    /// `qwen3`, `llama`, ...
    pub architecture: String,
    /// `Q4_K_M`, where the file states one.
    pub file_type: Option<String>,
    /// Where the shape was published, of a model of which no file was read.
    pub assumed: Option<String>,
    /// Weights in all.
    pub parameters: u64,
    /// Weights that one token passes.
    pub active_parameters: u64,
    /// Size of the weights.
    pub weights: Bytes,
    /// Of one weight, all tensors together.
    pub bits_per_weight: f64,
    /// The proxy of quality, in nats per token: lower is better.
    pub loss: f64,
    /// What came of planning it.
    pub outcome: Outcome,
    /// Why it stands where it stands, in sentences.
    pub reasons: Vec<String>,
}

/// What came of planning a candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It runs.
    Planned(Box<Figures>),
    /// It has no plan.
    Refused {
        /// Why, and the nearest change that would help.
        why: String,
    },
}

/// Figures of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// True where nothing was given up.
    pub in_full: bool,
    /// Which processors compute.
    pub strategy: planner::plan::Strategy,
    /// Tokens of context.
    pub n_ctx: u32,
    /// Tokens per second while generating.
    pub decode: Known<TokensPerSec>,
    /// Tokens per second while a prompt is read.
    pub prefill: Known<TokensPerSec>,
    /// Memory of all pools, weights in the page cache included.
    pub memory: Known<Bytes>,
}

/// What was found, best first, and what could not be looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recommendations {
    /// Every candidate that could be opened, best first.
    pub ranked: Vec<Ranked>,
    /// The others, and why.
    pub skipped: Vec<(PathBuf, String)>,
}

impl Recommendations {
    /// How many of them run at all.
    pub fn runs(&self) -> usize {
        self.ranked.iter().filter(|ranked| matches!(ranked.outcome, Outcome::Planned(_))).count()
    }
}

/// People read 238 words a minute in silence (Brysbaert 2019, "How many words do we read per minute?"), which at four tokens for three
/// words are 5.3 tokens per second.
const READING: f64 = 5.3;

/// Tokens per second below which a model is too slow for a request: what the use case or the user demands; where neither does, as fast as
/// people read; nothing for requests that nobody watches (`batch`).
pub fn needed(request: &planner::Request) -> f64 {
    match request.demand().min_decode {
        Some(demanded) => demanded,
        None if request.use_case == UseCase::Batch => 0.0,
        None => READING,
    }
}

/// Plans every candidate for the machine and engine and ranks them. Uses the processors that there are; the result does not depend on
/// how many.
pub fn recommend(ground: &Ground, request: &planner::Request, candidates: &[Candidate]) -> Recommendations {
    let next = Mutex::new(candidates.iter().enumerate());
    let found = Mutex::new(Vec::new());
    let work = || {
        while let Some((index, candidate)) = next.lock().ok().and_then(|mut next| next.next()) {
            let one = look_at(ground, request, candidate);
            if let Ok(mut found) = found.lock() {
                found.push((index, one));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_default();
    found.sort_by_key(|(index, _)| *index);
    let mut result = Recommendations::default();
    for ((_, one), candidate) in found.into_iter().zip(candidates) {
        match one {
            Ok(ranked) => result.ranked.push(ranked),
            Err(reason) => result.skipped.push((candidate.name.clone(), reason)),
        }
    }
    let floor = needed(request);
    // Stable: of equals the order of the candidates counts.
    result.ranked.sort_by(|a, b| key(a, floor).cmp(&key(b, floor)).then_with(|| within(a, b, floor)));
    result
}

/// Class of a candidate, best first.
fn key(ranked: &Ranked, floor: f64) -> (u8, bool) {
    match &ranked.outcome {
        Outcome::Planned(figures) => (u8::from(!figures.in_full), rate(figures) < floor),
        Outcome::Refused { .. } => (2, false),
    }
}

/// Order within a class.
fn within(a: &Ranked, b: &Ranked, floor: f64) -> std::cmp::Ordering {
    let speed = |ranked: &Ranked| match &ranked.outcome {
        Outcome::Planned(figures) => rate(figures),
        Outcome::Refused { .. } => 0.0,
    };
    let by_speed = speed(b).total_cmp(&speed(a));
    let by_quality = a.loss.total_cmp(&b.loss);
    match key(a, floor) {
        (0 | 1, true) => by_speed.then(by_quality),
        // Of those without a plan the smallest comes nearest to one.
        (2, _) => a.weights.cmp(&b.weights),
        _ => by_quality.then(by_speed),
    }
}

fn rate(figures: &Figures) -> f64 {
    figures.decode.get().map_or(0.0, TokensPerSec::get)
}

/// Opens and plans one candidate.
///
/// # Errors
/// It cannot be opened, or no engine loads it: the reason, for people.
fn look_at(ground: &Ground, request: &planner::Request, candidate: &Candidate) -> Result<Ranked, String> {
    let opened = open::open_as(&candidate.name, candidate.quant).map_err(|error| error.to_string())?;
    let survey = ground.survey(opened);
    let (model, analysis, origin) = (survey.model.clone(), survey.analysis.clone(), survey.origin);
    let (advice, _) = precision::advise(survey, request, candidate.quant.is_some());
    let (model, analysis) = match &advice {
        Ok(advice) => (&advice.model, &advice.analysis),
        Err(_) => (&model, &analysis),
    };
    let outcome = match &advice {
        Ok(advice) => Outcome::Planned(Box::new(figures(advice))),
        Err(Error::Refused(refusal)) => Outcome::Refused { why: refused(refusal) },
        Err(error) => return Err(error.to_string()),
    };
    let bits = analysis.weight_bytes.as_f64() * 8.0 / (analysis.parameters.max(1) as f64);
    let native = matches!(origin, Origin::Assumed(known) if known.native().is_some()) || model.architecture == "gpt-oss";
    let loss = quality::loss(analysis.parameters, analysis.active_parameters, model.file_type.as_deref(), bits, native);
    let mut ranked = Ranked {
        name: candidate.name.clone(),
        model: model.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| model.architecture.clone()),
        architecture: model.architecture.clone(),
        file_type: model.file_type.clone(),
        assumed: match origin {
            Origin::Assumed(known) => Some(known.source.clone()),
            Origin::Local | Origin::Planned | Origin::Remote => None,
        },
        parameters: analysis.parameters,
        active_parameters: analysis.active_parameters,
        weights: analysis.weight_bytes,
        bits_per_weight: bits,
        loss,
        outcome,
        reasons: Vec::new(),
    };
    ranked.reasons = reasons(&ranked, advice.ok().as_ref().map(|advice| advice.plan.plan()), request);
    Ok(ranked)
}

fn figures(advice: &Advice) -> Figures {
    let plan = advice.plan.plan();
    Figures {
        in_full: !advice.is_downgraded(),
        strategy: plan.strategy,
        n_ctx: plan.requirement.context.n_ctx,
        decode: plan.prediction.decode.clone(),
        prefill: plan.prediction.prefill.clone(),
        memory: memory(plan),
    }
}

/// What the program holds in all pools; memory that a GPU shares with the host counts once.
fn memory(plan: &Plan) -> Known<Bytes> {
    let own = plan.budgets.iter().filter(|budget| !budget.shares_host);
    let held = own.map(|budget| budget.needed.plus(&budget.mapped)).reduce(|sum, held| sum.plus(&held));
    held.unwrap_or_else(|| Known::unknown("the plan has no pool of memory"))
}

fn refused(refusal: &planner::NoPlan) -> String {
    match refusal.nearest.first() {
        Some(change) => format!("does not fit; it would with {change}"),
        None => "does not fit".to_owned(),
    }
}

fn reasons(ranked: &Ranked, plan: Option<&Plan>, request: &planner::Request) -> Vec<String> {
    let floor = needed(request);
    match (&ranked.outcome, plan) {
        (Outcome::Planned(figures), Some(plan)) => {
            let mut reasons: Vec<String> = plan.verdict.downgrades().iter().map(|step| format!("gives up: {step}")).collect();
            if rate(figures) < floor {
                reasons.push(format!("{} are below the {floor:.1} tok/s that {} needs", figures.decode, request.use_case));
            }
            reasons.push(format!("bound by {}", plan.binding));
            reasons
        }
        (Outcome::Refused { why }, _) => vec![why.clone()],
        (Outcome::Planned(_), None) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
