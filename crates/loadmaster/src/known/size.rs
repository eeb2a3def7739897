//! Sizes of models as people say them, and the shape that is typical of a size.

use super::{KnownModel, find};
use std::fmt;
use std::str::FromStr;

/// A size in parameters: `8B`, `350M`; with experts also what one token passes: `30B-A3B`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelSize {
    /// All parameters.
    pub parameters: f64,
    /// Parameters that one token multiplies with; `None` for a dense model.
    pub active: Option<f64>,
}

impl FromStr for ModelSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("no size of a model: {text:?}; write 8B, 350M or 30B-A3B");
        let lower = text.trim().to_ascii_lowercase();
        let (all, active) = match lower.split_once("-a") {
            Some((all, active)) => (all, Some(active)),
            None => (lower.as_str(), None),
        };
        let count = |text: &str| {
            let (digits, unit) = text.split_at(text.len().checked_sub(1)?);
            let unit = match unit {
                "m" => 1e6,
                "b" => 1e9,
                "t" => 1e12,
                _ => return None,
            };
            let number: f64 = digits.trim().parse().ok()?;
            (number.is_finite() && number > 0.0).then_some(number * unit)
        };
        // A sign of several bytes at the end would be cut in the middle.
        if !lower.is_ascii() {
            return Err(wrong());
        }
        let parameters = count(all).ok_or_else(wrong)?;
        let active = active.map(|text| count(text).ok_or_else(wrong)).transpose()?;
        match active {
            Some(active) if active > parameters => Err(format!("more parameters at work than there are: {text:?}")),
            _ => Ok(Self { parameters, active }),
        }
    }
}

impl fmt::Display for ModelSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |n: f64| match n {
            n if n >= 1e12 => format!("{}T", n / 1e12),
            n if n >= 1e9 => format!("{}B", n / 1e9),
            n => format!("{}M", n / 1e6),
        };
        match self.active {
            None => f.pad(&one(self.parameters)),
            Some(active) => f.pad(&format!("{}-A{}", one(self.parameters), one(active))),
        }
    }
}

/// A size that no typical shape is near to.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("no typical shape of {size}")]
pub struct NoTypicalShape {
    /// The size asked for.
    pub size: ModelSize,
    /// The nearest that there is.
    pub nearest: Option<&'static str>,
}

/// Shapes that stand for a size: of each size the one that most people run, with its parameters and those at work.
const TYPICAL: &[(&str, f64, Option<f64>)] = &[
    ("smollm2-135m", 0.135e9, None),
    ("smollm2-360m", 0.362e9, None),
    ("qwen3-0.6b", 0.596e9, None),
    ("llama-3.2-1b", 1.236e9, None),
    ("qwen3-1.7b", 1.721e9, None),
    ("llama-3.2-3b", 3.213e9, None),
    ("qwen3-4b", 4.022e9, None),
    ("mistral-7b", 7.248e9, None),
    ("qwen3-8b", 8.191e9, None),
    ("gemma-2-9b", 9.242e9, None),
    ("falcon3-10b", 10.306e9, None),
    ("gemma-3-12b", 11.766e9, None),
    ("qwen3-14b", 14.768e9, None),
    ("codestral-22b", 22.247e9, None),
    ("mistral-small-3.2-24b", 23.572e9, None),
    ("gemma-3-27b", 27.009e9, None),
    ("qwen3-32b", 32.762e9, None),
    ("llama-3.1-70b", 70.554e9, None),
    ("mistral-large-123b", 122.61e9, None),
    ("llama-3.1-405b", 405.85e9, None),
    ("deepseek-v2-lite", 15.706e9, Some(2.7e9)),
    ("gpt-oss-20b", 20.915e9, Some(3.6e9)),
    ("qwen3-30b-a3b", 30.532e9, Some(3.35e9)),
    ("mixtral-8x7b", 46.703e9, Some(12.9e9)),
    ("qwen3-next-80b-a3b", 79.67e9, Some(3.9e9)),
    ("glm-4.5-air", 110.47e9, Some(13.3e9)),
    ("gpt-oss-120b", 116.829e9, Some(5.1e9)),
    ("qwen3-235b-a22b", 235.09e9, Some(22.2e9)),
    ("glm-4.5", 358.0e9, Some(32e9)),
    ("qwen3-coder-480b-a35b", 480.15e9, Some(35e9)),
    ("deepseek-v3", 671.0e9, Some(37.5e9)),
    ("kimi-k2", 1026.0e9, Some(32e9)),
];

