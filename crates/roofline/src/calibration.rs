//! What runs on one machine say about it: the level of the single device, fitted by the same formula.

use crate::deviations::Deviations;
use crate::fit::{Observation, fit_from, precision};
use crate::parameters::Parameters;
use crate::terms::Sum;
use nalgebra::{Cholesky, DMatrix, DVector};
use std::collections::BTreeMap;

/// The effects of one machine, given all others, and what is not known of them yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    effects: BTreeMap<String, f64>,
    names: Vec<String>,
    covariance: Option<DMatrix<f64>>,
    deviations: Deviations,
}

/// Steps in which the width of a level and the level itself agree.
const TAIL_STEPS: usize = 3;

impl Calibration {
    /// From runs whose device has the identity `identity`; `prior` holds everything else.
    pub fn from_runs(runs: &[&Observation], prior: &Parameters, identity: &str) -> Self {
        Self::with(runs, prior, identity, Deviations::chosen())
    }

    /// As [`Self::from_runs`], with other prior deviations.
    pub fn with(runs: &[&Observation], prior: &Parameters, identity: &str, deviations: &Deviations) -> Self {
        // The level of the device is known where the tables have it; otherwise the runs tell of it and of the machine together.
        let model = identity.split('|').next().unwrap_or(identity);
        let (device, machine) = (format!("/device={model}"), format!("/machine={identity}"));
        let own = |name: &str| name.ends_with(&machine) || (name.ends_with(&device) && !prior.knows(name));
        let mut deviations = deviations.of_one_machine();
        let mut effects = fit_from(runs, prior, &own, &Parameters::default(), &deviations.widened());
        for _ in 0..TAIL_STEPS {
            deviations = deviations.tailed(&effects);
            effects = fit_from(runs, prior, &own, &Parameters::default(), &deviations);
        }
        let (names, precision) = precision(runs, &prior.with(&effects), &own, &deviations);
        let covariance = Cholesky::new(precision).map(|factors| factors.inverse());
        Self { effects, names, covariance, deviations }
    }

    /// Parameters with what was learned.
    pub fn apply(&self, prior: &Parameters) -> Parameters {
        prior.with(&self.effects)
    }

