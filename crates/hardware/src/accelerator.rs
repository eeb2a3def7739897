//! A GPU or a module with one, as its maker describes it.

use crate::row::{Row, RowError};
use spec::machine::GpuVendor;
use spec::units::{Bytes, BytesPerSec, OpsPerSec};

/// What an accelerator is built as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Build {
    /// A card or a board with memory of its own.
    Discrete,
    /// The same in a laptop, where its maker sets the power and with it the clock.
    Laptop,
    /// Part of a processor, computing in the host's memory.
    Integrated,
    /// A chip or module of which processor, GPU and memory are one thing: Apple, Jetson, GB10.
    Module,
}

/// How well a row was checked; `data/README.md` defines the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// Two sources agree and the products come out.
    High,
    /// One source beside the maker's was compared.
    Medium,
    /// Nothing was compared, or sources differ.
    Low,
}

impl Confidence {
    pub(crate) const WORDS: [(&'static str, Self); 3] = [("high", Self::High), ("medium", Self::Medium), ("low", Self::Low)];
}

/// Where the rates of a row come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateBasis {
    /// Units × boost clock × the architecture's operations per unit and clock.
    Computed,
    /// The maker's data sheet, dense figures.
    Stated,
}

/// One row of `accelerators.csv`. What its maker does not state is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Accelerator {
    /// Maker.
    pub vendor: GpuVendor,
    /// Marketing name without its memory.
    pub name: String,
    /// Names that drivers and people give it beside that.
    pub aliases: Vec<String>,
    /// What it is built as.
    pub build: Build,
    /// Name of the chip.
    pub chip: String,
    /// Row of `architectures.csv`.
    pub architecture: String,
    /// CUDA compute capability.
    pub compute_capability: Option<(u32, u32)>,
    /// Instruction set in the maker's word where that is no compute capability: `gfx1100`, `apple9`.
    pub instruction_set: Option<String>,
    /// Sizes of memory it is sold with, ascending; empty where it has none of its own.
    pub memory: Vec<Bytes>,
    /// `GDDR6X`, `HBM3`, `LPDDR5`.
    pub memory_type: Option<String>,
    /// Width of the memory bus.
    pub bus_bits: Option<u32>,
    /// Transfers per second and line of the bus, in 10^6.
    pub transfer_mtps: Option<u32>,
    /// Peak bandwidth of its memory.
    pub bandwidth: Option<BytesPerSec>,
    /// True where check bits lie in the memory itself and are on as it is delivered: they take a sixteenth of its size and of what passes its
    /// bus. HBM and GDDR7 have bits of their own for them.
    pub inline_ecc: bool,
    /// Multiprocessors (NVIDIA), compute units (AMD), Xe cores (Intel), GPU cores (Apple).
    pub units: Option<u32>,
    /// Boost clock in MHz.
    pub boost_mhz: Option<u32>,
    /// Dense FP16 rate with FP32 sums.
    pub fp16: Option<OpsPerSec>,
    /// Dense BF16 rate.
    pub bf16: Option<OpsPerSec>,
    /// Dense INT8 rate.
    pub int8: Option<OpsPerSec>,
    /// Dense FP8 rate.
    pub fp8: Option<OpsPerSec>,
    /// Dense FP4 rate.
    pub fp4: Option<OpsPerSec>,
    /// Where the rates come from; `None` where there are none.
    pub rates: Option<RateBasis>,
    /// Vendor and device of the PCI registry, `10de:2684`.
    pub pci_ids: Vec<String>,
    /// True where another row has one of its ids with the same memory.
    pub ambiguous: bool,
    /// Board or module power in watts.
    pub power_watts: Option<u32>,
    /// True where it computes in the host's memory.
    pub unified: bool,
    /// The processor of a module: a name in `cpus.csv`.
    pub processor: Option<String>,
    /// Month of release.
    pub released: String,
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

impl Accelerator {
    /// The name with the memory where it is sold with one size only: `GeForce RTX 3060 12 GiB`.
    pub fn title(&self) -> String {
        match self.memory.as_slice() {
            [one] => format!("{} {} GiB", self.name, one.as_gib()),
            _ => self.name.clone(),
        }
    }

    /// Bandwidth that is left for data as it is delivered: [`Self::bandwidth`] without what check bits take.
    pub fn data_bandwidth(&self) -> Option<BytesPerSec> {
        /// Of sixteen transfers, those that carry data.
        const DATA: f64 = 15.0 / 16.0;
        let rate = self.bandwidth?;
        if self.inline_ecc { BytesPerSec::new(rate.get() * DATA) } else { Some(rate) }
    }

