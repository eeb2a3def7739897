//! Prior deviations of effects: how far the levels of one kind are thought to differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::OnceLock;

const CHOSEN_TEXT: &str = include_str!("../data/deviations.tsv");

/// Standard deviations of the logarithm of an inefficiency by phase, bound and level, `*` being any.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deviations {
    values: BTreeMap<[String; 3], f64>,
}

/// Degrees of freedom of the levels of whole machines: at 1, one of ten is six deviations off.
const FREEDOM: f64 = 1.0;
/// Wider than any machine is off, as a logarithm.
const WIDE: f64 = 2.0;

/// Where no row says otherwise.
const USUAL: f64 = 0.2;

impl Deviations {
    /// Those that the parameters of this build were fitted with: `data/deviations.tsv`, read once.
    pub fn chosen() -> &'static Self {
        static CHOSEN: OnceLock<Deviations> = OnceLock::new();
        // The text is part of the build; a test reads it.
        CHOSEN.get_or_init(|| Self::from_text(CHOSEN_TEXT).unwrap_or_default())
    }

    /// From lines `phase bound level deviation`, parted by tabulators; lines that begin with `#` are left out.
    ///
    /// # Errors
    /// The number of the first line, from 1, that is none.
    pub fn from_text(text: &str) -> Result<Self, usize> {
        let mut values = BTreeMap::new();
        for (place, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let [phase, bound, level, value] = line.split('\t').collect::<Vec<_>>()[..] else { return Err(place + 1) };
            let value = value.parse().ok().filter(|value: &f64| (1e-3..=10.0).contains(value)).ok_or(place + 1)?;
            values.insert([phase, bound, level].map(str::to_owned), value);
        }
        Ok(Self { values })
    }

    /// As text, one row per line, in order.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for ([phase, bound, level], value) in &self.values {
            let _ = writeln!(text, "{phase}\t{bound}\t{level}\t{value:.3}");
        }
        text
    }

    /// The deviation of an effect, `decode/weights/class=apple`: the row that names most of it.
    pub fn of(&self, name: &str) -> f64 {
        let mut parts = name.splitn(3, '/');
        let (phase, bound, key) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let level = key.split('=').next().unwrap_or("");
        // `type:q4k` is of `type`.
        let bound = bound.split(':').next().unwrap_or(bound);
        // Machines of one kind of source: `machine=X|localscore|...` is of `machine|localscore`.
        let kind = if level == "machine" { key.split('|').nth(1).map(|kind| format!("{level}|{kind}")) } else { None };
        let kind = kind.as_deref().unwrap_or(level);
        let rows = [[phase, bound, kind], [phase, bound, level], [phase, "*", level], ["*", bound, level], ["*", "*", level]];
        rows.iter().find_map(|row| self.values.get(&row.map(str::to_owned))).copied().unwrap_or(USUAL)
    }

    /// Those by which runs on one machine are judged: its rows `calibration` stand for the levels of machine and device. A fit explains a
    /// machine by all that it shares with others and leaves little to it; of a machine that nothing is known of, more may be its own.
    #[must_use]
    pub fn of_one_machine(&self) -> Self {
        let mut values = self.values.clone();
        for ([phase, bound, level], value) in &self.values {
            if level == "calibration" {
                values.retain(|[other, of, level], _| !(other == phase && of == bound && level.starts_with("machine|")));
                for own in ["machine", "device"] {
                    values.insert([phase.clone(), bound.clone(), own.to_owned()], *value);
                }
            }
        }
        Self { values }
    }

    /// With levels of whole machines that hold nothing: where a search for them begins.
    pub(crate) fn widened(&self) -> Self {
        self.with_scales(&|_, _| WIDE)
    }

    /// With those deviations of the levels of whole machines by which a Gaussian has the slope of Student's t at `effects`: most machines are
    /// as the fit says within little, and a few several times off.
    pub(crate) fn tailed(&self, effects: &BTreeMap<String, f64>) -> Self {
        self.with_scales(&|phase, usual| {
            let name = format!("{phase}/scale/");
            let most =
                effects.iter().filter(|(effect, _)| effect.starts_with(&name)).fold(0.0_f64, |most, (_, value)| most.max(value.abs()));
            usual * ((FREEDOM + (most / usual).powi(2)) / (FREEDOM + 1.0)).sqrt()
        })
    }

    fn with_scales(&self, width: &dyn Fn(&str, f64) -> f64) -> Self {
        let mut values = self.values.clone();
        for ([phase, bound, level], value) in &mut values {
            if bound == "scale" && (level == "machine" || level == "device") {
                let usual = self.values.get(&[phase.clone(), bound.clone(), "calibration".to_owned()]).copied().unwrap_or(*value);
                *value = width(phase, usual);
            }
        }
        Self { values }
    }

    /// Every row.
    pub fn iter(&self) -> impl Iterator<Item = (&[String; 3], f64)> {
        self.values.iter().map(|(row, &value)| (row, value))
    }

    /// With another value in one row.
    #[must_use]
    pub fn with(&self, row: &[String; 3], value: f64) -> Self {
        let mut values = self.values.clone();
        values.insert(row.clone(), value);
        Self { values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviations_of_this_build_can_be_read() {
        assert_eq!(Deviations::from_text(CHOSEN_TEXT).as_ref(), Ok(Deviations::chosen()));
        assert!(Deviations::chosen().iter().count() > 20);
    }

    #[test]
    fn the_row_that_names_most_counts() {
        let some = Deviations::from_text("*\t*\tclass\t0.5\ndecode\tweights\tclass\t0.1\n").unwrap();
        assert_eq!([some.of("decode/weights/class=apple"), some.of("prefill/weights/class=apple")], [0.1, 0.5]);
        assert_eq!(some.of("decode/weights/unheard=x"), USUAL);
        assert_eq!(Deviations::from_text(&some.to_text()), Ok(some));
    }

    #[test]
    fn one_machine_may_be_further_off_than_a_fit_lets_it() {
        let some = Deviations::from_text("decode\tscale\tcalibration\t0.5\ndecode\tscale\tmachine|localscore\t0.1\n").unwrap();
        let name = "decode/scale/machine=x|localscore|y";
        assert_eq!([some.of(name), some.of_one_machine().of(name)], [0.1, 0.5]);
    }

    #[test]
    fn a_level_far_off_is_given_room() {
        let some = Deviations::from_text("decode\tscale\tcalibration\t0.1\n").unwrap().of_one_machine();
        let name = "decode/scale/machine=x|y";
        let width = |level: f64| some.tailed(&BTreeMap::from([(name.to_owned(), level)])).of(name);
        assert!(width(0.0) < 0.1 && (width(0.1) - 0.1).abs() < 1e-9 && width(1.0) > 0.7, "{} {}", width(0.0), width(1.0));
        assert_eq!(some.widened().of(name), WIDE);
    }

    #[test]
    fn the_deviation_of_a_kind_is_that_of_its_bound() {
        let some = Deviations::from_text("decode\ttype\tcalibration\t0.3\n").unwrap().of_one_machine();
        assert_eq!(some.of("decode/type:q4k/machine=x|y"), 0.3);
    }

    #[test]
    fn a_broken_line_is_named() {
        assert_eq!(Deviations::from_text("# fine\ndecode\tweights\tclass\tmuch\n"), Err(2));
    }
}
