//! The file in which a machine travels: pairs of question and answer.
//!
//! ```json
//! {
//!   "schema": "loadmaster.recording/1",
//!   "description": "synthetic: pod with 4 GiB and one CPU",
//!   "answers": {
//!     "affinity": "0-15",
//!     "list /sys/devices/system/node": ["node0", "node1"],
//!     "read /proc/meminfo": {"lines": ["MemTotal: 65536000 kB", "MemAvailable: 60000000 kB"]},
//!     "read /sys/devices/cpu_core/cpus": {"refused": "not found"}
//!   }
//! }
//! ```
//!
//! A question that is missing is answered with [`Refusal::NotRecorded`].

use crate::host::{Answer, Host, QUESTION_WORDS, Question, Refusal};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// Name and version of the format that [`Recording::to_text`] writes.
pub const SCHEMA: &str = "loadmaster.recording/1";
const SCHEMA_NAME: &str = "loadmaster.recording";
const SCHEMA_VERSION: u32 = 1;

/// A recorded machine. As a [`Host`] it answers what was asked when it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// What machine this is, for people.
    pub description: String,
    origin: String,
    answers: BTreeMap<String, Result<Answer, Refusal>>,
}

/// A text that is not a recording of a version that this program reads.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Not JSON, or JSON of another shape.
    #[error("line {line}, column {column}: not a machine recording: {message}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1; 0 at the end of a line.
        column: usize,
        /// What was expected.
        message: String,
    },
    /// JSON with another or no schema.
    #[error("not a machine recording: it needs \"schema\": \"{SCHEMA}\", found {found}")]
    NotARecording {
        /// The schema found, quoted, or `none`.
        found: String,
    },
    /// Written by a newer program.
    #[error(
        "the recording has version {found}, this program reads up to version {SCHEMA_VERSION}; update loadmaster, or record the machine again with this one: loadmaster detect --capture FILE"
    )]
    Newer {
        /// Its version.
        found: u32,
    },
    /// A key under `answers` that is no question.
    #[error("line {line}: not a question: {question:?}; the first word must be one of: {}", QUESTION_WORDS.join(", "))]
    UnknownQuestion {
        /// Line, from 1.
        line: usize,
        /// The key.
        question: String,
    },
}

impl Recording {
    /// A recording without answers.
    pub fn new(description: impl Into<String>) -> Self {
        Self { description: description.into(), origin: "recording".into(), answers: BTreeMap::new() }
    }

    /// The recording in a text.
    ///
    /// # Errors
    /// [`RecordingError`]: what is wrong, and the line where the text itself is.
    ///
    /// ```
    /// let text = r#"{"schema": "loadmaster.recording/1", "description": "", "answers": {"os": "linux"}}"#;
    /// assert!(probe::Recording::parse(text).is_ok());
    /// assert!(probe::Recording::parse("ram=8GiB").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        // Version first: a newer file may have any shape beyond its first field.
        let Head { schema } = serde_json::from_str(text).map_err(syntax)?;
        let found = schema.as_ref().map_or_else(|| "none".to_owned(), |schema| format!("{schema:?}"));
        let version = schema.as_deref().and_then(|schema| schema.strip_prefix(SCHEMA_NAME)?.strip_prefix('/')?.parse::<u32>().ok());
        match version {
            None | Some(0) => return Err(RecordingError::NotARecording { found }),
            Some(found) if found > SCHEMA_VERSION => return Err(RecordingError::Newer { found }),
            Some(_) => {}
        }
        let file: File = serde_json::from_str(text).map_err(syntax)?;
        for question in file.answers.keys() {
            if !QUESTION_WORDS.contains(&question.split(' ').next().unwrap_or_default()) {
                let line = text.lines().position(|line| line.contains(&format!("\"{question}\""))).map_or(1, |line| line + 1);
                return Err(RecordingError::UnknownQuestion { line, question: question.clone() });
            }
        }
        let answers = file.answers.into_iter().map(|(question, entry)| (question, entry.0)).collect();
        Ok(Self { description: file.description, origin: "recording".into(), answers })
    }

    /// True if a text looks like a recording rather than a short description of a machine.
    pub fn looks_like_one(text: &str) -> bool {
        text.trim_start().starts_with('{')
    }

    /// The recording under the name of the place it was read from; what [`spec::Machine::origin`] will say.
    #[must_use]
    pub fn with_origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = origin.into();
        self
    }

    /// The text that [`Recording::parse`] reads, questions in alphabetical order.
    pub fn to_text(&self) -> String {
        let answers: BTreeMap<&str, EntryRef<'_>> =
            self.answers.iter().map(|(question, answer)| (question.as_str(), EntryRef(answer))).collect();
        let file = FileRef { schema: SCHEMA, description: &self.description, answers };
        // Strings, lists and maps with string keys: nothing that JSON cannot hold.
        serde_json::to_string_pretty(&file).map(|text| text + "\n").unwrap_or_default()
    }

    /// Sets the answer to a question.
    pub fn set(&mut self, question: &Question, answer: Result<Answer, Refusal>) {
        self.answers.insert(question.to_string(), answer);
    }

    pub(crate) fn set_key(&mut self, question: String, answer: Result<Answer, Refusal>) {
        self.answers.insert(question, answer);
    }

    /// Number of questions.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// True if nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }
}

impl Host for Recording {
    fn origin(&self) -> String {
        self.origin.clone()
    }

    fn ask(&self, question: &Question) -> Result<Answer, Refusal> {
        self.answers.get(&question.to_string()).cloned().unwrap_or(Err(Refusal::NotRecorded))
    }
}

