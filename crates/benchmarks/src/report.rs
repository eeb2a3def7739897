//! SPEED.md: how far predictions are off, as tables.

use crate::evaluate::{Errors, Outcome, SOURCES, after_one, errors, floor, leave_out, leave_out_with, spread, spread_keys, weights};
use crate::formulas::Formula;
use crate::sample::{Sample, Source};
use roofline::{Class, Parameters, Phase, quantile};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Fits per question.
const FOLDS: usize = 10;

/// Sets of classes that a line is about.
const LINES: [(&str, &[Class]); 12] = [
    ("nvidia-gddr", &[Class::NvidiaGddr]),
    ("nvidia-hbm", &[Class::NvidiaHbm]),
    ("nvidia-unified", &[Class::NvidiaUnified]),
    ("amd-gddr", &[Class::AmdGddr]),
    ("amd-hbm", &[Class::AmdHbm]),
    ("amd-unified", &[Class::AmdUnified]),
    ("apple", &[Class::Apple]),
    ("intel", &[Class::Intel]),
    ("intel-unified", &[Class::IntelUnified]),
    ("cpu", &[Class::Cpu]),
    ("all discrete GPUs", &[Class::NvidiaGddr, Class::NvidiaHbm, Class::AmdGddr, Class::AmdHbm, Class::Intel]),
    ("all that share memory", &[Class::NvidiaUnified, Class::AmdUnified, Class::Apple, Class::IntelUnified]),
];

/// An evaluation.
pub struct Evaluation {
    /// The text of SPEED.md.
    pub text: String,
    /// How far predictions for devices that were left out are off.
    pub spread: roofline::Spread,
}

/// Leaves devices, then families of models out, and tells how far predictions are off.
pub fn evaluate(samples: &[&Sample], rows: usize, understood: usize) -> Evaluation {
    let folds = leave_out_with(samples, FOLDS, &|sample| sample.title.clone());
    let blind: Vec<Outcome<'_>> = folds.iter().flat_map(|(_, outcomes)| outcomes.iter().copied()).collect();
    let one = after_one(&folds);
    let families = leave_out(samples, FOLDS, &|sample| sample.family.clone());
    let covered = covered(&folds);
    let mut text = String::new();
    let devices: BTreeSet<&str> = samples.iter().map(|sample| sample.title.as_str()).collect();
    let _ = write!(
        text,
        "# How far predictions of speed are off\n\n\
         Written by `cargo run --release -p benchmarks --example fit -- ../shared/data/speed/measured.csv`, which fits the parameters in\n\
         `crates/roofline/data/fitted.tsv` by the same formula that predictions use (`crates/roofline`). Of {rows} rows {understood} could be\n\
         understood, and {} of {} devices are runs of llama.cpp on one device, wholly in its memory and without speculation: those that the\n\
         formula is for. Errors are |predicted ÷ measured − 1|. **Every device weighs the same**, however many rows it has.\n\n\
         *Blind*: no measurement of the device was in the fit ({FOLDS} fits, each without a tenth of the devices). *One run*: the same after one\n\
         measurement on the same host, backend and phase (the row of middle time); all its other rows are predicted. *Models left out*: the\n\
         device was in the fit, no model of the family was. *In 80 %*: how many measurements lie between P10 and P90, the interval coming\n\
         from the other folds. *Floor*: how far repeats of the same device, model, backend and test are from each other, where there are any.\n",
        samples.len(),
        devices.len(),
    );
    for phase in [Phase::Decode, Phase::Prefill] {
        for source in SOURCES {
            section(&mut text, phase, source, &Sets { samples, blind: &blind, one: &one, families: &families, covered: &covered });
        }
    }
    formulas(&mut text, &blind);
    limits(&mut text);
    Evaluation { text, spread: spread(&blind) }
}

struct Sets<'a> {
    samples: &'a [&'a Sample],
    blind: &'a [Outcome<'a>],
    one: &'a [Outcome<'a>],
    families: &'a [Outcome<'a>],
    covered: &'a [(Outcome<'a>, bool)],
}

fn is(sample: &Sample, phase: Phase, source: Source, classes: &[Class]) -> bool {
    sample.phase == phase && sample.source == source && classes.contains(&sample.class())
}

