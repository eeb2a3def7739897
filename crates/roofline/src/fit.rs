//! Parameters from measurements: the most probable ones under Gaussian priors by level and Student's t around the formula.
//!
//! Gauss-Newton on the logarithm of the speed; each step reweighs measurements by how far they are off (iteratively reweighted
//! least squares), so that the tenth of them that is wrong does not pull.

use crate::arrow::{Arrow, Layout};
use crate::deviations::Deviations;
use crate::parameters::Parameters;
use crate::terms::{Effect, Sum, Term, overlap, share};
use nalgebra::{DMatrix, DVector};
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
const STEPS: usize = 60;

/// Measurements are taken as less exact at first and by this factor more exact from step to step: two groups of runs that contradict each
/// other would otherwise hold each other, or a single run would hold the fit that happens to begin near it.
const COOLING: f64 = 0.6;
/// How much less exact a fit from nothing begins.
const HEAT: f64 = 12.0;

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

struct Names<'a> {
    places: BTreeMap<&'a str, usize>,
    layout: Layout,
}

impl<'a> Names<'a> {
    fn of(observations: &[&'a Observation], fitted: &dyn Fn(&str) -> bool) -> Self {
        let names = |one: &&'a Observation| -> BTreeSet<&'a str> {
            let terms = one.cases.iter().flat_map(|case| case.sum.groups.iter().flatten());
            terms.flat_map(|term| &term.effects).map(|effect| effect.name.as_str()).filter(|name| fitted(name)).collect()
        };
        let (places, layout) = Layout::of(&observations.iter().map(names).collect::<Vec<_>>());
        Self { places, layout }
    }

    fn compile(&self, observation: &Observation, base: &Parameters) -> Compiled {
        let mut local: BTreeMap<usize, usize> = BTreeMap::new();
        let terms = observation.cases.iter().flat_map(|case| case.sum.groups.iter().flatten());
        for effect in terms.flat_map(|term| &term.effects) {
            if let Some(&place) = self.places.get(effect.name.as_str()) {
                local.insert(place, 0);
            }
        }
        local.values_mut().enumerate().for_each(|(own, slot)| *slot = own);
        let term = |term: &Term| {
            let place = |effect: &Effect| self.places.get(effect.name.as_str()).and_then(|place| local.get(place)).copied();
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
    fit_from(observations, base, fitted, &Parameters::default(), Deviations::chosen())
}

/// As [`fit`], from values that are thought to be near: fewer steps, the same place up to the tolerance at which steps end.
pub fn fit_from(
    observations: &[&Observation],
    base: &Parameters,
    fitted: &dyn Fn(&str) -> bool,
    start: &Parameters,
    deviations: &Deviations,
) -> BTreeMap<String, f64> {
    let names = Names::of(observations, fitted);
    let compiled: Vec<Compiled> = observations.iter().map(|one| names.compile(one, base)).collect();
    let mut precisions = vec![1.0; names.places.len()];
    let mut values = vec![0.0; names.places.len()];
    for (name, &place) in &names.places {
        precisions[place] = deviations.of(name).powi(-2);
        values[place] = start.get(name);
    }
    let mut row = Vec::new();
    // The negative logarithm of the posterior.
    let objective = |values: &[f64], heat: f64| -> f64 {
        let mut row = Vec::new();
        let prior: f64 = values.iter().zip(&precisions).map(|(value, precision)| 0.5 * value * value * precision).sum();
        let all = observations.iter().zip(&compiled).map(|(one, compiled)| {
            let off = (one.rate.max(1e-30).ln() - compiled.log_rate(values, &mut row)) / (one.noise.deviation * heat);
            one.noise.weight * 0.5 * (FREEDOM + 1.0) * (off * off / FREEDOM).ln_1p()
        });
        prior + all.sum::<f64>()
    };
    let warm = names.places.keys().any(|name| start.knows(name));
    let mut heat = if warm { 1.0 } else { HEAT };
    for _ in 0..STEPS {
        let mut best = objective(&values, heat);
        let mut matrix = Arrow::new(&names.layout, &precisions);
        let mut right: Vec<f64> = values.iter().zip(&precisions).map(|(value, precision)| -value * precision).collect();
        for (one, compiled) in observations.iter().zip(&compiled) {
            let log = compiled.log_rate(&values, &mut row);
            let deviation = one.noise.deviation * heat;
            let off = (one.rate.max(1e-30).ln() - log) / deviation;
            let weight = one.noise.weight * (FREEDOM + 1.0) / (FREEDOM + off * off) / deviation.powi(2);
            matrix.add(&compiled.places, &row, weight);
            for (&place, slope) in compiled.places.iter().zip(&row) {
                right[place] += weight * slope * off * deviation;
            }
        }
        // The priors keep it positive definite; what no longer is has lost all precision, and more steps gain nothing.
        let Some(step) = matrix.solve(&right) else { break };
        let most = step.iter().fold(0.0_f64, |most, step| most.max(step.abs()));
        // A step of more than a unit leaves the range in which the slopes hold; what does not lead down was too long.
        let mut scale = (1.0 / most.max(1e-12)).min(1.0);
        let before = best;
        let mut next: Vec<f64>;
        loop {
            next = values.iter().zip(step.iter()).map(|(value, step)| value + scale * step).collect();
            let now = objective(&next, heat);
            if now <= best || scale < 0.02 {
                best = now;
                break;
            }
            scale *= 0.5;
        }
        values = next;
        if heat <= 1.0 && before - best < 2e-6 * best.abs() {
            break;
        }
        heat = (heat * COOLING).max(1.0);
    }
    names.places.iter().map(|(name, &place)| ((*name).to_owned(), values[place])).collect()
}

/// The precision of effects at `values`, by Laplace's approximation: the names in order, and priors plus what observations tell.
/// For the few effects of one machine; nothing is eliminated.
pub(crate) fn precision(
    observations: &[&Observation],
    values: &Parameters,
    fitted: &dyn Fn(&str) -> bool,
    deviations: &Deviations,
) -> (Vec<String>, DMatrix<f64>) {
    let names = Names::of(observations, fitted);
    let mut ordered = vec![String::new(); names.places.len()];
    names.places.iter().for_each(|(name, &place)| (*name).clone_into(&mut ordered[place]));
    let all: Vec<f64> = ordered.iter().map(|name| values.get(name)).collect();
    let mut matrix = DMatrix::from_diagonal(&DVector::from_iterator(all.len(), ordered.iter().map(|name| deviations.of(name).powi(-2))));
    let mut row = Vec::new();
    for one in observations {
        let compiled = names.compile(one, values);
        let off = (one.rate.max(1e-30).ln() - compiled.log_rate(&all, &mut row)) / one.noise.deviation;
        let weight = one.noise.weight * (FREEDOM + 1.0) / (FREEDOM + off * off) / one.noise.deviation.powi(2);
        for (&i, a) in compiled.places.iter().zip(&row) {
            compiled.places.iter().zip(&row).for_each(|(&j, b)| matrix[(i, j)] += weight * a * b);
        }
    }
    (ordered, matrix)
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
