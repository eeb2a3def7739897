//! `verify`: prediction and dry run side by side, in a form to be pasted into a report.

use super::{ModelName, SettingView, View};
use crate::render::{Align, BAD, Cell, DIM, GOOD, Table, Text, grouped, styled};
use loadmaster::advise::Survey;
use loadmaster::verify::{Buffer, Match, Verification};
use schemars::JsonSchema;
use serde::Serialize;
use spec::Settings;

/// Result of `loadmaster verify`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct VerifyView {
    /// `loadmaster.verify/1`.
    pub schema: String,
    /// Version of loadmaster.
    pub loadmaster: String,
    /// The engine that answered.
    pub engine: String,
    /// The rules that the prediction followed.
    pub engine_profile: String,
    /// The model.
    pub model: ModelName,
    /// Tensors in it.
    pub tensors: usize,
    /// Size of all its tensors.
    pub tensor_bytes: u64,
    /// Architecture of the processor.
    pub cpu_arch: String,
    /// Its instruction sets that decide which weights are repacked.
    pub cpu_features: Vec<String>,
    /// The devices that both sides went by, with their sizes.
    pub devices: Vec<VerifiedDevice>,
    /// The settings that are not at their defaults.
    pub settings: Vec<SettingView>,
    /// Every buffer.
    pub buffers: Vec<Buffer>,
    /// True where none differs.
    pub holds: bool,
}

/// A device of both sides.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct VerifiedDevice {
    /// The engine's name of it.
    pub name: String,
    /// Memory in all.
    pub memory_bytes: Option<u64>,
}

impl VerifyView {
    /// The view of a comparison.
    pub fn new(survey: &Survey, settings: &Settings, found: &Verification) -> Self {
        let (model, target) = (&survey.model, &found.target);
        let defaults = SettingView::all(&Settings::default());
        let changed = SettingView::all(settings).into_iter().zip(defaults).filter(|(now, default)| now.value != default.value);
        let device = |device: &loadmaster::footprint::Device| VerifiedDevice {
            name: device.name.clone(),
            memory_bytes: device.total.get().map(spec::Bytes::get),
        };
        Self {
            schema: "loadmaster.verify/1".to_owned(),
            loadmaster: env!("CARGO_PKG_VERSION").to_owned(),
            engine: found.engine.clone(),
            engine_profile: found.profile.clone(),
            model: ModelName::new(model, &survey.path),
            tensors: model.tensors.len(),
            tensor_bytes: model.tensor_bytes().get(),
            cpu_arch: target.cpu_arch.clone(),
            cpu_features: target.cpu_features.iter().cloned().collect(),
            devices: target.devices.iter().map(device).collect(),
            settings: changed.map(|(now, _)| now).collect(),
            buffers: found.buffers.clone(),
            holds: found.holds(),
        }
    }
}

impl View for VerifyView {
    fn text(&self, text: &mut Text) {
        let verdict = match self.buffers.iter().filter(|buffer| buffer.verdict == Match::Differs).count() {
            0 if self.buffers.iter().all(|buffer| buffer.verdict == Match::Equal) => styled(GOOD, "equal"),
            0 => styled(GOOD, "equal, and estimates within their intervals"),
            n => styled(BAD, format_args!("{n} of {} buffers differ", self.buffers.len())),
        };
        text.line(format_args!("{verdict}  loadmaster {} against the dry run of {}", self.loadmaster, self.engine));
        let devices: Vec<String> = self
            .devices
            .iter()
            .map(|device| {
                format!("{} {}", device.name, device.memory_bytes.map_or("?".to_owned(), |bytes| spec::Bytes::new(bytes).to_string()))
            })
            .collect();
        let settings: Vec<String> = self.settings.iter().map(|setting| format!("{} {}", setting.flag, setting.value)).collect();
        let of = format!("{}, {} tensors, {} B", self.model.architecture, self.tensors, grouped(self.tensor_bytes));
        text.fields([
            ("model", format!("{} ({of})", self.model)),
            ("rules", self.engine_profile.clone()),
            ("devices", if devices.is_empty() { "none".to_owned() } else { devices.join(", ") }),
            ("processor", format!("{}, {}", self.cpu_arch, repacking(&self.cpu_features).join(" "))),
            ("settings", if settings.is_empty() { "all at their defaults".to_owned() } else { settings.join(" ") }),
        ]);
        text.gap();
        let mut table = Table::new([Align::Left, Align::Left, Align::Right, Align::Right, Align::Right, Align::Left]);
        table.header(["buffer", "", "predicted, B", "engine, B", "difference", ""]);
        for buffer in &self.buffers {
            table.row(row(buffer));
        }
        text.table(&table);
        if self.buffers.iter().any(|buffer| buffer.unit_bytes > 1) {
            text.note(DIM, "-", "the engine prints whole MiB, rounded down, and leaves out repacked weights");
        }
        if self.buffers.iter().all(|buffer| buffer.unit_bytes == 1) && !self.devices.is_empty() {
            text.note(DIM, "-", "the GPUs are pretended, with CUDA's alignment and padding: what a real backend adds is on neither side");
        }
        if self.buffers.iter().any(|buffer| buffer.place.starts_with("Meta(")) {
            let note = "split mode tensor: a dry run reports the joined devices as one, in full; `memory` shows the slices of each";
            text.note(DIM, "-", note);
        }
        text.note(DIM, "-", "a dry run maps nothing: weights that a launch uses in place count as read");
    }
}

/// Instruction sets that choose a layout of weights.
fn repacking(features: &[String]) -> Vec<&str> {
    const DECIDE: &[&str] = &["avx2", "avx512f", "avx512_vnni", "amx_int8", "neon", "asimd", "dotprod", "asimddp", "i8mm"];
    let found: Vec<&str> = features.iter().map(String::as_str).filter(|feature| DECIDE.contains(feature)).collect();
    if found.is_empty() { vec!["no instruction set that repacks"] } else { found }
}

fn row(buffer: &Buffer) -> Vec<Cell> {
    let difference = buffer.predicted_bytes.map(|predicted| {
        let predicted = predicted / buffer.unit_bytes * buffer.unit_bytes;
        let sign = if buffer.engine_bytes < predicted { "-" } else { "+" };
        match buffer.engine_bytes.abs_diff(predicted) {
            0 => "0".to_owned(),
            difference => format!("{sign}{}", grouped(difference)),
        }
    });
    let (style, word) = match buffer.verdict {
        Match::Equal => (DIM, "equal"),
        Match::Within => (DIM, "within the interval"),
        Match::Differs => (BAD, "DIFFERS"),
    };
    vec![
        Cell::plain(&buffer.place),
        Cell::plain(buffer.component.replace('_', " ")),
        Cell::plain(buffer.predicted_bytes.map_or_else(|| "unknown".to_owned(), grouped)),
        Cell::plain(grouped(buffer.engine_bytes)),
        Cell::plain(difference.unwrap_or_default()),
        Cell::styled(style, word),
    ]
}
