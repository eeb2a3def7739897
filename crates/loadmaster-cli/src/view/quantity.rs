//! Quantities as they are shown: value, interval, source.

use schemars::JsonSchema;
use serde::Serialize;
use spec::{Bytes, BytesPerSec, Known, TokensPerSec};
use std::fmt;
use std::time::Duration;

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Size(pub u64);

impl From<Bytes> for Size {
    fn from(bytes: Bytes) -> Self {
        Self(bytes.get())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Bytes::new(self.0).fmt(f)
    }
}

/// Tokens per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Rate(pub f64);

impl From<TokensPerSec> for Rate {
    fn from(rate: TokensPerSec) -> Self {
        Self(rate.get())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match TokensPerSec::new(self.0) {
            Some(rate) => rate.fmt(f),
            None => f.pad("0 tok/s"),
        }
    }
}

/// A time in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Seconds(pub f64);

impl From<Duration> for Seconds {
    fn from(time: Duration) -> Self {
        Self(time.as_secs_f64())
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds if seconds >= 100.0 => f.pad(&format!("{seconds:.0} s")),
            seconds if seconds >= 10.0 => f.pad(&format!("{seconds:.1} s")),
            seconds if seconds >= 0.1 => f.pad(&format!("{seconds:.2} s")),
            seconds => f.pad(&format!("{seconds:.3} s")),
        }
    }
}

/// Bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Bandwidth(pub f64);

impl From<BytesPerSec> for Bandwidth {
    fn from(rate: BytesPerSec) -> Self {
        Self(rate.get())
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match BytesPerSec::new(self.0) {
            Some(rate) => rate.fmt(f),
            None => f.pad("0 GB/s"),
        }
    }
}

/// A value and how well it is known.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "known", rename_all = "lowercase")]
pub enum Quantity<T> {
    /// Read from its owner, or computed by the owner's own rule.
    Exact {
        /// The value.
        value: T,
        /// Where it was read.
        source: String,
    },
    /// Computed by a model of limited accuracy: expected from `low` to `high`.
    Estimated {
        /// The central value.
        value: T,
        /// Lower end of the interval.
        low: T,
        /// Upper end of the interval.
        high: T,
        /// What computed it.
        source: String,
    },
    /// Not known, which is not zero.
    Unknown {
        /// Why not.
        reason: String,
    },
}

impl<T> Quantity<T> {
    /// The shown form of a known value.
    pub fn of<U: Clone + Into<T>>(known: &Known<U>) -> Self {
        match known.clone() {
            Known::Exact { value, source } => Self::Exact { value: value.into(), source: source.to_string() },
            Known::Estimated { value, low, high, source } => {
                Self::Estimated { value: value.into(), low: low.into(), high: high.into(), source: source.to_string() }
            }
            Known::Unknown { reason } => Self::Unknown { reason: reason.to_string() },
        }
    }
    /// The central value, if there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Exact { value, .. } | Self::Estimated { value, .. } => Some(value),
            Self::Unknown { .. } => None,
        }
    }
}

impl<T: fmt::Display> fmt::Display for Quantity<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact { value, .. } => value.fmt(f),
            Self::Estimated { value, low, high, .. } => {
                let [value, low, high] = [value, low, high].map(ToString::to_string);
                // One unit for all three need not be said three times.
                match (value.rsplit_once(' '), low.rsplit_once(' '), high.rsplit_once(' ')) {
                    (Some((_, unit)), Some((low, a)), Some((high, b))) if unit == a && a == b => {
                        f.pad(&format!("~{value} ({low} to {high})"))
                    }
                    _ => f.pad(&format!("~{value} ({low} to {high})")),
                }
            }
            Self::Unknown { reason } => f.pad(&format!("unknown ({reason})")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_never_a_number() {
        let unknown = Quantity::<Size>::of(&Known::<Bytes>::unknown("no driver"));
        assert_eq!(serde_json::to_string(&unknown).unwrap(), r#"{"known":"unknown","reason":"no driver"}"#);
        assert_eq!(unknown.to_string(), "unknown (no driver)");
    }

    #[test]
    fn estimates_show_their_interval() {
        let mib = Bytes::from_mib;
        let size = Quantity::<Size>::of(&Known::estimated(mib(10), mib(8), mib(12), "model"));
        assert_eq!(size.to_string(), "~10.00 MiB (8.00 to 12.00)");
        assert_eq!(
            serde_json::to_value(&size).unwrap(),
            serde_json::json!({"known": "estimated", "value": 10485760, "low": 8388608, "high": 12582912, "source": "model"})
        );
    }
}
