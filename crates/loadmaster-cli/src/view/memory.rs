//! `memory`: what a model needs, per device and component, right after load and at peak.

use super::requirement::{ContextView, LayersView, central, layers};
use super::{ModelName, Quantity, SettingView, Size, View};
use crate::render::chart::{Bar, chart};
use crate::render::{Align, CAUTION, Cell, DIM, GOOD, HEADING, Table, Text, styled};
use loadmaster::advise::Survey;
use loadmaster::footprint::{
    Component, EngineProfile, Explanation, HostRequirement, Part, Recommendation, Requirement, Saving, Sizing, Totals, totals,
};
use loadmaster::planner::gpu_of;
use loadmaster::receipt::Proof;
use schemars::JsonSchema;
use serde::Serialize;
use spec::{Bytes, Known, Settings};
use std::collections::BTreeMap;

/// Result of `loadmaster memory`. Sizes are whole bytes; null where one is not known.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MemoryView {
    /// `loadmaster.memory/1`.
    pub schema: String,
    /// The engine whose rules were applied.
    pub engine_profile: String,
    /// The model.
    pub model: ModelName,
    /// The settings that the sizes are for.
    pub settings: Vec<SettingView>,
    /// The context as the engine resolves it.
    pub context: ContextView,
    /// The host first, then the GPUs in the engine's order.
    pub devices: Vec<PlaceView>,
    /// What to have, and what would take less.
    pub recommendations: RecommendationsView,
    /// Layers on each device in order of the layers; the output is the last of them.
    pub layers: Vec<LayersView>,
    /// Remarks.
    pub notes: Vec<String>,
    /// The arithmetic behind each number; empty where it was not asked for.
    pub explanations: Vec<ExplanationView>,
    /// The bundled engine's dry run beside what was computed, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// What kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlaceKind {
    /// The host.
    Cpu,
    /// A device of its own memory.
    Gpu,
}

/// The memory of one place.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PlaceView {
    /// `cpu`, or the engine's name of the device.
    pub id: String,
    /// Host or device.
    pub kind: PlaceKind,
    /// What the processor or the device is called.
    pub name: String,
    /// Memory in all, as far as this process may use it; null where not known.
    pub memory_bytes: Option<u64>,
    /// True for a GPU whose memory is the host's: all of this is taken there. Absent where it is false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub shares_host: bool,
    /// Allocated right after load.
    pub load: SizesView,
    /// The most that it becomes: as `load`, with the server's caches at their limits.
    pub peak: SizesView,
    /// Lower and upper end of each size, equal where it is exact.
    pub interval: IntervalsView,
    /// Sums.
    pub total: TotalsView,
    /// What the system counts as in memory; of the host only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident: Option<ResidentView>,
    #[serde(skip)]
    parts: Vec<Part>,
    #[serde(skip)]
    sums: Totals,
    #[serde(skip)]
    kinds: Vec<(&'static str, Totals)>,
}

/// Sizes of components.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SizesView {
    /// Weights: mapped from the file, read, or on the device.
    pub weights: Option<u64>,
    /// Attention caches.
    pub kv_cache: Option<u64>,
    /// State of recurrent layers.
    pub recurrent_state: Option<u64>,
    /// Compute buffer.
    pub compute: Option<u64>,
    /// Logits handed to the application.
    pub output: Option<u64>,
    /// Others by name: `repacked`, `program`, `driver`, `prompt_cache`, `context_checkpoints`, ...
    #[serde(flatten)]
    pub further: BTreeMap<String, Option<u64>>,
}

/// Ends of an interval.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct IntervalView {
    /// Lower end.
    pub low: Option<u64>,
    /// Upper end.
    pub high: Option<u64>,
}

/// Intervals by component.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct IntervalsView {
    /// Right after load.
    pub load: BTreeMap<String, IntervalView>,
    /// At peak.
    pub peak: BTreeMap<String, IntervalView>,
}

/// One sum at three moments.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct TotalsView {
    /// Right after load.
    pub load: Option<u64>,
    /// At peak, before the server's caches have grown.
    pub working: Option<u64>,
    /// At peak, with the server's caches at their limits.
    pub peak: Option<u64>,
}

