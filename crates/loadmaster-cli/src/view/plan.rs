//! `plan`: the settings chosen, what they need, how fast they should be, and why.

use super::knobs::{KnobView, knobs_text};
use super::pareto::{AlternativeView, MeritsView};
use super::requirement::central;
use super::{ModelName, PrecisionView, Quantity, Rate, RequirementView, SCHEMA_VERSION, SettingView, Size, View};
use crate::render::{Align, BAD, CAUTION, COMMAND, Cell, DIM, GOOD, HEADING, Table, Text, styled};
use loadmaster::planner::emit::Invocation;
use loadmaster::planner::plan::{Budget, Change, Deviation, Downgrade, Gate, NearestChange, NoPlan, Plan, Rejected, Rejection};
use loadmaster::planner::predict::Bottleneck;
use loadmaster::planner::validate::Violation;
use loadmaster::receipt::Proof;
use loadmaster::spec::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

/// Result of `loadmaster plan`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PlanView {
    /// Version of this layout.
    pub schema_version: u32,
    /// Whether the wish is met.
    pub verdict: VerdictView,
    /// The model.
    pub model: ModelName,
    /// The machine planned for.
    pub machine: String,
    /// The engine planned for.
    pub engine: String,
    /// The use case planned for.
    pub use_case: String,
    /// `CPU only`, `GPU only`, `hybrid`.
    pub strategy: String,
    /// Every setting, and why it has its value.
    pub settings: Vec<ChoiceView>,
    /// What the settings need.
    pub requirement: RequirementView,
    /// Every pool of memory: what is there and what is used.
    pub budgets: Vec<BudgetView>,
    /// How fast it should be.
    pub speed: SpeedView,
    /// What was given up, in order.
    pub downgrades: Vec<DowngradeView>,
    /// What stands in the way of a better plan.
    pub binding: String,
    /// Why this plan.
    pub reasons: Vec<String>,
    /// What would change the choice.
    pub changes: Vec<ChangeView>,
    /// What the plan is worth, in what alternatives are compared by.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    pub merits: Option<MeritsView>,
    /// Other plans that fit, each better than this one in something.
    pub alternatives: Vec<AlternativeView>,
    /// What the engine would do itself, and how the plan compares; null where that cannot be followed.
    pub gate: Option<GateView>,
    /// Every setting with what it would cost to change it, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    pub knobs: Option<Vec<KnobView>>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// The command that starts it.
    pub command: CommandView,
    /// How the file type was chosen, for a model of which no file was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<PrecisionView>,
    /// The bundled engine's dry run beside what was computed, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// Whether a wish is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerdictView {
    /// In full.
    Fits,
    /// With something given up.
    FitsAfterDowngrade,
    /// Not at all.
    Refused,
}

/// One setting of a plan.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChoiceView {
    /// Its name and value.
    #[serde(flatten)]
    pub setting: SettingView,
    /// `pinned`, `searched`, `rule`, `engine default`.
    pub origin: String,
    /// Why.
    pub because: String,
}

/// One pool of memory.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BudgetView {
    /// `host`, or the engine's name of a GPU.
    pub pool: String,
    /// Memory in all.
    pub total_bytes: Quantity<Size>,
    /// Memory that can be taken now.
    pub free_bytes: Quantity<Size>,
    /// Left free on purpose.
    pub margin_bytes: Size,
    /// What the plan takes and cannot give back.
    pub needed_bytes: Quantity<Size>,
    /// Weights used in place from the mapped file, on top.
    pub mapped_bytes: Quantity<Size>,
    /// Free less margin less the upper end of what is needed; null where that is not known.
    pub left_bytes: Option<Size>,
    /// True for a GPU whose memory is the host's: what it needs is part of what the host needs. Absent where it is false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub shares_host: bool,
    /// Of what the host needs: what GPUs hold that share its memory. Absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_devices_bytes: Option<Quantity<Size>>,
}

/// Predicted speed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SpeedView {
    /// Tokens per second of one sequence while generating.
    pub decode_tokens_per_s: Quantity<Rate>,
    /// Tokens per second while reading a prompt.
    pub prefill_tokens_per_s: Quantity<Rate>,
    /// Tokens in the context for which decode holds.
    pub depth: u32,
    /// What limits decode.
    pub decode_bottleneck: &'static str,
    /// What limits prefill.
    pub prefill_bottleneck: &'static str,
    /// Parts of decode's time per token, largest first.
    pub decode_parts: Vec<TimePartView>,
    /// Rates that were assumed.
    pub assumptions: Vec<String>,
}

