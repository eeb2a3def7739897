//! From text to [`ConfigFile`].

use super::error::{ConfigError, ConfigErrorKind};
use super::json::Strict;
use super::metadata::{EXPECTED, Expected, Metadata};
use super::{ConfigFile, VERSION, migrate};
use planner::Asked;
use planner::emit::flags::{Flag, ValueKind, flag, flags, spelled};
use planner::plan::Margin;
use serde_json::{Map, Value};
use spec::settings::{CACHE_TYPES, Pins};
use spec::{Bytes, QuantType};
use std::str::FromStr;

/// Keys of the file itself.
pub(super) const TOP: &[&str] =
    &["loadmaster", "model", "use_case", "engine", "workload", "preferences", "beside", "settings", "metadata", "expected"];
/// Keys of `[workload]`.
pub(super) const WORKLOAD: &[&str] = &["prompt_tokens", "output_tokens", "users", "min_context", "ttft", "min_tps", "quality_floor"];
/// Keys of `[preferences]`.
pub(super) const PREFERENCES: &[&str] = &["device", "margin", "priority", "power", "disk"];
/// A schema's address, as editors write it into JSON; read and dropped.
pub(super) const SCHEMA_KEY: &str = "$schema";

/// llama.cpp keeps counts in an `int32_t`.
const MAX_COUNT: u64 = i32::MAX as u64;

pub(super) fn parse(text: &str) -> Result<ConfigFile, ConfigError> {
    let table = to_table(text)?;
    let reader = Reader { text };
    let (table, migrated) = match reader.version(&table)? {
        VERSION => (table, Vec::new()),
        _ => migrate::from_0(table),
    };
    reader.known(&table, "", TOP)?;
    let mut file = ConfigFile { migrated, ..ConfigFile::default() };
    if let Some(model) = reader.text(&table, "", "model")? {
        if model.is_empty() {
            return Err(reader.value("", "model", "empty; a path is meant".into()));
        }
        file.model = Some(model.into());
    }
    file.use_case = reader.word(&table, "", "use_case")?;
    file.engine = reader.word(&table, "", "engine")?;
    if let Some(workload) = reader.table(&table, "workload")? {
        reader.known(workload, "workload", WORKLOAD)?;
        file.workload = reader.workload(workload)?;
    }
    if let Some(preferences) = reader.table(&table, "preferences")? {
        reader.known(preferences, "preferences", PREFERENCES)?;
        file.preferences.device = reader.word(preferences, "preferences", "device")?.unwrap_or_default();
        file.preferences.priority = reader.word(preferences, "preferences", "priority")?.unwrap_or_default();
        file.preferences.power = reader.word(preferences, "preferences", "power")?.unwrap_or_default();
        file.preferences.disk = reader.word(preferences, "preferences", "disk")?.unwrap_or_default();
        file.preferences.margin = reader.margin(preferences)?;
    }
    if let Some(beside) = reader.table(&table, "beside")? {
        reader.known(beside, "beside", &super::beside::keys())?;
        for (name, value) in beside {
            super::beside::read(name, value, &mut file.beside).map_err(|reason| reader.value("beside", name, reason))?;
        }
        file.beside.check().map_err(|reason| reader.value("", "beside", reason))?;
    }
    if let Some(settings) = reader.table(&table, "settings")? {
        let names: Vec<&str> = flags().iter().map(|flag| flag.setting).collect();
        reader.known(settings, "settings", &names)?;
        for (name, value) in settings {
            if let Some(flag) = flag(name) {
                reader.setting(flag, value, &mut file.settings)?;
            }
        }
    }
    if let Some(metadata) = reader.table(&table, "metadata")? {
        reader.known(metadata, "metadata", &super::metadata::keys())?;
        file.metadata = Metadata::read(metadata).map_err(|(key, reason)| reader.value("metadata", &key, reason))?;
    }
    if let Some(expected) = reader.table(&table, "expected")? {
        reader.known(expected, "expected", EXPECTED)?;
        file.expected = Expected::read(expected).map_err(|(key, reason)| reader.value("expected", &key, reason))?;
    }
    Ok(file)
}