/// What the system counts as in memory. Page-locked memory is part of the anonymous.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct ResidentView {
    /// Cannot be dropped, only swapped.
    pub anonymous: TotalsView,
    /// Pages of the mapped file: touched by loading; at peak those that must stay for full speed.
    pub page_cache: TotalsView,
    /// Of the anonymous: page-locked for a device to copy from.
    pub pinned: TotalsView,
}

/// What to have, and what would take less.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RecommendationsView {
    /// Host memory, beside what the system itself takes.
    pub ram: SizingView,
    /// Memory of each GPU.
    pub vram: Vec<DeviceSizingView>,
    /// What of the host's peak could lie in swap without being touched for every token.
    pub swap_bytes: Option<u64>,
    /// Changes that free memory, the largest first.
    pub suggestions: Vec<SuggestionView>,
    #[serde(skip)]
    known: Option<Recommendation>,
}

/// How much of one memory.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct SizingView {
    /// Below this the model does not run, or runs from the disk.
    pub minimum_bytes: Option<u64>,
    /// Enough in every case.
    pub recommended_bytes: Option<u64>,
}

/// How much of one device's memory.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DeviceSizingView {
    /// The engine's name of the device.
    pub id: String,
    /// How much.
    #[serde(flatten)]
    pub sizing: SizingView,
}

/// A change that frees memory somewhere.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SuggestionView {
    /// The setting.
    pub setting: String,
    /// How llama-server spells it.
    pub flag: String,
    /// Its value now.
    pub from: String,
    /// The other value.
    pub to: String,
    /// Bytes freed by place; below zero where more is needed.
    pub frees_bytes: BTreeMap<String, i64>,
    /// Whether these are exact.
    pub exact: bool,
    /// What it costs.
    pub costs: String,
}

/// How one number came about.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ExplanationView {
    /// `cpu`, or the engine's name of the device.
    pub id: String,
    /// The component.
    pub component: String,
    /// The number.
    pub bytes: Quantity<Size>,
    /// The factors.
    pub steps: Vec<String>,
}

/// What the view is made of.
pub struct MemoryFacts<'a> {
    /// Machine and model.
    pub survey: &'a Survey,
    /// The settings.
    pub settings: &'a Settings,
    /// The engine's rules.
    pub profile: &'a EngineProfile,
    /// What is needed.
    pub requirement: &'a Requirement,
    /// What would take less.
    pub savings: &'a [Saving],
    /// The arithmetic; empty where nobody asked.
    pub explanations: &'a [Explanation],
}

const HOST: &str = "cpu";

impl MemoryView {
    /// The view of these facts.
    pub fn new(facts: &MemoryFacts<'_>) -> Self {
        let requirement = facts.requirement;
        let id = |device: Option<usize>| {
            device.and_then(|device| requirement.devices.get(device)).map_or_else(|| HOST.to_owned(), |device| device.name.clone())
        };
        let places = std::iter::once(None).chain((0..requirement.devices.len()).map(Some));
        Self {
            schema: "loadmaster.memory/1".to_owned(),
            engine_profile: facts.profile.name.clone(),
            model: ModelName::new(&facts.survey.model, &facts.survey.path).from(facts.survey.origin),
            settings: SettingView::all(facts.settings),
            context: (&requirement.context).into(),
            devices: places.map(|device| PlaceView::new(facts, device, id(device))).collect(),
            recommendations: recommendations(facts, &id),
            layers: layers(requirement),
            notes: requirement.notes.clone(),
            explanations: facts.explanations.iter().map(|explanation| explained(explanation, id(explanation.device))).collect(),
            proof: None,
        }
    }

    /// One bar per place, for pictures: what is in use at peak before the server's caches have grown.
    pub fn bars(&self) -> Vec<Bar> {
        self.devices.iter().map(PlaceView::bar).collect()
    }

    /// Model and engine on one line.
    pub fn title(&self) -> String {
        format!("{} on {}", self.model, self.engine_profile)
    }
}

fn explained(explanation: &Explanation, id: String) -> ExplanationView {
    let component = explanation.component.to_string();
    ExplanationView { id, component, bytes: Quantity::of(&explanation.bytes), steps: explanation.steps.clone() }
}

fn bytes(known: &Known<Bytes>) -> Option<u64> {
    known.get().map(Bytes::get)
}