/// One part of the time per token.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TimePartView {
    /// What takes it.
    pub what: String,
    /// The kind of cost.
    pub bottleneck: &'static str,
    /// Seconds per token.
    pub seconds: f64,
}

/// Something given up.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DowngradeView {
    /// The setting.
    pub setting: String,
    /// What the use case asks for.
    pub from: String,
    /// What the plan has.
    pub to: String,
    /// Why.
    pub why: String,
    /// What it saves.
    pub saves_bytes: Option<Size>,
    /// Where it saves.
    pub pool: Option<String>,
    /// What it costs in speed or quality; null where that is what `to` says.
    #[serde(default)]
    pub costs: Option<String>,
}

/// What would change the choice.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChangeView {
    /// The change.
    pub what: String,
    /// What the plan would be then.
    pub then: String,
    /// Decode speed then.
    pub decode_tokens_per_s: Quantity<Rate>,
}

/// What the engine would do itself with the plan's context, and how the plan compares.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct GateView {
    /// True where the plan is the engine's own choice.
    pub kept: bool,
    /// Seconds of a typical request under the plan.
    pub plan_request_s: f64,
    /// Seconds of the same request under the engine's own choice; null where a limit or a floor rules that out.
    pub default_request_s: Option<f64>,
    /// Why it is ruled out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    pub default_ruled_out: Option<String>,
    /// Share of the time by which a plan must win to be taken instead.
    pub margin: f64,
    /// Settings in which the plan differs.
    pub deviations: Vec<DeviationView>,
}

/// A setting in which a plan differs from what the engine would do itself.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DeviationView {
    /// Its name and the plan's value.
    #[serde(flatten)]
    pub setting: SettingView,
    /// The engine's value.
    pub default: String,
}

fn gate(gate: &Gate) -> GateView {
    let deviation = |deviation: &Deviation| DeviationView {
        setting: SettingView::new(deviation.setting, deviation.chosen.clone()),
        default: deviation.default.clone(),
    };
    GateView {
        kept: gate.kept(),
        plan_request_s: gate.plan_seconds,
        default_request_s: gate.seconds.as_ref().ok().copied(),
        default_ruled_out: gate.seconds.as_ref().err().cloned(),
        margin: gate.margin,
        deviations: gate.deviations.iter().map(deviation).collect(),
    }
}

/// A command.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CommandView {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment variables that are set.
    pub env: std::collections::BTreeMap<String, String>,
    /// Environment variables that are removed, because they would change settings.
    pub env_remove: Vec<String>,
    /// The whole as a line for a POSIX shell.
    pub line: String,
}

impl From<&Invocation> for CommandView {
    fn from(invocation: &Invocation) -> Self {
        Self {
            program: invocation.program.to_string_lossy().into_owned(),
            args: invocation.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect(),
            env: invocation.env.clone(),
            env_remove: invocation.env_remove.clone(),
            line: invocation.to_string(),
        }
    }
}

/// What a plan is about, for its view.
pub struct Subject<'a> {
    /// The model.
    pub model: ModelName,
    /// The machine, as people would name it.
    pub machine: String,
    /// The engine.
    pub engine: String,
    /// Warnings of the validation.
    pub warnings: &'a [Violation],
}

impl PlanView {
    /// The view of a plan and its command.
    pub fn new(subject: Subject<'_>, plan: &Plan, invocation: &Invocation) -> Self {
        let prediction = &plan.prediction;
        let downgrades = plan.verdict.downgrades();
        Self {
            schema_version: SCHEMA_VERSION,
            verdict: if downgrades.is_empty() { VerdictView::Fits } else { VerdictView::FitsAfterDowngrade },
            model: subject.model,
            machine: subject.machine,
            engine: subject.engine,
            use_case: plan.request.use_case.to_string(),
            strategy: plan.strategy.to_string(),
            settings: plan
                .choices
                .iter()
                .map(|choice| ChoiceView {
                    setting: SettingView::new(choice.setting, choice.value.clone()),
                    origin: choice.origin.to_string(),
                    because: choice.because.clone(),
                })
                .collect(),
            requirement: (&plan.requirement).into(),
            budgets: plan.budgets.iter().map(budget).collect(),
            speed: SpeedView {
                decode_tokens_per_s: Quantity::of(&prediction.decode),
                prefill_tokens_per_s: Quantity::of(&prediction.prefill),
                depth: prediction.depth,
                decode_bottleneck: bottleneck(prediction.decode_bottleneck),
                prefill_bottleneck: bottleneck(prediction.prefill_bottleneck),
                decode_parts: prediction
                    .decode_parts
                    .iter()
                    .map(|part| TimePartView {
                        what: part.what.clone(),
                        bottleneck: bottleneck(part.bottleneck),
                        seconds: part.time.as_secs_f64(),
                    })
                    .collect(),
                assumptions: prediction.assumptions.clone(),
            },
            downgrades: downgrades.iter().map(downgrade).collect(),
            binding: plan.binding.to_string(),
            reasons: plan.reasons.clone(),
            changes: plan.changes.iter().map(change).collect(),
            merits: None,
            alternatives: Vec::new(),
            gate: plan.gate.as_ref().map(gate),
            knobs: None,
            warnings: plan.warnings.iter().cloned().chain(subject.warnings.iter().map(violation_line)).collect(),
            command: invocation.into(),
            precision: None,
            proof: None,
        }
    }
}

