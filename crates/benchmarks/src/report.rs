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
    let mut text = head(&singles, rows, understood.len());
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
const AFTER: [&str; 4] = ["nvidia-gddr", "all discrete GPUs", "all that share memory", "cpu"];

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
         * *Experts* compute whole tiles, as wide as the micro-batch up to 128 tokens. *Activations* between products are read and written, which\n\
           \u{20} costs more where bandwidth is small beside the units.\n\
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
         * *Decode, blind, devices that share memory* (12 % and 35 %): six devices, so that each is a sixth of the line. Two are Intel's, with two\n\
           \u{20} and six rows of builds of a few months, in which kernels of one type became 23 % faster from one build to the next (SYCL.md of llama.cpp,\n\
           \u{20} before and after, on Meteor Lake), and an M1 Max is a quarter slower than what is known of Apple's other GPUs.\n\
         * *Decode, blind, NVIDIA with GDDR* (median 6 %): seven devices, of which the middle one counts. One card, an RTX 4090, was measured by two\n\
           \u{20} sources: its rows of May 2024 and of b4006 lie more than a quarter apart beside the same formula.\n\
         * *Prefill, blind, devices that share memory* (15 %): repeats of the same device, model, backend word and test differ by more: see the floor of\n\
           \u{20} amd-unified (libraries and drivers under one word) and of intel-unified (SYCL on the Arc 140V read 181 tokens/s at b3998 and 526 at\n\
           \u{20} b4008, a few days later). The GB10 and the RTX PRO 6000, the only two of their generation here, reach 15 % and 25 % of\n\
           \u{20} what their units could do with dense models.\n\
         * *One run* (4 % and 12 % decode, 3 % and 10 % prefill): met on discrete GPUs of llama-bench for runs as they are kept; the table above\n\
           \u{20} tells that what misses is of another type of weights, or of experts after none. The floors of the trial fit were those of one type and\n\
           \u{20} build, a model of 8 billion weights told by one of 14 or the reverse. Not met where memory is shared and on processors: the 8060S\n\
           \u{20} has prompts of 32 tokens told by those of 4096, and those at a depth of 65,536, by one run of a middle one; hosts of LocalScore that\n\
           \u{20} have the same name, processor, system and memory are not always one machine.\n\
         * *Intervals* (75 to 85 %): lines of few devices cannot: each device is 7 to 20 % of a line, and mostly wholly inside or wholly outside.\n\n\
         ## What this does not say\n\n\
         Classes with one to three devices rest on what other classes have in common, and their intervals are wide. LocalScore's hosts are as\n\
         people have them (Windows, batteries, shared machines): its spread is in the data. Runs beyond the memory of a device or with\n\
         speculation are not in these tables, and other engines are not fitted. Where a class has five devices or more, the width of its\n\
         interval was set so that four of five of its rows lie within, by a factor from the other folds.\n\
         Terms and levels were chosen, and prior deviations by `cargo run --release -p benchmarks --example tune`, on the devices that are not\n\
         held out; but the rules for rows, the terms for power, scores in memory, tiles and activations, and the words for backends were written\n\
         after the residuals of all devices had been read, so that held-out devices are unseen by the deviations alone; whether a term stays was\n\
         decided on the others (five fits). In the last change (kinds of runs on a machine, tiles, activations) the held-out table was printed three\n\
         times, once before its end, once after the deviations, and as it stands; a summary over all devices once, and the residuals of all. Shapes of\n\
         models and the other formulas were entered from memory; bytes follow from them by the rules of `llama-quantize` and the geometry of\n\
         its blocks, and by the size of the file where a row gives it.\n",
    );
}
