//! The tables `[metadata]` and `[expected]` of a written plan: what it was made for, and what was promised. Read, shown and compared;
//! never acted upon.

use crate::advise::Advice;
use crate::known::precision::Choice;
use crate::open::Origin;
use serde_json::{Map, Value, json};
use spec::{Bytes, Known, TokensPerSec};

/// What a configuration was planned for. What is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Version of the program that planned it.
    pub written_by: Option<String>,
    /// The machine, as `--machine` named it; `live` for the one that planned.
    pub machine: Option<String>,
    /// What that machine is, in a few words.
    pub hardware: Option<String>,
    /// The model's own name; of one without a file, the name that it is known by.
    pub model: Option<String>,
    /// The file type: `Q4_K_M`.
    pub file_type: Option<String>,
    /// Where the shape was published, for a model of which no file was read.
    pub assumed: Option<String>,
    /// How the file type was chosen, where the use case chose it.
    pub precision: Option<String>,
    /// The engine profile: `llama-server 0.7.0`.
    pub engine: Option<String>,
    /// Whether the use case is met: `fits`, `fits after downgrade`.
    pub verdict: Option<String>,
}

/// An estimate and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Central estimate.
    pub typical: f64,
    /// Upper end.
    pub high: f64,
}

/// What a plan promised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// Tokens per second of one sequence while generating.
    pub decode: Option<Interval>,
    /// Tokens per second while a prompt is read.
    pub prefill: Option<Interval>,
    /// Tokens in the context for which `decode` holds.
    pub depth: Option<u32>,
    /// Bytes by pool: `host`, `mapped` (weights in the page cache on top), or the engine's name of a GPU.
    pub memory: Vec<(String, Interval)>,
}

/// A text of [`Metadata`]: where it lies.
type Text = fn(&mut Metadata) -> &mut Option<String>;

/// Key, place and description of each text.
const TEXTS: &[(&str, Text, &str)] = &[
    ("written_by", |m| &mut m.written_by, "Version of the program that planned it."),
    ("machine", |m| &mut m.machine, "The machine, as --machine named it."),
    ("hardware", |m| &mut m.hardware, "What that machine is."),
    ("model", |m| &mut m.model, "The model's name."),
    ("file_type", |m| &mut m.file_type, "The file type: Q4_K_M."),
    ("assumed", |m| &mut m.assumed, "Where the shape was published, of a model of which no file was read."),
    ("precision", |m| &mut m.precision, "How the file type was chosen, where the use case chose it."),
    ("engine", |m| &mut m.engine, "The engine profile."),
    ("verdict", |m| &mut m.verdict, "Whether the use case is met."),
];

/// Keys of `[expected]`.
pub(super) const EXPECTED: &[&str] = &["decode_tokens_per_s", "prefill_tokens_per_s", "depth", "memory_bytes"];

/// Keys of `[metadata]`.
pub(super) fn keys() -> Vec<&'static str> {
    TEXTS.iter().map(|(key, ..)| *key).collect()
}

impl Metadata {
    /// What advice was made for; `hardware` says in a few words what its machine is.
    pub fn of(advice: &Advice, hardware: &str, choice: Option<&Choice>) -> Self {
        let precision = choice.filter(|choice| !choice.named).map(|choice| match choice.passed_over.first() {
            None => format!("the best that {} asks for", advice.plan.plan().request.use_case),
            Some((first, because)) => format!("instead of {first}: {because}"),
        });
        Self {
            written_by: Some(format!("loadmaster {}", env!("CARGO_PKG_VERSION"))),
            machine: Some(advice.machine.origin.clone()),
            hardware: Some(hardware.to_owned()),
            model: advice.model.name.clone(),
            file_type: advice.model.file_type.clone(),
            assumed: match advice.origin {
                Origin::Assumed(known) => Some(known.source.clone()),
                Origin::Local | Origin::Planned | Origin::Remote => None,
            },
            precision,
            engine: Some(advice.engine.rules.profile.name.clone()),
            verdict: Some(advice.plan.plan().verdict.to_string()),
        }
    }

    /// What differs between what was planned for and what is there now, in sentences; nothing of what either does not know.
    pub fn differences(&self, hardware: &str, file_type: Option<&str>, engine: &str) -> Vec<String> {
        let pairs = [
            ("machine", self.hardware.as_deref(), Some(hardware)),
            ("file type", self.file_type.as_deref(), file_type),
            ("engine", self.engine.as_deref(), Some(engine)),
        ];
        let differs = |(what, then, now): (&str, Option<&str>, Option<&str>)| match (then, now) {
            (Some(then), Some(now)) if then != now => Some(format!("planned for another {what}: {then}; here it is {now}")),
            _ => None,
        };
        pairs.into_iter().filter_map(differs).collect()
    }

    pub(super) fn write(&self) -> Map<String, Value> {
        let mut copy = self.clone();
        TEXTS.iter().filter_map(|(key, place, _)| Some(((*key).to_owned(), place(&mut copy).clone()?.into()))).collect()
    }

    /// # Errors
    /// The key, and what is wrong with its value.
    pub(super) fn read(table: &Map<String, Value>) -> Result<Self, (String, String)> {
        let mut metadata = Self::default();
        for (key, place, _) in TEXTS {
            match table.get(*key) {
                None => {}
                Some(Value::String(text)) => *place(&mut metadata) = Some(text.clone()),
                Some(other) => return Err(((*key).to_owned(), format!("{other} is no text"))),
            }
        }
        Ok(metadata)
    }
}