fn violation_line(violation: &Violation) -> String {
    format!("{}; {}", violation.message, violation.fix)
}

fn budget(budget: &Budget) -> BudgetView {
    BudgetView {
        pool: budget.pool.to_string(),
        total_bytes: Quantity::of(&budget.total),
        free_bytes: Quantity::of(&budget.free),
        margin_bytes: budget.margin.into(),
        needed_bytes: Quantity::of(&budget.needed),
        mapped_bytes: Quantity::of(&budget.mapped),
        left_bytes: budget.left().map(Into::into),
        shares_host: budget.shares_host,
        of_devices_bytes: (budget.of_devices.high() != Some(&Bytes::ZERO)).then(|| Quantity::of(&budget.of_devices)),
    }
}

fn downgrade(step: &Downgrade) -> DowngradeView {
    DowngradeView {
        setting: step.setting.to_owned(),
        from: step.from.clone(),
        to: step.to.clone(),
        why: step.why.clone(),
        saves_bytes: step.saves.as_ref().map(|(_, bytes)| (*bytes).into()),
        pool: step.saves.as_ref().map(|(pool, _)| pool.to_string()),
        costs: step.costs.clone(),
    }
}

fn change(change: &Change) -> ChangeView {
    ChangeView { what: change.what.clone(), then: change.then.clone(), decode_tokens_per_s: Quantity::of(&change.decode) }
}

/// What a phase waits for, for people.
pub fn bottleneck(bottleneck: Bottleneck) -> &'static str {
    match bottleneck {
        Bottleneck::Bandwidth => "memory bandwidth",
        Bottleneck::Compute => "arithmetic",
        Bottleneck::Link => "link between host and GPU",
        Bottleneck::Disk => "disk",
        Bottleneck::Launch => "fixed cost per layer",
    }
}

impl View for PlanView {
    fn text(&self, text: &mut Text) {
        let verdict = match self.verdict {
            VerdictView::Fits => styled(GOOD, "fits"),
            VerdictView::FitsAfterDowngrade => styled(CAUTION, "fits after downgrade"),
            VerdictView::Refused => styled(BAD, "refused"),
        };
        text.line(format_args!("{verdict}  {}, {}, context {}", self.model, self.strategy, self.requirement.context.n_ctx));
        text.line(styled(DIM, format_args!("on {} for {} with {}", self.machine, self.use_case, self.engine)));
        if let (Some(source), Some(precision)) = (&self.model.assumed, &self.precision) {
            precision.text(source, &self.use_case, text);
        }
        self.downgrades_text(text);
        self.settings_text(text);
        self.memory_text(text);
        self.speed_text(text);
        self.reasons_text(text);
        if !self.warnings.is_empty() {
            text.gap();
            for warning in &self.warnings {
                text.note(CAUTION, "!", warning);
            }
        }
        if let Some(proof) = &self.proof {
            super::receipt::proof_text(proof, text);
        }
        text.section("Command");
        text.line(format_args!("  {}", styled(COMMAND, &self.command.line)));
        if text.verbose() {
            for (name, value) in &self.command.env {
                text.note(DIM, "-", format_args!("with {name}={value} in the environment"));
            }
            text.note(DIM, "-", format_args!("without these in the environment: {}", self.command.env_remove.join(", ")));
        }
    }
}

impl PlanView {
    /// The plan among its alternatives as a picture.
    pub fn picture(&self, merits: &MeritsView) -> String {
        let title = format!("{} on {} for {}", self.model, self.machine, self.use_case);
        let what = self.reasons.first().map_or(self.strategy.as_str(), String::as_str);
        super::pareto::picture(&title, (what, &self.speed.decode_tokens_per_s, merits), &self.alternatives)
    }

