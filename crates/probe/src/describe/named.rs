//! Hardware of the tables in a description.

use super::{DescribeMachineError, NOT_SAID};
use hardware::{Accelerator, Build, Choice, Confidence, FindError, Processor, Tables, apple, figures};
use spec::machine::{Gpu, GpuKind, GpuVendor};
use spec::{Bytes, Known, Source};

/// More of one thing than any machine holds.
const MAX_COUNT: u32 = 64;

/// A name of the tables.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Named {
    /// An accelerator, perhaps several.
    Accelerator(Part),
    /// A processor and how many packages.
    Processor(&'static Processor, u32),
}

/// An accelerator of a description.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    /// As written.
    pub(super) asked: String,
    /// Its row.
    pub(super) row: &'static Accelerator,
    /// The size of memory, where the name says it or there is only one.
    pub(super) memory: Option<Bytes>,
    /// How many.
    pub(super) count: u32,
}

/// What a name stands for. `xN`, `*N` or `×N` behind it is a count: `rtx4090x2`.
pub(super) fn find(text: &str) -> Result<Named, FindError> {
    let tables = Tables::built_in();
    let text = text.trim();
    let first = match one(tables, text, 1) {
        Err(FindError::NotFound { text, nearest }) => FindError::NotFound { text, nearest },
        found => return found,
    };
    // A bare number at the end may be a size: `m4-max-64`, `strix-halo-128`.
    if let Ok(Named::Accelerator(part)) = one(tables, &format!("{text}gb"), 1)
        && part.memory.is_some_and(|memory| part.row.memory.contains(&memory) && text.ends_with(&format!("{}", memory.as_gib())))
    {
        return Ok(Named::Accelerator(Part { asked: text.to_owned(), ..part }));
    }
    let name = text.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let count = text.get(name.len()..).and_then(|digits| digits.parse::<u32>().ok()).filter(|count| (1..=MAX_COUNT).contains(count));
    let Some(count) = count else { return Err(first) };
    // A name may end in the x itself: `mi300x8`.
    let shorter = name.strip_suffix(['x', 'X', '*', '×']);
    let found =
        shorter.and_then(|name| one(tables, name, count).ok()).or_else(|| one(tables, name, count).ok().filter(|_| shorter.is_some()));
    match (found, shorter) {
        (Some(found), _) => Ok(found),
        // Several rows: the message names them with the count left off.
        (None, Some(name)) => match one(tables, name, count) {
            Err(several @ FindError::Several { .. }) => Err(several),
            _ => Err(first),
        },
        _ => Err(first),
    }
}

fn one(tables: &'static Tables, text: &str, count: u32) -> Result<Named, FindError> {
    match tables.accelerator(text) {
        Ok(Choice { row, memory }) => Ok(Named::Accelerator(Part { asked: text.to_owned(), row, memory, count })),
        Err(several @ FindError::Several { .. }) => Err(several),
        Err(FindError::NotFound { text, mut nearest }) => match tables.processor(&text) {
            Ok(row) => Ok(Named::Processor(row, count)),
            Err(FindError::NotFound { nearest: processors, .. }) => {
                nearest.extend(processors);
                nearest.truncate(4);
                Err(FindError::NotFound { text, nearest })
            }
            Err(several) => Err(several),
        },
    }
}

/// What to say of `cpu=NAME` where nothing is found: only processors are near.
pub(super) fn processor_error(text: &str, error: FindError) -> FindError {
    match Tables::built_in().processor(text) {
        Err(error) => error,
        Ok(_) => error,
    }
}

/// Whether a value of `gpu=` is meant as a name: it has a letter that no size has, and something like it is in the tables.
pub(super) fn looks_like_a_name(value: &str, error: &FindError) -> bool {
    let near = matches!(error, FindError::NotFound { nearest, .. } if !nearest.is_empty());
    near && value.chars().any(char::is_alphabetic) && value.chars().any(|letter| letter.is_ascii_digit())
}

pub(super) fn processor_source(row: &Processor) -> Source {
    Source::new(format!("table row {}", row.name))
}

impl Part {
    /// Processor, memory and GPU in one: nothing else belongs to the machine.
    pub(super) fn is_whole_machine(&self) -> bool {
        self.row.processor.is_some()
    }

    /// The processor of a module.
    pub(super) fn processor(&self) -> Option<(&'static Processor, u32)> {
        let name = self.row.processor.as_deref()?;
        Tables::built_in().processors().iter().find(|row| row.name == name).map(|row| (row, 1))
    }

    fn source(&self) -> Source {
        Source::new(format!("table row {}", self.row.title()))
    }

    /// What the system shows of a module's memory. Macs show all of it. On Jetson and GB10 firmware and carve-outs keep 2 to 8 %: 119.7 of
    /// 128 GiB (GB10), 61.4 of 64 and 7.4 of 8 (Orin). On other integrated graphics the firmware keeps half a GiB and the kernel some more.
    pub(super) fn host_memory(&self) -> Known<Bytes> {
        match (self.memory, self.row.vendor) {
            (Some(memory), GpuVendor::Apple) => Known::exact(memory, self.source()),
            (Some(memory), _) => Known::estimated(memory.scale(0.95), memory.scale(0.92), memory.scale(0.985), self.source()),
            (None, _) => Known::unknown(NOT_SAID),
        }
    }

