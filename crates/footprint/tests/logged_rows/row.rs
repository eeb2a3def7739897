//! One row: what was run, and the buffers that the engine logged.

#![expect(clippy::disallowed_methods, reason = "a test reads data beside the workspace")]

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A logged run: its columns by name.
#[derive(Clone, Debug)]
pub struct Row {
    columns: BTreeMap<String, String>,
}

/// Where a buffer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Host,
    /// A GPU, by its position among those of the row.
    Device(usize),
}

impl Row {
    /// A column, or an empty text.
    pub fn get(&self, column: &str) -> &str {
        self.columns.get(column).map_or("", |value| value.as_str())
    }
    pub fn id(&self) -> u32 {
        self.get("id").parse().unwrap_or(0)
    }
    pub fn number(&self, column: &str) -> Option<u32> {
        let text = self.get(column);
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    }
    /// True for llama.cpp itself and packages of it, as opposed to forks with rules of their own.
    pub fn is_mainline(&self) -> bool {
        !self.get("engine").starts_with("ik_llama.cpp")
    }

    /// GPUs of the row by the names of its buffers, in their order.
    fn gpus(&self) -> Vec<String> {
        let columns = ["model_buf_MiB", "kv_buf_MiB", "rs_buf_MiB", "compute_buf_MiB"];
        let names = columns.iter().flat_map(|column| entries(self.get(column))).map(|(name, _)| device_name(&name));
        let mut gpus: Vec<String> = names.flatten().collect();
        gpus.sort_by_key(|name| name.trim_start_matches(char::is_alphabetic).parse::<u32>().unwrap_or(0));
        gpus.dedup();
        gpus
    }
    pub fn n_gpus(&self) -> usize {
        self.gpus().len()
    }
    /// The buffers of a column in MiB by place; `None` where the row has none.
    pub fn buffers(&self, column: &str) -> Option<BTreeMap<Place, f64>> {
        let gpus = self.gpus();
        let mut sums = BTreeMap::new();
        for (name, size) in entries(self.get(column)) {
            let place = match device_name(&name) {
                Some(gpu) => Place::Device(gpus.iter().position(|known| *known == gpu)?),
                None => Place::Host,
            };
            *sums.entry(place).or_insert(0.0) += size;
        }
        (!sums.is_empty()).then_some(sums)
    }
}

/// `NAME=MiB` with remarks behind the number; others are left out.
fn entries(text: &str) -> Vec<(String, f64)> {
    let entry = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let name = name.rsplit([' ', ',']).next()?;
        let end = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
        Some((name.to_owned(), value[..end].parse().ok()?))
    };
    text.split(';').filter_map(entry).collect()
}

/// The GPU of a buffer's name: `CUDA0`, `MTL0` of `MTL0_Mapped`; none for host memory, pinned or not.
fn device_name(buffer: &str) -> Option<String> {
    let host = buffer.starts_with("CPU") || buffer.starts_with("AMX") || buffer.ends_with("_Host");
    (!host).then(|| buffer.split(['_', '-']).next().unwrap_or(buffer).to_owned())
}

/// Every row, or `None` where the file is not there.
pub fn rows() -> Option<Vec<Row>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/memory/logged_buffers.csv");
    let text = std::fs::read_to_string(path).ok()?;
    let lines = csv::Reader::from_reader(text.as_bytes()).into_deserialize();
    Some(lines.map(|columns| Row { columns: columns.unwrap_or_else(|error| panic!("logged_buffers.csv: {error}")) }).collect())
}