impl PlaceView {
    fn new(facts: &MemoryFacts<'_>, device: Option<usize>, id: String) -> Self {
        let requirement = facts.requirement;
        let machine = &facts.survey.machine;
        let parts = requirement.parts(device);
        let sums = totals(&parts);
        let (kind, name, memory) = match device {
            None => (PlaceKind::Cpu, machine.facts.cpu.model.value().cloned(), machine.effective_memory_total()),
            Some(device) => {
                let gpu = gpu_of(machine, &facts.survey.target, device).and_then(|gpu| gpu.name.value().cloned());
                let total = facts.survey.target.devices.get(device).map(|device| device.total.clone());
                (PlaceKind::Gpu, gpu, total.unwrap_or_else(|| Known::unknown("no such device")))
            }
        };
        let kinds = if device.is_none() { kinds(&requirement.host) } else { Vec::new() };
        Self {
            name: name.unwrap_or_else(|| id.clone()),
            id,
            kind,
            memory_bytes: bytes(&memory),
            shares_host: device.and_then(|device| requirement.devices.get(device)).is_some_and(|device| device.shares_host),
            load: SizesView::of(&parts, |part| &part.load),
            peak: SizesView::of(&parts, |part| &part.peak),
            interval: IntervalsView { load: intervals(&parts, |part| &part.load), peak: intervals(&parts, |part| &part.peak) },
            total: (&sums).into(),
            resident: match kinds.as_slice() {
                [(_, anonymous), (_, page_cache), (_, pinned)] => {
                    Some(ResidentView { anonymous: anonymous.into(), page_cache: page_cache.into(), pinned: pinned.into() })
                }
                _ => None,
            },
            parts,
            sums,
            kinds,
        }
    }

    fn bar(&self) -> Bar {
        let working = self.parts.iter().filter(|part| !part.component.grows());
        Bar {
            name: self.shown_id().to_owned(),
            parts: working.filter_map(|part| Some((part.component, part.peak.get()?))).filter(|(_, bytes)| !bytes.is_zero()).collect(),
            capacity: self.memory_bytes.map(Bytes::new),
        }
    }

    fn shown_id(&self) -> &str {
        if self.kind == PlaceKind::Cpu { "host" } else { &self.id }
    }
}

/// What the system counts, by kind: anonymous, page cache, page-locked.
fn kinds(host: &HostRequirement) -> Vec<(&'static str, Totals)> {
    let anonymous = Totals { load: host.anonymous_at_load(), working: host.anonymous(), peak: host.anonymous().plus(&host.growth_limit()) };
    let stays = host.mapped();
    // What loading touches of a draft is what it uses.
    let touched = host
        .mapped_touched
        .clone()
        .map(|bytes| bytes + stays.get().unwrap_or_default().saturating_sub(host.weights_mapped.get().unwrap_or_default()));
    let page_cache = Totals { load: touched, working: stays.clone(), peak: stays };
    let pinned = Totals { load: host.pinned.clone(), working: host.pinned.clone(), peak: host.pinned.clone() };
    vec![("anonymous", anonymous), ("pages of the file", page_cache), ("page-locked", pinned)]
}

impl From<&Totals> for TotalsView {
    fn from(totals: &Totals) -> Self {
        Self { load: bytes(&totals.load), working: bytes(&totals.working), peak: bytes(&totals.peak) }
    }
}

impl SizesView {
    fn of(parts: &[Part], size: impl Fn(&Part) -> &Known<Bytes>) -> Self {
        // A component that a place does not have is exactly nothing.
        let get = |component| parts.iter().find(|part| part.component == component).map_or(Some(0), |part| bytes(size(part)));
        let named = [Component::Weights, Component::KvCache, Component::State, Component::Compute, Component::Output];
        let further = parts.iter().filter(|part| !named.contains(&part.component));
        Self {
            weights: get(Component::Weights),
            kv_cache: get(Component::KvCache),
            recurrent_state: get(Component::State),
            compute: get(Component::Compute),
            output: get(Component::Output),
            further: further.map(|part| (part.component.to_string(), bytes(size(part)))).collect(),
        }
    }
}

