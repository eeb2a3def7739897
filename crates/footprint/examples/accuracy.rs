//! The accuracy of the simulation against every recorded answer of the engine, as tables in Markdown for ACCURACY.md:
//! per architecture and component, and per option, the worst first.
//!
//! ```text
//! cargo run --release -p footprint --example accuracy
//! ```
#![expect(clippy::print_stdout, reason = "a development tool: it prints tables")]

#[path = "../tests/recorded/mod.rs"]
mod recorded;

use footprint::{Requirement, Target, dry_run, require};
use recorded::{Answer, Case, DRY_RUNS, Figures, LOADS, each, places, recordings};
use spec::Bytes;
use spec::Known;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

/// Components of the engine's breakdown, in its order, and the logits buffer, which it leaves out.
const COMPONENTS: [&str; 4] = ["weights", "caches and state", "compute", "logits"];

/// How one component of some cases compares.
#[derive(Clone, Copy, Debug, Default)]
struct Score {
    buffers: u64,
    equal: u64,
    /// Largest error as a share of the engine's figure.
    worst: f64,
    /// Buffers whose figure is an interval, and how many of them hold the engine's.
    intervals: u64,
    inside: u64,
}

impl Score {
    fn add(&mut self, ours: &Known<Bytes>, theirs: u64) {
        self.buffers += 1;
        if ours.is_exact() {
            let value = ours.get().map_or(0, |bytes| bytes.get());
            self.equal += u64::from(value == theirs);
            self.worst = self.worst.max(value.abs_diff(theirs) as f64 / theirs.max(1) as f64);
        } else {
            self.intervals += 1;
            let inside = ours.low().zip(ours.high()).is_some_and(|(low, high)| (low.get()..=high.get()).contains(&theirs));
            self.inside += u64::from(inside);
        }
    }

    fn exact(&self) -> u64 {
        self.buffers - self.intervals
    }

    fn text(&self) -> String {
        match (self.exact(), self.intervals) {
            (0, 0) => "–".to_owned(),
            (exact, 0) if self.equal == exact => format!("{exact} of {exact}"),
            (exact, 0) => format!("{} of {exact}, worst {:.2} %", self.equal, self.worst * 100.0),
            (0, intervals) => format!("interval: {} of {intervals} inside", self.inside),
            (exact, intervals) => format!("{} of {exact}; interval: {} of {intervals} inside", self.equal, self.inside),
        }
    }
}

type Scores = [Score; 4];

fn main() -> Result<(), Box<dyn Error>> {
    let (mut architectures, mut options) = (BTreeMap::<String, (u64, Scores)>::new(), BTreeMap::<String, (u64, Scores)>::new());
    let mut refused = (0, 0);
    let mut files = BTreeSet::new();
    each(DRY_RUNS, |case, host, model, answer| {
        files.insert(case.model.split(' ').next().unwrap_or_default().to_owned());
        let (settings, profile) = case.settings();
        let target = case.target(host);
        let ours = dry_run(model, &settings, &target, &profile);
        let (Answer::Figures(theirs), Ok(ours)) = (answer, &ours) else {
            refused.0 += 1;
            refused.1 += u64::from(matches!(answer, Answer::Refused(_)) && ours.is_err());
            return;
        };
        let keys = std::iter::once(&mut architectures).map(|table| (table, vec![model.architecture.clone()]));
        for (table, keys) in keys.chain(std::iter::once((&mut options, option_names(case)))) {
            for key in keys {
                let (cases, scores) = table.entry(key).or_default();
                *cases += 1;
                compare(ours, &target, theirs, scores);
            }
        }
    });
    let answered: u64 = architectures.values().map(|(cases, _)| cases).sum();
    println!("{} models of {} architectures, {answered} cases.", files.len(), architectures.len());
    table("architecture", &architectures);
    table("option", &options);
    println!("\nRefusals: {} of {} agree.", refused.1, refused.0);
    against_fit()?;
    Ok(())
}