    fn downgrades_text(&self, text: &mut Text) {
        if self.downgrades.is_empty() {
            return;
        }
        text.section("Given up");
        text.notes(self.downgrades.iter().map(|step| {
            let saves = match (&step.saves_bytes, &step.pool) {
                (Some(bytes), Some(pool)) => format!(", saves {bytes} on {pool}"),
                _ => String::new(),
            };
            let costs = step.costs.as_ref().map_or(String::new(), |costs| format!(", costs {costs}"));
            format!("{} {} instead of {}{saves}{costs}: {}", step.setting, step.to, step.from, step.why)
        }));
    }

    fn settings_text(&self, text: &mut Text) {
        text.section("Settings");
        let mut table = Table::new([Align::Left, Align::Left, Align::Left]);
        // The engine's defaults are part of the command; they are listed where the reader wants everything.
        for choice in self.settings.iter().filter(|choice| text.verbose() || choice.origin != "engine default") {
            let because = if text.verbose() { format!("{} [{}]", choice.because, choice.origin) } else { choice.because.clone() };
            table.row([
                Cell::plain(choice.setting.flag.clone()),
                Cell::styled(HEADING, choice.setting.value.clone()),
                Cell::styled(DIM, because),
            ]);
        }
        text.table(&table);
    }

    fn memory_text(&self, text: &mut Text) {
        text.section("Memory");
        let mut table = Table::new([Align::Left, Align::Right, Align::Right, Align::Right, Align::Right, Align::Left]);
        // What is left is of the least that may be free and the most that may be needed.
        table.header(["", "needed", "free", "margin", "left at least", ""]);
        for budget in &self.budgets {
            let shared = budget.shares_host.then(|| match &budget.total_bytes {
                Quantity::Exact { source, .. } | Quantity::Estimated { source, .. } => format!("of the host's memory: {source}"),
                Quantity::Unknown { .. } => "of the host's memory".to_owned(),
            });
            let of_devices = budget.of_devices_bytes.as_ref().map(|held| format!("{} of it by GPUs", central(held)));
            let mapped = match budget.mapped_bytes.value() {
                Some(Size(0)) => None,
                _ => Some(format!("and {} mapped from the file", central(&budget.mapped_bytes))),
            };
            let remarks: Vec<String> = [shared, of_devices, mapped].into_iter().flatten().collect();
            let mapped = remarks.join(", ");
            table.row([
                budget.pool.clone(),
                central(&budget.needed_bytes),
                central(&budget.free_bytes),
                budget.margin_bytes.to_string(),
                budget.left_bytes.map_or_else(|| "unknown".to_owned(), |bytes| bytes.to_string()),
                mapped,
            ]);
        }
        text.table(&table);
        if text.verbose() {
            self.requirement.text(text);
        }
    }

    fn speed_text(&self, text: &mut Text) {
        let speed = &self.speed;
        text.section("Speed, estimated");
        text.fields([
            ("decode", format!("{}, limited by {}", text.quantity(&speed.decode_tokens_per_s), speed.decode_bottleneck)),
            ("prefill", format!("{}, limited by {}", text.quantity(&speed.prefill_tokens_per_s), speed.prefill_bottleneck)),
        ]);
        if text.verbose() {
            let mut table = Table::new([Align::Right, Align::Left]);
            for part in &speed.decode_parts {
                table.row([format!("{:.3} ms", part.seconds * 1e3), part.what.clone()]);
            }
            text.table(&table);
            text.notes(&speed.assumptions);
        }
    }

    fn reasons_text(&self, text: &mut Text) {
        text.section(format_args!("Why (bound by {})", self.binding));
        text.notes(&self.reasons);
        if !self.changes.is_empty() {
            text.section("What would change it");
            text.notes(self.changes.iter().map(|change| format!("{}: {}", change.what, change.then)));
        }
        if !self.alternatives.is_empty() {
            text.section("Also possible");
            text.notes(self.alternatives.iter().map(|other| format!("{}: {}", other.what, other.why_not)));
        }
        if let Some(knobs) = &self.knobs {
            knobs_text(knobs, text);
        }
    }
}

/// Result of `loadmaster plan` where nothing fits.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RefusalView {
    /// Version of this layout.
    pub schema_version: u32,
    /// Always `refused`.
    pub verdict: VerdictView,
    /// The model.
    pub model: ModelName,
    /// The machine planned for.
    pub machine: String,
    /// How the model's type was chosen; absent for a file, which has the type that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<PrecisionView>,
    /// What was tried, and what ruled it out.
    pub tried: Vec<RejectedView>,
    /// Changes that would make a plan possible, nearest first.
    pub nearest: Vec<String>,
    /// Pinned settings without which a plan exists.
    pub blame: Vec<String>,
}

