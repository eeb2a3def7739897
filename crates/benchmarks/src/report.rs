//! SPEED.md: how far predictions are off, as tables.

use crate::evaluate::{
    Difference, Errors, Outcome, SOURCES, after_one_of, errors, fit_samples, floor, held_out, leave_out, leave_out_with, speed, weights,
};
use crate::formulas::Formula;
use crate::intervals::{Knowledge, spread_keys};
use crate::sample::{Problem, Sample, Source};
use roofline::{Class, Deviations, Parameters, Phase, Spread, quantile};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Fits per question.
const FOLDS: usize = 10;

const DISCRETE: &str = "all discrete GPUs";
const APPLE_APU: &str = "Apple and AMD's APUs";
const SHARED: &str = "all that share memory";

/// Sets of classes that a line is about.
const LINES: [(&str, &[Class]); 13] = [
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
    (DISCRETE, &[Class::NvidiaGddr, Class::NvidiaHbm, Class::AmdGddr, Class::AmdHbm, Class::Intel]),
    (APPLE_APU, &[Class::AmdUnified, Class::Apple]),
    (SHARED, &[Class::NvidiaUnified, Class::AmdUnified, Class::Apple, Class::IntelUnified]),
];

/// An evaluation.
pub struct Evaluation {
    /// The text of SPEED.md.
    pub text: String,
    /// How far predictions for devices that were left out are off, blind and after one run.
    pub spread: Spread,
}

/// Leaves devices, families of models, held-out devices and late builds out, and tells how far predictions are off.
pub fn evaluate(samples: &[&Sample], rows: usize, understood: &[Sample], start: &Parameters) -> Evaluation {
    let chosen = Deviations::chosen();
    let folds = leave_out_with(samples, FOLDS, &|sample| sample.title.clone(), start, chosen);
    let (alone, several): (Vec<_>, Vec<_>) = folds
        .iter()
        .map(|(_, outcomes)| outcomes.iter().copied().partition::<Vec<Outcome<'_>>, _>(|outcome| !outcome.sample.several()))
        .unzip();
    let told = after_one_of(&folds, chosen, &|_| String::new());
    let one: Vec<Vec<Outcome<'_>>> = told.iter().map(|fold| fold.iter().map(|(outcome, _)| *outcome).collect()).collect();
    let of_type = |sample: &Sample| sample.work.first().map_or(String::new(), |work| work.shape.quant.as_str().to_owned());
    let of_kind = |sample: &Sample| format!("{} {}", of_type(sample), sample.work.first().is_some_and(|work| work.shape.experts.is_some()));
    let alike = after_one_of(&folds, chosen, &of_kind).concat();
    let singles: Vec<&Sample> = samples.iter().copied().filter(|sample| !sample.several()).collect();
    let models = leave_out(&singles, FOLDS, &Sample::shape_key, start);
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
        models: &models,
        families: &families,
        covered: &covered,
        covered_after: &covered_after,
    };
    let alike_outcomes: Vec<Outcome<'_>> = alike
        .iter()
        .filter(|(outcome, run)| Difference::of(run, outcome.sample) == Difference::Little)
        .map(|(outcome, _)| *outcome)
        .collect();
    let mut text = head(&singles, rows, understood.len());
    bars(&mut text, &sets, &alike_outcomes);
    excluded(&mut text, understood);
    for phase in [Phase::Decode, Phase::Prefill] {
        for source in SOURCES {
            section(&mut text, phase, source, &sets);
        }
    }
    for phase in [Phase::Decode, Phase::Prefill] {
        by_device(&mut text, phase, &sets);
    }
    differences(&mut text, &told.concat(), &alike);
    apart(&mut text, &singles, start, chosen);
    table(&mut text, "Several devices, and parts on the host", &several.concat(), &covered_several, SEVERAL);
    formulas(&mut text, &blind);
    limits(&mut text);
    Evaluation { text, spread }
}

const ONE_RUN: &str = "\n## One run, by what it was of\n\n\
    *Kept*: as loadmaster uses runs of a machine, for the same build, type of weights and size within six times; here one run of every type,\n\
    experts apart (loadmaster asks for the same architecture, too). The rest is of the one run of any model that the tables above tell of, by what it and the predicted row differ in.\n\n\
    | phase · source | class | kept: devices | rows | median | P90 | another size: median | P90 | another type: median | P90 | experts or none: median | P90 |\n\
    |---|---|---|---|---|---|---|---|---|---|---|---|\n";

