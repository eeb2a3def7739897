//! Parameters from measurements: the most probable ones under Gaussian priors by level and Student's t around the formula.
//!
//! Gauss-Newton on the logarithm of the speed; each step reweighs measurements by how far they are off (iteratively reweighted
//! least squares), so that the tenth of them that is wrong does not pull.

use crate::linear::Symmetric;
use crate::parameters::Parameters;
use crate::terms::{Effect, Sum, Term, overlap, share};
use std::collections::{BTreeMap, BTreeSet};

/// A run of `tokens` tokens that takes the time of `sum`.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Its time.
    pub sum: Sum,
    /// Tokens that pass in it.
    pub tokens: f64,
}

/// How exact a measurement is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Standard deviation of the logarithm of the speed.
    pub deviation: f64,
    /// How much it counts beside others; 1 is one measurement.
    pub weight: f64,
}

/// A measured speed: the mean of the speeds of its cases.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// What ran; one case but for averages over several runs.
    pub cases: Vec<Case>,
    /// Tokens per second.
    pub rate: f64,
    /// How exact.
    pub noise: Noise,
}

/// Degrees of freedom of Student's t: at 3, what is off by five deviations counts a seventh.
const FREEDOM: f64 = 3.0;
const STEPS: usize = 25;

/// Prior deviations of an effect by its level: the most that levels of one kind are thought to differ.
fn prior(name: &str) -> f64 {
    let mut parts = name.splitn(3, '/');
    let (phase, bound, key) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let level = key.split('=').next().unwrap_or("");
    let steady = phase == "decode" && bound == "weights";
    match level {
        "all" => 2.0,
        "slope" => 0.5,
        "class×engine" => 0.4,
        "maker" => {
            if steady {
                0.2
            } else {
                0.6
            }
        }
        "class" => {
            if steady {
                0.2
            } else {
                0.5
            }
        }
        "generation" => {
            if steady {
                0.12
            } else {
                0.4
            }
        }
        "device" => match (phase, bound) {
            ("decode", "weights") => 0.1,
            ("decode", "launch") => 0.3,
            ("decode", "arithmetic" | "cache") => 0.15,
            ("prefill", "arithmetic") => 0.3,
            ("prefill", "launch" | "attention") => 0.2,
            _ => 0.1,
        },
        "quant" => 0.2,
        "backend" => 0.05,
        "maker×backend" => 0.25,
        "maker×quant" | "maker×flash" | "maker×experts" => 0.2,
        "maker×os" | "maker×engine" | "maker×era" => 0.15,
        "engine" | "os" | "experts" | "recurrent" | "flash" => 0.3,
        _ => 0.2,
    }
}

/// An observation whose effects are places in a short list of its own, which `places` maps to those of all.
struct Compiled {
    places: Vec<usize>,
    cases: Vec<CompiledCase>,
}

/// The logarithm of a term's seconds, and its effects by place.
type CompiledTerm = (f64, Vec<(usize, f64)>);

struct CompiledCase {
    groups: Vec<Vec<CompiledTerm>>,
    tokens: f64,
}

struct Names {
    places: BTreeMap<String, usize>,
}

impl Names {
    fn of(observations: &[&Observation], fitted: &dyn Fn(&str) -> bool) -> Self {
        let terms = observations.iter().flat_map(|one| &one.cases).flat_map(|case| case.sum.groups.iter().flatten());
        let names: BTreeSet<&str> = terms.flat_map(|term| &term.effects).map(|effect| effect.name.as_str()).collect();
        let names = names.into_iter().filter(|name| fitted(name));
        Self { places: names.enumerate().map(|(place, name)| (name.to_owned(), place)).collect() }
    }

