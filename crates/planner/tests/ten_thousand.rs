//! Ten thousand machines × models × requests, drawn with a fixed seed: no plan panics or passes a limit, the same input gives the same
//! bytes, what is planned is valid and reads back, and more memory never makes a plan worse.
//!
//! `CASES=10000 cargo test --release -p planner --test ten_thousand -- --nocapture` runs all of them, without `CASES` the first
//! thousand (a hundred without optimisation), and `FROM=17 CASES=1` one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that fails panics; how many cases it runs, it is told")]

#[path = "../../footprint/examples/record_oracle/draw.rs"]
mod draw;
#[path = "ten_thousand/laws.rs"]
mod laws;
#[path = "ten_thousand/machines.rs"]
mod machines;
#[path = "ten_thousand/models.rs"]
mod models;
#[path = "ten_thousand/requests.rs"]
mod requests;

use draw::Draw;
use laws::{Case, Outcome};
use models::Entry;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Cases without `CASES` in the environment: a minute or less of two cores.
const CASES: usize = if cfg!(debug_assertions) { 100 } else { 1_000 };

/// Broken laws that are shown.
const SHOWN: usize = 40;

/// What a plan may be worth less with more memory before it counts as slower: settings that win less than this are left as the engine
/// has them.
const SLACK: f64 = 1.02;

/// Plans that may be slower with more memory, in a thousand: of all ten thousand cases two are (PLANS.md: pins beside which the engine's own
/// choice is kept); of the first thousand none.
const SLOWER_IN_1000: usize = 1;

/// What came of some cases.
#[derive(Default)]
struct Tally {
    plans: usize,
    refusals: usize,
    grown: usize,
    /// Slower with more memory.
    slower: Vec<String>,
    broken: Vec<String>,
}

thread_local! {
    /// Where this thread panicked last, and why.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A number of the environment.
fn told(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn every_law_holds_for_every_case() {
    std::panic::set_hook(Box::new(|panic| PANIC.set(panic.to_string())));
    let models = models::models();
    let (from, cases) = (told("FROM", 0), told("CASES", CASES));
    let (next, threads) = (AtomicUsize::new(from), std::thread::available_parallelism().map_or(1, usize::from));
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&next, from + cases, &models))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    drop(std::panic::take_hook());
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let (plans, refusals, grown) = (sum(|tally| tally.plans), sum(|tally| tally.refusals), sum(|tally| tally.grown));
    println!("{cases} cases, {} models: {plans} plans, {refusals} refusals, {grown} compared with more memory", models.len());
    let texts = |of: fn(&Tally) -> &Vec<String>| {
        let mut texts: Vec<&str> = tallies.iter().flat_map(of).map(String::as_str).collect();
        texts.sort_unstable();
        texts
    };
    let (slower, broken) = (texts(|tally| &tally.slower), texts(|tally| &tally.broken));
    println!("{} are slower with more memory:\n{}", slower.len(), slower[..slower.len().min(SHOWN)].join("\n"));
    assert!(broken.is_empty(), "{} of {cases} cases:\n{}", broken.len(), broken[..broken.len().min(SHOWN)].join("\n"));
    assert!(slower.len() * 1000 <= grown * SLOWER_IN_1000 || cases < 1000, "{} of {grown} are slower with more memory", slower.len());
    // Neither side may be a rarity, or the laws are about nothing.
    let many = plans > cases / 3 && refusals > cases / 20 && grown > cases / 4;
    assert!(many || cases < 1000, "{plans} plans, {refusals} refusals, {grown} grown");
}

fn work(next: &AtomicUsize, end: usize, models: &[Entry]) -> Tally {
    let mut tally = Tally::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= end {
            return tally;
        }
        let case = case(number, models);
        match catch_unwind(AssertUnwindSafe(|| case.check())) {
            Ok(Ok(Outcome::Refused)) => tally.refusals += 1,
            Ok(Ok(Outcome::Planned { grown })) => {
                tally.plans += 1;
                tally.grown += usize::from(grown.is_some());
                if let Some(grown) = grown.filter(|grown| grown.slower > SLACK) {
                    tally.slower.push(format!("{:.3} times as slow with more memory: {} in {case}", grown.slower, grown.between));
                }
            }
            Ok(Err(law)) => tally.broken.push(format!("{law}: {case}")),
            Err(_) => tally.broken.push(format!("{}: {case}", PANIC.take())),
        }
    }
}

/// The case of this number: the same each time, alone or with the others.
fn case(number: usize, models: &[Entry]) -> Case<'_> {
    let mut draw = Draw(number as u64);
    (0..4).for_each(|_| _ = draw.below(2));
    let drawn = machines::machine(&mut draw);
    let model = &models[draw.below(models.len())];
    let request = requests::request(&mut draw);
    let larger = machines::with_more(&drawn.machine, &mut draw);
    Case { number, machine: drawn.machine, words: drawn.words, larger, model, request }
}
