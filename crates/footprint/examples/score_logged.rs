//! Prints how well logged allocations of real runs are recomputed, as tables for ACCURACY.md.
//!
//! ```text
//! cargo run --release -p footprint --example score_logged [ROW ...]
//! ```
//!
//! With numbers of rows it prints these in full.
#![expect(clippy::print_stdout, reason = "a development tool")]

#[path = "../tests/logged_rows/mod.rs"]
mod logged_rows;
#[path = "../tests/recorded/mod.rs"]
mod recorded;

use logged_rows::{Outcome, Row, Summary, median, outcome, rows};

fn main() {
    let only: Vec<u32> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let Some(rows) = rows() else {
        println!("the rows are not here: shared/data/memory/logged_buffers.csv beside the workspace");
        return;
    };
    if only.is_empty() {
        tables("llama.cpp and packages of it", &Summary::of(rows.iter().filter(|row| row.is_mainline())));
        tables("ik_llama.cpp, best effort", &Summary::of(rows.iter().filter(|row| !row.is_mainline())));
    }
    for row in rows.iter().filter(|row| only.contains(&row.id())) {
        show(row);
    }
}

fn tables(title: &str, summary: &Summary<'_>) {
    let totals = summary.totals();
    let worst = totals.iter().copied().max_by(|a, b| a.0.abs().total_cmp(&b.0.abs())).unwrap_or_default();
    println!("### {title}: {} rows, {} recomputed\n", summary.outcomes.len(), totals.len());
    println!(
        "Totals of rows whose flags are complete: median {:.2} %, worst {:+.1} % (row {}).\n",
        100.0 * median(totals.iter().map(|(error, _)| error.abs()).collect()),
        100.0 * worst.0,
        worst.1
    );
    println!("| engine | component | rows | equal as printed | median | worst |\n|---|---|---|---|---|---|");
    for (age, lines) in summary.by_age() {
        for line in lines {
            let worst = if line.worst.0 == 0.0 { "0".to_owned() } else { format!("{:+.2} % (row {})", 100.0 * line.worst.0, line.worst.1) };
            let (component, rows, equal) = (line.component.name(), line.rows, line.equal);
            println!("| {age} | {component} | {rows} | {equal} | {:.2} % | {worst} |", 100.0 * line.median);
        }
    }
    println!("\n| row | engine | model and backend | component | logged MiB | predicted MiB | error |\n|---|---|---|---|---|---|---|");
    for (row, age, part) in summary.differing().iter().take(24) {
        let (model, backend, component) = (row.get("model"), row.get("backend"), part.component.name());
        let error = 100.0 * part.error();
        println!(
            "| {} | {age} | {model}, {backend} | {component} | {:.2} | {:.2} | {error:+.2} % |",
            row.id(),
            part.logged,
            part.predicted
        );
    }
    let drivers = summary.drivers();
    if !drivers.is_empty() {
        println!("\n| row | measured by the driver | MiB | predicted MiB | inside its interval |\n|---|---|---|---|---|");
    }
    for (row, part) in drivers {
        let inside = if part.inside { "yes" } else { "no" };
        println!("| {} | {} | {:.0} | {:.0} | {inside} |", row.id(), part.component.name(), part.logged, part.predicted);
    }
    println!("\n| not recomputed | rows |\n|---|---|");
    for (reason, rows) in summary.left_out() {
        println!("| {reason} | {} |", rows.iter().map(u32::to_string).collect::<Vec<_>>().join(", "));
    }
    println!();
}

fn show(row: &Row) {
    println!("#{} {} {} {}", row.id(), row.get("build"), row.get("model"), row.get("backend"));
    match outcome(row) {
        Outcome::Not(reason) => println!("    {reason}"),
        Outcome::Scored { profile, parts, complete } => {
            println!("    {profile}{}", if complete { "" } else { ", flags incomplete" });
            for part in parts {
                let (name, logged, predicted, error) = (part.component.name(), part.logged, part.predicted, 100.0 * part.error());
                let inside = if part.inside { "" } else { " outside" };
                println!("    {name:18} logged {logged:10.2} predicted {predicted:10.2} {error:+.2} %{inside}");
            }
        }
    }
}