    fn compile(&self, observation: &Observation, base: &Parameters) -> Compiled {
        let mut local: BTreeMap<usize, usize> = BTreeMap::new();
        let terms = observation.cases.iter().flat_map(|case| case.sum.groups.iter().flatten());
        for effect in terms.flat_map(|term| &term.effects) {
            if let Some(&place) = self.places.get(&effect.name) {
                local.insert(place, 0);
            }
        }
        local.values_mut().enumerate().for_each(|(own, slot)| *slot = own);
        let term = |term: &Term| {
            let place = |effect: &Effect| self.places.get(&effect.name).and_then(|place| local.get(place)).copied();
            let fixed: f64 = term
                .effects
                .iter()
                .filter(|effect| place(effect).is_none())
                .map(|effect| effect.coefficient * base.get(&effect.name))
                .sum();
            let places = term.effects.iter().filter_map(|effect| Some((place(effect)?, effect.coefficient)));
            (term.seconds.max(1e-30).ln() + fixed, places.collect())
        };
        let case = |case: &Case| CompiledCase {
            groups: case.sum.groups.iter().map(|terms| terms.iter().map(term).collect()).collect(),
            tokens: case.tokens,
        };
        Compiled { cases: observation.cases.iter().map(case).collect(), places: local.into_keys().collect() }
    }
}

impl CompiledCase {
    /// Seconds; adds their change by parameter to `slopes`.
    fn time(&self, values: &[f64], slopes: &mut [f64]) -> f64 {
        let mut total = 0.0;
        let mut times = [0.0; 4];
        for terms in &self.groups {
            for (time, (log, effects)) in times.iter_mut().zip(terms) {
                let sum: f64 = effects.iter().map(|&(place, coefficient)| coefficient * values[place]).sum();
                *time = (log + sum).clamp(-60.0, 60.0).exp();
            }
            let times = &times[..terms.len().min(4)];
            let whole = if let [one] = times { *one } else { overlap(times.iter().copied()) };
            for ((_, effects), &time) in terms.iter().zip(times) {
                let part = if times.len() == 1 { whole } else { whole * share(time, whole) };
                effects.iter().for_each(|&(place, coefficient)| slopes[place] += coefficient * part);
            }
            total += whole;
        }
        total
    }
}

impl Compiled {
    /// Logarithm of the speed; `row` becomes its change by parameter.
    fn log_rate(&self, all: &[f64], row: &mut Vec<f64>) -> f64 {
        let values: Vec<f64> = self.places.iter().map(|&place| all[place]).collect();
        row.clear();
        row.resize(values.len(), 0.0);
        let mut slopes = vec![0.0; values.len()];
        let mut sum = 0.0;
        for case in &self.cases {
            slopes.fill(0.0);
            let seconds = case.time(&values, &mut slopes);
            let rate = case.tokens / seconds;
            row.iter_mut().zip(&slopes).for_each(|(row, slope)| *row -= slope / seconds * rate);
            sum += rate;
        }
        row.iter_mut().for_each(|row| *row /= sum);
        (sum / self.cases.len().max(1) as f64).ln()
    }
}