/// Either syntax as one kind of table.
fn to_table(text: &str) -> Result<Map<String, Value>, ConfigError> {
    let syntax = |format, reason: String, line| ConfigError { path: None, line, kind: ConfigErrorKind::Syntax { format, reason } };
    if text.trim_start().starts_with('{') {
        // The parser appends the place to its message; the line is told apart from it here.
        let told = |error: serde_json::Error| {
            let message = error.to_string();
            let reason = message.split(" at line ").next().unwrap_or(&message).to_owned();
            syntax("JSON", reason, Some(error.line()))
        };
        return match serde_json::from_str(text).map_err(told)? {
            Strict(Value::Object(map)) => Ok(map),
            Strict(_) => Err(syntax("JSON", "an object is meant".into(), None)),
        };
    }
    let told = |error: toml::de::Error| {
        let line = error.span().map(|span| line_at(text, span.start));
        syntax("TOML", error.message().replace('\n', ", "), line)
    };
    let table: toml::Table = toml::from_str(text).map_err(told)?;
    match serde_json::to_value(table) {
        Ok(Value::Object(map)) => Ok(map),
        // Only what JSON cannot hold is left: numbers that are not finite.
        _ => Err(syntax("TOML", "a number is not finite".into(), None)),
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn version(&self, table: &Map<String, Value>) -> Result<u64, ConfigError> {
        let Some(value) = table.get("loadmaster").or_else(|| table.get(migrate::VERSION_KEY_0)) else {
            return Err(ConfigError { path: None, line: None, kind: ConfigErrorKind::NoVersion });
        };
        match value.as_u64() {
            Some(found) if found > VERSION => Err(self.error("", "loadmaster", ConfigErrorKind::Newer { found })),
            Some(found) => Ok(found),
            None => Err(self.value("", "loadmaster", format!("{value} is no version; this program writes {VERSION}"))),
        }
    }

    fn known(&self, table: &Map<String, Value>, name: &str, keys: &[&str]) -> Result<(), ConfigError> {
        let is_known = |key: &str| keys.contains(&key) || (name.is_empty() && key == SCHEMA_KEY);
        match table.keys().find(|key| !is_known(key)) {
            None => Ok(()),
            Some(key) => {
                let nearest = nearest(key, name, keys);
                Err(self.error(name, key, ConfigErrorKind::UnknownKey { key: path(name, key), nearest }))
            }
        }
    }

    fn table<'v>(&self, table: &'v Map<String, Value>, key: &str) -> Result<Option<&'v Map<String, Value>>, ConfigError> {
        match table.get(key) {
            None => Ok(None),
            Some(Value::Object(inner)) => Ok(Some(inner)),
            Some(other) => Err(self.value("", key, format!("{other} is no table"))),
        }
    }

    fn text<'v>(&self, table: &'v Map<String, Value>, name: &str, key: &str) -> Result<Option<&'v str>, ConfigError> {
        match table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.value(name, key, format!("{other} is no text"))),
        }
    }

    fn word<T: FromStr<Err = String>>(&self, table: &Map<String, Value>, name: &str, key: &str) -> Result<Option<T>, ConfigError> {
        self.text(table, name, key)?.map(str::parse).transpose().map_err(|reason| self.value(name, key, reason))
    }

    fn workload(&self, table: &Map<String, Value>) -> Result<Asked, ConfigError> {
        Ok(Asked {
            prompt_tokens: self.count(table, "prompt_tokens")?,
            output_tokens: self.count(table, "output_tokens")?,
            users: self.count(table, "users")?,
            min_context: self.count(table, "min_context")?,
            ttft: self.positive(table, "ttft")?,
            min_tps: self.positive(table, "min_tps")?,
            quality_floor: self.cache_type(table)?,
        })
    }

    /// A whole number from 1 up, of `[workload]`.
    fn count(&self, table: &Map<String, Value>, key: &str) -> Result<Option<u32>, ConfigError> {
        let Some(value) = table.get(key) else { return Ok(None) };
        let count = value.as_u64().filter(|count| (1..=MAX_COUNT).contains(count)).and_then(|count| u32::try_from(count).ok());
        count.map(Some).ok_or_else(|| self.value("workload", key, format!("{value} is no whole number from 1 to {MAX_COUNT}")))
    }

    /// A number above zero, of `[workload]`.
    fn positive(&self, table: &Map<String, Value>, key: &str) -> Result<Option<f64>, ConfigError> {
        let Some(value) = table.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|number| number.is_finite() && *number > 0.0);
        number.map(Some).ok_or_else(|| self.value("workload", key, format!("{value} is no number above 0")))
    }

    fn cache_type(&self, table: &Map<String, Value>) -> Result<Option<QuantType>, ConfigError> {
        let Some(word) = self.text(table, "workload", "quality_floor")? else { return Ok(None) };
        let floor = CACHE_TYPES.iter().copied().find(|floor| floor.to_string() == word);
        let known = || CACHE_TYPES.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        floor.map(Some).ok_or_else(|| self.value("workload", "quality_floor", format!("{word:?} is not one of {}", known())))
    }

    fn margin(&self, table: &Map<String, Value>) -> Result<Option<Margin>, ConfigError> {
        let error = |reason| self.value("preferences", "margin", reason);
        match table.get("margin") {
            None => Ok(None),
            Some(Value::String(size)) => {
                let size: Bytes = size.parse().map_err(|reason: spec::units::ParseBytesError| error(reason.to_string()))?;
                Ok(Some(Margin::Size(size)))
            }
            Some(value) => match value.as_f64() {
                Some(share) if (0.0..=0.9).contains(&share) => Ok(Some(Margin::Fraction(share))),
                _ => Err(error(format!("{value} is neither a share from 0 to 0.9 nor a size such as \"2GiB\""))),
            },
        }
    }

    fn setting(&self, flag: &Flag, value: &Value, pins: &mut Pins) -> Result<(), ConfigError> {
        let error = |reason| self.value("settings", flag.setting, reason);
        let wrong = || error(format!("{value} is {}", expected(flag.kind)));
        let text = match (flag.kind, value) {
            (ValueKind::Switch, Value::Bool(on)) => if *on { "on" } else { "off" }.to_owned(),
            (ValueKind::Bit, Value::Bool(on)) => u8::from(*on).to_string(),
            (ValueKind::Count, Value::Number(number)) => match number.as_i64() {
                Some(count) if count < -1 => return Err(error(format!("{count} is negative"))),
                _ if number.as_u64().is_some_and(|count| count > MAX_COUNT) => {
                    return Err(error(format!("{number} is too large, at most {MAX_COUNT}")));
                }
                Some(count) => count.to_string(),
                None => return Err(wrong()),
            },
            (ValueKind::Shares, Value::Array(shares)) if shares.is_empty() => {
                pins.tensor_split = Some(Vec::new());
                return Ok(());
            }
            (ValueKind::Shares, Value::Array(shares)) => {
                let shares: Option<Vec<String>> = shares.iter().map(|share| share.as_f64().map(|share| share.to_string())).collect();
                shares.ok_or_else(wrong)?.join(",")
            }
            (ValueKind::Overrides, Value::Array(rules)) => {
                let rules: Option<Vec<&str>> = rules.iter().map(Value::as_str).collect();
                pins.tensor_overrides = Some(Vec::new());
                return rules.ok_or_else(wrong)?.into_iter().try_for_each(|rule| flag.read(rule, pins)).map_err(error);
            }
            (ValueKind::Names, Value::Array(names)) if names.is_empty() => "none".to_owned(),
            (ValueKind::Names, Value::Array(names)) => {
                let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
                names.ok_or_else(wrong)?.join(",")
            }
            (ValueKind::Switch | ValueKind::Bit, _) | (_, Value::Bool(_) | Value::Null | Value::Object(_)) => return Err(wrong()),
            (_, Value::String(text)) => text.clone(),
            _ => return Err(wrong()),
        };
        flag.read(&text, pins).map_err(error)
    }

    fn value(&self, table: &str, key: &str, reason: String) -> ConfigError {
        self.error(table, key, ConfigErrorKind::Value { key: path(table, key), reason })
    }

    fn error(&self, table: &str, key: &str, kind: ConfigErrorKind) -> ConfigError {
        ConfigError { path: None, line: line_of(self.text, table, key), kind }
    }
}

