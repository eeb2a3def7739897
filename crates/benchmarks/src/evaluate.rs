//! Predictions for devices and models that the fit had not seen, and how far they are off.

use crate::sample::{Sample, Source};
use roofline::{Calibration, Case, Observation, Parameters, Phase, Spread, fit, quantile};
use std::collections::{BTreeMap, BTreeSet};

/// A measured speed beside a predicted one.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// What was measured.
    pub sample: &'a Sample,
    /// Predicted tokens per second.
    pub predicted: f64,
}

impl Outcome<'_> {
    /// ln(measured ÷ predicted).
    pub fn log_ratio(&self) -> f64 {
        (self.sample.rate.unwrap_or(f64::NAN) / self.predicted).ln()
    }

    /// |predicted ÷ measured − 1|.
    pub fn error(&self) -> f64 {
        (self.predicted / self.sample.rate.unwrap_or(f64::NAN) - 1.0).abs()
    }
}

/// Mean speed of cases.
pub fn speed(cases: &[Case], parameters: &Parameters) -> f64 {
    cases.iter().map(|case| case.tokens / case.sum.time(parameters)).sum::<f64>() / cases.len().max(1) as f64
}

/// Measurements that a fit may use: with a speed, and the formula holding.
pub fn usable(samples: &[Sample]) -> Vec<&Sample> {
    samples.iter().filter(|sample| sample.problem.is_none() && sample.rate.is_some()).collect()
}

/// Rows of one device and phase count together as this many at most: one machine that was measured three thousand times is one.
const MOST_PER_DEVICE: f64 = 24.0;
const MOST_ROWS: f64 = 150.0;

/// Parameters from measurements, both phases, with the level of the single device.
pub fn fit_samples(samples: &[&Sample]) -> Parameters {
    let key = |sample: &Sample| (sample.phase, sample.title.clone(), sample.source);
    let mut counts: BTreeMap<_, f64> = BTreeMap::new();
    for sample in samples {
        *counts.entry(key(sample)).or_default() += 1.0;
    }
    let mut all = BTreeMap::new();
    for phase in [Phase::Decode, Phase::Prefill] {
        let weight = |sample: &Sample| (MOST_PER_DEVICE / counts.get(&key(sample)).copied().unwrap_or(1.0).min(MOST_ROWS)).min(1.0);
        // Every so manieth row of a device that has very many says the same in a fraction of the time.
        let mut seen: BTreeMap<_, f64> = BTreeMap::new();
        let of_phase = samples.iter().filter(|sample| sample.phase == phase).filter(|sample| {
            let stride = (counts.get(&key(sample)).copied().unwrap_or(1.0) / MOST_ROWS).ceil();
            let place = seen.entry(key(sample)).or_insert(0.0);
            *place += 1.0;
            (*place - 1.0) % stride == 0.0
        });
        let observations: Vec<Observation> = of_phase.map(|sample| sample.observation(weight(sample))).collect();
        let observations: Vec<&Observation> = observations.iter().collect();
        all.extend(fit(&observations, &Parameters::default(), &|_| true));
    }
    Parameters::new(all)
}

/// Predictions for every sample by parameters from those samples that share no group with it; `folds` fits.
pub fn leave_out<'a>(samples: &[&'a Sample], folds: usize, group: &dyn Fn(&Sample) -> String) -> Vec<Outcome<'a>> {
    leave_out_with(samples, folds, group).into_iter().flat_map(|(_, outcomes)| outcomes).collect()
}

/// The same with the parameters of each fold.
pub fn leave_out_with<'a>(samples: &[&'a Sample], folds: usize, group: &dyn Fn(&Sample) -> String) -> Vec<(Parameters, Vec<Outcome<'a>>)> {
    // In the order of classes, so that every fold has some of each.
    let groups: BTreeSet<(roofline::Class, String)> = samples.iter().map(|sample| (sample.class(), group(sample))).collect();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (_, name) in groups {
        let next = places.len() % folds.max(1);
        places.entry(name).or_insert(next);
    }
    let fold_of = |sample: &Sample| places.get(&group(sample)).copied().unwrap_or(0);
    let mut all = Vec::new();
    for fold in 0..folds.max(1) {
        let (test, train): (Vec<&Sample>, Vec<&Sample>) = samples.iter().copied().partition(|sample| fold_of(sample) == fold);
        if test.is_empty() {
            continue;
        }
        let parameters = fit_samples(&train).without_devices();
        let outcomes = test.into_iter().map(|sample| Outcome { sample, predicted: speed(&sample.cases(), &parameters) }).collect();
        all.push((parameters, outcomes));
    }
    all
}