fn intervals(parts: &[Part], size: impl Fn(&Part) -> &Known<Bytes>) -> BTreeMap<String, IntervalView> {
    let ends = |known: &Known<Bytes>| IntervalView { low: known.low().map(|b| b.get()), high: known.high().map(|b| b.get()) };
    parts.iter().map(|part| (part.component.to_string(), ends(size(part)))).collect()
}

fn recommendations(facts: &MemoryFacts<'_>, id: &dyn Fn(Option<usize>) -> String) -> RecommendationsView {
    let known = loadmaster::footprint::recommend(facts.requirement);
    let sizing =
        |sizing: &Sizing| SizingView { minimum_bytes: bytes(&sizing.minimum), recommended_bytes: sizing.recommended.map(Bytes::get) };
    let vram = known.devices.iter().enumerate().map(|(device, of)| DeviceSizingView { id: id(Some(device)), sizing: sizing(of) });
    let suggestion = |saving: &Saving| SuggestionView {
        setting: saving.setting.to_owned(),
        flag: super::flag_of(saving.setting),
        from: saving.from.clone(),
        to: saving.to.clone(),
        frees_bytes: std::iter::once((HOST.to_owned(), saving.host))
            .chain(saving.devices.iter().enumerate().map(|(device, &freed)| (id(Some(device)), freed)))
            .collect(),
        exact: saving.exact,
        costs: saving.cost.to_owned(),
    };
    RecommendationsView {
        ram: sizing(&known.ram),
        vram: vram.collect(),
        swap_bytes: bytes(&known.swap),
        suggestions: facts.savings.iter().map(suggestion).collect(),
        known: Some(known),
    }
}

impl View for MemoryView {
    fn text(&self, text: &mut Text) {
        text.line(self.title());
        text.line(self.context.sentence());
        // GPUs are what people look at first.
        for place in self.devices.iter().skip(1).chain(self.devices.first()) {
            place.text(&self.layers, text);
        }
        text.section("At peak");
        let mut bars = self.bars();
        bars.rotate_left(1.min(self.devices.len()));
        chart(&bars, text);
        self.recommendations.text(text);
        if !self.notes.is_empty() {
            text.section("Notes");
            text.notes(&self.notes);
        }
        if !self.explanations.is_empty() {
            explanations(&self.explanations, text);
        }
        if let Some(proof) = &self.proof {
            super::receipt::proof_text(proof, text);
        }
        if text.verbose() {
            text.section("Settings");
            text.fields(self.settings.iter().map(|setting| (setting.flag.clone(), setting.value.clone())));
        }
    }
}

fn shown(known: &Known<Bytes>) -> String {
    central(&Quantity::of(known))
}

/// The interval of an estimate, or why there is no value; empty where it is exact.
fn detail(known: &Known<Bytes>, verbose: bool) -> String {
    match known {
        Known::Exact { source, .. } if verbose => format!("[{source}]"),
        Known::Exact { .. } => String::new(),
        Known::Estimated { low, high, source, .. } if verbose => format!("{low} to {high}  [{source}]"),
        Known::Estimated { low, high, .. } => format!("{low} to {high}"),
        Known::Unknown { reason } => reason.to_string(),
    }
}

impl PlaceView {
    /// Components that are not zero, then their sums.
    fn text(&self, layers: &[LayersView], text: &mut Text) {
        let device = self.shown_id();
        let of = self.memory_bytes.map(|bytes| format!(" of {}", Bytes::new(bytes))).unwrap_or_default();
        let of = if self.shares_host { format!("{of} of the host's memory") } else { of };
        text.section(format_args!("{}{}", LayersView::title(layers, device), styled(DIM, of)));
        let mut table = Table::new([Align::Left, Align::Right, Align::Right, Align::Left]);
        table.header(["", "LOAD", "PEAK", ""]);
        let zero = |part: &&Part| [&part.load, &part.peak].iter().all(|known| known.high() == Some(&Bytes::ZERO));
        let row = |name: &str, load: &Known<Bytes>, peak: &Known<Bytes>, style| {
            let cells = [name.to_owned(), shown(load), shown(peak)].map(|cell| Cell::styled(style, cell));
            cells.into_iter().chain([Cell::styled(DIM, detail(peak, text.verbose()))]).collect::<Vec<_>>()
        };
        let plain = anstyle::Style::new();
        for part in self.parts.iter().filter(|part| !part.component.grows() && !zero(part)) {
            table.row(row(part.component.title(), &part.load, &part.peak, plain));
        }
        table.row(row("total", &self.sums.load, &self.sums.working, HEADING));
        for (name, kind) in self.kinds.iter().filter(|(_, kind)| kind.peak.get() != Some(Bytes::ZERO)) {
            table.row(row(&format!("  {name}"), &kind.load, &kind.working, plain));
        }
        text.table(&table);
        for part in self.parts.iter().filter(|part| part.component.grows() && !zero(part)) {
            let limit = part.peak.high().map_or_else(|| shown(&part.peak), ToString::to_string);
            text.note(CAUTION, "!", format_args!("{}: empty at load, may grow to {limit}", part.component.title()));
        }
    }
}

