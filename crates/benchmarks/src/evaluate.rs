//! Predictions for devices and models that the fit had not seen, and how far they are off.

use crate::sample::{Sample, Source};
use roofline::{Calibration, Case, Deviations, Observation, Parameters, Phase, fit_from, quantile};
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

/// FNV-1a, 64 bits.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Devices that no choice of the formula, its levels or their deviations has seen: of each class, and of those with llama-bench
/// rows apart, the fifth whose names have the smallest hashes.
pub fn held_out(samples: &[&Sample]) -> BTreeSet<String> {
    let benched: BTreeSet<&str> =
        samples.iter().filter(|sample| sample.source == Source::LlamaBench).map(|sample| sample.title.as_str()).collect();
    let mut strata: BTreeMap<_, BTreeSet<(u64, &str)>> = BTreeMap::new();
    for sample in samples {
        let title = sample.title.as_str();
        strata.entry((sample.class(), benched.contains(title))).or_default().insert((hash(title), title));
    }
    let fifth = |devices: BTreeSet<(u64, &str)>| -> Vec<String> {
        let count = (devices.len() + 2) / 5;
        devices.into_iter().take(count).map(|(_, title)| title.to_owned()).collect()
    };
    strata.into_values().flat_map(fifth).collect()
}

/// Measurements that a fit may use: with a speed, the formula holding; also those over several devices or partly on the host.
pub fn usable(samples: &[Sample]) -> Vec<&Sample> {
    samples.iter().filter(|sample| sample.rate.is_some() && (sample.problem.is_none() || sample.several())).collect()
}

/// Rows of one device and phase count together as this many at most: one machine that was measured three thousand times is one.
const MOST_PER_DEVICE: f64 = 24.0;
const MOST_ROWS: f64 = 150.0;

/// Parameters from measurements, both phases, with the level of the single device.
pub fn fit_samples(samples: &[&Sample], start: &Parameters, deviations: &Deviations) -> Parameters {
    let key = |sample: &Sample| (sample.phase, sample.title.clone(), sample.source);
    let mut counts: BTreeMap<_, f64> = BTreeMap::new();
    for sample in samples {
        *counts.entry(key(sample)).or_default() += 1.0;
    }
    let mut all = BTreeMap::new();
    for phase in [Phase::Decode, Phase::Prefill] {
        // Several devices have costs of their own, of which one term is a rough image.
        let several = |sample: &Sample| if sample.several() { 0.2 } else { 1.0 };
        let weight = |sample: &Sample| {
            several(sample) * (MOST_PER_DEVICE / counts.get(&key(sample)).copied().unwrap_or(1.0).min(MOST_ROWS)).min(1.0)
        };
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
        all.extend(fit_from(&observations, &Parameters::default(), &|name| !roofline::one_machine_alone(name), start, deviations));
    }
    Parameters::new(all)
}

/// Predictions for every sample by parameters from those samples that share no group with it; `folds` fits.
pub fn leave_out<'a>(samples: &[&'a Sample], folds: usize, group: &dyn Fn(&Sample) -> String, start: &Parameters) -> Vec<Outcome<'a>> {
    leave_out_with(samples, folds, group, start, Deviations::chosen()).into_iter().flat_map(|(_, outcomes)| outcomes).collect()
}

/// The same with the parameters of each fold.
pub fn leave_out_with<'a>(
    samples: &[&'a Sample],
    folds: usize,
    group: &dyn Fn(&Sample) -> String,
    start: &Parameters,
    deviations: &Deviations,
) -> Vec<(Parameters, Vec<Outcome<'a>>)> {
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
        let parameters = fit_samples(&train, start, deviations).without_devices();
        let outcomes = test.into_iter().map(|sample| Outcome { sample, predicted: speed(&sample.cases(), &parameters) }).collect();
        all.push((parameters, outcomes));
    }
    all
}

/// Predictions after one measurement on the same host, build and backend, by fold: of each host and phase the row of middle time is the
/// measurement, all others are predicted.
pub fn after_one<'a>(folds: &[(Parameters, Vec<Outcome<'a>>)], deviations: &Deviations) -> Vec<Vec<Outcome<'a>>> {
    let all = after_one_of(folds, deviations, &|_| String::new());
    all.into_iter().map(|fold| fold.into_iter().map(|(outcome, _)| outcome).collect()).collect()
}

