//! The generated parts of `docs/quick-start`: what stands between `<!-- generated: WHAT -->` and `<!-- end -->`.

use super::coverage;
use loadmaster::profiles::{CLASSES, Entry, Family, Fit, Profile};
use loadmaster::spec::{Known, TokensPerSec};
use std::fmt::Write as _;

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end -->";

/// Sizes that the tables of speeds show.
const SHOWN: [&str; 6] = ["4b", "8b", "14b", "32b", "70b", "30b-a3b"];

/// The page with every generated part written anew.
///
/// # Errors
/// A part that is not closed, or that nobody knows.
pub fn fill(page: &str, profiles: &[Profile]) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (what, after) = after.split_once(" -->\n").ok_or("a generated part without its end of line")?;
        let (_, after) = after.split_once(END).ok_or_else(|| format!("generated part {what:?} is not closed"))?;
        write!(filled, "{before}{BEGIN}{what} -->\n{}{END}", part(what, profiles)?).map_err(|error| error.to_string())?;
        rest = after;
    }
    Ok(filled + rest)
}

fn part(what: &str, profiles: &[Profile]) -> Result<String, String> {
    match what.split_once(' ') {
        None if what == "classes" => Ok(classes()),
        None if what == "coverage" => Ok(coverage::table()),
        Some(("speeds", family)) => Ok(speeds(family.parse()?, profiles)),
        Some(("settings", id)) => {
            let profile = profiles.iter().find(|profile| profile.archetype.id == id);
            Ok(settings(profile.ok_or_else(|| format!("no profile {id:?}"))?))
        }
        _ => Err(format!("nobody generates {what:?}")),
    }
}

fn classes() -> String {
    let mut text = String::from("| size | stands for it | file type | file |\n|---|---|---|---:|\n");
    for class in &CLASSES {
        let size = class.model().and_then(|model| model.files.first()).map_or_else(|| "unknown".to_owned(), |file| file.size.to_string());
        text.push_str(&format!("| {} | {} | {} | {size} |\n", class.title, class.preset, class.file_type));
    }
    text
}

fn speeds(family: Family, profiles: &[Profile]) -> String {
    let shown = || CLASSES.iter().filter(|class| SHOWN.contains(&class.id));
    let mut text = String::from("| machine | profile |");
    shown().for_each(|class| text.push_str(&format!(" {} |", class.title)));
    text.push_str("\n|---|---|");
    shown().for_each(|_| text.push_str("---:|"));
    text.push('\n');
    for profile in profiles.iter().filter(|profile| profile.archetype.family == family) {
        text.push_str(&format!("| {} | `{}` |", profile.archetype.title(), profile.archetype.id));
        for entry in profile.entries.iter().filter(|entry| SHOWN.contains(&entry.class.id)) {
            text.push_str(&format!(" {} |", speed(entry)));
        }
        text.push('\n');
    }
    text
}

fn speed(entry: &Entry) -> String {
    use loadmaster::planner::plan::Strategy::Hybrid;
    let Some(plan) = &entry.plan else { return "-".to_owned() };
    let downgraded = if entry.fit == Fit::Downgraded { "~" } else { "" };
    let hybrid = if plan.strategy == Hybrid { "*" } else { "" };
    format!("{downgraded}{}{hybrid}", interval(&plan.decode))
}

fn interval(rate: &Known<TokensPerSec>) -> String {
    match (rate.get(), rate.low(), rate.high()) {
        (Some(value), Some(low), Some(high)) => format!("{} ({} to {})", short(value), short(*low), short(*high)),
        _ => "unknown".to_owned(),
    }
}

/// Two digits: an interval needs no more.
fn short(rate: TokensPerSec) -> String {
    match rate.get() {
        rate if rate >= 10.0 => format!("{rate:.0}"),
        rate if rate >= 1.0 => format!("{rate:.1}"),
        rate if rate >= 0.005 => format!("{rate:.2}"),
        _ => "< 0.01".to_owned(),
    }
}

fn settings(profile: &Profile) -> String {
    let mut text = format!("| {} | arguments of llama-server | tok/s |\n|---|---|---:|\n", profile.archetype.title());
    for entry in &profile.entries {
        let row = match &entry.plan {
            Some(plan) => format!("| {} | `{}` | {} |\n", entry.class.title, plan.arguments(), speed(entry)),
            None => format!("| {} | {} | - |\n", entry.class.title, entry.notes),
        };
        text.push_str(&row);
    }
    text
}
