//! Quantities with their units. Conversions and their formatting exist here and nowhere else.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div};
use std::str::FromStr;
use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// A size in bytes.
///
/// Sums saturate: a size past 2^64 is a size that fits nowhere, and stays one.
///
/// ```
/// use spec::Bytes;
/// assert_eq!("24GiB".parse::<Bytes>().unwrap(), Bytes::from_gib(24));
/// assert_eq!(Bytes::from_mib(1536).to_string(), "1.50 GiB");
/// assert_eq!(Bytes::new(100).pad_to(32), Bytes::new(128));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(u64);

impl Bytes {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest size; what a saturated sum shows.
    pub const MAX: Self = Self(u64::MAX);

    /// A size of `bytes` bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }
    /// A size of `kib` × 2^10 bytes.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib.saturating_mul(KIB))
    }
    /// A size of `mib` × 2^20 bytes.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib.saturating_mul(MIB))
    }
    /// A size of `gib` × 2^30 bytes.
    pub const fn from_gib(gib: u64) -> Self {
        Self(gib.saturating_mul(GIB))
    }
    /// A fractional size, rounded down; negative and not-a-number become zero, too large saturates.
    pub fn from_f64(bytes: f64) -> Self {
        Self(bytes as u64)
    }
    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The number of bytes as a float, for ratios.
    pub const fn as_f64(self) -> f64 {
        self.0 as f64
    }
    /// The size in units of 2^20 bytes.
    pub fn as_mib(self) -> f64 {
        self.0 as f64 / MIB as f64
    }
    /// The size in units of 2^30 bytes.
    pub fn as_gib(self) -> f64 {
        self.0 as f64 / GIB as f64
    }
    /// True for zero bytes.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
    /// The sum, or `None` past 2^64.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }
    /// The product with a count, or `None` past 2^64.
    pub fn checked_mul(self, count: u64) -> Option<Self> {
        self.0.checked_mul(count).map(Self)
    }
    /// The product with a count, saturating.
    pub fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }
    /// The difference, zero where `other` is larger.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
    /// The next multiple of `alignment`, saturating. An alignment of zero leaves the size as it is.
    pub fn pad_to(self, alignment: u64) -> Self {
        match alignment {
            0 => self,
            a => self.0.checked_next_multiple_of(a).map_or(Self::MAX, Self),
        }
    }
    /// The size scaled by a factor, rounded down.
    pub fn scale(self, factor: f64) -> Self {
        Self::from_f64(self.0 as f64 * factor)
    }
    /// The size in whole MiB, rounded up; what engine flags take.
    pub fn to_mib_ceil(self) -> u64 {
        self.0.div_ceil(MIB)
    }
}

impl Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::ZERO, Add::add)
    }
}

impl<'a> Sum<&'a Bytes> for Bytes {
    fn sum<I: Iterator<Item = &'a Bytes>>(sizes: I) -> Self {
        sizes.copied().sum()
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            n if n >= 10 * TIB => (TIB, "TiB"),
            n if n >= GIB => (GIB, "GiB"),
            n if n >= MIB => (MIB, "MiB"),
            n if n >= KIB => (KIB, "KiB"),
            n => return f.pad(&format!("{n} B")),
        };
        f.pad(&format!("{:.2} {name}", self.0 as f64 / unit as f64))
    }
}

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseBytesError(String);

impl fmt::Display for ParseBytesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a size: {:?}; write a number and B, KiB, MiB, GiB or TiB (KB, MB, GB, TB are powers of ten)", self.0)
    }
}

impl std::error::Error for ParseBytesError {}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    /// `24GiB`, `24 GiB`, `24G` (2^30), `24GB` (10^9), `1.5GiB`, `4096` (bytes).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseBytesError(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => KIB,
            "m" | "mib" => MIB,
            "g" | "gib" => GIB,
            "t" | "tib" => TIB,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(error()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(unit).map(Self).ok_or_else(error);
        }
        let fraction: f64 = number.parse().map_err(|_| error())?;
        let bytes = fraction * unit as f64;
        if bytes.is_finite() && bytes < u64::MAX as f64 { Ok(Self(bytes as u64)) } else { Err(error()) }
    }
}

macro_rules! rate {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
        pub struct $name(f64);

        impl $name {
            /// A rate; `None` unless it is finite and above zero, so that a quotient by it is a time.
            pub fn new(per_second: f64) -> Option<Self> {
                (per_second.is_finite() && per_second > 0.0).then_some(Self(per_second))
            }
            /// The number per second.
            pub const fn get(self) -> f64 {
                self.0
            }
        }
    };
}

rate!(
    /// Bytes read or written per second; above zero.
    BytesPerSec
);
rate!(
    /// Arithmetic operations per second (a multiply-add counts as two); above zero.
    OpsPerSec
);
rate!(
    /// Tokens per second; above zero.
    TokensPerSec
);

impl BytesPerSec {
    /// The rate in units of 10^9 bytes per second; `None` unless finite and above zero.
    pub fn from_gb(gb_per_second: f64) -> Option<Self> {
        Self::new(gb_per_second * 1e9)
    }
}

impl Div<BytesPerSec> for Bytes {
    type Output = Duration;
    /// A size over a rate is a time; saturates at [`Duration::MAX`].
    fn div(self, rate: BytesPerSec) -> Duration {
        Duration::try_from_secs_f64(self.0 as f64 / rate.get()).unwrap_or(Duration::MAX)
    }
}

impl fmt::Display for BytesPerSec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1} GB/s", self.0 / 1e9))
    }
}

impl fmt::Display for OpsPerSec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.2} TFLOP/s", self.0 / 1e12))
    }
}

impl fmt::Display for TokensPerSec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&if self.0 < 10.0 { format!("{:.2} tok/s", self.0) } else { format!("{:.1} tok/s", self.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_in_binary_and_decimal_units() {
        for (text, bytes) in
            [("4096", 4096), ("1.5GiB", 3 << 29), ("24G", 24 << 30), ("24 GB", 24_000_000_000), ("0B", 0), (" 8mib ", 8 << 20)]
        {
            assert_eq!(text.parse::<Bytes>(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "banana", "-1GiB", "1.2.3G", "99999999999999999999", "20000000TiB", "GiB", "inf"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn sums_saturate_and_padding_rounds_up() {
        assert_eq!(Bytes::MAX + Bytes(1), Bytes::MAX);
        assert_eq!(Bytes(0).pad_to(32), Bytes(0));
        assert_eq!(Bytes(1).pad_to(32), Bytes(32));
        assert_eq!(Bytes(33).pad_to(0), Bytes(33));
        assert_eq!(Bytes::MAX.pad_to(32), Bytes::MAX);
    }

    #[test]
    fn rates_are_never_zero() {
        assert!(BytesPerSec::new(0.0).is_none() && BytesPerSec::new(f64::NAN).is_none() && TokensPerSec::new(-1.0).is_none());
        assert_eq!(Bytes::from_gib(1) / BytesPerSec::new(GIB as f64).unwrap(), Duration::from_secs(1));
    }
}
