//! Parameters by name, and the text that keeps them.

use crate::spread::Spread;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::OnceLock;

const FITTED_TEXT: &str = include_str!("../data/fitted.tsv");

/// Logarithms of inefficiencies by the name of their effect, and how far predictions made with them are off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    values: BTreeMap<String, f64>,
    /// How far predictions are off, from devices that a fit had left out.
    pub spread: Spread,
}

/// A line of the text of parameters that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parameters, line {line}: not `parameter NAME VALUE`, `spread KEY LOW MIDDLE HIGH COUNT` or `scale KEY FACTOR`: {text:?}")]
pub struct ParameterError {
    /// The line, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

impl Parameters {
    /// Those of this build, fitted to published measurements: `data/fitted.tsv`, read once.
    pub fn fitted() -> &'static Self {
        static FITTED: OnceLock<Parameters> = OnceLock::new();
        // The text is written by `to_text`; a test reads it.
        FITTED.get_or_init(|| Self::from_text(FITTED_TEXT).unwrap_or_default())
    }

    /// With these values.
    pub fn new(values: BTreeMap<String, f64>) -> Self {
        Self { values, spread: Spread::default() }
    }

    /// The value of an effect; 0, no change, for one that nothing is known of.
    pub fn get(&self, name: &str) -> f64 {
        self.values.get(name).copied().unwrap_or(0.0)
    }

    /// True for an effect that was fitted.
    pub fn knows(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The values by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.values.iter().map(|(name, &value)| (name.as_str(), value))
    }

    /// Without the effects of single devices: what a device of which nothing was measured gets.
    #[must_use]
    pub fn without_devices(&self) -> Self {
        let values = self.values.iter().filter(|(name, _)| !name.contains("/device=") && !name.contains("/machine="));
        Self { values: values.map(|(name, &value)| (name.clone(), value)).collect(), spread: self.spread.clone() }
    }

    /// Without the effects of single machines, which are nobody else's.
    #[must_use]
    pub fn without_machines(&self) -> Self {
        let values = self.values.iter().filter(|(name, _)| !name.contains("/machine="));
        Self { values: values.map(|(name, &value)| (name.clone(), value)).collect(), spread: self.spread.clone() }
    }

    /// These with others added, which win.
    #[must_use]
    pub fn with(&self, others: &BTreeMap<String, f64>) -> Self {
        let mut all = self.clone();
        all.values.extend(others.iter().map(|(name, &value)| (name.clone(), value)));
        all
    }

    /// As text, one per line, in order; what is smaller than half of a thousandth is left out.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.values.iter().filter(|(_, value)| value.abs() >= 5e-4) {
            let _ = writeln!(text, "parameter\t{name}\t{value:.3}");
        }
        for (key, range) in self.spread.iter() {
            let _ = writeln!(text, "spread\t{key}\t{:.3}\t{:.3}\t{:.3}\t{}", range.low, range.middle, range.high, range.count);
        }
        for (key, scale) in self.spread.scales() {
            let _ = writeln!(text, "scale\t{key}\t{scale:.3}");
        }
        text
    }

    /// From text; lines that begin with `#` are left out.
    ///
    /// # Errors
    /// The first line that is neither.
    pub fn from_text(text: &str) -> Result<Self, ParameterError> {
        let mut parameters = Self::default();
        for (place, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let error = || ParameterError { line: place + 1, text: line.to_owned() };
            let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(error);
            match line.split('\t').collect::<Vec<_>>().as_slice() {
                ["parameter", name, value] => {
                    parameters.values.insert((*name).to_owned(), number(value)?);
                }
                ["spread", key, low, middle, high, count] => {
                    let count = count.parse().map_err(|_| error())?;
                    parameters.spread.insert(key, number(low)?, number(middle)?, number(high)?, count);
                }
                ["scale", key, scale] => parameters.spread.insert_scale(key, number(scale)?),
                _ => return Err(error()),
            }
        }
        Ok(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let mut parameters = Parameters::new(BTreeMap::from([("decode/weights/all".to_owned(), 0.25)]));
        parameters.spread.insert("decode", -0.3, 0.0, 0.25, 12);
        parameters.spread.insert_scale("decode", 1.5);
        let text = "parameter\tdecode/weights/all\t0.250\nspread\tdecode\t-0.300\t0.000\t0.250\t12\nscale\tdecode\t1.500\n";
        assert_eq!(parameters.to_text(), text);
        assert_eq!(Parameters::from_text(&parameters.to_text()), Ok(parameters));
    }

    #[test]
    fn the_parameters_of_this_build_can_be_read() {
        assert_eq!(Parameters::from_text(FITTED_TEXT).as_ref(), Ok(Parameters::fitted()));
        assert!(Parameters::fitted().knows("decode/weights/class=nvidia-gddr"));
        assert!(Parameters::fitted().spread.iter().count() > 20);
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = Parameters::from_text("# fine\nparameter\tx\tNaN\n").unwrap_err();
        assert_eq!(error.line, 2);
    }

    #[test]
    fn one_device_can_be_forgotten() {
        let values = BTreeMap::from([("decode/weights/device=x".to_owned(), 1.0), ("decode/weights/all".to_owned(), 2.0)]);
        let left = Parameters::new(values).without_devices();
        assert_eq!(left.iter().collect::<Vec<_>>(), [("decode/weights/all", 2.0)]);
    }
}