fn section(text: &mut String, phase: Phase, source: Source, sets: &Sets<'_>) {
    let _ = write!(
        text,
        "\n## {} · {}\n\n| class | devices | rows | blind: median | P90 | in 80 % | one run: median | P90 | models left out: median | P90 | floor: median | P90 |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
        phase.as_str(),
        source.as_str(),
    );
    for (name, classes) in LINES {
        let pick = |outcomes: &[Outcome<'_>]| -> Errors {
            errors(&outcomes.iter().copied().filter(|outcome| is(outcome.sample, phase, source, classes)).collect::<Vec<_>>())
        };
        let blind = pick(sets.blind);
        if blind.rows == 0 {
            continue;
        }
        let (one, families) = (pick(sets.one), pick(sets.families));
        let inside: Vec<(Outcome<'_>, bool)> =
            sets.covered.iter().copied().filter(|(outcome, _)| is(outcome.sample, phase, source, classes)).collect();
        let weights = weights(&inside.iter().map(|(outcome, _)| *outcome).collect::<Vec<_>>());
        let share: f64 = inside.iter().zip(&weights).filter(|((_, inside), _)| *inside).map(|(_, weight)| weight).sum::<f64>()
            / weights.iter().sum::<f64>();
        let repeats: Vec<&Sample> = sets.samples.iter().copied().filter(|sample| is(sample, phase, source, classes)).collect();
        let repeats: Vec<(f64, f64)> = floor(&repeats).into_iter().map(|(_, off)| (off, 1.0)).collect();
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            blind.devices,
            blind.rows,
            percent(blind.median),
            percent(blind.p90),
            percent(share),
            percent(one.median),
            percent(one.p90),
            percent(families.median),
            percent(families.p90),
            percent(quantile(&repeats, 0.5).unwrap_or(f64::NAN)),
            percent(quantile(&repeats, 0.9).unwrap_or(f64::NAN)),
        );
    }
}

fn percent(value: f64) -> String {
    if value.is_finite() { format!("{:.1} %", (value * 100.0).max(0.0)) } else { "–".to_owned() }
}

/// Which measurements lie within intervals that come from the other folds.
fn covered<'a>(folds: &[(Parameters, Vec<Outcome<'a>>)]) -> Vec<(Outcome<'a>, bool)> {
    let mut all = Vec::new();
    for (place, (_, outcomes)) in folds.iter().enumerate() {
        let others = folds.iter().enumerate().filter(|(other, _)| *other != place).flat_map(|(_, (_, outcomes))| outcomes.iter().copied());
        let spread = spread(&others.collect::<Vec<_>>());
        all.extend(outcomes.iter().filter_map(|outcome| {
            let range = spread.range(&spread_keys(outcome.sample))?;
            Some((*outcome, (range.low..=range.high).contains(&outcome.log_ratio())))
        }));
    }
    all
}

fn formulas(text: &mut String, blind: &[Outcome<'_>]) {
    let _ = write!(text, "\n## Beside other formulas\n\nDecode, the same rows, bandwidths and shapes for all; ours blind.\n\n");
    for source in SOURCES {
        let rows: Vec<Outcome<'_>> =
            blind.iter().copied().filter(|one| one.sample.phase == Phase::Decode && one.sample.source == source).collect();
        let _ = write!(text, "| {} | median | P90 | median ratio |\n|---|---|---|---|\n", source.as_str());
        let line = |text: &mut String, name: &str, errors: Errors| {
            let _ = writeln!(text, "| {name} | {} | {} | {:.2} |", percent(errors.median), percent(errors.p90), errors.bias);
        };
        line(text, "this model", errors(&rows));
        for formula in Formula::ALL {
            let theirs: Vec<Outcome<'_>> =
                rows.iter().filter_map(|one| Some(Outcome { sample: one.sample, predicted: formula.speed(one.sample)? })).collect();
            line(text, formula.as_str(), errors(&theirs));
        }
        text.push('\n');
    }
}

fn limits(text: &mut String) {
    text.push_str(
        "## What this does not say\n\n\
         Classes with one to three devices rest on what other classes have in common, and their intervals are wide. LocalScore's hosts are as\n\
         people have them (Windows, batteries, shared machines): its spread is in the data. Runs over several devices, partly on the host,\n\
         beyond the memory of a device, or with speculation are not in these tables, and other engines are not fitted.\n\
         The levels of the hierarchy and their prior deviations were chosen by hand with these very tables in view (some six variants), so\n\
         devices that nobody here has seen will be predicted a little worse. Shapes of models and the other formulas were entered from memory.\n",
    );
}