/// The most probable values of the effects that `fitted` names, all others being as in `base`.
///
/// The same observations in the same order give the same values. What no observation depends on is left out.
pub fn fit(observations: &[&Observation], base: &Parameters, fitted: &dyn Fn(&str) -> bool) -> BTreeMap<String, f64> {
    let names = Names::of(observations, fitted);
    let compiled: Vec<Compiled> = observations.iter().map(|one| names.compile(one, base)).collect();
    let precisions: Vec<f64> = names.places.keys().map(|name| prior(name).powi(-2)).collect();
    let mut values = vec![0.0; precisions.len()];
    let mut row = Vec::new();
    // The negative logarithm of the posterior.
    let objective = |values: &[f64]| -> f64 {
        let mut row = Vec::new();
        let prior: f64 = values.iter().zip(&precisions).map(|(value, precision)| 0.5 * value * value * precision).sum();
        let all = observations.iter().zip(&compiled).map(|(one, compiled)| {
            let off = (one.rate.max(1e-30).ln() - compiled.log_rate(values, &mut row)) / one.noise.deviation;
            one.noise.weight * 0.5 * (FREEDOM + 1.0) * (off * off / FREEDOM).ln_1p()
        });
        prior + all.sum::<f64>()
    };
    let mut best = objective(&values);
    for _ in 0..STEPS {
        let mut matrix = Symmetric::diagonal(&precisions);
        let mut right: Vec<f64> = values.iter().zip(&precisions).map(|(value, precision)| -value * precision).collect();
        for (one, compiled) in observations.iter().zip(&compiled) {
            let log = compiled.log_rate(&values, &mut row);
            let off = (one.rate.max(1e-30).ln() - log) / one.noise.deviation;
            let weight = one.noise.weight * (FREEDOM + 1.0) / (FREEDOM + off * off) / one.noise.deviation.powi(2);
            matrix.add_outer(&compiled.places, &row, weight);
            for (&place, slope) in compiled.places.iter().zip(&row) {
                right[place] += weight * slope * off * one.noise.deviation;
            }
        }
        matrix.factorise();
        let step = matrix.solve(&right);
        let most = step.iter().fold(0.0_f64, |most, step| most.max(step.abs()));
        // A step of more than a unit leaves the range in which the slopes hold; what does not lead down was too long.
        let mut scale = (1.0 / most.max(1e-12)).min(1.0);
        let before = best;
        let mut next: Vec<f64>;
        loop {
            next = values.iter().zip(&step).map(|(value, step)| value + scale * step).collect();
            let now = objective(&next);
            if now <= best || scale < 0.02 {
                best = now;
                break;
            }
            scale *= 0.5;
        }
        values = next;
        if before - best < 2e-4 * best.abs() {
            break;
        }
    }
    names.places.into_keys().zip(values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::Bound;

    /// A run whose bandwidth term takes `weights` seconds and whose launch takes `launch`, at inefficiencies of 1.25 and 2.
    fn run(weights: f64, launch: f64, off: f64) -> Observation {
        let effect = |name: &str| vec![Effect { name: name.to_owned(), coefficient: 1.0 }];
        let term = |bound, seconds, name: &str| vec![Term { bound, seconds, effects: effect(name) }];
        let groups = vec![term(Bound::Weights, weights, "decode/weights/all"), term(Bound::Launch, launch, "decode/launch/all")];
        let rate = off / (1.25 * weights + 2.0 * launch);
        Observation { cases: vec![Case { sum: Sum { groups }, tokens: 1.0 }], rate, noise: Noise { deviation: 0.02, weight: 1.0 } }
    }

    #[test]
    fn finds_the_inefficiencies_beside_wrong_measurements() {
        let mut runs: Vec<Observation> = (1..20).map(|size| run(f64::from(size) * 1e-3, 3e-3, 1.0)).collect();
        runs.push(run(4e-3, 3e-3, 0.2));
        runs.push(run(9e-3, 3e-3, 0.3));
        let found = fit(&runs.iter().collect::<Vec<_>>(), &Parameters::default(), &|_| true);
        assert!((found["decode/weights/all"] - 1.25_f64.ln()).abs() < 0.01, "{found:?}");
        assert!((found["decode/launch/all"] - 2.0_f64.ln()).abs() < 0.02, "{found:?}");
    }

    #[test]
    fn what_is_not_to_be_fitted_stays_as_it_is() {
        let base = Parameters::new(BTreeMap::from([("decode/weights/all".to_owned(), 1.25_f64.ln())]));
        let runs = [run(1e-3, 3e-3, 1.0), run(5e-3, 3e-3, 1.0)];
        let found = fit(&runs.iter().collect::<Vec<_>>(), &base, &|name| name.contains("launch"));
        assert_eq!(found.keys().collect::<Vec<_>>(), ["decode/launch/all"]);
        assert!((found["decode/launch/all"] - 2.0_f64.ln()).abs() < 0.01, "{found:?}");
    }

    #[test]
    fn nothing_measured_is_nothing_learned() {
        assert!(fit(&[], &Parameters::default(), &|_| true).is_empty());
    }
}
