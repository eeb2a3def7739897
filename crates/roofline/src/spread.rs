//! How far predictions are off on devices that the fit had not seen: the intervals.

use std::collections::BTreeMap;

/// Logarithms of measured ÷ predicted speed between which four of five measurements lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Tenth percentile.
    pub low: f64,
    /// Median.
    pub middle: f64,
    /// Ninetieth percentile.
    pub high: f64,
    /// Devices behind it.
    pub count: usize,
}

/// Ranges by key, `decode/amd-gddr/llama-bench`; the longest key that has enough devices counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    ranges: BTreeMap<String, Range>,
    scales: BTreeMap<String, f64>,
}

/// Devices' worth of weight that the wider key gets when a narrow one has few.
const SHRINK: f64 = 3.0;

impl Spread {
    /// Adds a range.
    pub fn insert(&mut self, key: &str, low: f64, middle: f64, high: f64, count: usize) {
        self.ranges.insert(key.to_owned(), Range { low, middle, high, count });
    }

    /// Widens or narrows, around their middle, the ranges whose narrowest key this is.
    pub fn insert_scale(&mut self, key: &str, scale: f64) {
        self.scales.insert(key.to_owned(), scale);
    }

    /// All factors.
    pub fn scales(&self) -> impl Iterator<Item = (&str, f64)> {
        self.scales.iter().map(|(key, &scale)| (key.as_str(), scale))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Range)> {
        self.ranges.iter().map(|(key, range)| (key.as_str(), range))
    }

    /// The range for keys from wide to narrow: each narrower one moves it by as much as its devices weigh.
    pub fn range(&self, keys: &[String]) -> Option<Range> {
        let mut found: Option<Range> = None;
        for range in keys.iter().filter_map(|key| self.ranges.get(key)) {
            found = Some(match found {
                None => *range,
                Some(wide) => {
                    let weight = range.count as f64 / (range.count as f64 + SHRINK);
                    let mix = |narrow: f64, wide: f64| weight * narrow + (1.0 - weight) * wide;
                    Range {
                        low: mix(range.low, wide.low),
                        middle: mix(range.middle, wide.middle),
                        high: mix(range.high, wide.high),
                        count: range.count,
                    }
                }
            });
        }
        let scale = keys.iter().rev().find_map(|key| self.scales.get(key)).copied().unwrap_or(1.0);
        let around = |range: Range, end: f64| range.middle + scale * (end - range.middle);
        found.map(|range| Range { low: around(range, range.low), high: around(range, range.high), ..range })
    }
}

/// The weighted quantile of values; `None` of nothing.
pub fn quantile(values: &[(f64, f64)], at: f64) -> Option<f64> {
    let mut sorted: Vec<(f64, f64)> = values.iter().copied().filter(|(value, weight)| value.is_finite() && *weight > 0.0).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let goal = at * sorted.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut sum = 0.0;
    for (value, weight) in &sorted {
        sum += weight;
        if sum >= goal {
            return Some(*value);
        }
    }
    sorted.last().map(|(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_devices_move_a_range_little() {
        let mut spread = Spread::default();
        spread.insert("a", -1.0, 0.0, 1.0, 100);
        spread.insert("a/b", -0.1, 0.0, 0.1, 2);
        let low = |keys: &[&str]| spread.range(&keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>()).map(|range| range.low);
        assert_eq!(low(&["a"]), Some(-1.0));
        assert!((low(&["a", "a/b"]).unwrap() - -0.64).abs() < 1e-9);
        assert_eq!(low(&["x"]), None);
    }

    #[test]
    fn the_factor_of_the_narrowest_key_counts() {
        let mut spread = Spread::default();
        spread.insert("a", -1.0, 0.0, 2.0, 100);
        spread.insert_scale("a", 3.0);
        spread.insert_scale("a/b", 0.5);
        let range = spread.range(&["a".to_owned(), "a/b".to_owned()]).unwrap();
        assert_eq!((range.low, range.high), (-0.5, 1.0));
    }

    #[test]
    fn quantiles_weigh() {
        assert_eq!(quantile(&[(3.0, 1.0), (1.0, 1.0), (2.0, 8.0)], 0.5), Some(2.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
