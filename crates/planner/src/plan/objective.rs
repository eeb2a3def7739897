//! What a plan is good for: the time of the workload's requests, under the bounds on speed, weighed by what the user prefers.

use super::request::Priority;
use super::site::Site;
use crate::predict::{Configuration, HostState, Moved};
use crate::workload::Workload;
use spec::Settings;
use std::cmp::Ordering;

/// What half of the wanted context must win in speed: 5 %, more than the noise of repeated runs, less than a layer of most models.
const HALF_CONTEXT: f64 = 1.05;

/// Central seconds of the workload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Timing {
    /// From request to first token, of the last of the requests that are served together.
    pub(crate) first_token: f64,
    /// Per token of one answer, while all that are served together are answered.
    pub(crate) token: f64,
    /// From the first request to the last token of all.
    pub(crate) whole: f64,
}

/// What of a request counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Goal {
    /// All of it.
    #[default]
    Request,
    /// The time to its first token.
    FirstToken,
}

/// What plans are ordered by that give up the same; less is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worth {
    /// By which factor the bound on speed is missed that is missed most; 1 where all are kept.
    pub behind: f64,
    /// Central seconds of the workload, weighed: with priority `latency` those to the first token count twice, and each halving of the
    /// wanted context counts as 5 % more.
    pub seconds: f64,
}

impl Worth {
    /// By the bounds first.
    pub fn total_cmp(&self, other: &Self) -> Ordering {
        self.behind.total_cmp(&other.behind).then(self.seconds.total_cmp(&other.seconds))
    }
    /// True where it misses the bounds by less, or wins by more than `factor` in time.
    pub(crate) fn better_than(&self, other: &Self, factor: f64) -> bool {
        match (self.behind * factor).total_cmp(&other.behind) {
            Ordering::Less => true,
            _ => self.behind <= other.behind && self.seconds * factor < other.seconds,
        }
    }
    /// The better of each.
    pub(crate) fn least(self, other: Self) -> Self {
        Self { behind: self.behind.min(other.behind), seconds: self.seconds.min(other.seconds) }
    }
}

impl Site<'_> {
    /// What settings with this timing are worth.
    ///
    /// Seconds from request to last token; with priority `latency` the time to the first token counts twice. Every halving of the wanted
    /// context counts as 5 % more time.
    pub(crate) fn worth(&self, settings: &Settings, timing: &Timing) -> Worth {
        let again = match (self.goal, self.request.preferences.priority) {
            (Goal::FirstToken, _) => timing.first_token - timing.whole,
            (Goal::Request, Priority::Latency) => timing.first_token,
            (Goal::Request, _) => 0.0,
        };
        let short = (f64::from(self.needs.want.max(1)) / f64::from(settings.n_ctx.max(1))).log2().max(0.0);
        Worth { behind: self.behind(timing), seconds: (timing.whole + again) * HALF_CONTEXT.powf(short) }
    }

    /// Time of the workload under settings whose layers lie on these devices.
    ///
    /// As many requests as there are slots are served together: their prompts one after another, behind the part that the cache holds,
    /// then their answers side by side. Those of further users follow in as many rounds as it takes.
    pub(crate) fn timing(&self, settings: &Settings, layer_devices: &[Option<usize>], moved: &[Moved], state: &HostState) -> Timing {
        let workload = &self.needs.workload;
        let together = workload.users.min(settings.n_parallel).max(1);
        let rounds = f64::from(workload.users.div_ceil(together).max(1));
        let configuration = Configuration { settings, layer_devices, moved, state };
        let (first_token, whole) = self.predictor.request_seconds(configuration, &Workload { users: together, ..*workload });
        // The first token is there with the first step.
        let token = if workload.output > 1 { (whole - first_token) / f64::from(workload.output - 1) } else { first_token };
        Timing { first_token, token, whole: rounds * whole }
    }

    /// By which factor the bound is missed that is missed most; 1 where all are kept.
    fn behind(&self, timing: &Timing) -> f64 {
        let first = self.needs.first_token.map_or(1.0, |bound| timing.first_token / bound);
        let slow = self.needs.min_decode.map_or(1.0, |bound| bound * timing.token);
        first.max(slow).max(1.0)
    }
}
