//! Decode with tokens drafted ahead and verified together.

use super::SOURCE;
use super::load::Pass;
use super::predictor::{Configuration, Predictor};
use super::range::Range;
use super::state::HostState;
use crate::inventory::Inventory;
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

/// Decode of a configuration at `depth` with `draft` ahead of it: E[accepted + 1] ÷ (verification of all drafted tokens and one more +
/// drafting them one by one).
#[expect(clippy::too_many_arguments, reason = "a model and its draft, both on one machine")]
pub(crate) fn speculation(
    predictor: &Predictor<'_>,
    configuration: Configuration<'_>,
    machine: &Machine,
    target: &Target,
    inventory: &Inventory,
    draft: &Draft,
    depth: u32,
    parameters: &Parameters,
) -> Speculation {
    let drafted = draft.n_max.max(1);
    let verify = predictor
        .decode(configuration, Pass { tokens: drafted.saturating_add(1), sequences: 1, depth, outputs: drafted.saturating_add(1) });
    let state = HostState { missing: 0.0, repacked: 0.0, ..*configuration.state };
    let last = configuration.layer_devices.last().copied().flatten();
    let (model, home, settings) = match &draft.model {
        None => (inventory.of_prediction_layers(), last, configuration.settings.clone()),
        Some(model) => {
            let on_device = draft.n_gpu_layers != Some(0) && !target.devices.is_empty();
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
    let drafting = Predictor::with_parameters(machine, target, &model, parameters);
    let one = drafting
        .decode(Configuration { settings: &settings, layer_devices: &homes, moved: &[], state: &state }, Pass::decode(depth, 1))
        .total();
    let step = verify.total().plus(one.scale(f64::from(drafted)));
    let chance = if draft.model.is_some() { OTHER } else { OWN };
    let [low, mid, high] = [chance.low, chance.mid, chance.high].map(|chance| tokens_per_step(chance, drafted));
    let rate = |tokens: f64, seconds: f64| TokensPerSec::new(tokens / seconds);
    let decode = match (rate(mid, step.mid), rate(low, step.high), rate(high, step.low)) {
        (Some(mid), Some(low), Some(high)) => Known::estimated(mid, low, high, SOURCE),
        _ => Known::unknown("the model's file gives nothing to compute"),
    };
    let source = "usual acceptance; it depends on the text";
    Speculation {
        drafted,
        acceptance: Known::estimated(chance.mid, chance.low, chance.high, source),
        tokens_per_step: Known::estimated(mid, low, high, source),
        decode,
    }
}

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
