//! The file format of recorded answers: one file per model, one line per case.

use super::case::{Case, Host};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What the engine said to all cases of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// Version of llama.cpp.
    pub engine: String,
    /// The machine that it ran on.
    pub host: Host,
    /// Cases with their answers.
    pub cases: Vec<(Case, Answer)>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What it would allocate.
    Figures(Figures),
    /// It did not load the model or make the context, or aborted.
    Refused(String),
}

/// What the engine would allocate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// `n_ctx`, `n_ctx_seq`, `n_batch`, `n_ubatch`.
    pub context: [u32; 4],
    /// By buffer type: model, context, compute.
    pub buffers: BTreeMap<String, [u64; 3]>,
    /// The buffer of logits, which the breakdown leaves out.
    pub output: u64,
    /// Nodes and splits of the prefill graph.
    pub graph: [i64; 2],
}

#[derive(Serialize, Deserialize)]
struct Head {
    engine: String,
    arch: String,
    features: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    model: String,
    devices: Vec<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pipeline: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    host_buffer: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    args: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    figures: Option<Figures>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

impl Recording {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let mut lines = text.lines();
        let head: Head = serde_json::from_str(lines.next().unwrap_or_default())?;
        let case = |line: &str| -> Result<(Case, Answer), serde_json::Error> {
            let Line { model, devices, pipeline, host_buffer, backend, args, figures, refused } = serde_json::from_str(line)?;
            let answer = figures.map_or_else(|| Answer::Refused(refused.unwrap_or_default()), Answer::Figures);
            Ok((Case { model, devices, pipeline, host_buffer, backend, args }, answer))
        };
        let host = Host { arch: head.arch, features: head.features.into_iter().collect() };
        Ok(Self { engine: head.engine, host, cases: lines.map(case).collect::<Result<_, _>>()? })
    }

    /// Writes a file.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        let host = &self.host;
        let head = Head { engine: self.engine.clone(), arch: host.arch.clone(), features: host.features.iter().cloned().collect() };
        let mut text = serde_json::to_string(&head)?;
        for (case, answer) in &self.cases {
            let (figures, refused) = match answer {
                Answer::Figures(figures) => (Some(figures.clone()), None),
                Answer::Refused(reason) => (None, Some(reason.clone())),
            };
            let Case { model, devices, pipeline, host_buffer, backend, args } = case.clone();
            let line = serde_json::to_string(&Line { model, devices, pipeline, host_buffer, backend, args, figures, refused })?;
            let _ = write!(text, "\n{line}");
        }
        text.push('\n');
        Ok(text)
    }
}
