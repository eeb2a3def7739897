//! The time of a phase: by processor and kind of cost, then with intervals and words.

use super::range::Range;
use super::{Bottleneck, TimePart};
use spec::{Known, TokensPerSec};
use std::time::Duration;

/// Central seconds on one processor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PoolTimes {
    pub(crate) weights: f64,
    pub(crate) arithmetic: f64,
    /// Reading of keys and values, where that is not within the time of attention.
    pub(crate) cache: f64,
    pub(crate) attention: f64,
    pub(crate) launch: f64,
    /// Arithmetic with weights that another processor holds.
    pub(crate) borrowed: f64,
}

impl PoolTimes {
    pub(crate) fn total(&self) -> f64 {
        self.weights + self.arithmetic + self.cache + self.attention + self.launch + self.borrowed
    }
}

/// What no processor does alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shared {
    /// Copies of host weights to a GPU.
    pub(crate) link: Range,
    /// Weights from disk.
    pub(crate) disk: Range,
    /// Changes of processor.
    pub(crate) hops: Range,
    /// Sampling and the host's loop.
    pub(crate) fixed: Range,
}

impl Shared {
    pub(crate) const NONE: Self = Self { link: Range::ZERO, disk: Range::ZERO, hops: Range::ZERO, fixed: Range::ZERO };

    pub(crate) fn total(&self) -> f64 {
        self.link.mid + self.disk.mid + self.hops.mid + self.fixed.mid
    }
}

/// Parts of a phase with their intervals.
///
/// The ends of the interval of the whole are the sums of the ends of the parts: as if all were off to the same side. What they have in
/// common (the engine's build, the system, drivers) makes it likely that they are, and an interval that is too wide misleads less than
/// one that is too narrow. Where one processor does nearly everything, it is the interval that was measured for that processor.
#[derive(Default)]
pub(crate) struct Times {
    parts: Vec<(String, Bottleneck, Range)>,
}

impl Times {
    pub(crate) fn add(&mut self, what: impl Into<String>, bottleneck: Bottleneck, time: Range) {
        if time.high > 0.0 {
            self.parts.push((what.into(), bottleneck, time));
        }
    }

    /// The parts of one processor, all of them off by the same factor, which `off` gives for a central second.
    pub(crate) fn add_pool(&mut self, name: &str, times: &PoolTimes, off: Range) {
        use Bottleneck::{Bandwidth, Compute, Launch};
        let least = times.total() * 0.01;
        let mut add = |what: &str, bottleneck, seconds: f64| self.add(format!("{what} on {name}"), bottleneck, off.scale(seconds));
        // Of two that overlap the smaller is mostly nothing to speak of.
        let (weights, arithmetic) = match (times.weights < least, times.arithmetic < least) {
            (true, false) => (0.0, times.weights + times.arithmetic),
            (false, true) => (times.weights + times.arithmetic, 0.0),
            _ => (times.weights, times.arithmetic),
        };
        add("weights", Bandwidth, weights);
        add("arithmetic", Compute, arithmetic);
        add("cache", Bandwidth, times.cache);
        add("attention", Compute, times.attention);
        add("host weights computed", Compute, times.borrowed);
        add("layers", Launch, times.launch);
    }

    pub(crate) fn add_shared(&mut self, shared: &Shared) {
        self.add("sampling and the host's loop", Bottleneck::Launch, shared.fixed);
        self.add("hops between processors", Bottleneck::Launch, shared.hops);
        self.add("weights copied to the GPU", Bottleneck::Link, shared.link);
        self.add("weights from disk", Bottleneck::Disk, shared.disk);
    }

    pub(crate) fn total(&self) -> Range {
        self.parts.iter().fold(Range::ZERO, |sum, (_, _, time)| sum.plus(*time))
    }

    /// The kind of cost with the largest central sum.
    pub(crate) fn bottleneck(&self) -> Bottleneck {
        use Bottleneck::{Bandwidth, Compute, Disk, Launch, Link};
        let sum = |kind| self.parts.iter().filter(|part| part.1 == kind).map(|part| part.2.mid).sum::<f64>();
        let kinds = [Bandwidth, Compute, Link, Disk, Launch];
        kinds.into_iter().max_by(|a, b| sum(*a).total_cmp(&sum(*b)).then(b.cmp(a))).unwrap_or(Bandwidth)
    }

    pub(crate) fn parts(&self) -> Vec<TimePart> {
        let part = |(what, bottleneck, time): &(String, Bottleneck, Range)| TimePart {
            what: what.clone(),
            bottleneck: *bottleneck,
            time: duration(time.mid),
        };
        let mut parts: Vec<TimePart> = self.parts.iter().map(part).collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.time));
        parts
    }

    /// Tokens per second where this time passes for `tokens` tokens.
    pub(crate) fn rate(&self, tokens: f64, source: &'static str) -> Known<TokensPerSec> {
        let time = self.total();
        let rate = |seconds: f64| TokensPerSec::new(tokens / seconds);
        match (rate(time.high), rate(time.mid), rate(time.low)) {
            (Some(low), Some(mid), Some(high)) => Known::estimated(mid, low, high, source),
            _ => Known::unknown("the model's file gives nothing to compute"),
        }
    }
}

pub(crate) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
