//! Plans every hardware profile anew, and writes what is stored of them and the figures of `docs/quick-start`:
//! `cargo run --release -p loadmaster --example profiles`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for the terminal that reads and writes files")]

mod coverage;
mod pages;

use loadmaster::planner::UseCase;
use loadmaster::profiles::{archetypes, generate, read, table};
use loadmaster::store::write_atomically;
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = table(archetypes(), &generate(archetypes(), UseCase::General));
    write_atomically(&root.join("data/profiles.csv"), text.as_bytes())?;
    let profiles = read(&text)?;
    println!("{} archetypes, {} bytes", profiles.len(), text.len());
    for entry in std::fs::read_dir(root.join("../../docs/quick-start"))? {
        let path = entry?.path();
        let filled = pages::fill(&std::fs::read_to_string(&path)?, &profiles)?;
        write_atomically(&path, filled.as_bytes())?;
        println!("{}: {} bytes", path.display(), filled.len());
    }
    for covered in coverage::surveys() {
        println!("{}: {:.1} %", covered.survey, 100.0 * covered.part());
        covered.missing.iter().for_each(|(weight, name)| println!("  {weight:.2} {name}"));
    }
    Ok(())
}
