//! `hardware`: profiles as lists, tables and matches.

use super::{Quantity, Rate, SCHEMA_VERSION, SettingView, Size, View};
use crate::render::{Align, CAUTION, COMMAND, Cell, DIM, GOOD, Table, Text, styled};
use loadmaster::planner::UseCase;
use loadmaster::planner::emit::flags::flags;
use loadmaster::profiles::{Archetype, Difference, Entry, Fit, Matching, Profile, Recommended, SizeClass};
use schemars::JsonSchema;
use serde::Serialize;

/// Result of `loadmaster hardware list`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HardwareListView {
    /// Version of this layout.
    pub schema_version: u32,
    /// One line per kind of machine.
    pub profiles: Vec<HardwareLine>,
}

/// A kind of machine in a list.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HardwareLine {
    /// Key for `hardware show`.
    pub id: String,
    /// Platform family.
    pub family: String,
    /// What people call it.
    pub title: String,
    /// The machine as `--machine` takes it; the limits of a container are not in it.
    pub machine: String,
    /// The largest dense model that runs with all that general use asks for, if any.
    pub largest: Option<String>,
    /// Tokens per second of a model of 8 thousand million parameters.
    pub decode_8b: Quantity<Rate>,
}

impl HardwareListView {
    /// The list of these profiles.
    pub fn new<'a>(profiles: impl Iterator<Item = &'a Profile>) -> Self {
        Self { schema_version: SCHEMA_VERSION, profiles: profiles.map(HardwareLine::from).collect() }
    }
}

impl From<&Profile> for HardwareLine {
    fn from(profile: &Profile) -> Self {
        let archetype = profile.archetype;
        let mut dense = profile.entries.iter().filter(|entry| !entry.class.id.contains("-a"));
        let largest = dense.rfind(|entry| entry.fit == Fit::Fits).map(|entry| entry.class.id.to_owned());
        let eight = profile.entries.iter().find(|entry| entry.class.id == "8b").and_then(|entry| entry.plan.as_ref());
        Self {
            id: archetype.id.clone(),
            family: archetype.family.to_string(),
            title: archetype.title(),
            machine: archetype.description.clone(),
            largest,
            decode_8b: eight.map_or_else(|| Quantity::Unknown { reason: "does not run".to_owned() }, |plan| Quantity::of(&plan.decode)),
        }
    }
}

impl View for HardwareListView {
    fn text(&self, text: &mut Text) {
        let mut family = "";
        let mut table = Table::new([Align::Left, Align::Left, Align::Right, Align::Left]);
        for line in &self.profiles {
            if line.family != family {
                flush(text, family, &mut table);
                family = &line.family;
            }
            let largest = line.largest.as_deref().unwrap_or("-");
            let speed = match &line.decode_8b {
                Quantity::Unknown { reason } => styled(DIM, reason),
                known => known.to_string(),
            };
            table.row([Cell::plain(&line.id), Cell::plain(&line.title), Cell::plain(largest), Cell::plain(speed)]);
        }
        flush(text, family, &mut table);
        text.gap();
        text.line(styled(DIM, "fits: the largest dense model for general use; `loadmaster hardware show ID` has every size"));
    }
}

fn flush(text: &mut Text, family: &str, table: &mut Table) {
    let new = || {
        let mut table = Table::new([Align::Left, Align::Left, Align::Right, Align::Left]);
        table.header(["id", "machine", "fits", "decode of 8 B"]);
        table
    };
    let full = std::mem::replace(table, new());
    if !family.is_empty() {
        text.section(family);
        text.table(&full);
    }
}

/// Result of `loadmaster hardware show`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HardwareShowView {
    /// Version of this layout.
    pub schema_version: u32,
    /// Its key.
    pub id: String,
    /// Platform family.
    pub family: String,
    /// What people call it.
    pub title: String,
    /// The machine as `--machine` takes it; the limits of a container are not in it.
    pub machine: String,
    /// What was planned for, in words: processor, cores, memory, GPUs.
    pub assumed: String,
    /// What models are used for.
    pub use_case: String,
    /// Every size of model.
    pub sizes: Vec<SizeView>,
}

/// A size of model on a kind of machine.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SizeView {
    /// Its key.
    pub size: String,
    /// The model that stands for it.
    pub model: String,
    /// Its file type.
    pub file_type: String,
    /// `fits`, `downgraded` or `refused`.
    pub fit: String,
    /// What to run it with; absent where it does not run.
    pub plan: Option<SizePlanView>,
    /// What was given up, or what would help.
    pub notes: String,
}