/// An answer as one line of JSON, as a recording holds it.
pub(crate) fn answer_text(answer: &Result<Answer, Refusal>) -> String {
    serde_json::to_string(&EntryRef(answer)).unwrap_or_default()
}

/// The answer in such a line; `None` where it holds none.
pub(crate) fn parse_answer(text: &str) -> Option<Result<Answer, Refusal>> {
    serde_json::from_str::<Entry>(text).ok().map(|entry| entry.0)
}

fn syntax(error: serde_json::Error) -> RecordingError {
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    // serde_json ends its message with the place, which stands at the beginning of ours.
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(text, _)| text).to_owned();
    RecordingError::Syntax { line, column, message }
}

#[derive(Deserialize)]
struct Head {
    schema: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "schema")]
    _schema: String,
    #[serde(default)]
    description: String,
    answers: BTreeMap<String, Entry>,
}

#[derive(Serialize)]
struct FileRef<'a> {
    schema: &'a str,
    description: &'a str,
    answers: BTreeMap<&'a str, EntryRef<'a>>,
}

struct EntryRef<'a>(&'a Result<Answer, Refusal>);

impl Serialize for EntryRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Ok(Answer::Text(text)) if text.contains('\n') => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("lines", &text.split('\n').collect::<Vec<_>>())?;
                map.end()
            }
            Ok(Answer::Text(text)) => serializer.serialize_str(text),
            Ok(Answer::Names(names)) => names.serialize(serializer),
            Err(refusal) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("refused", &refusal.to_string())?;
                map.end()
            }
        }
    }
}

struct Entry(Result<Answer, Refusal>);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

// Written out instead of an untagged enum, whose errors lose the line.
struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a list of names, {\"lines\": [...]} or {\"refused\": \"...\"}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Entry, E> {
        Ok(Entry(Ok(Answer::text(text))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entry, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = seq.next_element::<String>()? {
            names.push(name);
        }
        Ok(Entry(Ok(Answer::Names(names))))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let key: String = map.next_key()?.ok_or_else(|| de::Error::custom("expected \"lines\" or \"refused\", found an empty object"))?;
        let entry = match key.as_str() {
            "lines" => Ok(Answer::text(map.next_value::<Vec<String>>()?.join("\n"))),
            "refused" => Err(refusal(map.next_value()?)),
            other => return Err(de::Error::custom(format!("expected \"lines\" or \"refused\", found {other:?}"))),
        };
        match map.next_key::<String>()? {
            None => Ok(Entry(entry)),
            Some(second) => Err(de::Error::custom(format!("expected one field, found {key:?} and {second:?}"))),
        }
    }
}

fn refusal(text: String) -> Refusal {
    let known = [Refusal::NotFound, Refusal::Denied, Refusal::NotSupported, Refusal::TimedOut, Refusal::NotRecorded];
    known.into_iter().find(|refusal| refusal.to_string() == text).unwrap_or(Refusal::Failed(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(answers: &str) -> String {
        format!("{{\n\"schema\": \"{SCHEMA}\",\n\"answers\": {{\n{answers}\n}}}}")
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut recording = Recording::new("a test");
        recording.set(&Question::Os, Ok(Answer::text("linux")));
        recording.set(&Question::List("/sys".into()), Ok(Answer::Names(vec!["a".into(), "b".into()])));
        recording.set(&Question::Read("/proc/x".into()), Ok(Answer::text("one\n\n  two \"quoted\"\tthree")));
        recording.set(&Question::Xcr0, Err(Refusal::NotSupported));
        recording.set(&Question::Affinity, Err(Refusal::Failed("no such process".into())));
        recording.set(&Question::PageSize, Ok(Answer::text("")));
        assert_eq!(Recording::parse(&recording.to_text()).unwrap(), recording);
    }

    #[test]
    fn errors_name_the_line_and_the_way_out() {
        let error = |text: &str| Recording::parse(text).unwrap_err().to_string();
        insta::assert_snapshot!(error(""), @"line 1, column 0: not a machine recording: EOF while parsing a value");
        insta::assert_snapshot!(error("hello"), @"line 1, column 1: not a machine recording: expected value");
        insta::assert_snapshot!(error("{}"), @r#"not a machine recording: it needs "schema": "loadmaster.recording/1", found none"#);
        insta::assert_snapshot!(error(r#"{"schema": "other/1"}"#), @r#"not a machine recording: it needs "schema": "loadmaster.recording/1", found "other/1""#);
        insta::assert_snapshot!(error(r#"{"schema": "loadmaster.recording/7", "shape": "new"}"#), @"the recording has version 7, this program reads up to version 1; update loadmaster, or record the machine again with this one: loadmaster detect --capture FILE");
        insta::assert_snapshot!(error(&file("\"os\": \"linux\",\n\"arch\": 7")), @r#"line 5, column 9: not a machine recording: invalid type: integer `7`, expected a text, a list of names, {"lines": [...]} or {"refused": "..."}"#);
        insta::assert_snapshot!(error(&file("\"os\": {\"line\": []}")), @r#"line 4, column 13: not a machine recording: expected "lines" or "refused", found "line""#);
        insta::assert_snapshot!(error(&file("\"raed /proc/cpuinfo\": \"\"")), @r#"line 4: not a question: "raed /proc/cpuinfo"; the first word must be one of: os, arch, page-size, affinity, env, read, start, list, link, cpuid, cpuid-of, xcr0, amx-permission, bytes, nvml, vulkan, sysctl, mac, metal, windows, registry, registry-keys, dxgi"#);
    }
}
