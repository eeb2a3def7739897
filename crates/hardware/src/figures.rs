//! Bandwidth and rates of rows as known values: exact, with an interval, or not at all.

use crate::accelerator::{Accelerator, Build, Confidence, RateBasis};
use crate::processor::{Processor, Segment};
use spec::units::{BytesPerSec, OpsPerSec};
use spec::{Known, Source};

/// How far the figure of a row may be off, by how well it was checked. A card of another maker runs its memory up to some per cent
/// faster than the reference.
fn off(confidence: Confidence) -> f64 {
    match confidence {
        Confidence::High => 0.01,
        Confidence::Medium => 0.03,
        Confidence::Low => 0.10,
    }
}

/// Clock under a load of matrix products over the boost clock on paper. Cards hold more than the stated boost while cool (an RTX 4090
/// names 3105 MHz at 2520 on paper); a laptop's maker sets a third to one and a half of the reference power.
fn sustained(row: &Accelerator) -> (f64, f64) {
    match row.build {
        Build::Laptop => (0.5, 1.4),
        _ => (0.7, 1.2),
    }
}

/// Graphics of a processor that takes any memory: from one channel of two to soldered memory a third faster (DDR5-5600 and LPDDR5X-7500).
const ANY_MEMORY: (f64, f64) = (0.5, 1.35);

/// `table row NAME`, or all names where several rows share an id.
fn source(rows: &[&Accelerator]) -> Source {
    let names: Vec<String> = rows.iter().map(|row| row.title()).collect();
    Source::new(format!("table row {}", names.join(" or ")))
}

fn span(values: impl Iterator<Item = (f64, f64, f64)>) -> Option<(f64, f64, f64)> {
    let all: Vec<_> = values.collect();
    let low = all.iter().map(|value| value.1).min_by(f64::total_cmp)?;
    let high = all.iter().map(|value| value.2).max_by(f64::total_cmp)?;
    // The slowest of them: what is promised for one holds for the others.
    let value = all.iter().map(|value| value.0).min_by(f64::total_cmp)?;
    Some((value, low, high))
}

/// Memory bandwidth of a device that is one of `rows`, as it is delivered: the peak, less what check bits take; the interval covers all of
/// them, and cards whose check bits were turned off. Unknown without a row, and where one of them has no memory of its own.
pub fn bandwidth(rows: &[&Accelerator]) -> Known<BytesPerSec> {
    let each: Option<Vec<(f64, f64, f64)>> = rows
        .iter()
        .map(|row| {
            let (rate, peak, off) = (row.data_bandwidth()?.get(), row.bandwidth?.get(), off(row.confidence));
            let any_memory = row.build == Build::Integrated && row.processor.is_none();
            let (low, high) = if any_memory { ANY_MEMORY } else { (1.0 - off, 1.0 + off) };
            Some((rate, rate * low, peak * high))
        })
        .collect();
    let span = each.and_then(|each| span(each.into_iter()));
    let rates = span.and_then(|(value, low, high)| Some((BytesPerSec::new(value)?, BytesPerSec::new(low)?, BytesPerSec::new(high)?)));
    match rates {
        Some((value, low, high)) => Known::estimated(value, low, high, source(rows)),
        None => Known::unknown("no row of the tables has its bandwidth"),
    }
}

/// Dense half-precision rate (FP16 factors, FP32 sums) of a device that is one of `rows`; the interval covers all of them.
pub fn half_precision(rows: &[&Accelerator]) -> Known<OpsPerSec> {
    let each: Option<Vec<(f64, f64, f64)>> = rows
        .iter()
        .map(|row| {
            let rate = row.fp16?.get();
            let (low, high) = sustained(row);
            // A data sheet states the rate at a clock of its own choice.
            let low = if row.rates == Some(RateBasis::Stated) { low.min(0.6) } else { low };
            Some((rate, rate * low, rate * high))
        })
        .collect();
    let span = each.and_then(|each| span(each.into_iter()));
    let rates = span.and_then(|(value, low, high)| Some((OpsPerSec::new(value)?, OpsPerSec::new(low)?, OpsPerSec::new(high)?)));
    match rates {
        Some((value, low, high)) => Known::estimated(value, low, high, source(rows)),
        None => Known::unknown("no row of the tables has its rate"),
    }
}

/// What a core reads at the least while others of its machine do so too, in bytes per second.
const OF_A_CORE: f64 = 5e9;

/// Bandwidth of a virtual machine with `threads` hardware threads on a processor that is one of `rows`, which it shares with others: at
/// the least the share of its threads, or what its cores read in any case; at the most all that the processors have which so many
/// threads need. The value is the mean of their orders of magnitude.
pub fn guest_bandwidth(rows: &[&Processor], threads: u32) -> Known<BytesPerSec> {
    let threads = threads.max(1);
    let each = rows.iter().filter_map(|row| {
        let packages = threads.div_ceil(row.threads.max(1));
        let known = processor_bandwidth(row, packages);
        let share = f64::from(threads) / f64::from(row.threads.max(1).saturating_mul(packages));
        let (value, low, high) = (known.get()?.get(), known.low()?.get(), known.high()?.get());
        let low = (low * share).max(OF_A_CORE * f64::from(threads)).min(value);
        Some(((low * value).sqrt(), low, high))
    });
    let known = span(each).and_then(|(value, low, high)| Some((BytesPerSec::new(value)?, BytesPerSec::new(low)?, BytesPerSec::new(high)?)));
    match (known, rows) {
        (Some((value, low, high)), [row]) => Known::estimated(value, low, high, format!("a share of table row {}", row.name)),
        (Some((value, low, high)), rows) => {
            let first = rows.first().map_or("", |row| row.name.as_str());
            Known::estimated(value, low, high, format!("a share of one of {} table rows such as {first}", rows.len()))
        }
        (None, _) => Known::unknown("no row of the processor has memory"),
    }
}

/// Peak bandwidth of `packages` processors, every channel in use. Which memory sits in the slots is not in the table: the interval goes
/// from one channel of two with the slowest kind to a quarter above the fastest that the maker supports, where memory is bought apart.
pub fn processor_bandwidth(row: &Processor, packages: u32) -> Known<BytesPerSec> {
    let full = |rate: u32| f64::from(rate) * 1e6 * f64::from(row.channels.unwrap_or(0)) * f64::from(row.channel_bits.unwrap_or(0)) / 8.0;
    let rates = || row.memory.iter().map(|&(_, rate)| full(rate) * f64::from(packages));
    let (slowest, fastest) = (rates().min_by(f64::total_cmp), rates().max_by(f64::total_cmp));
    let (part, over) = match row.segment {
        Segment::Desktop => (0.5, 1.25),
        Segment::Laptop => (0.5, 1.0),
        Segment::Server => (0.5, 1.0),
        Segment::Mobile | Segment::Board | Segment::Module => (1.0, 1.0),
    };
    let known = slowest.zip(fastest).and_then(|(slowest, fastest)| {
        let first = rates().next()?;
        Some((BytesPerSec::new(first)?, BytesPerSec::new(slowest * part)?, BytesPerSec::new(fastest * over)?))
    });
    match known {
        Some((value, low, high)) => Known::estimated(value, low, high, format!("table row {}", row.name)),
        None => Known::unknown("the row of the processor has no memory"),
    }
}
