//! Metadata by the keys of one architecture.

use super::error::DescribeError;
use crate::gguf::{Array, Value};
use spec::model::MetaValue;
use std::collections::BTreeMap;

/// Metadata of a file together with the prefix of its architecture.
pub(super) struct Keys<'a> {
    values: &'a BTreeMap<String, Value>,
    pub(super) architecture: String,
}

impl<'a> Keys<'a> {
    pub(super) fn new(values: &'a BTreeMap<String, Value>) -> Result<Self, DescribeError> {
        let mut keys = Self { values, architecture: String::new() };
        let key = "general.architecture";
        keys.architecture = keys.text(key)?.ok_or_else(|| DescribeError::MissingKey { key: key.to_owned() })?.to_owned();
        Ok(keys)
    }

    /// The key with the architecture before it.
    pub(super) fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub(super) fn get(&self, full: &str) -> Option<&'a Value> {
        self.values.get(full)
    }

    /// A short string by its full key; a long one counts as missing.
    pub(super) fn text(&self, full: &str) -> Result<Option<&'a str>, DescribeError> {
        match self.get(full) {
            Some(Value::Scalar(MetaValue::Text(text))) => Ok(Some(text)),
            None | Some(Value::LongText { .. }) => Ok(None),
            Some(other) => Err(wrong_type(full.to_owned(), "string", other)),
        }
    }

    /// A count by its key without the architecture.
    pub(super) fn count(&self, key: &str) -> Result<Option<u32>, DescribeError> {
        let full = self.full(key);
        match self.get(&full) {
            None => Ok(None),
            Some(Value::Scalar(scalar)) => count(&full, scalar).map(Some),
            Some(array) => Err(wrong_type(full, "count", array)),
        }
    }

    /// A count that llama.cpp needs.
    pub(super) fn need(&self, key: &str) -> Result<u32, DescribeError> {
        self.count(key)?.ok_or_else(|| DescribeError::MissingKey { key: self.full(key) })
    }

    /// A count that must lie between two bounds.
    pub(super) fn need_within(&self, key: &str, low: u32, high: u32) -> Result<u32, DescribeError> {
        let value = self.need(key)?;
        if (low..=high).contains(&value) {
            return Ok(value);
        }
        Err(DescribeError::OutOfRange { key: self.full(key), low: low.into(), high: high.into(), value: value.into() })
    }

    /// One count for each of `n` layers: an array of just that many, or one count for all.
    pub(super) fn per_layer(&self, key: &str, n: u32) -> Result<Option<Vec<u32>>, DescribeError> {
        let full = self.full(key);
        match self.get(&full) {
            Some(Value::Array(array)) if array.length == u64::from(n) => counts(full, array).map(Some),
            Some(Value::Array(array)) => Err(DescribeError::WrongLength { key: full, expected: n.into(), found: array.length }),
            _ => Ok(self.count(key)?.map(|count| vec![count; n as usize])),
        }
    }

    /// One count for each of `n` layers, from an array that llama.cpp needs and that may be longer.
    pub(super) fn need_listed(&self, key: &str, n: u32) -> Result<Vec<u32>, DescribeError> {
        let full = self.full(key);
        match self.get(&full) {
            Some(Value::Array(array)) if array.length >= u64::from(n) => counts(full, array),
            Some(Value::Array(array)) => Err(DescribeError::WrongLength { key: full, expected: n.into(), found: array.length }),
            Some(other) => Err(wrong_type(full, "list of counts", other)),
            None => Err(DescribeError::MissingKey { key: full }),
        }
    }

    /// The array of flags of this key, `None` where it is missing or no array. Layers past its end are `false`.
    pub(super) fn flags(&self, key: &str, n: u32) -> Result<Option<Vec<bool>>, DescribeError> {
        let full = self.full(key);
        let Some(Value::Array(array)) = self.get(&full) else { return Ok(None) };
        let Array { numbers: Some(numbers), .. } = array else {
            return Err(wrong_type(full, "list of flags", &Value::Array(array.clone())));
        };
        let mut flags: Vec<bool> = numbers.iter().map(|&number| number != 0.0).collect();
        flags.resize(n as usize, false);
        Ok(Some(flags))
    }
}

fn counts(full: String, array: &Array) -> Result<Vec<u32>, DescribeError> {
    let counts = array.numbers.as_ref().and_then(|numbers| numbers.iter().map(|&number| whole(number)).collect());
    counts.ok_or_else(|| wrong_type(full, "list of counts", &Value::Array(array.clone())))
}

fn count(full: &str, scalar: &MetaValue) -> Result<u32, DescribeError> {
    let value = match scalar {
        MetaValue::Uint(value) => *value,
        MetaValue::Int(value) if *value >= 0 => *value as u64,
        other => return Err(wrong_type(full.to_owned(), "count", &Value::Scalar(other.clone()))),
    };
    let high = u64::from(u32::MAX);
    u32::try_from(value).map_err(|_| DescribeError::OutOfRange { key: full.to_owned(), low: 0, high, value })
}

/// A number that is a count in 32 bits.
fn whole(number: f64) -> Option<u32> {
    (number >= 0.0 && number <= f64::from(u32::MAX) && number.fract() == 0.0).then_some(number as u32)
}

fn wrong_type(key: String, expected: &'static str, found: &Value) -> DescribeError {
    DescribeError::WrongType { key, expected, found: found.summary() }
}
