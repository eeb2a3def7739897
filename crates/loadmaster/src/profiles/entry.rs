//! One cell of the profiles: a size of model on an archetype, as a value and as a row of `data/profiles.csv`.

use super::class::{SizeClass, size_class};
use planner::emit::flags::{ValueKind, flags};
use planner::emit::read_args;
use planner::plan::Strategy;
use planner::predict::Bottleneck;
use spec::settings::Pins;
use spec::words;
use spec::{Bytes, Known, Settings, TokensPerSec};

/// Columns of the table, `archetype` in front of them.
pub(super) const COLUMNS: [&str; 11] =
    ["class", "fit", "strategy", "settings", "gpu_mib", "host_mib", "mapped_mib", "decode", "prefill", "limit", "notes"];

/// Where figures of a stored profile come from.
const SOURCE: &str = "profile: the planner's estimate for the archetype";

words! {
    /// Whether a size of model runs on an archetype.
    Fit {
        /// With all that its use asks for.
        Fits = "fits",
        /// With something given up; the notes say what.
        Downgraded = "downgraded",
        /// Not at all; the notes say what would help.
        Refused = "refused",
    }
}

/// What to run a size of model with on an archetype, and what to expect.
#[derive(Clone, Debug, PartialEq)]
pub struct Recommended {
    /// Which processors compute.
    pub strategy: Strategy,
    /// The settings that a command has to name: context, slots, layers on GPUs, threads, and all that is not llama-server's default.
    pub settings: Pins,
    /// Upper end of what it takes of all GPUs; zero where none computes.
    pub gpu: Known<Bytes>,
    /// Upper end of what it takes of the host and cannot give back; where GPU and processor share the memory, with what the GPU takes.
    pub host: Known<Bytes>,
    /// Weights read in place from the mapped file, beside that.
    pub mapped: Known<Bytes>,
    /// Tokens per second while generating.
    pub decode: Known<TokensPerSec>,
    /// Tokens per second of a prompt.
    pub prefill: Known<TokensPerSec>,
    /// What limits generating.
    pub limit: Bottleneck,
}

/// A size of model on an archetype.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The size.
    pub class: &'static SizeClass,
    /// Whether it runs.
    pub fit: Fit,
    /// How; `None` where it does not.
    pub plan: Option<Recommended>,
    /// What was given up, or what would help.
    pub notes: String,
}

/// The arguments of `settings` in llama-server's short spellings: context, slots, layers and threads, and all that is not its default.
pub fn arguments(settings: &Settings) -> String {
    const ALWAYS: [&str; 4] = ["n_ctx", "n_parallel", "n_gpu_layers", "threads"];
    let default = Settings { threads_batch: settings.threads, ..Settings::default() };
    let mut words: Vec<String> = Vec::new();
    for flag in flags() {
        let value = flag.write(settings);
        if value.is_empty() || (value == flag.write(&default) && !ALWAYS.contains(&flag.setting)) {
            continue;
        }
        match (flag.kind == ValueKind::Switch, flag.spellings.first()) {
            (true, _) => words.extend(flag.fixed.iter().find(|fixed| fixed.value == value).map(|fixed| fixed.flag.to_owned())),
            (false, Some(spelling)) => words.extend([(*spelling).to_owned(), value]),
            (false, None) => {}
        }
    }
    words.join(" ")
}

impl Recommended {
    /// The settings whole: what is not named is llama-server's default.
    pub fn whole(&self) -> Settings {
        let mut settings = Settings::default();
        self.settings.apply(&mut settings);
        if self.settings.threads_batch.is_none() {
            settings.threads_batch = settings.threads;
        }
        settings
    }
    /// The settings as arguments of llama-server.
    pub fn arguments(&self) -> String {
        arguments(&self.whole())
    }
}

impl Entry {
    /// The cells of the row, in the order of [`COLUMNS`].
    pub(super) fn cells(&self) -> [String; COLUMNS.len()] {
        let mut cells = [const { String::new() }; COLUMNS.len()];
        cells[0] = self.class.id.to_owned();
        cells[1] = self.fit.to_string();
        if let Some(plan) = &self.plan {
            cells[2] = strategy_word(plan.strategy).to_owned();
            cells[3] = plan.arguments();
            cells[4] = mib(&plan.gpu);
            cells[5] = mib(&plan.host);
            cells[6] = mib(&plan.mapped);
            cells[7] = rate(&plan.decode);
            cells[8] = rate(&plan.prefill);
            cells[9] = plan.limit.as_str().to_owned();
        }
        cells[10] = self.notes.clone();
        cells
    }