fn expected(kind: ValueKind) -> String {
    match kind {
        ValueKind::Count => "no whole number".into(),
        ValueKind::Switch | ValueKind::Bit => "neither true nor false".into(),
        ValueKind::Mask => "no mask of CPUs such as \"0-7\" or \"0xff\"".into(),
        ValueKind::Word(words) => format!("not one of {}", words.join(", ")),
        ValueKind::Shares => "no list of numbers".into(),
        ValueKind::Names => "no list of names".into(),
        ValueKind::Overrides => "no list of \"PATTERN=BUFFER\"".into(),
    }
}

fn path(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

/// The key that was meant: a flag's spelling under `[settings]`, a key of another table, or the most similar one.
fn nearest(key: &str, table: &str, keys: &[&str]) -> Option<String> {
    let dashed = key.trim_start_matches('-').replace('_', "-");
    let by_flag = [format!("-{dashed}"), format!("--{dashed}")].iter().find_map(|spelling| spelled(spelling)).map(|(flag, _)| flag.setting);
    if let Some(setting) = by_flag.or_else(|| flag(key).map(|flag| flag.setting)) {
        return Some(path("settings", setting));
    }
    if table != "preferences" && PREFERENCES.contains(&key) {
        return Some(path("preferences", key));
    }
    if table != "workload" && WORKLOAD.contains(&key) {
        return Some(path("workload", key));
    }
    if TOP.contains(&key) {
        return Some(format!("{key} at the top, before any table"));
    }
    let similar = keys.iter().map(|known| (strsim::jaro_winkler(key, known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    similar.filter(|(similarity, _)| *similarity > 0.7).map(|(_, known)| path(table, known))
}

/// The line of a key in either syntax: the first one that begins with the key, after the one that opens its table.
fn line_of(text: &str, table: &str, key: &str) -> Option<usize> {
    let opens = |line: &str| table.is_empty() || line.trim() == format!("[{table}]") || line.contains(&format!("\"{table}\""));
    let is_key = |line: &str| {
        let quoted = format!("\"{key}\"");
        let bare = line.trim_start();
        let rest = bare.strip_prefix(key).or_else(|| bare.strip_prefix(quoted.as_str()));
        let begins = rest.is_some_and(|rest| rest.trim_start().starts_with(['=', ':']) || bare.starts_with('['));
        begins || line.contains(&format!("{quoted}:")) || bare.trim_end() == format!("[{key}]")
    };
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| !opens(line));
    lines.find(|(_, line)| is_key(line)).map(|(index, _)| index + 1)
}