    /// The GPU of a module and what is free for it.
    pub(super) fn gpu_of_the_module(&self, total: &Known<Bytes>, free: &Known<Bytes>) -> (Gpu, Known<Bytes>) {
        let memory = match self.row.vendor {
            GpuVendor::Apple => match total.get() {
                Some(ram) => apple::working_set(ram),
                None => Known::unknown(NOT_SAID),
            },
            // CUDA takes what the host has; its driver reports no memory of its own.
            GpuVendor::Nvidia => total.clone(),
            _ => shared(total),
        };
        let free = least(&memory, free);
        (Gpu { memory_total: memory, ..self.gpu() }, free)
    }

    /// A card, or the graphics of a processor beside it, and what is free on it.
    pub(super) fn card(
        &self,
        total: &Known<Bytes>,
        free: &Known<Bytes>,
        processor: Option<(&Processor, u32)>,
    ) -> Result<(Gpu, Known<Bytes>), DescribeMachineError> {
        if self.row.unified {
            let memory = shared(total);
            let free = least(&memory, free);
            let gpu = self.gpu();
            let bandwidth = match processor {
                Some((row, count)) => figures::processor_bandwidth(row, count),
                None => gpu.memory_bandwidth.clone(),
            };
            return Ok((Gpu { memory_total: memory, memory_bandwidth: bandwidth, ..gpu }, free));
        }
        let Some(size) = self.memory else {
            let choices = self.row.memory.clone();
            return Err(DescribeMachineError::Memory { part: self.asked.clone(), name: self.row.name.clone(), choices });
        };
        let (memory, free) = (self.card_memory(size), self.idle(size));
        Ok((Gpu { memory_total: memory, ..self.gpu() }, free))
    }

    /// What the driver shows of a card's memory: as good as all of it on GeForce and Radeon cards (RTX 4090: 24564 MiB) and where the memory
    /// is HBM (H100 80 GB: 81559 MiB), up to a sixteenth less where error correction on GDDR takes its part (A10: 23028 MiB of 24 GiB, L40S
    /// 46068 of 48).
    fn card_memory(&self, size: Bytes) -> Known<Bytes> {
        let corrected = self.row.vendor == GpuVendor::Nvidia
            && !self.row.name.starts_with("GeForce")
            && self.row.memory_type.as_deref().is_some_and(|kind| kind.starts_with("GDDR"));
        let low = if corrected { 0.935 } else { 0.99 };
        Known::estimated(size.scale((1.0 + low) / 2.0), size.scale(low), size, self.source())
    }

    /// What an idle card has free: its driver keeps some hundred MiB (A100 80 GiB: 869; A10G: 435; RTX 3080: 173), a desktop on it takes
    /// up to one and a half GiB (RTX 3080 on Windows: 1128 MiB), and nothing has to run there.
    fn idle(&self, size: Bytes) -> Known<Bytes> {
        const KEPT: Bytes = Bytes::from_mib(512);
        const DESKTOP: Bytes = Bytes::from_mib(1536);
        let memory = self.card_memory(size);
        let (value, low) = (memory.get().unwrap_or(size), memory.low().copied().unwrap_or(size));
        let low = low.saturating_sub(KEPT).saturating_sub(DESKTOP).min(value);
        Known::estimated(value.saturating_sub(KEPT).max(low), low.max(size.scale(0.5)), size, "an idle card: driver and perhaps a desktop")
    }

    /// Everything but the memory.
    fn gpu(&self) -> Gpu {
        let row = self.row;
        let kind = if row.unified { GpuKind::Integrated } else { GpuKind::Discrete };
        let source = || self.source();
        let compute_capability = Known::from_option(row.compute_capability, source(), "no CUDA device");
        let laptop = row.build == Build::Laptop || row.confidence == Confidence::Low;
        Gpu {
            name: Known::exact(row.name.clone(), source()),
            architecture: Known::from_option(row.instruction_set.clone(), source(), NOT_SAID),
            multiprocessors: Known::from_option(row.units, source(), NOT_SAID),
            power_limit_watts: match row.power_watts.filter(|_| !laptop) {
                Some(watts) => Known::exact(f64::from(watts), source()),
                None => Known::unknown("its maker sets the power"),
            },
            memory_bandwidth: figures::bandwidth(&[row]),
            compute: figures::half_precision(&[row]),
            compute_capability,
            pci_id: match row.pci_ids.as_slice() {
                [id] => Known::exact(id.clone(), source()),
                _ => Known::unknown("the table has none or several"),
            },
            ..Gpu::unknown(row.vendor, kind, NOT_SAID)
        }
    }
}

/// What graphics that compute in the host's memory may take of it: half by the kernel's default (`ttm.pages_limit`), more where the firmware
/// carves out memory or the limit is raised.
fn shared(total: &Known<Bytes>) -> Known<Bytes> {
    match (total.get(), total.low(), total.high()) {
        (Some(value), Some(low), Some(high)) => {
            Known::estimated(value.scale(0.5), low.scale(0.45), high.scale(0.875), "half of the host's memory by default")
        }
        _ => Known::unknown(NOT_SAID),
    }
}

/// The smaller of two sizes, end by end.
fn least(a: &Known<Bytes>, b: &Known<Bytes>) -> Known<Bytes> {
    match (a.get(), a.low(), a.high(), b.get(), b.low(), b.high()) {
        (Some(a_value), Some(a_low), Some(a_high), Some(b_value), Some(b_low), Some(b_high)) => {
            let source = if a_value <= b_value { a.source() } else { b.source() };
            Known::estimated(a_value.min(b_value), *a_low.min(b_low), *a_high.min(b_high), source.clone())
        }
        (None, ..) => a.clone(),
        _ => b.clone(),
    }
}
