//! Speed over a range of depths, and the time of a whole request.

use super::load::Pass;
use super::predictor::{Configuration, Predictor, micro_batch};
use super::range::Range;
use super::speculation::{Drafted, Speculation};
use super::times::duration;
use super::{HostState, Prediction, moved_by_overrides};
use crate::inventory::Inventory;
use crate::plan::Margin;
use crate::plan::pools::room_on_host;
use crate::workload::Workload;
use footprint::{Draft, Requirement, Target};
use roofline::Parameters;
use spec::{Known, Machine, Model, Settings, TokensPerSec};
use std::time::Duration;

/// What is to be forecast of one configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Question<'a> {
    /// The requests.
    pub workload: Workload,
    /// Tokens in the context of a sequence, for each of which a speed is wanted.
    pub depths: Vec<u32>,
    /// What drafts tokens, if anything does.
    pub draft: Option<&'a Draft>,
    /// What of the host's memory is left to others, as in the plan ([`crate::plan::Preferences::margin`]): weights that find no place beside it come from
    /// disk.
    pub margin: Option<Margin>,
    /// The speed model: [`Parameters::fitted`], or what runs on this machine made of it.
    pub parameters: &'a Parameters,
}

/// Speed of one configuration over depths and for requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Speed half way through the answer of a request.
    pub prediction: Prediction,
    /// Speed at each depth, in the order asked for.
    pub curve: Vec<SpeedAt>,
    /// A request's times.
    pub request: RequestTimes,
    /// Decode with tokens drafted, where something drafts them.
    pub speculation: Option<Speculation>,
}

/// Speed of one sequence at a depth.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeedAt {
    /// Tokens in the context.
    pub depth: u32,
    /// Tokens generated per second.
    pub decode: Known<TokensPerSec>,
    /// Tokens of a prompt read per second over the micro-batch that begins here, or that ends where the context does.
    pub prefill: Known<TokensPerSec>,
}

/// Times of requests that arrive together. Prompts are read one after another, answers written together.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestTimes {
    /// The requests.
    pub workload: Workload,
    /// Tokens of a prompt read per second, over those that are computed, behind those that the cache holds.
    pub prefill: Known<TokensPerSec>,
    /// From the arrival to the first token of the last of them.
    pub first_token: Known<Duration>,
    /// From the arrival to the last token.
    pub whole: Known<Duration>,
    /// Tokens per second of one answer, on average.
    pub decode: Known<TokensPerSec>,
    /// Tokens per second of all answers together, on average.
    pub together: Known<TokensPerSec>,
}

/// Depths worth asking for in a context of `n_ctx` tokens: none, 1024, and each twice the one before, the whole context last.
///
/// ```
/// assert_eq!(planner::predict::depths(5000), [0, 1024, 2048, 4096, 5000]);
/// ```
pub fn depths(n_ctx: u32) -> Vec<u32> {
    let mut depths = vec![0];
    let doubled = std::iter::successors(Some(1024_u32), |depth| depth.checked_mul(2));
    depths.extend(doubled.take_while(|&depth| depth < n_ctx));
    depths.extend((n_ctx > 0).then_some(n_ctx));
    depths
}

/// Forecasts `settings`, whose requirement is `requirement`.
pub fn forecast(
    machine: &Machine,
    model: &Model,
    target: &Target,
    settings: &Settings,
    requirement: &Requirement,
    question: &Question<'_>,
) -> Forecast {
    let inventory = Inventory::required(model, requirement);
    let moved = moved_by_overrides(model, target, settings);
    let state = HostState::of(room_on_host(machine, question.margin), requirement);
    let predictor = Predictor::with_parameters(machine, target, &inventory, question.parameters);
    let configuration = Configuration { settings, layer_devices: &requirement.layer_devices, moved: &moved, state: &state };
    let workload = &question.workload;
    let context = requirement.context.n_ctx_seq.max(1);
    let middle = workload.prompt.saturating_add(workload.output / 2).min(context);
    let drafting = question.draft.map(|draft| {
        let (predictor, inventory, parameters) = (&predictor, &inventory, question.parameters);
        Drafted { predictor, configuration, machine, target, inventory, draft, parameters }.speculation(middle)
    });
    Forecast {
        prediction: predictor.speed(settings, &requirement.layer_devices, &moved, &state, middle),
        curve: question.depths.iter().map(|&depth| speed_at(&predictor, configuration, depth, context)).collect(),
        request: predictor.request(configuration, workload),
        speculation: drafting,
    }
}

fn speed_at(predictor: &Predictor<'_>, configuration: Configuration<'_>, depth: u32, context: u32) -> SpeedAt {
    let depth = depth.min(context);
    let tokens = micro_batch(configuration.settings).min(context);
    let prompt = predictor.prompt(configuration, depth.min(context - tokens), tokens);
    SpeedAt {
        depth,
        decode: predictor.decode(configuration, Pass::decode(depth, 1)).rate(1.0, predictor.source()),
        prefill: prompt.rate(f64::from(tokens), predictor.source()),
    }
}

impl Predictor<'_> {
    /// Time of reading the prompts of requests that arrive together.
    pub(crate) fn prompts(&self, configuration: Configuration<'_>, workload: &Workload) -> Range {
        match workload.computed() {
            0 => Range::ZERO,
            tokens => self.prompt(configuration, workload.prompt - tokens, tokens).total().scale(f64::from(workload.users.max(1))),
        }
    }

    /// Times of requests that arrive together.
    pub(crate) fn request(&self, configuration: Configuration<'_>, workload: &Workload) -> RequestTimes {
        let (users, output) = (workload.users.max(1), workload.output.max(1));
        let prompts = self.prompts(configuration, workload);
        // Speed falls evenly with depth: the middle stands for all.
        let middle = workload.prompt.saturating_add(output / 2);
        let step = self.decode(configuration, Pass::decode(middle, users)).total();
        let first = prompts.plus(step);
        let whole = first.plus(step.scale(f64::from(output - 1)));
        let seconds = |range: Range| Known::estimated(duration(range.mid), duration(range.low), duration(range.high), self.source());
        let rate = |tokens: u32, time: Range| {
            let of = |seconds: f64| TokensPerSec::new(f64::from(tokens) / seconds);
            match (of(time.mid), of(time.high), of(time.low)) {
                (Some(mid), Some(low), Some(high)) => Known::estimated(mid, low, high, self.source()),
                _ => Known::unknown("the model's file gives nothing to compute"),
            }
        };
        let prefill = match workload.computed() {
            0 => Known::unknown("the cache holds the whole prompt"),
            tokens => rate(tokens.saturating_mul(users), prompts),
        };
        RequestTimes {
            workload: *workload,
            prefill,
            first_token: seconds(first),
            whole: seconds(whole),
            decode: rate(1, step),
            together: rate(users, step),
        }
    }

    /// Central seconds of [`RequestTimes::first_token`] and of [`RequestTimes::whole`], without words, intervals or allocation.
    pub(crate) fn request_seconds(&self, configuration: Configuration<'_>, workload: &Workload) -> (f64, f64) {
        let (users, output) = (workload.users.max(1), workload.output.max(1));
        let prompts = match workload.computed() {
            0 => 0.0,
            tokens => self.prompt_seconds(configuration, workload.prompt - tokens, tokens) * f64::from(users),
        };
        let middle = workload.prompt.saturating_add(output / 2);
        let step = self.decode_seconds(configuration, Pass::decode(middle, users));
        (prompts + step, prompts + step * f64::from(output))
    }
}