/// A candidate that is no plan.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RejectedView {
    /// What was tried.
    pub what: String,
    /// What ruled it out.
    pub because: String,
}

impl RefusalView {
    /// The view of a refusal.
    pub fn new(model: ModelName, machine: String, refusal: &NoPlan) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            verdict: VerdictView::Refused,
            model,
            machine,
            precision: None,
            tried: tried(&refusal.tried),
            nearest: refusal.nearest.iter().map(nearest).collect(),
            blame: refusal.pins.iter().map(|setting| super::flag_of(setting)).collect(),
        }
    }
}

/// Candidates that read the same are one: they differ in what the words do not tell, such as whether weights may be read
/// from disk. Of two that need too much of one memory, the first is told.
fn tried(rejected: &[Rejected]) -> Vec<RejectedView> {
    let mut rows: Vec<(&str, Vec<&Rejection>)> = Vec::new();
    for Rejected { what, rejection, .. } in rejected {
        let Some((_, known)) = rows.iter_mut().find(|(row, _)| row == what) else {
            rows.push((what, vec![rejection]));
            continue;
        };
        let told = known.iter().any(|known| match (known, rejection) {
            (Rejection::DoesNotFit { pool, .. }, Rejection::DoesNotFit { pool: other, .. }) => pool == other,
            (known, other) => known.to_string() == other.to_string(),
        });
        if !told {
            known.push(rejection);
        }
    }
    let because = |reasons: Vec<&Rejection>| reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    rows.into_iter().map(|(what, reasons)| RejectedView { what: what.to_owned(), because: because(reasons) }).collect()
}

fn nearest(change: &NearestChange) -> String {
    match change {
        // The planner does not know how this program spells preferences and settings.
        NearestChange::FromDisk { .. } => format!("{change}: --disk allow"),
        NearestChange::Unpin { setting, pinned, instead } => {
            format!("{} {instead} instead of the pinned {pinned}", super::flag_of(setting))
        }
        NearestChange::LowerFloor { at_most, .. } => format!("{change}: --min-context {at_most}"),
        NearestChange::ShorterPrompt { at_most, .. } => format!("{change}: --prompt-tokens {at_most}"),
        NearestChange::BeyondTrained { n_ctx } => format!("{change}: {} {n_ctx}", super::flag_of("n_ctx")),
        _ => change.to_string(),
    }
}

impl View for RefusalView {
    fn text(&self, text: &mut Text) {
        text.line(format_args!("{}  no plan for {} on {}", styled(BAD, "refused"), self.model, self.machine));
        if let (Some(source), Some(precision)) = (&self.model.assumed, &self.precision) {
            precision.refusal_text(source, text);
        }
        if !self.tried.is_empty() {
            text.section("Tried");
            text.notes(self.tried.iter().map(|tried| format!("{}: {}", tried.what, tried.because)));
        }
        if !self.blame.is_empty() {
            text.gap();
            text.note(CAUTION, "!", format_args!("a plan exists without the pinned {}", self.blame.join(", ")));
        }
        if !self.nearest.is_empty() {
            text.section("It would fit with");
            text.notes(&self.nearest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadmaster::planner::plan::Pool;
    use loadmaster::spec::Settings;

    #[test]
    fn candidates_that_read_the_same_are_one_row() {
        let needs =
            |gib| Rejection::DoesNotFit { pool: Pool::Host, needs: Bytes::from_gib(gib), limit: Bytes::from_gib(8), others: Vec::new() };
        let rejected = |what: &str, rejection| Rejected { what: what.to_owned(), settings: Settings::default(), rejection };
        let impossible = || Rejection::NotPossible("not with this engine".to_owned());
        let rows = tried(&[
            rejected("a", needs(20)),
            rejected("b", needs(30)),
            rejected("a", needs(15)),
            rejected("a", impossible()),
            rejected("a", impossible()),
        ]);
        let rows: Vec<_> = rows.iter().map(|row| format!("{}: {}", row.what, row.because)).collect();
        assert_eq!(
            rows,
            [
                "a: needs 20.00 GiB on host, where 8.00 GiB may be used; not with this engine",
                "b: needs 30.00 GiB on host, where 8.00 GiB may be used"
            ]
        );
    }
}