impl Interval {
    fn of_rate(rate: &Known<TokensPerSec>) -> Option<Self> {
        Some(Self { low: rate.low()?.get(), typical: rate.value()?.get(), high: rate.high()?.get() })
    }

    fn of_bytes(bytes: &Known<Bytes>) -> Option<Self> {
        Some(Self { low: bytes.low()?.as_f64(), typical: bytes.value()?.as_f64(), high: bytes.high()?.as_f64() })
    }

    fn write(&self, whole: bool) -> Value {
        // Sizes are whole bytes, and rates of a hundredth are finer than any estimate.
        let number = |value: f64| if whole { json!(value as u64) } else { json!((value * 100.0).round() / 100.0) };
        json!({ "low": number(self.low), "typical": number(self.typical), "high": number(self.high) })
    }

    fn read(value: &Value) -> Result<Self, String> {
        let wrong = || format!("{value} is no interval: low, typical and high, none negative, in this order");
        let table = value.as_object().filter(|table| table.len() == 3).ok_or_else(wrong)?;
        let end = |key: &str| table.get(key).and_then(Value::as_f64).filter(|end| end.is_finite() && *end >= 0.0).ok_or_else(wrong);
        let interval = Self { low: end("low")?, typical: end("typical")?, high: end("high")? };
        if interval.low <= interval.typical && interval.typical <= interval.high { Ok(interval) } else { Err(wrong()) }
    }
}

impl Expected {
    /// What a plan promises.
    pub fn of(plan: &planner::Plan) -> Self {
        let mut memory = Vec::new();
        for budget in &plan.budgets {
            memory.extend(Interval::of_bytes(&budget.needed).map(|needed| (budget.pool.to_string(), needed)));
            let mapped = Interval::of_bytes(&budget.mapped).filter(|mapped| mapped.high > 0.0);
            memory.extend(mapped.map(|mapped| ("mapped".to_owned(), mapped)));
        }
        Self {
            decode: Interval::of_rate(&plan.prediction.decode),
            prefill: Interval::of_rate(&plan.prediction.prefill),
            depth: Some(plan.prediction.depth),
            memory,
        }
    }

    pub(super) fn write(&self) -> Map<String, Value> {
        let mut table = Map::new();
        let rates = [("decode_tokens_per_s", self.decode), ("prefill_tokens_per_s", self.prefill)];
        table.extend(rates.into_iter().filter_map(|(key, rate)| Some((key.to_owned(), rate?.write(false)))));
        table.extend(self.depth.map(|depth| ("depth".to_owned(), depth.into())));
        if !self.memory.is_empty() {
            let memory: Map<String, Value> = self.memory.iter().map(|(pool, bytes)| (pool.clone(), bytes.write(true))).collect();
            table.insert("memory_bytes".to_owned(), memory.into());
        }
        table
    }

    /// # Errors
    /// The key, and what is wrong with its value.
    pub(super) fn read(table: &Map<String, Value>) -> Result<Self, (String, String)> {
        let at = |key: &'static str| move |reason: String| (key.to_owned(), reason);
        let rate = |key: &'static str| table.get(key).map(Interval::read).transpose().map_err(at(key));
        let depth = match table.get("depth") {
            None => None,
            Some(value) => {
                let depth = value.as_u64().and_then(|depth| u32::try_from(depth).ok());
                Some(depth.ok_or_else(|| ("depth".to_owned(), format!("{value} is no number of tokens")))?)
            }
        };
        let memory = match table.get("memory_bytes") {
            None => Vec::new(),
            Some(Value::Object(pools)) => {
                let read = |(pool, value): (&String, &Value)| Interval::read(value).map(|bytes| (pool.clone(), bytes));
                pools.iter().map(read).collect::<Result<_, _>>().map_err(at("memory_bytes"))?
            }
            Some(other) => return Err(("memory_bytes".to_owned(), format!("{other} is no table"))),
        };
        Ok(Self { decode: rate("decode_tokens_per_s")?, prefill: rate("prefill_tokens_per_s")?, depth, memory })
    }
}

/// The schemas of both tables.
pub(super) fn schemas() -> [(String, Value); 2] {
    let interval = |of: &str| {
        let end = json!({ "type": "number", "minimum": 0 });
        json!({
            "type": "object",
            "description": of,
            "additionalProperties": false,
            "required": ["low", "typical", "high"],
            "properties": { "low": end, "typical": end, "high": end },
        })
    };
    let texts: Map<String, Value> =
        TEXTS.iter().map(|(key, _, about)| ((*key).to_owned(), json!({ "type": "string", "description": about }))).collect();
    let metadata = json!({
        "type": "object",
        "additionalProperties": false,
        "description": "What the file was planned for. Compared with what is there, never acted upon.",
        "properties": texts,
    });
    let expected = json!({
        "type": "object",
        "additionalProperties": false,
        "description": "What the plan promised.",
        "properties": {
            "decode_tokens_per_s": interval("Tokens per second of one sequence while generating."),
            "prefill_tokens_per_s": interval("Tokens per second while a prompt is read."),
            "depth": { "type": "integer", "minimum": 0, "maximum": u32::MAX, "description": "Tokens in the context for which decode holds." },
            "memory_bytes": {
                "type": "object",
                "description": "Bytes by pool: host, mapped (weights in the page cache on top), or the engine's name of a GPU.",
                "additionalProperties": interval("What the pool holds."),
            },
        },
    });
    [("metadata".to_owned(), metadata), ("expected".to_owned(), expected)]
}