/// Predictions after one measurement on the same host: of each host and phase the row of middle time is the measurement, all
/// others are predicted.
pub fn after_one<'a>(folds: &[(Parameters, Vec<Outcome<'a>>)]) -> Vec<Outcome<'a>> {
    let mut all = Vec::new();
    for (parameters, outcomes) in folds {
        let mut hosts: BTreeMap<(&str, Phase), Vec<&'a Sample>> = BTreeMap::new();
        for outcome in outcomes {
            hosts.entry((&outcome.sample.host, outcome.sample.phase)).or_default().push(outcome.sample);
        }
        for mut rows in hosts.into_values().filter(|rows| rows.len() > 1) {
            rows.sort_by(|a, b| speed(&a.cases(), parameters).total_cmp(&speed(&b.cases(), parameters)));
            let one = rows[rows.len() / 2];
            let identity = one.found.device.identity.clone().unwrap_or_default();
            let calibrated = Calibration::from_runs(&[&one.observation(1.0)], parameters, &identity).apply(parameters);
            let others = rows.into_iter().filter(|row| row.row != one.row);
            all.extend(others.map(|sample| Outcome { sample, predicted: speed(&sample.cases(), &calibrated) }));
        }
    }
    all
}

/// Each row's weight such that every device weighs the same.
pub fn weights(outcomes: &[Outcome<'_>]) -> Vec<f64> {
    let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
    for outcome in outcomes {
        *counts.entry(&outcome.sample.title).or_default() += 1.0;
    }
    outcomes.iter().map(|outcome| 1.0 / counts.get(outcome.sample.title.as_str()).copied().unwrap_or(1.0)).collect()
}

/// Errors of a set of outcomes, each device weighing the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    /// Rows.
    pub rows: usize,
    /// Devices.
    pub devices: usize,
    /// Median of |predicted ÷ measured − 1|.
    pub median: f64,
    /// Its 90th percentile.
    pub p90: f64,
    /// Median of predicted ÷ measured.
    pub bias: f64,
}

/// Errors of outcomes.
pub fn errors(outcomes: &[Outcome<'_>]) -> Errors {
    let weights = weights(outcomes);
    let weigh = |value: &dyn Fn(&Outcome<'_>) -> f64| outcomes.iter().map(value).zip(weights.iter().copied()).collect::<Vec<_>>();
    let off = weigh(&|outcome| outcome.error());
    let devices: BTreeSet<&str> = outcomes.iter().map(|outcome| outcome.sample.title.as_str()).collect();
    Errors {
        rows: outcomes.len(),
        devices: devices.len(),
        median: quantile(&off, 0.5).unwrap_or(f64::NAN),
        p90: quantile(&off, 0.9).unwrap_or(f64::NAN),
        bias: quantile(&weigh(&|outcome| (-outcome.log_ratio()).exp()), 0.5).unwrap_or(f64::NAN),
    }
}

/// Keys of the spread of a sample, from wide to narrow.
pub fn spread_keys(sample: &Sample) -> Vec<String> {
    let (phase, source) = (sample.phase.as_str(), sample.source.as_str());
    vec![phase.to_owned(), format!("{phase}/{source}"), format!("{phase}/{source}/{}", sample.class().as_str())]
}

/// How far outcomes are off, by every key.
pub fn spread(outcomes: &[Outcome<'_>]) -> Spread {
    let mut keyed: BTreeMap<String, Vec<Outcome<'_>>> = BTreeMap::new();
    for outcome in outcomes {
        for key in spread_keys(outcome.sample) {
            keyed.entry(key).or_default().push(*outcome);
        }
    }
    let mut spread = Spread::default();
    for (key, outcomes) in keyed {
        let weights = weights(&outcomes);
        let ratios: Vec<(f64, f64)> = outcomes.iter().map(Outcome::log_ratio).zip(weights).collect();
        let at = |place| quantile(&ratios, place);
        if let (Some(low), Some(middle), Some(high)) = (at(0.1), at(0.5), at(0.9)) {
            spread.insert(&key, low, middle, high, errors(&outcomes).devices);
        }
    }
    spread
}

/// Repeatability: how far apart measurements of the same device, model and conditions are by themselves. The error of predicting
/// each by the median of the others with which it shares all that the formula sees, with its device; empty where there are no repeats.
pub fn floor(samples: &[&Sample]) -> Vec<(String, f64)> {
    let mut same: BTreeMap<String, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        let key = format!("{:?}|{:?}|{}|{:?}|{:?}", sample.phase, sample.found.device, sample.model, sample.work, sample.conditions);
        same.entry(key).or_default().push(sample);
    }
    let mut all = Vec::new();
    for rows in same.into_values().filter(|rows| rows.len() > 1) {
        for (place, row) in rows.iter().enumerate() {
            let others: Vec<(f64, f64)> =
                rows.iter().enumerate().filter(|(other, _)| *other != place).filter_map(|(_, row)| Some((row.rate?, 1.0))).collect();
            if let (Some(middle), Some(rate)) = (quantile(&others, 0.5), row.rate) {
                all.push((row.title.clone(), (middle / rate - 1.0).abs()));
            }
        }
    }
    all
}

/// Sources in the order of reports.
pub const SOURCES: [Source; 3] = [Source::LlamaBench, Source::Community, Source::LocalScore];
