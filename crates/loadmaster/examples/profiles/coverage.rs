//! How much of what people have is near a profile: the surveys of crate `hardware`, each answer as a machine.

use hardware::{Accelerator, FindError, Tables};
use loadmaster::probe::describe;
use loadmaster::profiles::{Family, match_machine};

const STEAM: &str = include_str!("../../../hardware/data/surveys/steam-2026-04.csv");
const LOCALSCORE: &str = include_str!("../../../hardware/data/surveys/localscore-2025.csv");

/// One survey against the profiles, in the survey's own weights.
pub struct Coverage {
    /// What was asked.
    pub survey: &'static str,
    /// All answers.
    pub all: f64,
    /// Answers near a profile that plans for their GPU, or for their processor where that was asked.
    pub near: f64,
    /// Answers with graphics that are planned as a processor alone, near a profile of that kind.
    pub by_processor: f64,
    /// Answers that are not covered, the weightiest first.
    pub missing: Vec<(f64, String)>,
}

impl Coverage {
    /// The part that is covered, 0 to 1.
    pub fn part(&self) -> f64 {
        (self.near + self.by_processor) / self.all
    }
}

/// Every survey.
pub fn surveys() -> Vec<Coverage> {
    let steam = rows(STEAM).into_iter().map(|row| (row[0].clone(), row[1].parse().unwrap_or(0.0))).collect();
    let of = |kind: &str| {
        let rows = rows(LOCALSCORE).into_iter().filter(|row| row[0] == kind);
        rows.map(|row| (row[1].clone(), row[2].parse().unwrap_or(0.0))).collect()
    };
    vec![
        cover("video cards of players (Steam hardware survey, April 2026)", steam, &gpu),
        cover("GPUs that ran language models (LocalScore, March to July 2025)", of("gpu"), &gpu),
        cover("processors that ran language models (LocalScore, March to July 2025)", of("cpu"), &processor),
    ]
}

/// The surveys as a table of a page.
pub fn table() -> String {
    let mut text = String::from(
        "| what people have | near a profile | of these as a processor alone | not covered, most frequent first |\n|---|---:|---:|---|\n",
    );
    for covered in surveys() {
        let percent = |part: f64| format!("{:.1} %", 100.0 * part / covered.all);
        let missing: Vec<&str> = covered.missing.iter().take(4).map(|(_, name)| name.as_str()).collect();
        text.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            covered.survey,
            percent(covered.near + covered.by_processor),
            percent(covered.by_processor),
            missing.join(", ")
        ));
    }
    text
}

fn rows(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    reader.records().flatten().map(|record| record.iter().map(str::to_owned).collect()).collect()
}

fn cover(survey: &'static str, answers: Vec<(String, f64)>, machines: &dyn Fn(&str) -> Vec<String>) -> Coverage {
    let mut covered = Coverage { survey, all: 0.0, near: 0.0, by_processor: 0.0, missing: Vec::new() };
    for (name, weight) in answers {
        covered.all += weight;
        let machines = machines(&name);
        // A name that stands for several sizes of memory answers for each of them alike.
        let share = weight / machines.len().max(1) as f64;
        let mut left = weight;
        for machine in &machines {
            let Some(near) = describe(machine).ok().and_then(|machine| match_machine(&machine)) else { continue };
            if near.default_because.is_some() {
                continue;
            }
            left -= share;
            let asked_gpu = !machine.starts_with("cpu=");
            if asked_gpu && near.chosen.archetype.family == Family::CpuOnly { covered.by_processor += share } else { covered.near += share }
        }
        if left > weight * 0.01 {
            covered.missing.push((left, name));
        }
    }
    covered.missing.sort_by(|a, b| b.0.total_cmp(&a.0));
    covered
}

/// The machines that a GPU of this name may be in: each size of memory, in an ordinary desktop or laptop.
fn gpu(name: &str) -> Vec<String> {
    let tables = Tables::built_in();
    match tables.accelerator(name) {
        Ok(choice) => sizes(choice.row),
        Err(FindError::Several { candidates, .. }) => {
            tables.accelerators().iter().filter(|row| candidates.contains(&row.title())).flat_map(sizes).collect()
        }
        Err(FindError::NotFound { .. }) => Vec::new(),
    }
}

fn sizes(row: &Accelerator) -> Vec<String> {
    let beside = if row.unified { "cpu=core-i5-1235u" } else { "cpu=ryzen-5-5600" };
    let machine = |memory: &loadmaster::spec::Bytes| {
        let name = format!("{} {}GB", row.name, memory.as_gib());
        if row.processor.is_some() { name } else { format!("{name},ram=16GiB,{beside}") }
    };
    if row.memory.is_empty() { vec![format!("{},ram=16GiB,{beside}", row.name)] } else { row.memory.iter().map(machine).collect() }
}

/// The machine that a processor of this name is in: 32 GiB, 128 in a server; a Mac by its name.
fn processor(name: &str) -> Vec<String> {
    let tables = Tables::built_in();
    let Ok(row) = tables.processor(name) else { return Vec::new() };
    let module = tables.accelerators().iter().find(|module| module.processor.as_deref() == Some(&row.name));
    match module {
        Some(module) => sizes(module),
        None => {
            let memory = match row.segment {
                hardware::Segment::Server => 128,
                hardware::Segment::Mobile | hardware::Segment::Board => 8,
                _ => 32,
            };
            vec![format!("cpu={},ram={memory}GiB", row.name)]
        }
    }
}
