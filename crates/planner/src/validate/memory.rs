//! Memory against the machine: limits, margins, residency, growth.

use super::table::{
    ENGINE_REFUSES, LOCK_LIMIT, LOCK_OVER_MEMORY, MAPPED_TIGHT, MEMORY_OVER_LIMIT, MEMORY_TIGHT, PROMPT_CACHE_MAY_GROW, SHARED_LIMIT,
    WEIGHTS_NOT_RESIDENT,
};
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
            found.push(ENGINE_REFUSES.broken("memory", refusal.to_string(), "change the setting it names"));
            return;
        }
    };
    let pools = Pools::of(context.machine, context.target, margin);
    let budgets = pools.budgets(&requirement);
    for budget in &budgets {
        found.extend(pool(budget, author));
    }
    shared(context, &budgets, found);
    super::conditions::conditions(context, settings, &requirement, found);
    super::numa::memory(context, settings, &requirement, found);
    let Some(free) = pools.host.free.low().copied() else { return };
    // Where a limit leaves mapped files out, they lie beside it.
    let with_files = context.machine.effective_memory_with_files().low().copied().unwrap_or(free);
    residency(&requirement, (free, with_files), pools.host.with_files.filter(|_| matches!(author, Author::Planner { .. })), found);
    growth(&requirement, settings, (free, with_files), found);
    locking(&requirement.host, settings, with_files, found);
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
        return Some(MEMORY_OVER_LIMIT.broken("memory", message, fix));
    }
    let share = budget.share()?;
    let margin = match author {
        Author::Planner { .. } => budget.limit.is_some_and(|limit| needed > limit),
        Author::User => share > TIGHT,
    };
    margin.then(|| {
        let message = format!("{name} is filled to {:.0} %: {needed} of {free} free", share * 100.0);
        MEMORY_TIGHT.broken("memory", message, "leave a tenth for peaks and for other programs")
    })
}

/// GPUs in the host's memory against the limit that the system sets them, where the host has more than that.
fn shared(context: &Context<'_>, budgets: &[Budget], found: &mut Vec<Violation>) {
    // The limit may be raised to most of the memory that there is, whoever holds it now.
    let host = context.machine.effective_memory_total().low().copied();
    for budget in budgets.iter().filter(|budget| budget.shares_host) {
        let (Some(&free), Some(&needed), Some(host)) = (budget.free.low(), budget.needed.high(), host) else { continue };
        if needed.as_f64() > free.as_f64() * TIGHT && host.as_f64() * TIGHT > needed.as_f64() {
            let message = format!("{} takes {needed} of the {free} that it may have of {host}", budget.pool);
            let fix = match context.machine.facts.platform.os.as_str() {
                "macos" => format!("sudo sysctl iogpu.wired_limit_mb={}", host.scale(TIGHT).get() >> 20),
                "linux" => "raise the GPU's share: ttm.pages_limit (amdgpu) on the kernel's command line".to_owned(),
                _ => SHARED_LIMIT.fix.to_owned(),
            };
            found.push(SHARED_LIMIT.broken("memory", message, fix));
        }
    }
}

/// Mapped weights that do not stay in memory, or only as long as nobody else wants any: past `limit`, or a tenth of what is free.
fn residency(requirement: &Requirement, (free, with_files): (Bytes, Bytes), limit: Option<Bytes>, found: &mut Vec<Violation>) {
    let (Some(&resident), Some(&mapped)) = (requirement.resident().high(), requirement.host.weights_mapped.high()) else { return };
    if mapped.is_zero() || requirement.held().high().is_none_or(|&held| held > free) {
        return;
    }
    if resident > with_files {
        let missing = resident.saturating_sub(with_files);
        let message = format!("{mapped} of mapped weights do not stay in memory ({missing} too many): tokens wait for the disk");
        let fix = "take a smaller quantisation, or put more layers on a GPU";
        found.push(WEIGHTS_NOT_RESIDENT.broken("load_mode", message, fix));
    } else if resident > limit.unwrap_or(with_files.scale(TIGHT)) {
        let left = with_files.saturating_sub(resident);
        let message = format!("{mapped} of mapped weights leave {left} of {with_files}: another program's first need pushes them out");
        found.push(MAPPED_TIGHT.broken("load_mode", message, MAPPED_TIGHT.fix));
    }
}

/// What a server takes later.
fn growth(requirement: &Requirement, settings: &Settings, (free, with_files): (Bytes, Bytes), found: &mut Vec<Violation>) {
    let (Some(&growth), Some(&resident)) = (requirement.host.growth_limit().high(), requirement.resident().high()) else { return };
    let held = requirement.held().high().copied().unwrap_or(resident);
    let left = with_files.saturating_sub(resident).min(free.saturating_sub(held));
    if resident <= with_files && held <= free && growth > left {
        let message = format!("prompt cache ({} MiB) and checkpoints may grow to {growth}, and {left} are left", settings.cache_ram_mib);
        // Half of what is left, of which checkpoints take theirs.
        let checkpoints = growth.saturating_sub(Bytes::from_mib(u64::from(settings.cache_ram_mib)));
        let fix = match left.scale(0.5).saturating_sub(checkpoints).get() >> 20 {
            0 => "take fewer checkpoints (-ctxcp), or -cram 0".to_owned(),
            cache => format!("take -cram {cache} or fewer checkpoints (-ctxcp)"),
        };
        found.push(PROMPT_CACHE_MAY_GROW.broken("cache_ram_mib", message, fix));
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
        found.push(LOCK_OVER_MEMORY.broken("load_mode", message, "take -lm auto"));
    } else {
        let message = format!("locking {bytes} needs a limit on locked memory at least as high (ulimit -l)");
        found.push(LOCK_LIMIT.broken("load_mode", message, "raise the limit, or take -lm auto"));
    }
}
