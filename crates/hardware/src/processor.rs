//! A processor as its maker describes it.

use crate::accelerator::Confidence;
use crate::row::{Row, RowError};
use spec::units::BytesPerSec;
use std::collections::BTreeSet;

/// Where a processor is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A socket and slots for memory.
    Desktop,
    /// A laptop or small computer; memory in slots or soldered.
    Laptop,
    /// A server or workstation.
    Server,
    /// A phone.
    Mobile,
    /// A single-board computer.
    Board,
    /// Part of a module, whose memory stands in `accelerators.csv`.
    Module,
}

/// One row of `cpus.csv`, per package.
#[derive(Clone, Debug, PartialEq)]
pub struct Processor {
    /// Maker.
    pub vendor: String,
    /// Marketing name.
    pub name: String,
    /// Names that systems and people give it beside that.
    pub aliases: Vec<String>,
    /// Where it is put.
    pub segment: Segment,
    /// Performance cores; all cores of a uniform processor.
    pub performance_cores: u32,
    /// Efficiency cores.
    pub efficiency_cores: u32,
    /// Low-power cores.
    pub low_power_cores: u32,
    /// Hardware threads.
    pub threads: u32,
    /// Memory channels; `None` where the memory stands elsewhere.
    pub channels: Option<u32>,
    /// Data bits of a channel.
    pub channel_bits: Option<u32>,
    /// Kinds of memory that it takes with the highest rate that its maker supports, in 10^6 transfers per second; the fastest first.
    pub memory: Vec<(String, u32)>,
    /// Peak bandwidth with every channel in use and the fastest of them.
    pub bandwidth: Option<BytesPerSec>,
    /// Instruction-set extensions in the spelling of [`spec::machine::Cpu::features`]; those that decide how an engine computes.
    pub features: BTreeSet<String>,
    /// Power in watts.
    pub power_watts: Option<u32>,
    /// Year of release.
    pub year: String,
    /// The maker's document that states it.
    pub source: String,
    /// What it was compared with.
    pub checked: Option<String>,
    /// Day on which the row was entered.
    pub entered: String,
    /// How well it was checked.
    pub confidence: Confidence,
    /// What a reader should know beside that.
    pub notes: Option<String>,
}

impl Processor {
    /// Physical cores of all kinds.
    pub fn cores(&self) -> u32 {
        self.performance_cores.saturating_add(self.efficiency_cores).saturating_add(self.low_power_cores)
    }

    /// Name and every alias.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.aliases.iter().map(String::as_str))
    }

    /// `x86_64` or `aarch64`.
    pub fn arch(&self) -> &'static str {
        if matches!(self.vendor.as_str(), "Intel" | "AMD" | "Zhaoxin") { "x86_64" } else { "aarch64" }
    }

    pub(crate) fn read(row: &Row<'_>) -> Result<Self, RowError> {
        let segments = [
            ("desktop", Segment::Desktop),
            ("laptop", Segment::Laptop),
            ("server", Segment::Server),
            ("mobile", Segment::Mobile),
            ("board", Segment::Board),
            ("module", Segment::Module),
        ];
        let memory = row.words("memory").into_iter().filter_map(|word| {
            let (kind, rate) = word.rsplit_once('-')?;
            Some((kind.to_owned(), rate.parse().ok()?))
        });
        Ok(Self {
            vendor: row.required("vendor")?.to_owned(),
            name: row.required("name")?.to_owned(),
            aliases: row.list("aliases"),
            segment: row.one_of("segment", &segments)?,
            performance_cores: row.number("cores_performance")?.unwrap_or(0),
            efficiency_cores: row.number("cores_efficiency")?.unwrap_or(0),
            low_power_cores: row.number("cores_low_power")?.unwrap_or(0),
            threads: row.number("threads")?.unwrap_or(0),
            channels: row.number("channels")?,
            channel_bits: row.number("channel_bits")?,
            memory: memory.collect(),
            bandwidth: row.bandwidth("bandwidth_gb_s")?,
            features: row.words("features").into_iter().collect(),
            power_watts: row.number("power_w")?,
            year: row.date("year")?.to_owned(),
            source: row.required("source")?.to_owned(),
            checked: row.text("checked").map(str::to_owned),
            entered: row.date("entered")?.to_owned(),
            confidence: row.one_of("confidence", &Confidence::WORDS)?,
            notes: row.text("notes").map(str::to_owned),
        })
    }
}
