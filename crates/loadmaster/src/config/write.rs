//! From [`ConfigFile`] to text.

use super::{ConfigFile, VERSION};
use planner::emit::ALL;
use planner::emit::flags::{Flag, ValueKind, flags};
use planner::plan::Margin;
use planner::{Asked, Preferences, UseCase};
use serde_json::{Map, Value, json};
use spec::Settings;
use spec::settings::Pins;
use std::path::Path;

/// The two syntaxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Toml,
    /// For programs.
    Json,
}

impl Format {
    /// JSON where the file's name ends in `.json`, else TOML.
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("json") => Self::Json,
            _ => Self::Toml,
        }
    }
}

pub(super) fn to_text(file: &ConfigFile, format: Format) -> String {
    let table = to_table(file);
    match format {
        // Neither can fail: the table holds texts, finite numbers and lists of them only.
        Format::Json => serde_json::to_string_pretty(&table).unwrap_or_default() + "\n",
        Format::Toml => toml::to_string_pretty(&table).unwrap_or_default(),
    }
}

fn to_table(file: &ConfigFile) -> Map<String, Value> {
    let mut table = Map::new();
    table.insert("loadmaster".into(), VERSION.into());
    if let Some(model) = &file.model {
        table.insert("model".into(), model.to_string_lossy().into());
    }
    if let Some(use_case) = file.use_case {
        table.insert("use_case".into(), UseCase::as_str(use_case).into());
    }
    if let Some(engine) = file.engine {
        table.insert("engine".into(), engine.to_string().into());
    }
    let workload = workload(&file.workload);
    if !workload.is_empty() {
        table.insert("workload".into(), workload.into());
    }
    if file.preferences != Preferences::default() {
        table.insert("preferences".into(), preferences(&file.preferences).into());
    }
    let beside = super::beside::write(&file.beside);
    if !beside.is_empty() {
        table.insert("beside".into(), beside.into());
    }
    let settings = settings(&file.settings);
    if !settings.is_empty() {
        table.insert("settings".into(), settings.into());
    }
    for (name, written) in [("metadata", file.metadata.write()), ("expected", file.expected.write())] {
        if !written.is_empty() {
            table.insert(name.into(), written.into());
        }
    }
    table
}

fn workload(workload: &Asked) -> Map<String, Value> {
    let &Asked { prompt_tokens, output_tokens, users, min_context, ttft, min_tps, quality_floor } = workload;
    let counts = [("prompt_tokens", prompt_tokens), ("output_tokens", output_tokens), ("users", users), ("min_context", min_context)];
    let counts = counts.into_iter().filter_map(|(key, count)| Some((key, count?.into())));
    let rates = [("ttft", ttft), ("min_tps", min_tps)].into_iter().filter_map(|(key, rate)| Some((key, json!(rate?))));
    let floor = quality_floor.map(|floor| ("quality_floor", floor.to_string().into()));
    counts.chain(rates).chain(floor).map(|(key, value): (&str, Value)| (key.to_owned(), value)).collect()
}

fn preferences(preferences: &Preferences) -> Map<String, Value> {
    let mut table = Map::new();
    table.insert("device".into(), preferences.device.as_str().into());
    match preferences.margin {
        None => {}
        Some(Margin::Fraction(share)) => drop(table.insert("margin".into(), json!(share))),
        // In bytes: a rounded size would not be the same margin when read again.
        Some(Margin::Size(size)) => drop(table.insert("margin".into(), format!("{}B", size.get()).into())),
    }
    table.insert("priority".into(), preferences.priority.as_str().into());
    table.insert("power".into(), preferences.power.as_str().into());
    table.insert("disk".into(), preferences.disk.as_str().into());
    table
}

fn settings(pins: &Pins) -> Map<String, Value> {
    let names = pins.names();
    let mut settings = Settings::default();
    pins.apply(&mut settings);
    let pinned = flags().iter().filter(|flag| names.contains(&flag.setting));
    pinned.map(|flag| (flag.setting.to_owned(), value(flag, &settings))).collect()
}

fn value(flag: &Flag, settings: &Settings) -> Value {
    let text = flag.write(settings);
    match flag.kind {
        ValueKind::Switch => (text == "on").into(),
        ValueKind::Bit => (text == "1").into(),
        ValueKind::Mask => text.into(),
        ValueKind::Count => match text.parse::<u32>() {
            Ok(ALL) => "all".into(),
            Ok(count) => count.into(),
            Err(_) => text.into(),
        },
        ValueKind::Word(_) => text.into(),
        ValueKind::Shares => settings.tensor_split.iter().map(|share| json!(share)).collect(),
        ValueKind::Names if text == "all" => text.into(),
        ValueKind::Names if text.is_empty() || text == "none" => Value::Array(Vec::new()),
        ValueKind::Names => text.split(',').collect(),
        ValueKind::Overrides => settings.tensor_overrides.iter().map(|rule| format!("{}={}", rule.pattern, rule.buffer)).collect(),
    }
}