fn head(samples: &[&Sample], rows: usize, understood: usize) -> String {
    let devices: BTreeSet<&str> = samples.iter().map(|sample| sample.title.as_str()).collect();
    format!(
        "# How far predictions of speed are off\n\n\
         Written by `cargo run --release -p benchmarks --example fit -- ../shared/data/speed/measured.csv`, which fits the parameters in\n\
         `crates/roofline/data/fitted.tsv` by the same formula that predictions use (`crates/roofline`). Of {rows} rows {understood} could be\n\
         understood, and {} of {} devices are runs of llama.cpp on one device, wholly in its memory and without speculation: those that the\n\
         formula is for. Errors are |predicted ÷ measured − 1|. **Every device weighs the same**, however many rows it has.\n\n\
         *Blind*: no measurement of the device was in the fit ({FOLDS} fits, each without a tenth of the devices). *One run*: the same after one\n\
         measurement on the same host, backend, build and phase (the row of middle time); all its other rows are predicted. *Model left out*: the\n\
         device was in the fit, the model in no quantisation was. *Family left out*: no model of the family was (all Llamas, say), beside how\n\
         many rows of the line other families have: where few are left, the device was hardly in the fit either. *In 80 %*: how many\n\
         measurements lie between P10 and P90, the interval coming from the other folds. *Floor*: how far repeats of the same device, model,\n\
         backend and test are from each other, where there are any.\n",
        samples.len(),
        devices.len(),
    )
}

struct Sets<'a> {
    samples: &'a [&'a Sample],
    blind: &'a [Outcome<'a>],
    one: &'a [Outcome<'a>],
    models: &'a [Outcome<'a>],
    families: &'a [Outcome<'a>],
    covered: &'a [(Outcome<'a>, bool)],
    covered_after: &'a [(Outcome<'a>, bool)],
}

const SEVERAL: &str = "Layers over several equal devices, or some of them on the host; devices left out as above. One term per phase stands for what passes\n\
    between devices, and what the host is is mostly not in the table.";

/// Bars for a line of llama-bench: median and P90 in per cent.
struct Bar {
    phase: Phase,
    class: &'static str,
    after_one: bool,
    median: f64,
    p90: Option<f64>,
}

/// The bars that the project set itself, for llama-bench.
const BARS: [Bar; 10] = {
    const fn bar(phase: Phase, class: &'static str, after_one: bool, median: f64, p90: Option<f64>) -> Bar {
        Bar { phase, class, after_one, median, p90 }
    }
    [
        bar(Phase::Decode, "nvidia-gddr", false, 6.0, Some(20.0)),
        bar(Phase::Decode, DISCRETE, false, 10.0, Some(28.0)),
        bar(Phase::Decode, APPLE_APU, false, 12.0, Some(35.0)),
        bar(Phase::Decode, SHARED, false, 12.0, Some(35.0)),
        bar(Phase::Prefill, DISCRETE, false, 15.0, None),
        bar(Phase::Prefill, SHARED, false, 15.0, None),
        bar(Phase::Decode, DISCRETE, true, 4.0, Some(12.0)),
        bar(Phase::Decode, SHARED, true, 4.0, Some(12.0)),
        bar(Phase::Prefill, DISCRETE, true, 3.0, Some(10.0)),
        bar(Phase::Prefill, SHARED, true, 3.0, Some(10.0)),
    ]
};
/// Per cent of measurements that an interval of 80 % may hold.
const COVER: (f64, f64) = (75.0, 85.0);