/// What to run a size of model with, and what to expect.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SizePlanView {
    /// `GPU only`, `hybrid`, `CPU only`.
    pub strategy: String,
    /// Settings that are to be named; the others are llama-server's defaults.
    pub settings: Vec<SettingView>,
    /// The same as arguments of llama-server.
    pub arguments: String,
    /// Upper end of what it takes of all GPUs.
    pub gpu: Quantity<Size>,
    /// Upper end of what it takes of the host and cannot give back.
    pub host: Quantity<Size>,
    /// Weights read in place from the mapped file, beside that.
    pub mapped: Quantity<Size>,
    /// Tokens per second while generating.
    pub decode: Quantity<Rate>,
    /// Tokens per second of a prompt.
    pub prefill: Quantity<Rate>,
    /// What limits generating.
    pub limit: String,
}

impl From<&Recommended> for SizePlanView {
    fn from(plan: &Recommended) -> Self {
        let (whole, named) = (plan.whole(), plan.settings.names());
        let settings = flags().iter().filter(|flag| named.contains(&flag.setting));
        Self {
            strategy: plan.strategy.to_string(),
            settings: settings.map(|flag| SettingView::new(flag.setting, flag.write(&whole))).collect(),
            arguments: plan.arguments(),
            gpu: Quantity::of(&plan.gpu),
            host: Quantity::of(&plan.host),
            mapped: Quantity::of(&plan.mapped),
            decode: Quantity::of(&plan.decode),
            prefill: Quantity::of(&plan.prefill),
            limit: plan.limit.to_string(),
        }
    }
}

impl From<&Entry> for SizeView {
    fn from(entry: &Entry) -> Self {
        Self {
            size: entry.class.id.to_owned(),
            model: entry.class.preset.to_owned(),
            file_type: entry.class.file_type.to_string(),
            fit: entry.fit.to_string(),
            plan: entry.plan.as_ref().map(SizePlanView::from),
            notes: entry.notes.clone(),
        }
    }
}

impl HardwareShowView {
    /// The profile of an archetype.
    pub fn new(archetype: &Archetype, assumed: String, use_case: UseCase, entries: &[Entry]) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            id: archetype.id.clone(),
            family: archetype.family.to_string(),
            title: archetype.title(),
            machine: archetype.description.clone(),
            assumed,
            use_case: use_case.to_string(),
            sizes: entries.iter().map(SizeView::from).collect(),
        }
    }
}

impl View for HardwareShowView {
    fn text(&self, text: &mut Text) {
        text.line(format_args!("{}  {}", styled(GOOD, &self.id), self.title));
        text.line(format_args!("for {} use, planned for {}", self.use_case, self.assumed));
        text.section("To expect");
        expectations(text, &self.sizes);
        text.section("Settings for llama-server");
        let mut table = Table::new([Align::Left, Align::Left]);
        for size in &self.sizes {
            let arguments = size.plan.as_ref().map_or("-", |plan| plan.arguments.as_str());
            table.row([Cell::styled(DIM, &size.size), Cell::styled(COMMAND, arguments)]);
        }
        text.table(&table);
        notes(text, &self.sizes);
    }
}

fn expectations(text: &mut Text, sizes: &[SizeView]) {
    let mut table =
        Table::new([Align::Left, Align::Left, Align::Left, Align::Right, Align::Right, Align::Right, Align::Right, Align::Right]);
    table.header(["size", "", "on", "decode", "prompt", "GPU", "host", "mapped"]);
    for size in sizes {
        let fit = match size.fit.as_str() {
            "fits" => Cell::styled(GOOD, "fits"),
            fit => Cell::styled(CAUTION, fit),
        };
        let name = Cell::plain(&size.size);
        match &size.plan {
            None => table.row([name, fit]),
            Some(plan) => {
                // What to have is the upper end.
                let bytes = |quantity: &Quantity<Size>| match quantity {
                    Quantity::Unknown { .. } => "unknown".to_owned(),
                    Quantity::Exact { value, .. } | Quantity::Estimated { high: value, .. } => value.to_string(),
                };
                let rates = [rate(&plan.decode), rate(&plan.prefill)].map(Cell::plain);
                let sizes = [bytes(&plan.gpu), bytes(&plan.host), bytes(&plan.mapped)].map(Cell::plain);
                table.row([name, fit, Cell::plain(&plan.strategy)].into_iter().chain(rates).chain(sizes));
            }
        }
    }
    text.table(&table);
}

/// A rate with its interval, without more digits than it has.
fn rate(quantity: &Quantity<Rate>) -> String {
    let short = |rate: &Rate| if rate.0 >= 10.0 { format!("{:.0}", rate.0) } else { format!("{}", rate.0) };
    match quantity {
        Quantity::Exact { value, .. } => format!("{} tok/s", short(value)),
        Quantity::Estimated { value, low, high, .. } => format!("~{} tok/s ({} to {})", short(value), short(low), short(high)),
        Quantity::Unknown { .. } => "unknown".to_owned(),
    }
}