    /// Name and every alias.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.aliases.iter().map(String::as_str))
    }

    pub(crate) fn read(row: &Row<'_>) -> Result<Self, RowError> {
        let vendors = [("NVIDIA", GpuVendor::Nvidia), ("AMD", GpuVendor::Amd), ("Intel", GpuVendor::Intel), ("Apple", GpuVendor::Apple)];
        let builds =
            [("discrete", Build::Discrete), ("laptop", Build::Laptop), ("integrated", Build::Integrated), ("module", Build::Module)];
        let vendor = row.one_of("vendor", &vendors)?;
        let capability = row.text("capability").filter(|_| vendor == GpuVendor::Nvidia).and_then(|text| {
            let (major, minor) = text.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        Ok(Self {
            vendor,
            name: row.required("name")?.to_owned(),
            aliases: row.list("aliases"),
            build: row.one_of("kind", &builds)?,
            chip: row.text("chip").unwrap_or("").to_owned(),
            architecture: row.required("arch")?.to_owned(),
            compute_capability: capability,
            instruction_set: row.text("capability").filter(|_| vendor != GpuVendor::Nvidia).map(str::to_owned),
            memory: sizes(row)?,
            memory_type: row.text("memory_type").map(str::to_owned),
            bus_bits: row.number("bus_bits")?,
            transfer_mtps: row.number("transfer_mtps")?,
            bandwidth: row.bandwidth("bandwidth_gb_s")?,
            inline_ecc: row.text("ecc").map(|_| row.one_of("ecc", &[("inline", true)])).transpose()?.unwrap_or(false),
            units: row.number("units")?,
            boost_mhz: row.number("boost_mhz")?,
            fp16: row.rate("fp16_tflops")?,
            bf16: row.rate("bf16_tflops")?,
            int8: row.rate("int8_tops")?,
            fp8: row.rate("fp8_tflops")?,
            fp4: row.rate("fp4_tflops")?,
            rates: match row.text("rates") {
                None => None,
                Some(_) => Some(row.one_of("rates", &[("computed", RateBasis::Computed), ("stated", RateBasis::Stated)])?),
            },
            pci_ids: row.words("pci_ids"),
            ambiguous: row.text("ambiguous").is_some(),
            power_watts: row.number("power_w")?,
            unified: row.one_of("unified", &[("yes", true), ("no", false)])?,
            processor: row.text("cpu").map(str::to_owned),
            released: row.date("released")?.to_owned(),
            source: row.required("source")?.to_owned(),
            checked: row.text("checked").map(str::to_owned),
            entered: row.date("entered")?.to_owned(),
            confidence: row.one_of("confidence", &Confidence::WORDS)?,
            notes: row.text("notes").map(str::to_owned),
        })
    }
}

/// Sizes in GiB, joined by blanks; a part of a GiB stands for parts that a driver shows (`268.6`).
fn sizes(row: &Row<'_>) -> Result<Vec<Bytes>, RowError> {
    let wrong = |text: &str| RowError {
        table: row.table,
        line: row.record.position().map_or(0, csv::Position::line),
        column: "memory_gib",
        problem: "not a size",
        text: text.to_owned(),
    };
    let size = |text: &String| format!("{text}GiB").parse::<Bytes>().map_err(|_| wrong(text));
    row.words("memory_gib").iter().map(size).collect()
}

/// One row of `architectures.csv`: operations per unit and clock, a multiply-add being two; `None` where it has no such arithmetic or
/// its maker does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Key.
    pub name: String,
    /// FP16 factors, FP32 sums.
    pub fp16: Option<f64>,
    /// BF16 factors, FP32 sums.
    pub bf16: Option<f64>,
    /// INT8 factors, INT32 sums.
    pub int8: Option<f64>,
    /// FP8 factors.
    pub fp8: Option<f64>,
    /// FP4 factors.
    pub fp4: Option<f64>,
    /// The maker's document.
    pub source: String,
}

impl Architecture {
    pub(crate) fn read(row: &Row<'_>) -> Result<Self, RowError> {
        Ok(Self {
            name: row.required("name")?.to_owned(),
            fp16: row.number("fp16")?,
            bf16: row.number("bf16")?,
            int8: row.number("int8")?,
            fp8: row.number("fp8")?,
            fp4: row.number("fp4")?,
            source: row.required("source")?.to_owned(),
        })
    }
}