/// The same with one measurement of every kind of runs, beside each prediction the measurement that it came after.
pub fn after_one_of<'a>(
    folds: &[(Parameters, Vec<Outcome<'a>>)],
    deviations: &Deviations,
    kind: &dyn Fn(&Sample) -> String,
) -> Vec<Vec<(Outcome<'a>, &'a Sample)>> {
    let mut all = Vec::new();
    for (parameters, outcomes) in folds {
        let mut fold = Vec::new();
        let mut hosts: BTreeMap<(&str, Phase, String), Vec<&'a Sample>> = BTreeMap::new();
        for outcome in outcomes.iter().filter(|outcome| outcome.sample.problem.is_none()) {
            hosts.entry((&outcome.sample.host, outcome.sample.phase, kind(outcome.sample))).or_default().push(outcome.sample);
        }
        for mut rows in hosts.into_values().filter(|rows| rows.len() > 1) {
            rows.sort_by(|a, b| speed(&a.cases(), parameters).total_cmp(&speed(&b.cases(), parameters)));
            let one = rows[rows.len() / 2];
            let identity = one.found.device.identity.clone().unwrap_or_default();
            let mut run = one.observation(1.0);
            // How far a run of one kind is from what it tells of others, beside how exact it is.
            run.noise.deviation = one.repeats.unwrap_or(0.0).hypot(deviations.of(&format!("{}/row/calibration", one.phase.as_str())));
            let calibrated = Calibration::with(&[&run], parameters, &identity, deviations).apply(parameters);
            let others = rows.into_iter().filter(|row| row.row != one.row);
            fold.extend(others.map(|sample| (Outcome { sample, predicted: speed(&sample.cases(), &calibrated) }, one)));
        }
        all.push(fold);
    }
    all
}

/// What a run and another on the same host, build and backend differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// Nothing but the length, the depth, or a size that is alike.
    Little,
    /// More than six times the bytes, or less than a sixth.
    Size,
    /// The type of weights.
    Type,
    /// One has experts.
    Experts,
}

impl Difference {
    /// The one that tells most.
    pub fn of(one: &Sample, other: &Sample) -> Self {
        /// As for the runs that are kept of a machine.
        const ALIKE: f64 = 6.0;
        let [Some(a), Some(b)] = [one, other].map(|sample| sample.work.first().map(|work| &work.shape)) else { return Self::Little };
        if a.experts.is_some() != b.experts.is_some() {
            Self::Experts
        } else if a.quant != b.quant {
            Self::Type
        } else if (1.0 / ALIKE..ALIKE).contains(&(a.active_bytes / b.active_bytes)) {
            Self::Little
        } else {
            Self::Size
        }
    }
}

/// Each row's weight such that every device weighs the same.
pub fn weights(outcomes: &[Outcome<'_>]) -> Vec<f64> {
    let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
    for outcome in outcomes {
        *counts.entry(&outcome.sample.title).or_default() += 1.0;
    }
    outcomes.iter().map(|outcome| 1.0 / counts.get(outcome.sample.title.as_str()).copied().unwrap_or(1.0)).collect()
}

/// What the choice of deviations makes small: the mean over devices and sources of the mean |ln(predicted ÷ measured)|, of which no row
/// counts more than 0.7, since what is off by a factor of two is so for reasons that the formula does not see. Rows of llama-bench on GPUs
/// count four times, told ones twice; processors half.
pub fn loss(outcomes: &[Outcome<'_>]) -> f64 {
    let mut devices: BTreeMap<(&str, Source), (f64, f64)> = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.sample.problem.is_none()) {
        let (sum, count) = devices.entry((&outcome.sample.title, outcome.sample.source)).or_default();
        let cpu = if outcome.sample.class() == roofline::Class::Cpu { 0.5 } else { 1.0 };
        *sum += cpu * outcome.log_ratio().abs().min(0.7);
        *count += 1.0;
    }
    let weight = |source: Source| match source {
        Source::LlamaBench => 4.0,
        Source::Community => 2.0,
        Source::LocalScore | Source::Other => 1.0,
    };
    let sum: f64 = devices.iter().map(|((_, source), (sum, count))| weight(*source) * sum / count).sum();
    sum / devices.keys().map(|(_, source)| weight(*source)).sum::<f64>().max(1e-9)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::read;
    use crate::sample::samples;

    #[test]
    fn runs_differ_in_experts_before_types_and_in_types_before_sizes() {
        let table = "device,model,quant,test,tokens_per_s\nL40S,Llama 3 8B,Q4_K_M,tg128,1\nL40S,Llama 3 8B,Q4_K_M,tg512,1\n\
            L40S,Llama 3 70B,Q4_K_M,tg128,1\nL40S,Llama 3 70B,Q8_0,tg128,1\nL40S,Qwen3-30B-A3B,Q8_0,tg128,1\n";
        let found: Vec<Sample> = samples(&read(table).unwrap().1).into_iter().map(Result::unwrap).collect();
        let from_first: Vec<Difference> = found[1..].iter().map(|sample| Difference::of(&found[0], sample)).collect();
        assert_eq!(from_first, [Difference::Little, Difference::Size, Difference::Type, Difference::Experts]);
    }
}