    /// The entry of a row.
    ///
    /// # Errors
    /// The column that cannot be read, and what stands there.
    pub(super) fn read(cells: &[&str]) -> Result<Self, String> {
        let cell = |column: usize| cells.get(column).copied().unwrap_or("");
        let wrong = |column: usize| format!("{}: {:?}", COLUMNS[column], cell(column));
        let class = size_class(cell(0)).ok_or_else(|| wrong(0))?;
        let fit: Fit = cell(1).parse()?;
        let plan = if fit == Fit::Refused {
            None
        } else {
            let words: Vec<String> = cell(3).split_whitespace().map(str::to_owned).collect();
            let (settings, rest) = read_args(&words)?;
            if !rest.is_empty() {
                return Err(wrong(3));
            }
            Some(Recommended {
                strategy: STRATEGIES.iter().find(|(_, word)| *word == cell(2)).ok_or_else(|| wrong(2))?.0,
                settings,
                gpu: size(cell(4)).ok_or_else(|| wrong(4))?,
                host: size(cell(5)).ok_or_else(|| wrong(5))?,
                mapped: size(cell(6)).ok_or_else(|| wrong(6))?,
                decode: speed(cell(7)).ok_or_else(|| wrong(7))?,
                prefill: speed(cell(8)).ok_or_else(|| wrong(8))?,
                limit: *BOTTLENECKS.iter().find(|limit| limit.as_str() == cell(9)).ok_or_else(|| wrong(9))?,
            })
        };
        Ok(Self { class, fit, plan, notes: cell(10).to_owned() })
    }
}

const STRATEGIES: [(Strategy, &str); 3] = [(Strategy::CpuOnly, "cpu"), (Strategy::GpuOnly, "gpu"), (Strategy::Hybrid, "hybrid")];

const BOTTLENECKS: [Bottleneck; 5] = [Bottleneck::Bandwidth, Bottleneck::Compute, Bottleneck::Link, Bottleneck::Disk, Bottleneck::Launch];

fn strategy_word(strategy: Strategy) -> &'static str {
    STRATEGIES.iter().find(|(known, _)| *known == strategy).map_or("", |(_, word)| word)
}

/// Whole MiB, rounded up; `?` and the reason where it is not known.
fn mib(bytes: &Known<Bytes>) -> String {
    match bytes {
        Known::Unknown { reason } => format!("? {reason}"),
        known => known.high().map_or_else(String::new, |bytes| bytes.to_mib_ceil().to_string()),
    }
}

fn size(cell: &str) -> Option<Known<Bytes>> {
    match cell.strip_prefix("? ") {
        Some(reason) => Some(Known::unknown(reason.to_owned())),
        None => Some(Known::exact(Bytes::from_mib(cell.parse().ok()?), SOURCE)),
    }
}

/// Low, middle and high end in three digits; `?` and the reason where it is not known.
fn rate(rate: &Known<TokensPerSec>) -> String {
    match rate {
        Known::Unknown { reason } => format!("? {reason}"),
        known => [known.low(), known.value(), known.high()].map(|end| end.map_or_else(String::new, |end| digits(end.get()))).join(" "),
    }
}

fn speed(cell: &str) -> Option<Known<TokensPerSec>> {
    if let Some(reason) = cell.strip_prefix("? ") {
        return Some(Known::unknown(reason.to_owned()));
    }
    let mut ends = cell.split(' ').map(|end| end.parse().ok().and_then(TokensPerSec::new));
    let (low, value, high) = (ends.next()??, ends.next()??, ends.next()??);
    Some(Known::estimated(value, low, high, SOURCE))
}

/// Three significant digits, never rounded to zero. The limits are those of the rounded number, so that what is read is written alike.
fn digits(rate: f64) -> String {
    match rate {
        rate if rate >= 99.95 => format!("{rate:.0}"),
        rate if rate >= 9.995 => format!("{rate:.1}"),
        rate if rate >= 0.9995 => format!("{rate:.2}"),
        rate if rate >= 0.009_995 => format!("{rate:.3}"),
        rate => format!("{rate:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_back_as_the_settings_that_they_name() {
        let settings = Settings {
            n_ctx: 8192,
            n_gpu_layers: 20,
            threads: 6,
            threads_batch: 6,
            repack: false,
            tensor_split: vec![3.0, 1.0],
            ..Settings::default()
        };
        let text = arguments(&settings);
        assert_eq!(text, "-c 8192 -np 1 -ngl 20 -ts 3,1 -nr -t 6");
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let (pins, rest) = read_args(&words).unwrap();
        let plan = Recommended {
            strategy: Strategy::Hybrid,
            settings: pins,
            gpu: Known::exact(Bytes::from_mib(7), "test"),
            host: Known::unknown("no row"),
            mapped: Known::exact(Bytes::ZERO, "test"),
            decode: Known::unknown("nothing to compute"),
            prefill: Known::unknown("nothing to compute"),
            limit: Bottleneck::Link,
        };
        assert!(rest.is_empty());
        assert_eq!(plan.whole(), settings);
        assert_eq!(plan.arguments(), text);
    }

    #[test]
    fn unknown_stays_unknown_in_a_row() {
        assert_eq!(speed(&rate(&Known::unknown("why"))), Some(Known::unknown("why")));
        assert_eq!(size(&mib(&Known::unknown("why"))), Some(Known::unknown("why")));
        assert_eq!(speed("0 1 2"), None);
        assert_eq!(digits(0.0004), "4.00e-4");
        assert_eq!([123.4, 12.34, 1.234, 0.1234].map(digits), ["123", "12.3", "1.23", "0.123"]);
    }
}
