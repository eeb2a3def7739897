//! Decode with tokens drafted ahead and verified together.

use super::SOURCE;
use super::load::Pass;
use super::predictor::{Configuration, Predictor};
use super::range::Range;
use super::state::HostState;
use crate::inventory::Inventory;
use crate::workload::Workload;
use footprint::{Draft, Target};
use roofline::Parameters;
use spec::{Known, Machine, Settings, TokensPerSec};

/// Decode with tokens drafted ahead.
#[derive(Clone, Debug, PartialEq)]
pub struct Speculation {
    /// Tokens drafted per step.
    pub drafted: u32,
    /// Probability that a drafted token is accepted, the ones before it having been: assumed, for it depends on the text.
    pub acceptance: Known<f64>,
    /// Tokens that a step gains: those accepted and one more.
    pub tokens_per_step: Known<f64>,
    /// Tokens per second of one sequence.
    pub decode: Known<TokensPerSec>,
}

/// Acceptance of a model's own prediction layers (0.74 to 0.80 with Qwen3.6 27B in public runs), and of another model of the family, which
/// differs more between texts.
const OWN: Range = Range::new(0.55, 0.75, 0.88);
const OTHER: Range = Range::new(0.35, 0.6, 0.85);

/// Expected tokens of a step that drafts `drafted` tokens, each accepted with this probability if all before it were:
/// (1 − p^(k+1)) ÷ (1 − p).
pub(super) fn tokens_per_step(probability: f64, drafted: u32) -> f64 {
    (0..=drafted.min(1024)).map(|k| probability.powi(k.cast_signed())).sum()
}

/// A configuration with what drafts for it: both on one machine.
#[derive(Clone, Copy)]
pub(crate) struct Drafted<'a> {
    pub(crate) predictor: &'a Predictor<'a>,
    pub(crate) configuration: Configuration<'a>,
    pub(crate) machine: &'a Machine,
    pub(crate) target: &'a Target,
    pub(crate) inventory: &'a Inventory,
    pub(crate) draft: &'a Draft,
    pub(crate) parameters: &'a Parameters,
}

/// Requests that are answered with drafted tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DraftedRequest {
    /// Tokens drafted per step.
    pub(crate) drafted: u32,
    /// Seconds from request to first token, of the last of those served together.
    pub(crate) first_token: Range,
    /// Seconds to the last token of all.
    pub(crate) whole: Range,
    /// Seconds per token of one answer.
    pub(crate) token: Range,
}

impl Drafted<'_> {
    /// What drafts, as if it were a model of its own: its layers, where they lie, and the settings of its context.
    fn drafting<T>(&self, work: impl FnOnce(&Predictor<'_>, Configuration<'_>) -> T) -> T {
        let Self { configuration, draft, .. } = *self;
        let state = HostState { missing: 0.0, repacked: 0.0, ..*configuration.state };
        let last = configuration.layer_devices.last().copied().flatten();
        let (model, home, settings) = match &draft.model {
            None => (self.inventory.of_prediction_layers(), last, configuration.settings.clone()),
            Some(model) => {
                let on_device = draft.n_gpu_layers != Some(0) && !self.target.devices.is_empty();
                let settings = Settings {
                    cache_type_k: draft.cache_type_k,
                    cache_type_v: draft.cache_type_v,
                    n_cpu_moe: 0,
                    ..configuration.settings.clone()
                };
                (Inventory::of(model), on_device.then_some(0), settings)
            }
        };
        let homes = vec![home; model.layers.len() + 1];
        let predictor = Predictor::with_parameters(self.machine, self.target, &model, self.parameters);
        work(&predictor, Configuration { settings: &settings, layer_devices: &homes, moved: &[], state: &state })
    }

    /// Time of a step: verification of all drafted tokens and one more of each sequence, and drafting them one by one.
    fn step(&self, drafted: u32, sequences: u32, depth: u32, one: Range) -> Range {
        let tokens = drafted.saturating_add(1).saturating_mul(sequences);
        let verify = self.predictor.decode(self.configuration, Pass { tokens, sequences, depth, outputs: tokens });
        verify.total().plus(one.scale(f64::from(drafted)))
    }

    /// Probability that a drafted token is accepted.
    fn chance(&self) -> Range {
        if self.draft.model.is_some() { OTHER } else { OWN }
    }

    /// Times of requests that arrive together, for each number of tokens drafted per step. The draft reads the prompts as well.
    pub(crate) fn requests(&self, workload: &Workload, drafted: &[u32]) -> Vec<DraftedRequest> {
        let (users, output) = (workload.users.max(1), workload.output.max(1));
        let middle = workload.prompt.saturating_add(output / 2);
        let (own_prompts, one) = self.drafting(|predictor, configuration| {
            (predictor.prompts(configuration, workload), predictor.decode(configuration, Pass::decode(middle, users)).total())
        });
        let prompts = self.predictor.prompts(self.configuration, workload).plus(own_prompts);
        let chance = self.chance();
        let request = |&drafted: &u32| {
            let step = self.step(drafted, users, middle, one);
            let first_token = prompts.plus(step);
            let tokens = |chance| tokens_per_step(chance, drafted);
            let token = step.over(Range::new(tokens(chance.low), tokens(chance.mid), tokens(chance.high)));
            DraftedRequest { drafted, first_token, whole: first_token.plus(token.scale(f64::from(output - 1))), token }
        };
        drafted.iter().map(request).collect()
    }

    /// Decode of one sequence at `depth`: E[accepted + 1] ÷ time of a step.
    pub(crate) fn speculation(&self, depth: u32) -> Speculation {
        let drafted = self.draft.n_max.max(1);
        let one = self.drafting(|predictor, configuration| predictor.decode(configuration, Pass::decode(depth, 1)).total());
        let step = self.step(drafted, 1, depth, one);
        let chance = self.chance();
        let [low, mid, high] = [chance.low, chance.mid, chance.high].map(|chance| tokens_per_step(chance, drafted));
        let rate = |tokens: f64, seconds: f64| TokensPerSec::new(tokens / seconds);
        let decode = match (rate(mid, step.mid), rate(low, step.high), rate(high, step.low)) {
            (Some(mid), Some(low), Some(high)) => Known::estimated(mid, low, high, SOURCE),
            _ => Known::unknown("the model's file gives nothing to compute"),
        };
        Speculation { drafted, acceptance: self.acceptance(), tokens_per_step: Known::estimated(mid, low, high, ACCEPTANCE), decode }
    }

    /// Probability that a drafted token is accepted, the ones before it having been.
    pub(crate) fn acceptance(&self) -> Known<f64> {
        let chance = self.chance();
        Known::estimated(chance.mid, chance.low, chance.high, ACCEPTANCE)
    }
}

/// What acceptance rests on.
const ACCEPTANCE: &str = "usual acceptance; it depends on the text";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_tokens_are_a_geometric_sum() {
        assert!((tokens_per_step(0.5, 3) - 1.875).abs() < 1e-12);
        assert_eq!(tokens_per_step(1.0, 3), 4.0);
        assert_eq!(tokens_per_step(0.0, 3), 1.0);
    }
}