impl RecommendationsView {
    fn text(&self, text: &mut Text) {
        let Some(known) = &self.known else { return };
        text.section("What to have");
        let mut table = Table::new([Align::Left, Align::Right, Align::Right, Align::Left]);
        table.header(["", "MINIMUM", "RECOMMENDED", ""]);
        let enough = |sizing: &Sizing| sizing.recommended.map_or_else(|| "unknown".to_owned(), |bytes| bytes.to_string());
        for (of, sizing) in self.vram.iter().zip(&known.devices) {
            table.row([Cell::plain(&of.id), Cell::plain(shown(&sizing.minimum)), Cell::plain(enough(sizing)), Cell::plain("")]);
        }
        let beside = Cell::styled(DIM, "beside what the system itself takes");
        table.row([Cell::plain("RAM"), Cell::plain(shown(&known.ram.minimum)), Cell::plain(enough(&known.ram)), beside]);
        if let Some(swap) = known.swap.high().filter(|swap| !swap.is_zero()) {
            let why = Cell::styled(DIM, "of the recommended memory may lie in swap: no token waits for it");
            table.row([Cell::plain("swap"), Cell::plain(""), Cell::plain(swap.to_string()), why]);
        }
        text.table(&table);
        if self.suggestions.is_empty() {
            return;
        }
        text.section("What would take less");
        let mut table = Table::new([Align::Left, Align::Left, Align::Left]);
        for suggestion in &self.suggestions {
            let change = format!("{} {} -> {}", suggestion.setting, suggestion.from, suggestion.to);
            table.row([Cell::plain(change), Cell::styled(GOOD, suggestion.freed()), Cell::styled(DIM, &suggestion.costs)]);
        }
        text.table(&table);
    }
}

impl SuggestionView {
    /// What is freed where, and what is taken: `frees 1.35 GiB on CUDA0, takes 1.30 GiB on host`.
    fn freed(&self) -> String {
        let about = if self.exact { "" } else { "~" };
        let mut said = Vec::new();
        for (verb, sign) in [("frees", 1_i64), ("takes", -1)] {
            let mut sizes: Vec<(&str, u64)> = self
                .frees_bytes
                .iter()
                .filter(|(_, bytes)| bytes.signum() == sign && bytes.unsigned_abs() >= 1 << 16)
                .map(|(id, bytes)| (if id == HOST { "host" } else { id.as_str() }, bytes.unsigned_abs()))
                .collect();
            sizes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
            if !sizes.is_empty() {
                let sizes: Vec<_> = sizes.iter().map(|(id, bytes)| format!("{about}{} on {id}", Bytes::new(*bytes))).collect();
                said.push(format!("{verb} {}", sizes.join(" and ")));
            }
        }
        said.join(", ")
    }
}

fn explanations(explanations: &[ExplanationView], text: &mut Text) {
    text.section("How each number comes about");
    for explanation in explanations {
        let place = if explanation.id == HOST { "host" } else { &explanation.id };
        let component = explanation.component.replace('_', " ");
        let source = match &explanation.bytes {
            Quantity::Exact { source, .. } | Quantity::Estimated { source, .. } => source,
            Quantity::Unknown { reason } => reason,
        };
        text.line(format_args!("  {}", styled(HEADING, format_args!("{place} {component}: {}", explanation.bytes))));
        text.note(DIM, "  rule", source);
        for step in &explanation.steps {
            text.note(DIM, "  -", step);
        }
    }
}
