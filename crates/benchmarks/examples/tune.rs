//! Chooses the prior deviations of levels: `tune TABLE PHASE MINUTES` leaves devices out, predicts them, and moves one deviation
//! after another to where errors become smaller; held-out devices take no part. Writes `crates/roofline/data/deviations.tsv` when
//! it ends.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a tool: it reads a table, and the clock to end, and writes a file")]

use benchmarks::evaluate::{after_one, fit_samples, held_out, leave_out_with, loss, usable};
use benchmarks::{Sample, read, samples};
use roofline::{Deviations, Parameters, Phase};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

/// Fits per trial: fewer than in the report, for time.
const FOLDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, phase, minutes] = arguments.as_slice() else { return Err("say: tune TABLE decode|prefill MINUTES".into()) };
    let phase = if phase == "prefill" { Phase::Prefill } else { Phase::Decode };
    let end = Instant::now() + Duration::from_secs_f64(minutes.parse::<f64>()? * 60.0);
    let (_, rows) = read(&std::fs::read_to_string(path)?)?;
    let understood: Vec<Sample> = samples(&rows).into_iter().flatten().collect();
    let usable = usable(&understood);
    let held = held_out(&usable);
    let chosen: Vec<&Sample> = usable.into_iter().filter(|sample| sample.phase == phase && !held.contains(&sample.title)).collect();
    let title = |sample: &Sample| sample.title.clone();
    let trial = |deviations: &Deviations, start: &Parameters| {
        let folds = leave_out_with(&chosen, FOLDS, &title, start, deviations);
        let blind: Vec<_> = folds.iter().flat_map(|(_, outcomes)| outcomes.iter().copied()).collect();
        loss(&blind) + 0.7 * loss(&after_one(&folds, deviations).concat())
    };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../roofline/data/deviations.tsv");
    let mut best = Deviations::from_text(&std::fs::read_to_string(&file)?).map_err(|line| format!("deviations.tsv, line {line}"))?;
    let mut start = fit_samples(&chosen, &Parameters::default(), &best);
    let mut least = trial(&best, &start);
    println!("start {least:.5}");
    let rows: Vec<[String; 3]> = best.iter().map(|(row, _)| row.clone()).filter(|row| row[0] == "*" || row[0] == phase.as_str()).collect();
    let mut factor = 2.0;
    while factor > 1.3 && Instant::now() < end {
        let before = least;
        for row in &rows {
            // Rows for both phases become rows of this one.
            let own = [phase.as_str().to_owned(), row[1].clone(), row[2].clone()];
            let now = best
                .iter()
                .find(|(other, _)| **other == own)
                .or_else(|| best.iter().find(|(other, _)| *other == row))
                .map_or(0.2, |(_, value)| value);
            for change in [factor, 1.0 / factor] {
                let tried = best.with(&own, (now * change).clamp(0.01, 3.0));
                let found = trial(&tried, &start);
                if found < least - 2e-4 {
                    println!("{found:.5} {own:?} {now:.3} -> {:.3}", now * change);
                    (least, best) = (found, tried);
                    break;
                }
            }
            if Instant::now() > end {
                break;
            }
        }
        start = fit_samples(&chosen, &start, &best);
        if before - least < 2e-3 {
            factor = 1.0 + (factor - 1.0) / 2.0;
        }
    }
    let head = "# Written by `cargo run --release -p benchmarks --example tune`: phase, bound, level, standard deviation.\n";
    std::fs::write(file, head.to_owned() + &best.to_text())?;
    println!("end {least:.5}");
    Ok(())
}
