//! Errors over many rows: by age and component, and of totals.

use super::row::Row;
use super::score::{Component, Outcome, Scored, outcome};
use std::collections::BTreeMap;

/// Rows with what became of each.
pub struct Summary<'r> {
    pub outcomes: Vec<(&'r Row, Outcome)>,
}

/// The errors of one component over rows of one age.
#[derive(Clone, Debug)]
pub struct Line {
    pub component: Component,
    pub rows: usize,
    /// Rows that agree at the log's precision.
    pub equal: usize,
    pub median: f64,
    /// The worst error, and its row.
    pub worst: (f64, u32),
}

impl<'r> Summary<'r> {
    /// Recomputes rows.
    pub fn of(rows: impl Iterator<Item = &'r Row>) -> Self {
        Self { outcomes: rows.map(|row| (row, outcome(row))).collect() }
    }

    fn scored(&self) -> impl Iterator<Item = (&'r Row, &str, &[Scored], bool)> {
        self.outcomes.iter().filter_map(|(row, outcome)| match outcome {
            Outcome::Scored { profile, parts, complete } if !parts.is_empty() => {
                Some((*row, profile.as_str(), parts.as_slice(), *complete))
            }
            _ => None,
        })
    }

    /// By age, its components, worst first.
    pub fn by_age(&self) -> BTreeMap<String, Vec<Line>> {
        let mut errors: BTreeMap<String, BTreeMap<Component, Vec<(f64, u32)>>> = BTreeMap::new();
        for (row, age, parts, complete) in self.scored() {
            let engine = parts.iter().filter(|part| !matches!(part.component, Component::Driver | Component::Scratch));
            for part in engine.filter(|_| complete) {
                errors.entry(age.to_owned()).or_default().entry(part.component).or_default().push((part.error(), row.id()));
            }
        }
        let line = |(component, errors): (Component, Vec<(f64, u32)>)| Line {
            component,
            rows: errors.len(),
            equal: errors.iter().filter(|(error, _)| *error == 0.0).count(),
            median: median(errors.iter().map(|(error, _)| error.abs()).collect()),
            worst: errors.iter().copied().max_by(|a, b| a.0.abs().total_cmp(&b.0.abs())).unwrap_or_default(),
        };
        let lines = |components: BTreeMap<Component, Vec<(f64, u32)>>| {
            let mut lines: Vec<Line> = components.into_iter().map(line).collect();
            lines.sort_by(|a, b| b.worst.0.abs().total_cmp(&a.worst.0.abs()));
            lines
        };
        errors.into_iter().map(|(age, components)| (age, lines(components))).collect()
    }

    /// The error of everything that a row logs and that is recomputed, over rows whose flags are complete.
    pub fn totals(&self) -> Vec<(f64, u32)> {
        let complete = self.scored().filter(|(.., complete)| *complete);
        complete
            .map(|(row, _, parts, _)| {
                let engine = || parts.iter().filter(|part| !matches!(part.component, Component::Driver | Component::Scratch));
                let sum = |of: fn(&Scored) -> f64| engine().map(of).sum::<f64>();
                (sum(|part| part.predicted) / sum(|part| part.logged) - 1.0, row.id())
            })
            .collect()
    }

    /// Components that differ, worst first.
    pub fn differing(&self) -> Vec<(&'r Row, String, Scored)> {
        let mut parts: Vec<_> = self
            .scored()
            .filter(|(.., complete)| *complete)
            .flat_map(|(row, age, parts, _)| parts.iter().map(move |part| (row, age.to_owned(), *part)))
            .filter(|(.., part)| part.error() != 0.0 && !matches!(part.component, Component::Driver | Component::Scratch))
            .collect();
        parts.sort_by(|a, b| b.2.error().abs().total_cmp(&a.2.error().abs()));
        parts
    }

    /// The driver's figures beside the intervals that stand for them.
    pub fn drivers(&self) -> Vec<(&'r Row, Scored)> {
        let driver = |part: &&Scored| matches!(part.component, Component::Driver | Component::Scratch);
        self.scored().flat_map(|(row, _, parts, _)| parts.iter().filter(driver).map(move |part| (row, *part))).collect()
    }

    /// Rows that are not recomputed or whose flags are incomplete, by reason.
    pub fn left_out(&self) -> BTreeMap<&str, Vec<u32>> {
        let mut reasons: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (row, outcome) in &self.outcomes {
            let reason = match outcome {
                Outcome::Not(reason) => reason.as_str(),
                Outcome::Scored { complete: false, .. } => "recomputed, but the row leaves out flags that decide a buffer",
                Outcome::Scored { parts, .. } if parts.is_empty() => "the row has no buffer to compare",
                Outcome::Scored { .. } => continue,
            };
            reasons.entry(reason).or_default().push(row.id());
        }
        reasons
    }
}

/// The middle of some figures; 0 for none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let n = figures.len();
    match n {
        0 => 0.0,
        _ if n % 2 == 1 => figures[n / 2],
        _ => f64::midpoint(figures[n / 2 - 1], figures[n / 2]),
    }
}
