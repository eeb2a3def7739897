//! VALIDATE: the rules of engine and machine over settings. Only [`validate()`] makes a [`ValidPlan`], and only that can be
//! emitted.

mod conditions;
mod cores;
mod memory;
mod numa;
mod rules;
mod table;

pub use table::{RULES, Rule};

use crate::emit::Tool;
use crate::plan::{Margin, Plan, Request};
use footprint::bitnet::BitNet;
use footprint::{Companions, EngineProfile, Target};
use spec::{Machine, Model, Settings};
use std::collections::BTreeSet;
use std::fmt;

/// What is known of the engine that will run.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineRules {
    /// Which of its programs.
    pub tool: Tool,
    /// Its version in its own words, where known.
    pub version: Option<String>,
    /// Every flag that its `--help` names, dashes included; `None` where it was not asked: then the newest spellings are
    /// assumed.
    pub accepted: Option<BTreeSet<String>>,
    /// Its memory rules.
    pub profile: EngineProfile,
}

impl EngineRules {
    /// The bundled engine, which takes [`Settings`] as they are.
    pub fn bundled() -> Self {
        Self { tool: Tool::Bundled, version: None, accepted: None, profile: EngineProfile::bundled() }
    }

    /// The BitNet engine of this program.
    pub fn bitnet(engine: BitNet) -> Self {
        Self { tool: Tool::BitNet, version: None, accepted: None, profile: EngineProfile::bitnet(engine) }
    }
}

/// Everything that settings are checked against.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The model.
    pub model: &'a Model,
    /// The devices.
    pub target: &'a Target,
    /// The engine.
    pub engine: &'a EngineRules,
}

/// How bad a violation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It will run, but not as well or as safely as it could.
    Warning,
    /// It will not run, or not as written.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A rule that settings break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// How bad it is.
    pub severity: Severity,
    /// Stable name of the rule in [`RULES`]: `context-above-trained`.
    pub rule: &'static str,
    /// The setting, by its name in [`Settings`]; `memory` where it is their sum.
    pub setting: &'static str,
    /// What is wrong, with both sides.
    pub message: String,
    /// What to do.
    pub fix: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}] {}: {}; {}", self.severity, self.rule, self.setting, self.message, self.fix)
    }
}

/// Every rule that settings break.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Errors first, then in the order of the rules.
    pub violations: Vec<Violation>,
}

impl Report {
    /// True without any error; warnings may be there.
    pub fn is_valid(&self) -> bool {
        self.errors().next().is_none()
    }
    /// The errors.
    pub fn errors(&self) -> impl Iterator<Item = &Violation> {
        self.violations.iter().filter(|violation| violation.severity == Severity::Error)
    }
    /// True where an error is one of memory: there is too little for the settings.
    pub fn lacks_memory(&self) -> bool {
        let of_memory = [table::MEMORY_OVER_LIMIT.id, table::LOCK_OVER_MEMORY.id];
        self.errors().any(|error| of_memory.contains(&error.rule))
    }
    /// The warnings.
    pub fn warnings(&self) -> impl Iterator<Item = &Violation> {
        self.violations.iter().filter(|violation| violation.severity == Severity::Warning)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, violation) in self.violations.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            violation.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// A plan that the engine will accept. Only [`validate()`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidPlan {
    plan: Plan,
    engine: EngineRules,
    warnings: Vec<Violation>,
}

impl ValidPlan {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
    /// The engine it was checked against.
    pub fn engine(&self) -> &EngineRules {
        &self.engine
    }
    /// Warnings met on the way.
    pub fn warnings(&self) -> &[Violation] {
        &self.warnings
    }
}

/// Whose settings are checked: a plan leaves margins on purpose and never passes the trained context by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Author<'a> {
    User,
    Planner {
        /// Names of what the user has pinned.
        pinned: &'a [&'static str],
    },
}

/// The rule of this name.
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.id == id)
}

