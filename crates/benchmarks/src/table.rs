//! A table of measurements with a prediction beside every row.

use crate::evaluate::{Outcome, speed};
use crate::intervals::{Knowledge, spread_keys};
use crate::row::{Measurement, TableError, read};
use crate::sample::{Problem, Sample, samples};
use roofline::{Parameters, anomaly};

/// Columns that are added.
const ADDED: [&str; 6] = ["p10", "p50", "p90", "basis", "error", "anomaly"];

/// Tokens per second below which one measurement in ten lies, the middle, and above which one in ten lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Tenth percentile.
    pub p10: f64,
    /// Median.
    pub p50: f64,
    /// Ninetieth percentile.
    pub p90: f64,
}

/// The speed of a sample.
pub fn interval(sample: &Sample, parameters: &Parameters) -> Interval {
    let p50 = speed(&sample.cases(), parameters);
    let range = parameters.spread.range(&spread_keys(sample, Knowledge::Blind));
    let (low, high) = range.map_or((-1.0, 0.5), |range| (range.low.min(-0.01), range.high.max(0.01)));
    Interval { p10: p50 * low.exp(), p50, p90: p50 * high.exp() }
}

/// What a prediction rests on: the narrowest level of which the fit had measurements.
pub fn basis(sample: &Sample, parameters: &Parameters) -> &'static str {
    let cases = sample.cases();
    let terms = || cases.iter().flat_map(|case| case.sum.groups.iter().flatten());
    let knows =
        |level: &str| terms().flat_map(|term| &term.effects).any(|effect| effect.name.contains(level) && parameters.knows(&effect.name));
    if knows("/device=") {
        "this device"
    } else if knows("/generation=") {
        "its generation"
    } else if knows("/class=") {
        "its class"
    } else {
        "prior"
    }
}

/// A table with predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotated {
    /// The rows as they were, with `p10`, `p50`, `p90`, `basis`, `error` (predicted ÷ measured − 1) and `anomaly` (probable
    /// causes of a speed far below the prediction, most probable first) behind them. Where nothing can
    /// be predicted, `basis` says what is missing.
    pub csv: String,
    /// Every row that was understood.
    pub samples: Vec<Sample>,
    /// Median predictions in the order of `samples`; `None` where the formula does not hold.
    pub predicted: Vec<Option<Interval>>,
    /// Rows in the table.
    pub rows: usize,
}

impl Annotated {
    /// Rows with a measured and a predicted speed.
    pub fn outcomes(&self) -> Vec<Outcome<'_>> {
        let both = self.samples.iter().zip(&self.predicted);
        both.filter_map(|(sample, interval)| Some(Outcome { sample, predicted: interval.filter(|_| sample.rate.is_some())?.p50 })).collect()
    }

    /// The share of rows whose measured speed lies within the interval.
    pub fn covered(&self, chosen: &dyn Fn(&Sample) -> bool) -> Option<f64> {
        let both = self.samples.iter().zip(&self.predicted).filter(|(sample, _)| chosen(sample));
        let inside: Vec<bool> =
            both.filter_map(|(sample, interval)| Some((interval.as_ref()?.p10..=interval.as_ref()?.p90).contains(&sample.rate?))).collect();
        (!inside.is_empty()).then(|| inside.iter().filter(|&&inside| inside).count() as f64 / inside.len() as f64)
    }
}

/// Why the formula tells nothing of a sample.
fn beyond(sample: &Sample) -> Option<Problem> {
    sample.problem.filter(|problem| {
        !matches!(problem, Problem::Engine | Problem::Throttled | Problem::Unsteady | Problem::Old | Problem::Impossible)
            && !sample.several()
    })
}

/// Predicts every row of a table with the columns of `measured.csv`; those that are missing are looked up by name or taken as unknown.
///
/// # Errors
/// Not a table, or without the columns that a row needs.
pub fn annotate(text: &str, parameters: &Parameters) -> Result<Annotated, TableError> {
    let (header, rows) = read(text)?;
    let understood = samples(&rows);
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    let broken = |error: csv::Error| TableError::Broken { line: 0, problem: error.to_string() };
    writer.write_record(header.iter().map(String::as_str).chain(ADDED)).map_err(broken)?;
    let (mut kept, mut predicted) = (Vec::new(), Vec::new());
    for (row, sample) in rows.iter().zip(understood) {
        let (cells, interval) = cells(&sample, parameters);
        writer.write_record(padded(row, header.len()).into_iter().chain(cells)).map_err(broken)?;
        if let Ok(sample) = sample {
            kept.push(sample);
            predicted.push(interval);
        }
    }
    let bytes = writer.into_inner().map_err(|error| TableError::Broken { line: 0, problem: error.to_string() })?;
    Ok(Annotated { csv: String::from_utf8_lossy(&bytes).into_owned(), samples: kept, predicted, rows: rows.len() })
}