/// A shape further off than this factor in parameters is not typical of a size.
const FAR: f64 = 1.3;

/// The model whose shape is typical of this size: the nearest in parameters; among those with experts, in parameters at work as well.
///
/// # Errors
/// None is within a factor of 1.3 in parameters.
pub fn typical(size: ModelSize) -> Result<&'static KnownModel, NoTypicalShape> {
    let distance = |(_, parameters, active): &&(&str, f64, Option<f64>)| {
        let all = (parameters / size.parameters).ln().abs();
        match (active, size.active) {
            (Some(active), Some(wanted)) => all + (active / wanted).ln().abs() / 2.0,
            _ => all,
        }
    };
    let alike = TYPICAL.iter().filter(|(_, _, active)| active.is_some() == size.active.is_some());
    let found = alike.min_by(|a, b| distance(a).total_cmp(&distance(b)));
    let known = found.and_then(|(name, parameters, _)| Some((find(name).ok()?, *parameters)));
    match known {
        Some((known, parameters)) if (parameters / size.parameters).ln().abs() <= FAR.ln() => Ok(known),
        known => Err(NoTypicalShape { size, nearest: known.map(|(known, _)| known.name.as_str()) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_say_them() {
        let dense = |parameters| Ok(ModelSize { parameters, active: None });
        assert_eq!("8B".parse(), dense(8e9));
        assert_eq!(" 350m ".parse(), dense(350e6));
        assert_eq!("1.5b".parse(), dense(1.5e9));
        assert_eq!("30B-A3B".parse(), Ok(ModelSize { parameters: 30e9, active: Some(3e9) }));
        assert_eq!("30b-a3b".parse::<ModelSize>().unwrap().to_string(), "30B-A3B");
        assert_eq!("1t-a32b".parse::<ModelSize>().unwrap().to_string(), "1T-A32B");
        for text in ["", "8", "b", "-8b", "0b", "8x7b", "nanb", "infb", "8b-a9b", "8b-a", "8б", "é"] {
            assert!(text.parse::<ModelSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_typical_shape_has_the_size_that_it_stands_for() {
        for (name, parameters, active) in TYPICAL {
            let known = find(name).unwrap();
            let model = known.model(formats::FileType::Q4_K_M).unwrap();
            let elements: u64 = model.tensors.iter().map(|tensor| tensor.elements()).sum();
            let share = elements as f64 / parameters;
            assert!((0.97..1.03).contains(&share), "{name}: {elements} and {parameters}");
            let at_work = formats::analyze(&model).active_parameters as f64;
            match active {
                Some(active) => assert!((0.8..1.25).contains(&(at_work / active)), "{name}: {at_work} and {active}"),
                None => assert!((0.75..1.01).contains(&(at_work / parameters)), "{name}: {at_work} of {parameters}"),
            }
        }
    }

    #[test]
    fn a_size_has_one_typical_shape() {
        let of = |text: &str| typical(text.parse().unwrap()).map(|known| known.name.as_str());
        assert_eq!(of("8B"), Ok("qwen3-8b"));
        assert_eq!(of("7B"), Ok("mistral-7b"));
        assert_eq!(of("13B"), Ok("gemma-3-12b"));
        assert_eq!(of("70B"), Ok("llama-3.1-70b"));
        assert_eq!(of("30B-A3B"), Ok("qwen3-30b-a3b"));
        assert_eq!(of("120B-A5B"), Ok("gpt-oss-120b"));
        assert_eq!(of("120B-A12B"), Ok("glm-4.5-air"));
        let far = typical("3T".parse().unwrap()).unwrap_err();
        assert_eq!((far.to_string().as_str(), far.nearest), ("no typical shape of 3T", Some("llama-3.1-405b")));
    }
}
