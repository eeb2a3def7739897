//! Times detection inside one process: the first, which starts threads and touches every file, and those after it.
//!
//! `cargo run --release -p probe --example timing -- [REPETITIONS]`: for the pass over files alone and for that with drivers, the
//! first time, the median and the ninth decile of the others in milliseconds, and the number of questions by kind.

use probe::detect::Depth;
use probe::{Answer, Host, Live, Question, Refusal, detect_to};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

/// This machine, counting what it is asked.
struct Counting {
    live: Live,
    asked: RefCell<BTreeMap<String, usize>>,
}

impl Host for Counting {
    fn origin(&self) -> String {
        self.live.origin()
    }
    fn begin(&self) {
        self.live.begin();
    }
    fn ask(&self, question: &Question) -> Result<Answer, Refusal> {
        let text = question.to_string();
        *self.asked.borrow_mut().entry(text.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
        self.live.ask(question)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let repetitions = std::env::args().nth(1).map_or(Ok(200), |text| text.parse::<usize>())?.max(1);
    let mut out = std::io::stdout();
    for (name, depth) in [("files", Depth::Static), ("files and drivers", Depth::Drivers)] {
        let host = Live::new();
        let once = || -> Result<f64, probe::ProbeError> {
            let start = Instant::now();
            detect_to(&host, depth)?;
            Ok(start.elapsed().as_secs_f64() * 1e3)
        };
        let first = once()?;
        let mut others = (0..repetitions).map(|_| once()).collect::<Result<Vec<_>, _>>()?;
        others.sort_by(f64::total_cmp);
        let (median, ninth) = (others[others.len() / 2], others[others.len() * 9 / 10]);
        let counting = Counting { live: Live::new(), asked: RefCell::default() };
        let machine = detect_to(&counting, depth)?;
        let asked: Vec<String> = counting.asked.borrow().iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let cpus = machine.facts.cpu.logical_cpus.get().unwrap_or(0);
        writeln!(
            out,
            "{cpus} CPUs, {name}: first {first:.2} ms, median {median:.2} ms, 9 of 10 within {ninth:.2} ms; asked: {}",
            asked.join(", ")
        )?;
    }
    Ok(())
}
