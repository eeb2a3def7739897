//! The engine's word on settings that nobody has run: its dry run on pretended GPUs, beside what was computed.

use super::account::compare;
use super::{NEGLIGIBLE, PlaceLine, SizeLine, TOLERANCE};
use crate::launch::bundled::DryRun;
use footprint::Requirement;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was computed against what the engine's dry run reports. A dry run maps nothing and measures only the first graph
/// of prefill, so both columns are those of a dry run, not of a launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The engine that answered.
    pub engine: String,
    /// Memory by place.
    pub places: Vec<PlaceLine>,
    /// True where weights and context are equal to the byte everywhere, and every total lies within its interval widened
    /// by [`TOLERANCE`].
    pub agrees: bool,
}

/// Compares the requirement of a dry run ([`footprint::dry_run`]) with the engine's.
pub(crate) fn proof(expected: &Requirement, dry: DryRun) -> Proof {
    let places = compare(expected, expected.host.weights_mapped.clone(), &dry.buffers, &|_| None);
    let agrees = places.iter().all(|place| {
        let owned = |part: &&SizeLine| part.component.starts_with("weights") || part.component == "context";
        place.parts.iter().filter(owned).all(equal) && within(&place.total)
    });
    Proof { engine: dry.engine, places, agrees }
}

fn equal(line: &SizeLine) -> bool {
    match (&line.planned, line.reported) {
        // A cache of generic accounting is an interval; it must hold.
        (Some(planned), Some(reported)) => (planned.low..=planned.high).contains(&reported),
        _ => false,
    }
}

fn within(line: &SizeLine) -> bool {
    let (Some(planned), Some(reported)) = (&line.planned, line.reported) else { return false };
    let [low, high] = [planned.low as f64 * (1.0 - TOLERANCE), planned.high as f64 * (1.0 + TOLERANCE)];
    let slack = NEGLIGIBLE as f64;
    (low - slack..=high + slack).contains(&(reported as f64))
}
