//! Fits the parameters to a table of measurements and tells how far predictions for devices and models that were left out are off:
//! writes `crates/roofline/data/fitted.tsv` and `SPEED.md`. The same table gives the same bytes.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a tool: it reads a table and writes files of the repository")]

use benchmarks::evaluate::{fit_samples, usable};
use benchmarks::report::evaluate;
use benchmarks::{Sample, read, samples};
use roofline::{Deviations, Parameters};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("say which table: fit ../shared/data/speed/measured.csv")?;
    let (_, rows) = read(&std::fs::read_to_string(&path)?)?;
    let understood: Vec<Sample> = samples(&rows).into_iter().flatten().collect();
    let usable = usable(&understood);
    let mut parameters = fit_samples(&usable, &Parameters::default(), Deviations::chosen());
    let evaluation = evaluate(&usable, rows.len(), &understood, &parameters);
    parameters = parameters.without_machines();
    parameters.spread = evaluation.spread;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let name = Path::new(&path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let head = format!(
        "# Written by `cargo run --release -p benchmarks --example fit -- ../shared/data/speed/{name}`: do not edit.\n\
         # Logarithms of inefficiencies, from {} of {} rows; each row of the table names its source.\n\
         # `spread`: P10, median and P90 of ln(measured / predicted) for devices that a fit had left out, and how many.\n",
        usable.len(),
        rows.len(),
    );
    std::fs::write(here.join("../roofline/data/fitted.tsv"), head + &parameters.to_text())?;
    std::fs::write(here.join("../../SPEED.md"), &evaluation.text)?;
    println!("{}", evaluation.text);
    Ok(())
}
