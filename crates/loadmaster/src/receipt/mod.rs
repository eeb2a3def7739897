//! RECEIPT: what was planned against what happened, after every launch.
//!
//! Serialises as JSON with a version; [`schema`] is its JSON schema.

mod account;
mod mapped;
mod place;
mod proof;

use crate::error::{WriteError, exit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

pub use account::receipt;
pub use proof::Proof;
pub(crate) use proof::proof;

/// Version of the receipt's JSON.
pub const SCHEMA_VERSION: u32 = 1;

/// An engine may allocate this much more than the upper end of the plan, as a share, before the two disagree: the bar for
/// totals of an engine that we model by its own rules.
pub const TOLERANCE: f64 = 0.03;

/// The anonymous memory of the process may exceed the upper end of the plan by this share: it holds allocators' slack and
/// libraries that no buffer accounts for.
pub const PROCESS_TOLERANCE: f64 = 0.10;

/// Below this many bytes a difference is no disagreement, however large its share.
pub const NEGLIGIBLE: u64 = 1 << 20;

/// The account of one launch. Sizes are in bytes, times in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Version of this format.
    pub schema_version: u32,
    /// Version of loadmaster.
    pub loadmaster: String,
    /// The model.
    pub model: ModelLine,
    /// The engine.
    pub engine: EngineLine,
    /// The machine.
    pub machine: MachineLine,
    /// The plan's verdict: `fits`, `fits after downgrade`.
    pub verdict: String,
    /// Every setting, under llama-server's names.
    pub settings: BTreeMap<String, String>,
    /// Memory by device, the host last.
    pub places: Vec<PlaceLine>,
    /// Memory of the engine's process.
    pub process: ProcessLine,
    /// Time from start to readiness.
    pub load_ms: Option<f64>,
    /// Reading the prompt.
    pub prefill: SpeedLine,
    /// Generating.
    pub decode: SpeedLine,
    /// Where plan and launch disagree; empty where the plan held.
    pub disagreements: Vec<Disagreement>,
    /// Remarks.
    pub notes: Vec<String>,
}

/// The model of a receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelLine {
    /// Its path.
    pub path: String,
    /// Its name, where the file states one.
    pub name: Option<String>,
    /// Its architecture.
    pub architecture: String,
    /// Its quantisation, where the file states one.
    pub file_type: Option<String>,
    /// Size of all tensors.
    pub tensor_bytes: u64,
}

/// The engine of a receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineLine {
    /// What it calls itself.
    pub name: String,
    /// The executable, where it is external.
    pub path: Option<String>,
    /// SHA-256 of the executable, where it is external.
    pub sha256: Option<String>,
    /// The memory rules that the plan went by.
    pub profile: String,
}

/// The machine of a receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineLine {
    /// `live`, a recording, or a description.
    pub origin: String,
    /// Operating system and architecture.
    pub platform: String,
    /// Processor.
    pub cpu: Option<String>,
    /// CPUs worth of time that could be used.
    pub effective_cpus: u32,
    /// Memory that could ever be used.
    pub memory_total: Option<u64>,
    /// Memory that was available when it was planned.
    pub memory_available: Option<u64>,
    /// GPUs that were planned with.
    pub gpus: Vec<String>,
}

/// A planned size: exact where `low`, `value` and `high` are equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// Lower end.
    pub low: u64,
    /// Central value.
    pub value: u64,
    /// Upper end.
    pub high: u64,
    /// What computed it.
    pub source: String,
}

/// One size, planned and reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SizeLine {
    /// `weights_mapped`, `weights`, `weights_repacked`, `context` (KV cache and recurrent state), `compute`, `output`; for
    /// the process `anonymous_at_load`, `anonymous`, `mapped`.
    pub component: String,
    /// What was planned; none where it was not known.
    pub planned: Option<Planned>,
    /// What was reported or measured; none where nothing was.
    pub reported: Option<u64>,
    /// Reported over the planned central value, less one; none where either is missing or the plan is zero.
    pub relative_error: Option<f64>,
}

/// Memory of one device, or of the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceLine {
    /// The engine's name of the device, or `host`.
    pub name: String,
    /// Its parts, as far as the engine reports them.
    pub parts: Vec<SizeLine>,
    /// Their sum.
    pub total: SizeLine,
    /// What the plan allowed itself here.
    pub limit: Option<u64>,
}

/// Memory of the engine's process. Pages of devices are not part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessLine {
    /// Anonymous memory right after loading, before the first prompt.
    pub anonymous_at_load: SizeLine,
    /// Anonymous memory: the plan for the tokens of the prompts, at most for a full micro-batch, against the highest value seen.
    pub anonymous: SizeLine,
    /// Mapped file pages. What is touched is resident: less than planned where weights were never read.
    pub mapped: SizeLine,
    /// Highest resident size of all pages.
    pub peak: Option<u64>,
}

/// One speed in tokens per second, predicted and measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeedLine {
    /// Lower end of the prediction; none where there is none.
    pub low: Option<f64>,
    /// Central value.
    pub predicted: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// What predicted it, or why nothing did.
    pub source: String,
    /// What was measured; none where nothing ran.
    pub measured: Option<f64>,
    /// Tokens that were measured.
    pub tokens: u64,
    /// Tokens before each of these in its context, on average, as the prediction has it too; none where the engine does not tell, and the
    /// prediction is that of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<f64>,
    /// Measured over predicted, less one.
    pub relative_error: Option<f64>,
    /// True where the measurement lies in the interval.
    pub within: Option<bool>,
    /// Probable causes of a measurement under 0.6 of the prediction, most probable first; empty for any other, and for fewer tokens than
    /// tell a speed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub anomaly: Vec<String>,
}

/// What kind of disagreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DisagreementKind {
    /// More than the upper end of the plan and its tolerance.
    OverPlan,
    /// More than the plan allowed itself.
    OverLimit,
}

/// A launch that took more than its plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disagreement {
    /// What kind.
    pub kind: DisagreementKind,
    /// Device, `host` or `process`.
    pub place: String,
    /// Upper end of the plan, or the limit.
    pub allowed: u64,
    /// What was reported or measured.
    pub reported: u64,
}

impl std::fmt::Display for Disagreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (allowed, reported) = (spec::Bytes::new(self.allowed), spec::Bytes::new(self.reported));
        match self.kind {
            DisagreementKind::OverPlan => write!(f, "{}: {reported} in use, planned at most {allowed}", self.place),
            DisagreementKind::OverLimit => write!(f, "{}: {reported} in use, over the limit of {allowed}", self.place),
        }
    }
}

impl Receipt {
    /// [`exit::LAUNCH`] where the launch took more than its plan, else [`exit::DONE`].
    pub fn exit_code(&self) -> u8 {
        if self.disagreements.is_empty() { exit::DONE } else { exit::LAUNCH }
    }

    /// The receipt as JSON.
    pub fn to_json(&self) -> String {
        // Plain fields, text keys and finite numbers: it cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Writes the receipt as JSON, whole or not at all.
    ///
    /// # Errors
    /// The folder does not exist or is not writable, or the disk is full.
    pub fn save(&self, path: &Path) -> Result<(), WriteError> {
        crate::store::write_atomically(path, self.to_json().as_bytes())
    }
}

/// The JSON schema of a receipt.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Receipt).to_value()
}

#[cfg(test)]
mod tests;
