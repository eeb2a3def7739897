//! What runs on one machine say about it: the level of the single device, fitted by the same formula.

use crate::fit::{Observation, fit};
use crate::parameters::Parameters;
use std::collections::BTreeMap;

/// The effects of one device, given all others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    effects: BTreeMap<String, f64>,
}

impl Calibration {
    /// From runs whose device has the identity `identity`; `prior` holds everything else.
    pub fn from_runs(runs: &[&Observation], prior: &Parameters, identity: &str) -> Self {
        let ending = format!("/device={identity}");
        Self { effects: fit(runs, prior, &|name| name.ends_with(&ending)) }
    }

    /// Parameters with what was learned.
    pub fn apply(&self, prior: &Parameters) -> Parameters {
        prior.with(&self.effects)
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
        Device { class: Class::NvidiaGddr, generation, bandwidth: 1e12, vector: Some(4e13), matrix: 4.0, identity }
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
        assert!((1.2..1.5).contains(&slower), "{slower}");
        assert!((time(Some("other"), 8.0, &calibrated) / time(None, 8.0, &prior) - 1.0).abs() < 1e-12);
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
