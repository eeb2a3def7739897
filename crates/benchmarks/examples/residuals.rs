//! Every measurement beside its predictions as CSV: device left out, after one run, family of models left out. `residuals TABLE OUT`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a tool: it reads a table and writes one")]

use benchmarks::evaluate::{Outcome, after_one, fit_samples, leave_out_with, usable};
use benchmarks::{Sample, read, samples};
use roofline::{Deviations, Parameters};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;

/// As in the report.
const FOLDS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, out] = arguments.as_slice() else { return Err("say: residuals TABLE OUT".into()) };
    let (_, rows) = read(&std::fs::read_to_string(path)?)?;
    let understood: Vec<Sample> = samples(&rows).into_iter().flatten().collect();
    let usable = usable(&understood);
    let chosen = Deviations::chosen();
    let start = fit_samples(&usable, &Parameters::default(), chosen);
    let folds = leave_out_with(&usable, FOLDS, &|sample| sample.title.clone(), &start, chosen);
    let by_row = |outcomes: Vec<Outcome<'_>>| -> BTreeMap<usize, f64> {
        outcomes.into_iter().map(|outcome| (outcome.sample.row, outcome.predicted)).collect()
    };
    let one = by_row(after_one(&folds, chosen).concat());
    let families = leave_out_with(&usable, FOLDS, &|sample| sample.family.clone(), &start, chosen);
    let families = by_row(families.into_iter().flat_map(|(_, outcomes)| outcomes).collect());
    let mut text = String::from(
        "row,phase,source,class,device,host,family,model,quant,backend,engine,era,os,flash,test,depth,tokens,ubatch,known,problem,bw,vector,matrix,bytes,elements,layers,width,rate,blind,one,family_out,parts,file_row\n",
    );
    for (parameters, outcomes) in &folds {
        for outcome in outcomes {
            let sample = outcome.sample;
            let (Some(work), Some(rate)) = (sample.work.first(), sample.rate) else { continue };
            let conditions = &sample.conditions;
            let parts = sample.cases().first().map(|case| case.sum.parts(parameters)).unwrap_or_default();
            let total: f64 = parts.iter().map(|(_, time)| time).sum();
            let parts: Vec<String> = parts.iter().map(|(bound, time)| format!("{}:{:.2}", bound.as_str(), time / total)).collect();
            let number = |map: &BTreeMap<usize, f64>| map.get(&sample.row).map_or(String::new(), |value| format!("{value:.2}"));
            let text_of = |text: &Option<String>| text.clone().unwrap_or_default();
            let measurement = &rows[sample.row];
            let _ = writeln!(
                text,
                "{},{},{},{},\"{}\",\"{}\",{},\"{}\",{},{},{},{},{},{},\"{}\",{},{},{},{:?},{},{:.3e},{:.3e},{:.2},{:.4e},{:.4e},{},{},{},{:.2},{},{},{},{}",
                sample.row,
                sample.phase.as_str(),
                sample.source.as_str(),
                sample.class().as_str(),
                sample.title,
                sample.host,
                sample.family,
                sample.model,
                work.shape.quant.as_str(),
                text_of(&conditions.backend),
                text_of(&conditions.engine),
                text_of(&conditions.era),
                text_of(&conditions.os),
                conditions.flash_attention.as_str(),
                measurement.text("test").unwrap_or(""),
                work.depth,
                work.tokens,
                work.ubatch,
                sample.known,
                sample.problem.map_or("", |problem| problem.as_str()),
                sample.found.device.bandwidth,
                sample.found.device.vector_rate(),
                sample.found.device.matrix,
                work.shape.active_bytes,
                work.shape.active_elements,
                work.shape.layers,
                work.shape.width,
                rate,
                outcome.predicted,
                number(&one),
                number(&families),
                parts.join(" "),
                sample.row + 2,
            );
        }
    }
    std::fs::write(out, text)?;
    Ok(())
}
