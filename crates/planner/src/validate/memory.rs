//! Memory against the machine: limits, margins, residency, growth.

use super::rules::{error, warning};
use super::{Author, Context, Violation};
use crate::plan::pools::Pools;
use crate::plan::{Budget, Margin, Pool};
use footprint::{Companions, HostRequirement, Requirement};
use spec::settings::LoadMode;
use spec::{Bytes, Settings};

/// Share of the free memory above which a user's own settings are worth a warning.
const TIGHT: f64 = 0.9;

pub(super) fn memory(
    context: &Context<'_>,
    settings: &Settings,
    companions: &Companions,
    author: Author<'_>,
    margin: Option<Margin>,
    found: &mut Vec<Violation>,
) {
    let requirement = match footprint::require_with(context.model, settings, context.target, &context.engine.profile, companions) {
        Ok(requirement) => requirement,
        Err(refusal) => {
            found.push(error("engine-refuses", "memory", refusal.to_string(), "change the setting it names"));
            return;
        }
    };
    let pools = Pools::of(context.machine, context.target, margin);
    for budget in pools.budgets(&requirement) {
        found.extend(pool(&budget, author));
    }
    let Some(free) = pools.host.free.low().copied() else { return };
    residency(&requirement, free, found);
    growth(&requirement, settings, free, found);
    locking(&requirement.host, settings, free, found);
}

fn pool(budget: &Budget, author: Author<'_>) -> Option<Violation> {
    let free = *budget.free.low()?;
    let needed = *budget.needed.high()?;
    let name = &budget.pool;
    if needed > free {
        let message = format!("{name} needs {needed}, and {free} are free");
        let fix = match budget.pool {
            Pool::Host => "take a shorter context, --no-repack, or fewer layers on the host",
            _ => "take fewer layers there (-ngl, --n-cpu-moe), a shorter context, or a smaller micro-batch",
        };
        return Some(error("memory-over-limit", "memory", message, fix));
    }
    let share = budget.share()?;
    let margin = match author {
        Author::Planner { .. } => budget.limit.is_some_and(|limit| needed > limit),
        Author::User => share > TIGHT,
    };
    margin.then(|| {
        let message = format!("{name} is filled to {:.0} %: {needed} of {free} free", share * 100.0);
        warning("memory-tight", "memory", message, "leave a tenth for peaks and for other programs")
    })
}

/// Mapped weights that do not stay in memory.
fn residency(requirement: &Requirement, free: Bytes, found: &mut Vec<Violation>) {
    let (Some(&resident), Some(&mapped)) = (requirement.resident().high(), requirement.host.weights_mapped.high()) else { return };
    if !mapped.is_zero() && resident > free && requirement.held().high().is_some_and(|&held| held <= free) {
        let missing = resident.saturating_sub(free);
        let message = format!("{mapped} of mapped weights do not stay in memory ({missing} too many): tokens wait for the disk");
        found.push(warning("weights-not-resident", "load_mode", message, "take a smaller quantisation, or put more layers on a GPU"));
    }
}

/// What a server takes later.
fn growth(requirement: &Requirement, settings: &Settings, free: Bytes, found: &mut Vec<Violation>) {
    let (Some(&growth), Some(&resident)) = (requirement.host.growth_limit().high(), requirement.resident().high()) else { return };
    if resident <= free && resident + growth > free {
        let left = free.saturating_sub(resident);
        let message = format!("prompt cache ({} MiB) and checkpoints may grow to {growth}, and {left} are left", settings.cache_ram_mib);
        let fix = format!("take -cram {} or fewer checkpoints (-ctxcp)", left.scale(0.5).get() >> 20);
        found.push(warning("prompt-cache-may-grow", "cache_ram_mib", message, fix));
    }
}

/// Locked memory needs a limit that is high enough, which is not known here.
fn locking(host: &HostRequirement, settings: &Settings, free: Bytes, found: &mut Vec<Violation>) {
    if !matches!(settings.load_mode, LoadMode::Mlock | LoadMode::MmapMlock) {
        return;
    }
    let weights = host.weights_mapped.plus(&host.weights_anonymous);
    let Some(&bytes) = weights.high() else { return };
    if bytes > free {
        let message = format!("{bytes} of weights cannot be locked in {free} of free memory");
        found.push(error("lock-over-memory", "load_mode", message, "take -lm auto"));
    } else {
        let message = format!("locking {bytes} needs a limit on locked memory at least as high (ulimit -l)");
        found.push(warning("lock-limit", "load_mode", message, "raise the limit, or take -lm auto"));
    }
}