/// A row with as many cells as the header.
fn padded(row: &Measurement, columns: usize) -> Vec<String> {
    let mut record = row.record.clone();
    record.resize(columns, String::new());
    record
}

fn cells(sample: &Result<Sample, &'static str>, parameters: &Parameters) -> ([String; 6], Option<Interval>) {
    let none = |why: String| ([String::new(), String::new(), String::new(), why, String::new(), String::new()], None);
    let sample = match sample {
        Err(lacks) => return none(format!("not predicted: {lacks}")),
        Ok(sample) => sample,
    };
    if let Some(problem) = beyond(sample) {
        return none(format!("not predicted: {}", problem.as_str()));
    }
    let interval = interval(sample, parameters);
    let known = basis(sample, parameters);
    let basis = match sample.problem {
        Some(Problem::Split) => format!("{known}, layers over {} devices", sample.placement.devices),
        Some(Problem::Offloaded) => format!("{known}, partly on the host"),
        Some(Problem::Throttled) => format!("{known}, at its usual power"),
        Some(Problem::Unsteady | Problem::Old | Problem::Impossible) => known.to_owned(),
        Some(_) => format!("{known}, as llama.cpp"),
        None => known.to_owned(),
    };
    let error = sample.rate.map_or(String::new(), |rate| format!("{:.3}", interval.p50 / rate - 1.0));
    let causes = sample.rate.map_or_else(Vec::new, |rate| anomaly(rate, interval.p50, sample.class(), &sample.conditions, sample.filled()));
    let causes = causes.iter().map(|cause| cause.as_str()).collect::<Vec<_>>().join("; ");
    let [low, middle, high] = [interval.p10, interval.p50, interval.p90].map(|rate| format!("{rate:.2}"));
    ([low, middle, high, basis, error, causes], Some(interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "device,device_kind,memory_bandwidth_gbs,engine,backend,model,quant,test,tokens_per_s,n_gpu_layers\n\
        NVIDIA GeForce RTX 4090,nvidia,1008,llama.cpp,CUDA,llama 8B,Q4_K_M,tg128,130,99\n\
        NVIDIA GeForce RTX 4090,nvidia,1008,llama.cpp,CUDA,llama 8B,Q4_K_M,tg128,20,10\n\
        Unheard Of 1,,,llama.cpp,CUDA,llama 8B,Q4_K_M,tg128,20,99\n\
        NVIDIA GeForce RTX 4090,nvidia,,llama.cpp,CUDA,llama 8B,secret,tg128,20,99\n";

    #[test]
    fn every_row_gets_a_prediction_or_a_reason() {
        let annotated = annotate(TABLE, Parameters::fitted()).unwrap();
        let lines: Vec<&str> = annotated.csv.lines().collect();
        assert!(lines[0].ends_with("n_gpu_layers,p10,p50,p90,basis,error,anomaly"));
        assert!(lines[1].ends_with(',') && lines[2].contains(", partly on the host"), "{}", lines[2]);
        assert!(annotated.predicted[1].unwrap().p50 < 40.0);
        assert!(lines[3].contains("not predicted: device not in the tables"), "{}", lines[3]);
        assert!(lines[4].contains("not predicted: quantisation not known"), "{}", lines[4]);
        let interval = annotated.predicted[0].unwrap();
        assert!(interval.p10 < interval.p50 && interval.p50 < interval.p90);
        // Weights of 4.58 GiB pass 1008 GB/s 205 times a second: no inefficiency below 1 nor above 2.
        assert!((100.0..205.0).contains(&interval.p50), "{interval:?}");
    }

    #[test]
    fn a_table_without_its_columns_is_told_which() {
        assert_eq!(annotate("device,model\nx,y\n", &Parameters::default()), Err(TableError::NoColumn("test")));
    }
}
