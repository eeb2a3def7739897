//! A time as a sum of bounds of the hardware, each with an inefficiency that parameters give.

use crate::parameters::Parameters;

/// What bounds a part of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// Reading weights.
    Weights,
    /// Multiplying with them, unpacking included.
    Arithmetic,
    /// Reading keys and values.
    Cache,
    /// Computing attention.
    Attention,
    /// Starting work on the device.
    Launch,
    /// The host's loop and sampling.
    Fixed,
}

impl Bound {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Arithmetic => "arithmetic",
            Self::Cache => "cache",
            Self::Attention => "attention",
            Self::Launch => "launch",
            Self::Fixed => "fixed",
        }
    }
}

/// A parameter that a term depends on, with its coefficient.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// `weights/class=apple`.
    pub name: String,
    /// What the parameter is multiplied with before it is added to the logarithm of the time.
    pub coefficient: f64,
}

/// One bound: `seconds` at the limit of the hardware, times the exponential of its effects.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// What bounds it.
    pub bound: Bound,
    /// Seconds without any inefficiency.
    pub seconds: f64,
    /// Its parameters.
    pub effects: Vec<Effect>,
}

/// Groups of terms; groups add up, the terms of a group overlap, so that the larger one counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sum {
    /// The groups.
    pub groups: Vec<Vec<Term>>,
}

/// Sharpness of the maximum within a group: 4 makes two equal bounds cost 19 % more than one, as where reading and computing
/// overlap without being hidden wholly.
pub(crate) const SHARPNESS: f64 = 2.0;

impl Term {
    /// Seconds with its inefficiency.
    pub fn time(&self, parameters: &Parameters) -> f64 {
        let log: f64 = self.effects.iter().map(|effect| effect.coefficient * parameters.get(&effect.name)).sum();
        self.seconds * log.clamp(-30.0, 30.0).exp()
    }
}

impl Sum {
    /// Seconds.
    pub fn time(&self, parameters: &Parameters) -> f64 {
        let group = |terms: &Vec<Term>| overlap(terms.iter().map(|term| term.time(parameters)));
        self.groups.iter().map(group).sum()
    }

    /// Every term with its part of the time, which add up to it.
    pub fn parts(&self, parameters: &Parameters) -> Vec<(Bound, f64)> {
        let mut parts = Vec::new();
        for terms in &self.groups {
            let times: Vec<f64> = terms.iter().map(|term| term.time(parameters)).collect();
            let whole = overlap(times.iter().copied());
            parts.extend(terms.iter().zip(&times).map(|(term, &time)| (term.bound, whole * share(time, whole))));
        }
        parts
    }

    /// The bound that most of the time goes into.
    pub fn bottleneck(&self, parameters: &Parameters) -> Option<Bound> {
        self.parts(parameters).into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(bound, _)| bound)
    }
}

/// The norm that stands for the maximum.
pub fn overlap(times: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = times.clone().fold(0.0, f64::max);
    if most <= 0.0 {
        return 0.0;
    }
    most * times.map(|time| (time / most).powf(SHARPNESS)).sum::<f64>().powf(1.0 / SHARPNESS)
}

/// Relative change of a group's time with one of its terms.
pub fn share(time: f64, whole: f64) -> f64 {
    if whole > 0.0 { (time / whole).powf(SHARPNESS) } else { 0.0 }
}