/// What was to be reached, and what was: near the top, so that nobody has to look for it.
fn bars(text: &mut String, sets: &Sets<'_>, alike: &[Outcome<'_>]) {
    text.push_str(
        "\n## What is met\n\nRows of llama-bench, each device weighing the same. *One run of the type*: one of every type of weights, experts apart, and sizes\n\
         within six times, as loadmaster keeps runs; it has no bar of its own and stands beside those of one run of any model.\n\n\
         | question | line | bar: median, P90 | reached | met | one run of the type |\n|---|---|---|---|---|---|\n",
    );
    let classes = |class: &str| LINES.iter().find(|(name, _)| *name == class).map_or(&[][..], |(_, classes)| classes);
    let of = |outcomes: &[Outcome<'_>], phase: Phase, class: &str| {
        errors(&outcomes.iter().copied().filter(|one| is(one.sample, phase, Source::LlamaBench, classes(class))).collect::<Vec<_>>())
    };
    let both = |found: Errors| format!("{}, {}", percent(found.median), percent(found.p90));
    for bar in &BARS {
        let found = of(if bar.after_one { sets.one } else { sets.blind }, bar.phase, bar.class);
        let met = 100.0 * found.median <= bar.median && bar.p90.is_none_or(|p90| 100.0 * found.p90 <= p90);
        let _ = writeln!(
            text,
            "| {}, {} | {} ({} devices) | {} %{} | {} | {} | {} |",
            bar.phase.as_str(),
            if bar.after_one { "one run" } else { "blind" },
            bar.class,
            found.devices,
            bar.median,
            bar.p90.map_or(String::new(), |p90| format!(", {p90} %")),
            both(found),
            if met { "**yes**" } else { "no" },
            if bar.after_one { both(of(alike, bar.phase, bar.class)) } else { String::new() },
        );
    }
    text.push_str("\n| 80 % intervals hold 75 to 85 % | line | blind | met | one run | met |\n|---|---|---|---|---|---|\n");
    let (mut lines, mut good) = (0, 0);
    for phase in [Phase::Decode, Phase::Prefill] {
        for source in SOURCES {
            for class in [DISCRETE, SHARED] {
                let mut cell = |covered: &[(Outcome<'_>, bool)]| {
                    let held = 100.0 * share(covered, phase, source, classes(class));
                    let met = held.is_finite().then(|| (COVER.0..=COVER.1).contains(&held));
                    lines += usize::from(met.is_some());
                    good += usize::from(met == Some(true));
                    format!("{} | {}", percent(held / 100.0), met.map_or("\u{2013}", |met| if met { "**yes**" } else { "no" }))
                };
                let (blind, after) = (cell(sets.covered), cell(sets.covered_after));
                let _ = writeln!(text, "| {} \u{b7} {} | {class} | {blind} | {after} |", phase.as_str(), source.as_str());
            }
        }
    }
    let _ = writeln!(text, "\nIntervals: {good} of {lines} lines. Why bars are not met is told at the end.");
}

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
        "\n## {} · {}\n\n| class | devices | rows | blind: median | P90 | in 80 % | one run: median | P90 | in 80 % | model left out: median | P90 | family left out: median | P90 | rows of others | floor: median | P90 |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
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
        let (one, models, families) = (pick(sets.one), pick(sets.models), pick(sets.families));
        let repeats: Vec<&Sample> = sets.samples.iter().copied().filter(|sample| is(sample, phase, source, classes)).collect();
        let others = others(&repeats);
        let repeats: Vec<(f64, f64)> = floor(&repeats).into_iter().map(|(_, off)| (off, 1.0)).collect();
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            blind.devices,
            blind.rows,
            percent(blind.median),
            percent(blind.p90),
            percent(share(sets.covered, phase, source, classes)),
            percent(one.median),
            percent(one.p90),
            percent(share(sets.covered_after, phase, source, classes)),
            percent(models.median),
            percent(models.p90),
            percent(families.median),
            percent(families.p90),
            percent(others),
            percent(quantile(&repeats, 0.5).unwrap_or(f64::NAN)),
            percent(quantile(&repeats, 0.9).unwrap_or(f64::NAN)),
        );
    }
}

/// Mean share of the rows that are of another family than a row, devices weighing the same.
fn others(samples: &[&Sample]) -> f64 {
    let mut families: BTreeMap<&str, f64> = BTreeMap::new();
    let mut devices: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    samples.iter().for_each(|sample| *families.entry(&sample.family).or_default() += 1.0);
    for sample in samples {
        let (sum, count) = devices.entry(&sample.title).or_default();
        *sum += 1.0 - families.get(sample.family.as_str()).copied().unwrap_or(0.0) / samples.len() as f64;
        *count += 1.0;
    }
    devices.values().map(|(sum, count)| sum / count).sum::<f64>() / devices.len() as f64
}

/// Sets of classes of the lines about one run.
const AFTER: [&str; 4] = ["nvidia-gddr", DISCRETE, SHARED, "cpu"];