/// The words of a case that say what is special about it.
fn option_names(case: &Case) -> Vec<String> {
    let mut names = vec![match case.devices.len() {
        0 => "host alone".to_owned(),
        1 => "1 GPU".to_owned(),
        n => format!("{n} GPUs"),
    }];
    let words: Vec<&str> = case.args.split_whitespace().collect();
    for pair in words.chunks_exact(2) {
        match (pair[0], pair[1]) {
            ("--seqs", n) if n != "1" => names.push("several sequences".to_owned()),
            ("--kv-unified", "1") | ("--kv-offload" | "--op-offload" | "--repack", "0") | ("--swa-full", "1") => names.push(pair.join(" ")),
            ("--fa", how) => names.push(format!("--fa {how}")),
            ("--ctk" | "--ctv", _) => names.push(pair[0].to_owned()),
            ("--ot" | "--ncmoe" | "--ts" | "--split", _) => names.push(pair[0].to_owned()),
            _ => {}
        }
    }
    if case.pipeline {
        names.push("pipeline".to_owned());
    }
    if case.host_buffer {
        names.push("pinned host buffer".to_owned());
    }
    names.sort();
    names.dedup();
    names
}

fn compare(ours: &Requirement, target: &Target, theirs: &Figures, scores: &mut Scores) {
    for (ours, theirs) in places::ours(ours).iter().zip(places::engines(target, theirs)) {
        for (component, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            if theirs > 0 || ours.get().is_none_or(|bytes| !bytes.is_zero()) {
                scores[component].add(ours, theirs);
            }
        }
    }
    scores[3].add(&ours.host.output, theirs.output);
}

fn table(what: &str, rows: &BTreeMap<String, (u64, Scores)>) {
    println!("\n| {what} | cases | {} |\n|---|---|---|---|---|---|", COMPONENTS.join(" | "));
    let mut rows: Vec<_> = rows.iter().collect();
    // The worst first: the share of buffers that are not equal, then the name.
    let wrong = |scores: &Scores| scores.iter().map(|score| score.exact() - score.equal + score.intervals).sum::<u64>();
    rows.sort_by_key(|(name, (_, scores))| (std::cmp::Reverse(wrong(scores)), (*name).clone()));
    for (name, (cases, scores)) in rows {
        println!("| {name} | {cases} | {} |", scores.map(|score| score.text()).join(" | "));
    }
}

/// Real loads: our requirement, and what the engine's `--fit` would have projected from its dry run. Fit reads the free
/// memory while the recurrent state is allocated and then counts the state again (common/fit.cpp:118-147), and leaves
/// out the host.
fn against_fit() -> Result<(), Box<dyn Error>> {
    let (mut ours_worst, mut fit_worst) = (0.0_f64, 0.0_f64);
    let (mut places_seen, mut ours_equal, mut fit_equal) = (0, 0, 0);
    for recording in recordings(LOADS) {
        for (case, answer) in &recording.cases {
            let Answer::Figures(theirs) = answer else { continue };
            let (settings, profile) = case.settings();
            let target = case.target(&recording.host);
            let model = recorded::model::model(&case.model);
            let need = require(&model, &settings, &target, &profile)?;
            let fit = dry_run(&model, &settings, &target, &profile)?;
            for ((ours, fit), theirs) in need.devices.iter().zip(&fit.devices).zip(places::engines(&target, theirs).iter().skip(1)) {
                let real = theirs.iter().sum::<u64>();
                let ours = ours.buffers().get().map_or(0, |bytes| bytes.get());
                let fit = fit.buffers().plus(&fit.state).get().map_or(0, |bytes| bytes.get());
                let error = |value: u64| value.abs_diff(real) as f64 / real.max(1) as f64;
                places_seen += 1;
                ours_equal += u64::from(ours == real);
                fit_equal += u64::from(fit == real);
                ours_worst = ours_worst.max(error(ours));
                fit_worst = fit_worst.max(error(fit));
            }
        }
    }
    println!("\n| real loads, per GPU | GPUs | equal to the byte | worst |\n|---|---|---|---|");
    println!("| loadmaster | {places_seen} | {ours_equal} | {:.2} % |", ours_worst * 100.0);
    println!("| llama.cpp's `--fit` projection | {places_seen} | {fit_equal} | {:.2} % |", fit_worst * 100.0);
    Ok(())
}