fn notes(text: &mut Text, sizes: &[SizeView]) {
    let told: Vec<String> =
        sizes.iter().filter(|size| !size.notes.is_empty()).map(|size| format!("{}: {}", size.size, size.notes)).collect();
    if !told.is_empty() {
        text.section("Notes");
        text.notes(told);
    }
}

/// Result of `loadmaster hardware match`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HardwareMatchView {
    /// Version of this layout.
    pub schema_version: u32,
    /// The machine in a few words.
    pub machine: String,
    /// The profile to go by.
    pub profile: HardwareLine,
    /// How near the machine is to it, 0 to 1.
    pub score: f64,
    /// Why it is the conservative default; absent where it is near.
    pub default_because: Option<String>,
    /// What differs, the weightiest first.
    pub differences: Vec<DifferenceView>,
    /// Sizes that run there, and for whose settings this machine has too little memory.
    pub too_large: Vec<String>,
    /// Every size of model there.
    pub sizes: Vec<SizeView>,
    /// Other profiles, nearest first.
    pub others: Vec<OtherView>,
}

/// A quantity in which the machine is not its profile.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DifferenceView {
    /// Which one.
    pub aspect: String,
    /// On the machine; `unknown` where it is not known.
    pub here: String,
    /// In the profile.
    pub there: String,
    /// How alike they are, 0 to 1.
    pub likeness: f64,
    /// What follows for settings and speed.
    pub follows: Option<String>,
    /// Both sides in one sentence.
    #[serde(skip)]
    told: String,
}

/// A profile that is less near.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OtherView {
    /// Its key.
    pub id: String,
    /// How near the machine is to it, 0 to 1.
    pub score: f64,
}

impl From<&Difference> for DifferenceView {
    fn from(difference: &Difference) -> Self {
        Self {
            aspect: difference.aspect.to_string(),
            here: difference.aspect.show(&difference.here),
            there: difference.aspect.show(&difference.there),
            likeness: difference.likeness,
            follows: difference.follows(),
            told: difference.told(),
        }
    }
}

impl HardwareMatchView {
    /// What was found.
    pub fn new(machine: String, matching: &Matching, profile: &Profile, too_large: &[&SizeClass]) -> Self {
        let chosen = &matching.chosen;
        Self {
            schema_version: SCHEMA_VERSION,
            machine,
            profile: HardwareLine::from(profile),
            score: chosen.score,
            default_because: matching.default_because.clone(),
            differences: chosen.differences.iter().map(DifferenceView::from).collect(),
            too_large: too_large.iter().map(|class| class.id.to_owned()).collect(),
            sizes: profile.entries.iter().map(SizeView::from).collect(),
            others: matching.others.iter().map(|other| OtherView { id: other.archetype.id.clone(), score: other.score }).collect(),
        }
    }
}

impl View for HardwareMatchView {
    fn text(&self, text: &mut Text) {
        text.line(&self.machine);
        let percent = |score: f64| format!("{:.0} %", 100.0 * score);
        let profile = format!("{}  {}", styled(GOOD, &self.profile.id), self.profile.title);
        match &self.default_because {
            None => text.line(format_args!("is nearest to  {profile}  ({})", percent(self.score))),
            Some(why) => {
                text.line(format_args!("has no profile: {}", styled(CAUTION, why)));
                text.line(format_args!("conservative default  {profile}  ({})", percent(self.score)));
            }
        }
        if !self.differences.is_empty() {
            text.section("What differs, and what follows");
            text.notes(self.differences.iter().map(|difference| match &difference.follows {
                Some(follows) => format!("{}: {follows}", difference.told),
                None => difference.told.clone(),
            }));
        }
        if !self.too_large.is_empty() {
            text.note(CAUTION, "!", format_args!("too little memory here for the profile's settings of {}", self.too_large.join(", ")));
        }
        text.section(format_args!("To expect of {}", self.profile.id));
        expectations(text, &self.sizes);
        if !self.others.is_empty() {
            text.gap();
            let others: Vec<String> = self.others.iter().map(|other| format!("{} ({})", other.id, percent(other.score))).collect();
            text.line(format_args!("{} {}", styled(DIM, "next"), others.join(", ")));
        }
        text.line(format_args!(
            "{} {} and {}",
            styled(DIM, "more"),
            styled(COMMAND, format_args!("loadmaster hardware show {}", self.profile.id)),
            styled(COMMAND, "loadmaster plan MODEL, which plans for this machine exactly")
        ));
    }
}
