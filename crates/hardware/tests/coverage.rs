//! How much of what people have is in the tables: public surveys under `data/surveys`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot be set up has failed; what is missing is told")]

use hardware::{FindError, Tables};

const STEAM: &str = include_str!("../data/surveys/steam-2026-04.csv");
const LOCALSCORE: &str = include_str!("../data/surveys/localscore-2025.csv");

/// What is asked for: the least of a survey's answers that the tables hold.
const LEAST: f64 = 0.80;
/// What is aimed at.
const GOAL: f64 = 0.95;

/// Names under which a driver or system shows a family and not a product: known as integrated graphics, without a bandwidth of its own.
const FAMILIES: [&str; 3] = ["Radeon Graphics", "UHD Graphics", "Intel Graphics"];

struct Covered {
    /// Weight that a row, or several rows that differ in memory or cores, answers.
    product: f64,
    /// Weight that only a family of integrated graphics answers.
    family: f64,
    all: f64,
    missing: Vec<(f64, String)>,
}

impl Covered {
    fn part(&self) -> f64 {
        (self.product + self.family) / self.all
    }
}

fn cover(rows: impl Iterator<Item = (String, f64)>, find: impl Fn(&str) -> Result<String, FindError>) -> Covered {
    let mut covered = Covered { product: 0.0, family: 0.0, all: 0.0, missing: Vec::new() };
    for (name, weight) in rows {
        covered.all += weight;
        match find(&name) {
            Ok(row) if FAMILIES.contains(&row.as_str()) => covered.family += weight,
            Ok(_) | Err(FindError::Several { .. }) => covered.product += weight,
            Err(FindError::NotFound { .. }) => covered.missing.push((weight, name)),
        }
    }
    covered
}

fn read(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
}

fn accelerator(name: &str) -> Result<String, FindError> {
    Tables::built_in().accelerator(name).map(|choice| choice.row.name.clone())
}

fn report(what: &str, covered: &Covered) {
    println!(
        "{what}: {:.1} % ({:.1} % by product, {:.1} % by family); missing:",
        100.0 * covered.part(),
        100.0 * covered.product / covered.all,
        100.0 * covered.family / covered.all
    );
    for (weight, name) in &covered.missing {
        println!("  {weight} {name}");
    }
    if covered.part() < GOAL {
        println!("  below the goal of {:.0} %", 100.0 * GOAL);
    }
}

#[test]
fn gpus_of_players() {
    let rows = read(STEAM).into_iter().map(|row| (row[0].clone(), row[1].parse().unwrap()));
    let covered = cover(rows, accelerator);
    report("Steam hardware survey, April 2026, video cards", &covered);
    assert!(covered.all > 85.0 && covered.part() >= LEAST, "{}", covered.part());
}

#[test]
fn machines_of_people_who_run_language_models() {
    let of = |kind: &'static str| {
        read(LOCALSCORE).into_iter().filter(move |row| row[0] == kind).map(|row| (row[1].clone(), row[2].parse().unwrap()))
    };
    let gpus = cover(of("gpu"), accelerator);
    report("LocalScore results of March to July 2025, GPUs", &gpus);
    let processors = cover(of("cpu"), |name| Tables::built_in().processor(name).map(|row| row.name.clone()));
    report("LocalScore results of March to July 2025, processors", &processors);
    assert!(gpus.part() >= LEAST && processors.part() >= LEAST, "{} {}", gpus.part(), processors.part());
}