    /// Standard deviation of the logarithm of a time that is left because this machine's effects are not known exactly, and the same
    /// before its runs. `calibrated` holds what [`Self::apply`] gave.
    ///
    /// Runs of the same kind leave little; a time that other bounds make, such as launches after a run that weights bound, stays
    /// uncertain. What the formula itself is off is not in it: intervals of predictions come from [`crate::Spread`].
    pub fn deviation(&self, sum: &Sum, calibrated: &Parameters) -> (f64, f64) {
        let parts = sum.parts(calibrated);
        let total: f64 = parts.iter().map(|(_, time)| time).sum();
        let mut slopes: DVector<f64> = DVector::zeros(self.names.len());
        for (term, (_, time)) in sum.groups.iter().flatten().zip(&parts) {
            for effect in &term.effects {
                if let Some(place) = self.names.iter().position(|name| *name == effect.name) {
                    slopes[place] += effect.coefficient * time / total.max(1e-30);
                }
            }
        }
        let before: f64 = self.names.iter().zip(slopes.iter()).map(|(name, slope)| (slope * self.deviations.of(name)).powi(2)).sum();
        let after = self.covariance.as_ref().map_or(before, |covariance| slopes.dot(&(covariance * &slopes)));
        (after.max(0.0).sqrt(), before.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::Conditions;
    use crate::device::{Class, Device};
    use crate::fit::{Case, Noise};
    use crate::phase::decode;
    use crate::work::{Quant, Shape, Work};

    fn device(identity: Option<&str>) -> Device {
        let (generation, identity) = (Some("ada".to_owned()), identity.map(str::to_owned));
        Device { class: Class::NvidiaGddr, generation, bandwidth: 1e12, vector: Some(4e13), matrix: 4.0, watts: None, identity }
    }

    fn work(gigabytes: f64) -> Work {
        let shape = Shape {
            active_bytes: gigabytes * 1e9,
            all_bytes: gigabytes * 1e9,
            active_elements: gigabytes * 1.7e9,
            output_elements: 5e8,
            quant: Quant::Q4K,
            layers: 32.0,
            width: 4096.0,
            cache_bytes: 4096.0,
            full_layers: 32.0,
            window_layers: 0.0,
            window: 0.0,
            query_width: 4096.0,
            experts: None,
        };
        Work { shape, depth: 0.0, tokens: 128.0, ubatch: 512.0 }
    }

    #[test]
    fn one_slow_run_slows_other_models_on_that_device_only() {
        let prior = Parameters::default();
        let time = |identity, gigabytes, parameters: &Parameters| {
            decode(&device(identity), &work(gigabytes), &Conditions::default()).time(parameters)
        };
        let sum = decode(&device(Some("mine")), &work(5.0), &Conditions::default());
        let rate = 0.7 / time(None, 5.0, &prior);
        let run = Observation { cases: vec![Case { sum, tokens: 1.0 }], rate, noise: Noise { deviation: 0.02, weight: 1.0 } };
        let calibrated = Calibration::from_runs(&[&run], &prior, "mine").apply(&prior);
        let slower = time(Some("mine"), 8.0, &calibrated) / time(None, 8.0, &prior);
        assert!((1.15..1.5).contains(&slower), "{slower}");
        assert!((time(Some("other"), 8.0, &calibrated) / time(None, 8.0, &prior) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_run_tells_less_of_other_types_and_of_experts() {
        let prior = Parameters::default();
        let of = |quant, experts| {
            let shape = Shape { quant, experts, ..work(5.0).shape };
            decode(&device(Some("mine|x")), &Work { shape, ..work(5.0) }, &Conditions::default())
        };
        let run = of(Quant::Q4K, None);
        let rate = 0.8 / run.time(&prior);
        let run = Observation { cases: vec![Case { sum: run, tokens: 1.0 }], rate, noise: Noise { deviation: 0.02, weight: 1.0 } };
        let learned = Calibration::from_runs(&[&run], &prior, "mine|x").apply(&prior);
        let slower = |sum: Sum| sum.time(&learned) / sum.time(&prior);
        let [same, other] = [of(Quant::Q4K, None), of(Quant::Q8, None)].map(slower);
        assert!(1.02 < other && other < same && same < 1.26, "{other} {same}");
    }

    #[test]
    fn a_machine_that_is_several_times_off_is_believed() {
        let prior = Parameters::default();
        let sum = decode(&device(Some("mine|x")), &work(5.0), &Conditions::default());
        let slower = |times: f64| {
            let rate = 1.0 / times / sum.time(&prior);
            let run =
                Observation { cases: vec![Case { sum: sum.clone(), tokens: 1.0 }], rate, noise: Noise { deviation: 0.1, weight: 1.0 } };
            Calibration::from_runs(&[&run], &prior, "mine|x").apply(&prior)
        };
        let got = |times: f64| (sum.time(&slower(times)) / sum.time(&prior)).ln() / times.ln();
        assert!(got(5.0) > 0.9 && got(5.0) > got(1.1), "{} {}", got(5.0), got(1.1));
    }

    #[test]
    fn runs_leave_less_uncertain_than_there_was() {
        let prior = Parameters::default();
        let sum = decode(&device(Some("mine")), &work(5.0), &Conditions::default());
        let rate = 0.9 / sum.time(&prior);
        let run = Observation { cases: vec![Case { sum: sum.clone(), tokens: 1.0 }], rate, noise: Noise { deviation: 0.02, weight: 1.0 } };
        let left = |runs: &[&Observation]| {
            let calibration = Calibration::from_runs(runs, &prior, "mine");
            calibration.deviation(&sum, &calibration.apply(&prior))
        };
        let ((one, before), (three, _)) = (left(&[&run]), left(&[&run, &run, &run]));
        assert!(three < one && one < 0.5 * before, "{three} {one} {before}");
    }

    proptest::proptest! {
        #[test]
        fn more_bandwidth_is_never_slower_and_more_work_never_faster(
            gigabytes in 0.1..100.0f64, more in 1.0..4.0f64, depth in 0.0..1e5f64, weights in -0.5..1.5f64,
        ) {
            let name = "decode/weights/all".to_owned();
            let parameters = Parameters::new(BTreeMap::from([(name, weights)]));
            let at = |bandwidth: f64, gigabytes: f64, depth: f64| {
                let device = Device { bandwidth: 1e12 * bandwidth, ..device(None) };
                decode(&device, &Work { depth, ..work(gigabytes) }, &Conditions::default()).time(&parameters)
            };
            let base = at(1.0, gigabytes, depth);
            proptest::prop_assert!(at(more, gigabytes, depth) <= base);
            proptest::prop_assert!(at(1.0, gigabytes * more, depth) >= base);
            proptest::prop_assert!(at(1.0, gigabytes, depth * more) >= base);
        }
    }
}
