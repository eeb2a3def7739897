//! SPEED.md: how far predictions are off, as tables.

use crate::evaluate::{
    Errors, Outcome, SOURCES, after_one, errors, fit_samples, floor, held_out, leave_out, leave_out_with, speed, weights,
};
use crate::formulas::Formula;
use crate::intervals::{Knowledge, spread_keys};
use crate::sample::{Sample, Source};
use roofline::{Class, Deviations, Parameters, Phase, Spread, quantile};
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
    /// How far predictions for devices that were left out are off, blind and after one run.
    pub spread: Spread,
}

/// Leaves devices, families of models, held-out devices and late builds out, and tells how far predictions are off.
pub fn evaluate(samples: &[&Sample], rows: usize, understood: usize, start: &Parameters) -> Evaluation {
    let chosen = Deviations::chosen();
    let folds = leave_out_with(samples, FOLDS, &|sample| sample.title.clone(), start, chosen);
    let (alone, several): (Vec<_>, Vec<_>) = folds
        .iter()
        .map(|(_, outcomes)| outcomes.iter().copied().partition::<Vec<Outcome<'_>>, _>(|outcome| !outcome.sample.several()))
        .unzip();
    let one = after_one(&folds, chosen);
    let singles: Vec<&Sample> = samples.iter().copied().filter(|sample| !sample.several()).collect();
    let families = leave_out(&singles, FOLDS, &|sample| sample.family.clone(), start);
    let (mut spread, covered) = crate::intervals::spread(&alone, Knowledge::Blind);
    let (after, covered_after) = crate::intervals::spread(&one, Knowledge::OneRun);
    let (beyond, covered_several) = crate::intervals::spread(&several, Knowledge::Blind);
    for part in [&after, &beyond] {
        part.iter().for_each(|(key, range)| spread.insert(key, range.low, range.middle, range.high, range.count));
        part.scales().for_each(|(key, scale)| spread.insert_scale(key, scale));
    }
    let blind = alone.concat();
    let sets = Sets {
        samples: &singles,
        blind: &blind,
        one: &one.concat(),
        families: &families,
        covered: &covered,
        covered_after: &covered_after,
    };
    let mut text = head(&singles, rows, understood);
    for phase in [Phase::Decode, Phase::Prefill] {
        for source in SOURCES {
            section(&mut text, phase, source, &sets);
        }
    }
    apart(&mut text, &singles, start, chosen);
    table(&mut text, "Several devices, and parts on the host", &several.concat(), &covered_several, SEVERAL);
    formulas(&mut text, &blind);
    limits(&mut text);
    Evaluation { text, spread }
}

fn head(samples: &[&Sample], rows: usize, understood: usize) -> String {
    let devices: BTreeSet<&str> = samples.iter().map(|sample| sample.title.as_str()).collect();
    format!(
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
    )
}

struct Sets<'a> {
    samples: &'a [&'a Sample],
    blind: &'a [Outcome<'a>],
    one: &'a [Outcome<'a>],
    families: &'a [Outcome<'a>],
    covered: &'a [(Outcome<'a>, bool)],
    covered_after: &'a [(Outcome<'a>, bool)],
}

const SEVERAL: &str = "Layers over several equal devices, or some of them on the host; devices left out as above. One term per phase stands for what passes\n\
    between devices, and what the host is is mostly not in the table.";

/// What no choice of levels, deviations or terms has seen, and what was measured later than everything in the fit.
fn apart(text: &mut String, samples: &[&Sample], start: &Parameters, chosen: &Deviations) {
    let held = held_out(samples);
    let mut told = |name: &str, about: &str, is_test: &dyn Fn(&Sample) -> bool| {
        let (test, train): (Vec<&Sample>, Vec<&Sample>) = samples.iter().copied().partition(|sample| is_test(sample));
        let parameters = fit_samples(&train, start, chosen);
        // Devices that were held out have no effects; those that were measured before keep theirs.
        let outcomes: Vec<Outcome<'_>> =
            test.into_iter().map(|sample| Outcome { sample, predicted: speed(&sample.cases(), &parameters) }).collect();
        let folds = leave_out_with(&train, FOLDS, &|sample| sample.title.clone(), &parameters, chosen);
        let blind: Vec<Vec<Outcome<'_>>> = folds.into_iter().map(|(_, outcomes)| outcomes).collect();
        let (spread, _) = crate::intervals::spread(&blind, Knowledge::Blind);
        let inside = |outcome: &Outcome<'_>| {
            let range = spread.range(&spread_keys(outcome.sample, Knowledge::Blind));
            range.is_some_and(|range| (range.low..=range.high).contains(&outcome.log_ratio()))
        };
        let covered: Vec<(Outcome<'_>, bool)> = outcomes.iter().map(|outcome| (*outcome, inside(outcome))).collect();
        table(text, name, &outcomes, &covered, about);
    };
    told(
        "Held-out devices",
        "A fifth of the devices of each class, by the hash of their names, that took no part when levels, deviations and terms were chosen;\n\
         fit and intervals without them.",
        &|sample| held.contains(&sample.title),
    );
    told(
        "Later builds",
        "Rows of late builds (from b6000, mid-2025), predicted by a fit to the earlier ones alone; devices may be the same.",
        &|sample| sample.conditions.era.as_deref() == Some("late"),
    );
}

