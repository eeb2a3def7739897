//! A value, how well it is known, and from where.
//!
//! Unknown is never zero: a missing figure is [`Known::Unknown`] with its reason, and only the reader of the value
//! decides what to do without it.

use crate::units::Bytes;
use std::borrow::Cow;
use std::fmt;

/// Where a value comes from: a file, a driver call, a formula, a table row with its date.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(Cow<'static, str>);

impl Source {
    /// A source by its name, as a user would look it up: `/proc/meminfo MemAvailable`, `NVML`, `llama-context.cpp:292`.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(name.into())
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<&'static str> for Source {
    fn from(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }
}

impl From<String> for Source {
    fn from(name: String) -> Self {
        Self(Cow::Owned(name))
    }
}

/// A quantity, and how we know it.
#[derive(Clone, Debug, PartialEq)]
pub enum Known<T> {
    /// Read from the file, the driver or the instruction that defines it, or computed by the owner's own integer rule.
    Exact {
        /// The value.
        value: T,
        /// Where it was read.
        source: Source,
    },
    /// Computed by a model of limited accuracy: the truth is expected within `low..=high`.
    Estimated {
        /// The central value.
        value: T,
        /// Lower end of the interval.
        low: T,
        /// Upper end of the interval.
        high: T,
        /// What computed it.
        source: Source,
    },
    /// Not found. Shown as such, never replaced by a default in silence.
    Unknown {
        /// Why there is no value.
        reason: Source,
    },
}

impl<T> Known<T> {
    /// A value read from its owner.
    pub fn exact(value: T, source: impl Into<Source>) -> Self {
        Self::Exact { value, source: source.into() }
    }
    /// A computed value with its interval.
    pub fn estimated(value: T, low: T, high: T, source: impl Into<Source>) -> Self {
        Self::Estimated { value, low, high, source: source.into() }
    }
    /// No value, and why.
    pub fn unknown(reason: impl Into<Source>) -> Self {
        Self::Unknown { reason: reason.into() }
    }
    /// The value from a source that may lack it.
    pub fn from_option(value: Option<T>, source: impl Into<Source>, reason: impl Into<Source>) -> Self {
        match value {
            Some(value) => Self::exact(value, source),
            None => Self::unknown(reason),
        }
    }
    /// The central value, if there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Exact { value, .. } | Self::Estimated { value, .. } => Some(value),
            Self::Unknown { .. } => None,
        }
    }
    /// The lower end of what it may be: the value itself where exact.
    pub fn low(&self) -> Option<&T> {
        match self {
            Self::Exact { value, .. } | Self::Estimated { low: value, .. } => Some(value),
            Self::Unknown { .. } => None,
        }
    }
    /// The upper end of what it may be: the value itself where exact.
    pub fn high(&self) -> Option<&T> {
        match self {
            Self::Exact { value, .. } | Self::Estimated { high: value, .. } => Some(value),
            Self::Unknown { .. } => None,
        }
    }
    /// Where the value, or the lack of it, comes from.
    pub fn source(&self) -> &Source {
        match self {
            Self::Exact { source, .. } | Self::Estimated { source, .. } => source,
            Self::Unknown { reason } => reason,
        }
    }
    /// True for [`Known::Exact`].
    pub fn is_exact(&self) -> bool {
        matches!(self, Self::Exact { .. })
    }
    /// True for [`Known::Unknown`].
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
    /// The same knowledge of a derived value; `f` must be monotone for the interval to hold.
    pub fn map<U>(self, f: impl Fn(T) -> U) -> Known<U> {
        match self {
            Self::Exact { value, source } => Known::Exact { value: f(value), source },
            Self::Estimated { value, low, high, source } => Known::Estimated { value: f(value), low: f(low), high: f(high), source },
            Self::Unknown { reason } => Known::Unknown { reason },
        }
    }
}

impl<T: Copy> Known<T> {
    /// The central value by copy, if there is one.
    pub fn get(&self) -> Option<T> {
        self.value().copied()
    }
}

impl Known<Bytes> {
    /// The sum of two sizes. Exactness survives only if both are exact; an unknown part makes the sum unknown.
    pub fn plus(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Unknown { reason }, _) | (_, Self::Unknown { reason }) => Self::Unknown { reason: reason.clone() },
            (Self::Exact { value: a, source }, Self::Exact { value: b, .. }) => Self::Exact { value: *a + *b, source: source.clone() },
            (a, b) => {
                let source = if a.is_exact() { b.source() } else { a.source() };
                match (a.get(), a.low(), a.high(), b.get(), b.low(), b.high()) {
                    (Some(av), Some(al), Some(ah), Some(bv), Some(bl), Some(bh)) => {
                        Self::Estimated { value: av + bv, low: *al + *bl, high: *ah + *bh, source: source.clone() }
                    }
                    _ => Self::Unknown { reason: source.clone() },
                }
            }
        }
    }
}

impl<T: fmt::Display> fmt::Display for Known<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact { value, .. } => value.fmt(f),
            Self::Estimated { value, low, high, .. } => f.pad(&format!("~{value} ({low} to {high})")),
            Self::Unknown { reason } => f.pad(&format!("unknown ({reason})")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_as_good_as_its_worst_part() {
        let exact = Known::exact(Bytes::new(10), "file");
        let guess = Known::estimated(Bytes::new(5), Bytes::new(4), Bytes::new(8), "model");
        let none = Known::<Bytes>::unknown("no driver");
        assert_eq!(exact.plus(&exact).get(), Some(Bytes::new(20)));
        assert!(exact.plus(&exact).is_exact());
        assert_eq!(exact.plus(&guess), Known::estimated(Bytes::new(15), Bytes::new(14), Bytes::new(18), "model"));
        assert_eq!(guess.plus(&none), none);
        assert_eq!(none.plus(&exact), none);
        assert_eq!(none.to_string(), "unknown (no driver)");
    }
}
