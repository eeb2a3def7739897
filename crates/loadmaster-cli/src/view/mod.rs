//! What each command shows, as data of its own: the JSON is these types, and the text is rendered from them.
//!
//! Sizes are whole bytes, rates are per second; a field's name ends with its unit where the type cannot carry it.
//! `schema_version` changes when a field changes its meaning or goes away; new fields do not change it.

mod detect;
mod doctor;
mod forecast;
mod hardware;
mod inspect;
mod knobs;
mod memory;
mod pareto;
mod plan;
mod precision;
mod predict;
mod quantity;
mod receipt;
mod recommend;
mod requirement;
mod rules;
mod validate;
mod verify;

pub use detect::DetectView;
pub use doctor::DoctorView;
pub use forecast::{ForecastView, Forecasted};
pub use hardware::{HardwareListView, HardwareMatchView, HardwareShowView};
pub use inspect::InspectView;
pub use memory::{MemoryFacts, MemoryView};
pub use pareto::{AlternativeView, MeritsView};
pub use plan::{PlanView, RefusalView, Subject};
pub use precision::PrecisionView;
pub use predict::PredictView;
pub use quantity::{Quantity, Rate, Size};
pub use receipt::{ReceiptView, RunView};
pub use recommend::RecommendView;
pub use requirement::RequirementView;
pub use rules::RulesView;
pub use validate::ValidateView;
pub use verify::VerifyView;

use crate::render::Text;
use loadmaster::known::precision::Choice;
use loadmaster::open::Origin;
use loadmaster::planner::emit::flags;
use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde_json::Value;
use spec::{Model, Settings};
use std::fmt;

/// The version of every view's layout.
pub const SCHEMA_VERSION: u32 = 1;

/// A result that can be shown.
pub trait View: Serialize {
    /// Renders it for people.
    fn text(&self, text: &mut Text);
}

/// The published schemas by name: one per output, and those of the files that are read.
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("config", loadmaster::config::schema()),
        ("detect", schema_for!(loadmaster::probe::Report).into()),
        ("doctor", schema_for!(DoctorView).into()),
        ("hardware-list", schema_for!(HardwareListView).into()),
        ("hardware-match", schema_for!(HardwareMatchView).into()),
        ("hardware-show", schema_for!(HardwareShowView).into()),
        ("inspect", schema_for!(InspectView).into()),
        ("memory", schema_for!(MemoryView).into()),
        ("plan", schema_for!(PlanView).into()),
        ("predict", schema_for!(predict::PredictOutput).into()),
        ("refusal", schema_for!(RefusalView).into()),
        ("receipt", loadmaster::receipt::schema()),
        ("recommend", schema_for!(RecommendView).into()),
        ("run", schema_for!(RunView).into()),
        ("rules", schema_for!(RulesView).into()),
        ("validate", schema_for!(ValidateView).into()),
        ("verify", schema_for!(VerifyView).into()),
    ]
}

/// A model as people name it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ModelName {
    /// What the file says its name is.
    pub name: Option<String>,
    /// `llama`, `qwen3moe`, ...
    pub architecture: String,
    /// `Q4_K_M`, where the file states one.
    pub file_type: Option<String>,
    /// The file that was named.
    pub path: String,
    /// Where the shape was published, for a model of which no file was read; absent where one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assumed: Option<String>,
}

impl ModelName {
    /// The name of a model that was read from `path`.
    pub fn new(model: &Model, path: &std::path::Path) -> Self {
        Self {
            name: model.name.clone(),
            architecture: model.architecture.clone(),
            file_type: model.file_type.clone(),
            path: path.display().to_string(),
            assumed: None,
        }
    }

    /// The same, with what its origin says of it.
    pub fn from(self, origin: Origin) -> Self {
        match origin {
            Origin::Assumed(known) => Self { assumed: Some(known.source.clone()), ..self },
            Origin::Local | Origin::Planned | Origin::Remote => self,
        }
    }

    /// The same in the type that was chosen for it, where no file was read.
    pub fn in_type(self, origin: Origin, choice: Option<&Choice>) -> Self {
        match (origin, choice) {
            (Origin::Assumed(known), Some(Choice { file_type, .. })) => {
                Self { file_type: Some(file_type.to_string()), path: known.file_name(*file_type), ..self }
            }
            _ => self,
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.name {
            Some(name) if !name.is_empty() => name.as_str(),
            _ => &self.architecture,
        };
        match &self.file_type {
            // Names often end with the type already.
            Some(ty) if !name.to_ascii_lowercase().ends_with(&ty.to_ascii_lowercase()) => write!(f, "{name} {ty}"),
            _ => f.write_str(name),
        }
    }
}

/// A setting and its value.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SettingView {
    /// Its name: `n_ctx`.
    pub name: String,
    /// How llama-server spells it: `--ctx-size`.
    pub flag: String,
    /// Its value, as llama-server takes it.
    pub value: String,
}

impl SettingView {
    /// A setting by its name.
    pub fn new(setting: &str, value: String) -> Self {
        Self { name: setting.to_owned(), flag: flag_of(setting), value }
    }
    /// Every setting of a complete configuration.
    pub fn all(settings: &Settings) -> Vec<Self> {
        flags::flags().iter().map(|row| Self::new(row.setting, row.write(settings))).collect()
    }
}

/// What is suggested and is no row of the flag table, as llama-server spells it.
const SUGGESTED: &[(&str, &str)] = &[
    ("cache_type", "--cache-type-k, --cache-type-v"),
    ("mmproj", "--mmproj"),
    ("mmproj_offload", "--no-mmproj-offload"),
    ("mmproj_device", "--mmproj-device"),
    ("model_draft", "--model-draft"),
    ("spec_type", "--spec-type"),
    ("ctx_size_draft", "--ctx-size-draft"),
    ("cache_type_draft", "--cache-type-k-draft, --cache-type-v-draft"),
    ("n_gpu_layers_draft", "--n-gpu-layers-draft"),
    ("spec_draft_n_ubatch", "--spec-draft-n-ubatch"),
    ("draft_max", "--spec-draft-n-max"),
];

/// How llama-server spells a setting, or what is loaded beside a model; its own name where it has no flag.
pub fn flag_of(setting: &str) -> String {
    if let Some((_, flag)) = SUGGESTED.iter().find(|(name, _)| *name == setting) {
        return (*flag).to_owned();
    }
    let form = crate::flags::forms().into_iter().find(|form| form.row.setting == setting);
    form.map_or_else(|| setting.to_owned(), |form| form.long.to_owned())
}