/// Lines per phase, source and class.
fn table(text: &mut String, name: &str, outcomes: &[Outcome<'_>], covered: &[(Outcome<'_>, bool)], about: &str) {
    let _ = write!(
        text,
        "\n## {name}\n\n{about}\n\n| phase · source | class | devices | rows | median | P90 | in 80 % |\n|---|---|---|---|---|---|---|\n"
    );
    for phase in [Phase::Decode, Phase::Prefill] {
        for source in SOURCES {
            for (class, classes) in LINES {
                let set: Vec<Outcome<'_>> = outcomes.iter().copied().filter(|one| is(one.sample, phase, source, classes)).collect();
                let found = errors(&set);
                if found.rows == 0 {
                    continue;
                }
                let _ = writeln!(
                    text,
                    "| {} · {} | {class} | {} | {} | {} | {} | {} |",
                    phase.as_str(),
                    source.as_str(),
                    found.devices,
                    found.rows,
                    percent(found.median),
                    percent(found.p90),
                    percent(share(covered, phase, source, classes)),
                );
            }
        }
    }
}

/// The share within the interval, each device weighing the same.
fn share(covered: &[(Outcome<'_>, bool)], phase: Phase, source: Source, classes: &[Class]) -> f64 {
    let inside: Vec<(Outcome<'_>, bool)> =
        covered.iter().copied().filter(|(outcome, _)| is(outcome.sample, phase, source, classes)).collect();
    let weights = weights(&inside.iter().map(|(outcome, _)| *outcome).collect::<Vec<_>>());
    let within: f64 = inside.iter().zip(&weights).filter(|((_, inside), _)| *inside).map(|(_, weight)| weight).sum();
    within / weights.iter().sum::<f64>()
}

fn is(sample: &Sample, phase: Phase, source: Source, classes: &[Class]) -> bool {
    sample.phase == phase && sample.source == source && classes.contains(&sample.class())
}

fn section(text: &mut String, phase: Phase, source: Source, sets: &Sets<'_>) {
    let _ = write!(
        text,
        "\n## {} · {}\n\n| class | devices | rows | blind: median | P90 | in 80 % | one run: median | P90 | in 80 % | models left out: median | P90 | floor: median | P90 |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
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
        let repeats: Vec<&Sample> = sets.samples.iter().copied().filter(|sample| is(sample, phase, source, classes)).collect();
        let repeats: Vec<(f64, f64)> = floor(&repeats).into_iter().map(|(_, off)| (off, 1.0)).collect();
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            blind.devices,
            blind.rows,
            percent(blind.median),
            percent(blind.p90),
            percent(share(sets.covered, phase, source, classes)),
            percent(one.median),
            percent(one.p90),
            percent(share(sets.covered_after, phase, source, classes)),
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
         people have them (Windows, batteries, shared machines): its spread is in the data. Runs beyond the memory of a device or with\n\
         speculation are not in these tables, and other engines are not fitted. Where a class has five devices or more, the width of its\n\
         interval was set so that four of five of its rows lie within, by a factor from the other folds.\n\
         Terms and levels were chosen, and prior deviations by `cargo run --release -p benchmarks --example tune`, on the devices that are not\n\
         held out. Shapes of models and the other formulas were entered from memory; bytes follow from them by the rules of `llama-quantize`\n\
         and the geometry of its blocks, and by the size of the file where a row gives it.\n",
    );
}