/// One run by what it and the rows after it differ in.
fn differences(text: &mut String, told: &[(Outcome<'_>, &Sample)], alike: &[(Outcome<'_>, &Sample)]) {
    text.push_str(ONE_RUN);
    for phase in [Phase::Decode, Phase::Prefill] {
        for source in SOURCES {
            for (class, classes) in LINES.into_iter().filter(|(class, _)| AFTER.contains(class)) {
                let cell = |set: &[(Outcome<'_>, &Sample)], wanted: &[Difference]| {
                    let chosen = set.iter().filter(|(outcome, run)| wanted.contains(&Difference::of(run, outcome.sample)));
                    let chosen = chosen.map(|(outcome, _)| *outcome).filter(|outcome| is(outcome.sample, phase, source, classes));
                    errors(&chosen.collect::<Vec<_>>())
                };
                let kept = cell(alike, &[Difference::Little]);
                let others = [Difference::Size, Difference::Type, Difference::Experts].map(|wanted| cell(told, &[wanted]));
                if kept.rows == 0 && others.iter().all(|errors| errors.rows == 0) {
                    continue;
                }
                let errors = |errors: Errors| format!("{} | {}", percent(errors.median), percent(errors.p90));
                let _ = writeln!(
                    text,
                    "| {} · {} | {class} | {} | {} | {} | {} |",
                    phase.as_str(),
                    source.as_str(),
                    kept.devices,
                    kept.rows,
                    errors(kept),
                    others.map(errors).join(" | "),
                );
            }
        }
    }
}

/// Rows of llama.cpp that rules leave out, by rule.
fn excluded(text: &mut String, understood: &[Sample]) {
    let rules = [
        (Problem::Spilled, "weights and cache take more than 97 % of the device's memory"),
        (Problem::Speculative, "tokens were guessed ahead"),
        (Problem::Throttled, "held to under three quarters of the power that its maker gives it"),
        (
            Problem::Unsteady,
            "llama-bench runs on one device, alike but for their length, of which one of twice the length or more was over \
            10 % faster: attention only adds work, so that the shorter ones measured something else (clocks, kernels compiled on first use)",
        ),
        (Problem::Old, "builds before b1700, of 2023, whose matrix kernels no build in use has"),
        (
            Problem::Impossible,
            "prompts read with more operations than all units of the device make, by a fifth or more: part of them was in the cache",
        ),
    ];
    text.push_str("\nRules that leave rows out, before any fit:\n\n");
    for (problem, reason) in rules {
        let rows: Vec<&Sample> = understood.iter().filter(|sample| sample.problem == Some(problem)).collect();
        let devices: BTreeSet<&str> = rows.iter().map(|sample| sample.title.as_str()).collect();
        let named =
            if devices.len() <= 5 { format!(" ({})", devices.iter().copied().collect::<Vec<_>>().join(", ")) } else { String::new() };
        let _ = writeln!(text, "* {} rows of {} devices{named}: {reason}.", rows.len(), devices.len());
    }
}

/// Every device with rows of llama-bench, worst first: which of them make the medians and tails above.
fn by_device(text: &mut String, phase: Phase, sets: &Sets<'_>) {
    let _ = write!(
        text,
        "\n## {} · llama-bench, by device\n\n*Off*: the median of predicted ÷ measured − 1, with its sign.\n\n\
         | device | class | rows | blind: off | median | P90 | one run: off | median | P90 |\n|---|---|---|---|---|---|---|---|---|\n",
        phase.as_str()
    );
    let of = |outcomes: &[Outcome<'_>], title: &str| -> Errors {
        let rows = outcomes.iter().copied();
        let rows = rows.filter(|one| one.sample.phase == phase && one.sample.source == Source::LlamaBench && one.sample.title == title);
        errors(&rows.collect::<Vec<_>>())
    };
    let bench = sets.samples.iter().filter(|sample| sample.phase == phase && sample.source == Source::LlamaBench);
    let devices: BTreeSet<(&str, &str)> = bench.map(|sample| (sample.title.as_str(), sample.class().as_str())).collect();
    let mut lines: Vec<_> = devices.into_iter().map(|device| (of(sets.blind, device.0), of(sets.one, device.0), device)).collect();
    lines.sort_by(|a, b| b.0.median.total_cmp(&a.0.median));
    let signed = |bias: f64| if bias.is_finite() { format!("{:+.1} %", (bias - 1.0) * 100.0) } else { "–".to_owned() };
    for (blind, one, (title, class)) in lines {
        let cells =
            [signed(blind.bias), percent(blind.median), percent(blind.p90), signed(one.bias), percent(one.median), percent(one.p90)];
        let _ = writeln!(text, "| {title} | {class} | {} | {} |", blind.rows, cells.join(" | "));
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
        "## What is behind a line\n\n\
         * *Attention without flash attention* reads and writes its scores in memory: of five NVIDIA cards, whose vector rates\n\
           \u{20} differ by four, the time per token and earlier token × bandwidth is the same within 18 %. It is a bound beside its products.\n\
         * *Power*: cards with many units per watt read prompts slower than their units, by maker.\n\
         * *Matrix units* count where a build's kernels use them: on CDNA for quantised weights from b6000 (llama.cpp PR 14624), in Vulkan\n\
           \u{20} from b4290 (PR 10597), on Intel in Vulkan from Xe2 and b5600 (PR 14001).\n\
         * *Libraries*: rocBLAS without kernels for RDNA 3.5 is a backend of its own, without matrix units, for prompts of 64 tokens and more:\n\
           \u{20} shorter ones and decode have kernels of llama.cpp's own (`ggml_cuda_should_use_mmq`). RDNA 3.5 is a generation of its own.\n\
         * *Libraries of half precision*: where products go through one (rocBLAS and hipBLASLt from RDNA 3 on, oneMKL and oneDNN for SYCL), weights\n\
           \u{20} are unpacked into memory for every micro-batch first, and experts' products are started one by one.\n\
         * *Experts* compute whole tiles, as wide as the micro-batch up to that of the kernels: 128 tokens on NVIDIA, 64 on AMD and in Vulkan, 32 on\n\
           \u{20} Apple. *Activations* between products are read and written, which costs more where bandwidth is small beside the units.\n\
         * *Check bits*: cards for data centres with GDDR keep them in the memory itself, which leaves 15/16 of the bandwidth (`ecc` in the tables of\n\
           \u{20} hardware); a fit that did not know it called an L40S, an L40, an A10 and a T4 each 7 to 8 % slow.\n\
         * *Windows*: layers that attend to a window read all cells of their cache, which holds a micro-batch more (llama.cpp PR 13194).\n\
         * *SYCL* reads blocks in order only from builds and for types that have such kernels (PR 12035, 13109, 13885): one effect beside the others.\n\
         * *What users tell of prompts* comes without lengths, and counts as exact within 30 %.\n\
         * *One run* moves a machine as a whole, its kernels of the run's type of weights, those of experts, attention with or without flash\n\
           \u{20} attention, and launches, each as far as it varies from machine to machine (rows `calibration` of `deviations.tsv`, chosen on devices\n\
           \u{20} that are not held out). Machines as a whole are taken as Student's t of one degree: most are near the fit, and one that is several times\n\
           \u{20} off is believed. A host is one machine, backend as the table names it, and build; where a note says \u{201c}before\u{201d} or \u{201c}after\u{201d} a change, that too.\n\
         * *Family left out*: nearly all rows of NVIDIA's cards in llama-bench are Llamas, and all of HBM cards: without them nothing is left of\n\
           \u{20} the class but LocalScore's hosts, which is why this is worse than leaving the device out.\n\
         * *Several times off*: classes of one device (MI300X, Arc Pro B70, 8060S, GB10, Arc 140V) are extrapolated from other makers' kernels.\n\
           \u{20} MI300X reached 5 % of the rate of its INT8 dot products at b3891, a W7900 31 %. The tables' bandwidths and rates of the 8060S and the\n\
           \u{20} GB10 were gone through for this and nothing wrong was seen; no data sheet was opened again, and the 140V's row was looked at less.\n\
           \u{20} No bar can be met blind where nothing like the device is in the data; after one run the tables by device say what is left.\n\n\
         ## Bars that are not met, and why\n\n\
         * *Decode, blind, devices that share memory* (12 % and 35 %): the bar was set for Apple and APUs, three devices of which have rows of llama-bench;\n\
           \u{20} with the GB10 and Intel's they are six, each a sixth of the line. Two are Intel's, with two\n\
           \u{20} and six rows of builds of a few months, in which kernels of one type became 23 % faster from one build to the next (SYCL.md of llama.cpp,\n\
           \u{20} before and after, on Meteor Lake); the 140V's are the first of its generation (b3998 to b4008), and those of the Arc Pro B70, the only other\n\
           \u{20} device of it with rows of llama-bench, a year and a half younger. An M1 Max reads `Q4_K_M` a quarter slower in builds of early 2024 than what is known of Apple's other GPUs:\n\
           \u{20} 70 billion weights at 4.1 tokens/s, where a user of a later build tells 7.3.\n\
         * *Prefill, blind, devices that share memory* (15 %): repeats of the same device, model, backend word and test differ by more: see the floor of\n\
           \u{20} amd-unified (libraries and drivers under one word) and of intel-unified (SYCL on the Arc 140V read 181 tokens/s at b3998 and 526 at\n\
           \u{20} b4008, a few days later). The GB10 reaches 15 % of what its units could do with dense models, an RTX PRO 6000, the only other device of its\n\
           \u{20} generation here, 25 %. Long prompts on the 8060S at ROCm are slower than its short ones by more than attention explains.\n\
         * *One run, discrete* (4 % and 12 %, 3 % and 10 %): the medians are met, the tails are not. They are runs of other types (of the B70, `Q3_K`, code\n\
           \u{20} books and MXFP4 told by `Q4_K`), of dense models told by one with experts (RTX PRO 6000, prefill), of 70 billion weights told by 8 in\n\
           \u{20} half precision (A100 SXM4), and with flash attention told by one without (MI300X). Runs as they are kept, of the type itself, meet both\n\
           \u{20} (last column); the floors of the trial fit were such: one type and build, a model of 8 billion weights told by one of 14 or the reverse.\n\
         * *One run, devices that share memory*: the same, and the 8060S has prompts of 32 tokens told by those of 4096, and those at a depth of 65,536,\n\
           \u{20} by one run of a middle one. Even one run of the type leaves a P90 of more than the bar.\n\
         * *Intervals* (75 to 85 %): the lines that miss have five to seven devices, each 14 to 20 % of a line, and mostly wholly inside or wholly outside.\n\
           \u{20} Widening all by n + 1 of n devices, as conformal prediction does, was tried: most lines then held 85 to 99 %.\n\n\
         ## What this does not say\n\n\
         Classes with one to three devices rest on what other classes have in common, and their intervals are wide. LocalScore's hosts are as\n\
         people have them (Windows, batteries, shared machines): its spread is in the data. Runs beyond the memory of a device or with\n\
         speculation are not in these tables, and other engines are not fitted. Where a class has five devices or more, the width of its\n\
         interval was set so that four of five of its rows lie within, by a factor from the other folds; classes of fewer have one together, by source\n\
         and by whose memory they compute in.\n\
         Terms and levels were chosen, and prior deviations by `cargo run --release -p benchmarks --example tune`, on the devices that are not\n\
         held out; but the rules for rows, the terms for power, scores in memory, tiles and activations, and the words for backends were written\n\
         after the residuals of all devices had been read, so that held-out devices are unseen by the deviations alone; whether a term stays was\n\
         decided on the others (five fits). In the last change (check bits, tiles by kernel, unpacking and experts of libraries, windows, SYCL's order,\n\
         groups of intervals) the summary and residuals of all devices, held-out ones too, were printed after every step, seven times: each has\n\
         its reason in hardware or software, and one that changed nothing was taken out again, but held-out devices were seen. Calibrations were\n\
         moved by hand with the loss of devices that are not held out and the lines of all in view. Fits without devices now go on until they stand:\n\
         ended as early as before, near the fit to all, they flattered lines by up to two points (blind decode with shared memory: 14.5 and 16.6 %). Begun from nothing, which takes longer, they\n\
         give blind decode by llama-bench as 5.9, 7.4 and 15.3 % (medians on NVIDIA's cards with GDDR, all discrete GPUs, and all that share memory), and rows of users up to two points worse. After these\n\
         figures attention of one token on processors became computation that its cores share, by measurements of our own that are not in the\n\
         table (llama-bench 0.7.0 on two cores of a Zen 4, flash attention on and off, depths to 8192); that fit was run once. Shapes of\n\
         models and the other formulas were entered from memory; bytes follow from them by the rules of `llama-quantize` and the geometry of\n\
         its blocks, and by the size of the file where a row gives it.\n",
    );
}