/// Checks settings, a user's own included, against machine, model and engine.
pub fn check(context: &Context<'_>, settings: &Settings) -> Report {
    check_as(context, settings, &Companions::default(), Author::User, None)
}

/// As [`check`], with the requests that the settings are for, and what is loaded beside the model.
pub fn check_for(context: &Context<'_>, settings: &Settings, request: &Request) -> Report {
    let mut report = check_as(context, settings, &request.companions, Author::User, None);
    rules::requests(context, settings, &request.demand().workload, &mut report.violations);
    report
}

/// Settings that the engine ignores without a word, or makes something else of: for results that are no verdict on them.
pub fn ignored(context: &Context<'_>, settings: &Settings) -> Report {
    let mut violations = Vec::new();
    let chosen = context.target.only(&settings.devices).ok();
    let context = &Context { target: chosen.as_deref().unwrap_or(context.target), ..*context };
    rules::numbers(context, settings, &mut violations);
    rules::context_size(context, settings, Author::User, &mut violations);
    rules::placement(context, settings, &mut violations);
    rules::overrides(context, settings, &mut violations);
    cores::cpus(context, settings, &mut violations);
    numa::nodes(context, settings, &mut violations);
    violations.retain(|violation| rule(violation.rule).is_some_and(|rule| rule.quiet));
    Report { violations }
}

/// Errors of pinned settings that the engine refuses whatever memory there is: a plan cannot mend them.
pub(crate) fn refused_pins(context: &Context<'_>, settings: &Settings, pinned: &[&'static str]) -> Vec<Violation> {
    let mut violations = Vec::new();
    rules::numbers(context, settings, &mut violations);
    rules::context_size(context, settings, Author::Planner { pinned }, &mut violations);
    rules::cache(context, settings, &mut violations);
    rules::placement(context, settings, &mut violations);
    rules::overrides(context, settings, &mut violations);
    cores::cpus(context, settings, &mut violations);
    numa::nodes(context, settings, &mut violations);
    violations.retain(|violation| violation.severity == Severity::Error && pinned.contains(&violation.setting));
    violations
}

fn check_as(context: &Context<'_>, settings: &Settings, companions: &Companions, author: Author<'_>, margin: Option<Margin>) -> Report {
    // A name that no device has is told with the memory that the engine would refuse.
    let chosen = context.target.only(&settings.devices).ok();
    let context = &Context { target: chosen.as_deref().unwrap_or(context.target), ..*context };
    let mut violations = Vec::new();
    rules::numbers(context, settings, &mut violations);
    rules::context_size(context, settings, author, &mut violations);
    rules::cache(context, settings, &mut violations);
    rules::placement(context, settings, &mut violations);
    rules::overrides(context, settings, &mut violations);
    cores::cpus(context, settings, &mut violations);
    numa::nodes(context, settings, &mut violations);
    rules::expressible(context, settings, &mut violations);
    memory::memory(context, settings, companions, author, margin, &mut violations);
    violations.sort_by_key(|violation| std::cmp::Reverse(violation.severity));
    Report { violations }
}

/// Turns a plan into one that can be emitted.
///
/// A [`ValidPlan`] has no other origin:
///
/// ```compile_fail
/// fn forge(plan: planner::Plan, engine: planner::EngineRules) -> planner::ValidPlan {
///     planner::ValidPlan { plan, engine, warnings: Vec::new() }
/// }
/// ```
///
/// # Errors
/// Every rule the plan breaks, not only the first; warnings come along.
pub fn validate(plan: Plan, context: &Context<'_>) -> Result<ValidPlan, Report> {
    let pinned = plan.request.pins.names();
    let mut report =
        check_as(context, &plan.settings, &plan.request.companions, Author::Planner { pinned: &pinned }, plan.request.preferences.margin);
    rules::requests(context, &plan.settings, &plan.request.demand().workload, &mut report.violations);
    if report.is_valid() { Ok(ValidPlan { plan, engine: context.engine.clone(), warnings: report.violations }) } else { Err(report) }
}
