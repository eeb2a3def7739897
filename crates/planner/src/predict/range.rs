//! Quantities with an interval, and how intervals combine.

/// A rate, an amount or a time with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) low: f64,
    pub(crate) mid: f64,
    pub(crate) high: f64,
}

impl Range {
    pub(crate) const ZERO: Self = Self::new(0.0, 0.0, 0.0);

    pub(crate) const fn new(low: f64, mid: f64, high: f64) -> Self {
        Self { low, mid, high }
    }
    /// A centre with logarithmic deviations to either side: `mid · exp(low)` to `mid · exp(high)`.
    pub(crate) fn around(mid: f64, low: f64, high: f64) -> Self {
        Self::new(mid * low.min(0.0).exp(), mid, mid * high.max(0.0).exp())
    }
    pub(crate) fn scale(self, factor: f64) -> Self {
        Self::new(self.low * factor, self.mid * factor, self.high * factor)
    }
    /// The sum as if both were off to the same side: end by end.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self::new(self.low + other.low, self.mid + other.mid, self.high + other.high)
    }
    /// `amount` over this rate: a high rate is a short time.
    pub(crate) fn time_for(self, amount: f64) -> Self {
        Self::new(amount / self.high, amount / self.mid, amount / self.low)
    }
    /// The time for this uncertain amount at an uncertain rate.
    pub(crate) fn over(self, rate: Self) -> Self {
        Self::new(self.low / rate.high, self.mid / rate.mid, self.high / rate.low)
    }
    /// Logarithms of the ends over the centre; nothing for a centre of zero.
    pub(crate) fn logarithms(self) -> (f64, f64) {
        let log = |end: f64| (end / self.mid).ln();
        if self.mid > 0.0 && self.low > 0.0 && self.high.is_finite() { (log(self.low), log(self.high)) } else { (0.0, 0.0) }
    }
}
