//! What a machine could do better, and how: findings with evidence and a way out.
//!
//! A finding is about the machine and this process, not about a model: what slows every model down, what is there and not
//! usable, and what detection could not find out. Pure: a recorded machine has the findings that it had.

mod gpus;
mod host;

use schemars::JsonSchema;
use serde::Serialize;
use spec::Machine;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know: nothing is lost.
    Note,
    /// Models run slower or have less memory than this machine could give.
    Caution,
    /// Something that is there cannot be used at all.
    Problem,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// A stable name, e.g. `battery`.
    pub id: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What is the case, in one sentence.
    pub what: String,
    /// What says so: a value and where it was read.
    pub evidence: String,
    /// What to do about it, where something helps.
    pub fix: Option<String>,
}

impl Finding {
    fn new(id: &'static str, severity: Severity, what: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self { id, severity, what: what.into(), evidence: evidence.into(), fix: None }
    }
    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// Everything that is found, the gravest first.
///
/// ```
/// use loadmaster::doctor::{Severity, findings};
/// let machine = loadmaster::probe::describe("ram=64GiB,cores=8,features=sse4_2").unwrap();
/// let found = findings(&machine);
/// assert_eq!((found[0].id, found[0].severity), ("no-avx2", Severity::Caution));
/// ```
pub fn findings(machine: &Machine) -> Vec<Finding> {
    let mut found = Vec::new();
    host::findings(machine, &mut found);
    gpus::findings(machine, &mut found);
    // What detection itself warned of, in its own words.
    found.extend(machine.warnings.iter().map(|warning| Finding::new("detection", Severity::Caution, warning.clone(), "detection")));
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::machine::{Conditions, GpuCondition, MemoryLimit, MemoryModule, PcieLink, PowerSource};
    use spec::{Bytes, Known};

    fn machine(text: &str) -> Machine {
        probe::describe(text).unwrap()
    }

    fn ids(machine: &Machine) -> Vec<&'static str> {
        findings(machine).iter().map(|finding| finding.id).collect()
    }

    const WELL: &str = "ram=64GiB,cores=8,features=avx2+fma+f16c,gpu=24GiB";

    #[test]
    fn a_machine_without_faults_has_no_findings() {
        assert_eq!(ids(&machine(WELL)), [] as [&str; 0]);
    }

    #[test]
    fn every_rule_of_the_host_finds_its_fault() {
        let mut ill = machine("ram=64GiB,free=2GiB,cores=8,threads=16,features=sse4_2");
        ill.facts.platform.inside = vec!["wsl2".into()];
        ill.facts.memory.huge_pages.transparent = Known::exact("never".into(), "test");
        ill.facts.memory.huge_pages.size = Known::exact(Bytes::from_mib(2), "test");
        ill.facts.memory.huge_pages.reserved = Known::exact(10_000, "test");
        ill.facts.memory.modules = vec![MemoryModule {
            slot: "DIMM A1".into(),
            size: Known::exact(Bytes::from_gib(64), "test"),
            kind: Known::exact("DDR5".into(), "test"),
            transfers_per_s: Known::exact(5_600_000_000, "test"),
            width_bits: Known::exact(64, "test"),
        }];
        ill.facts.memory.swap_total = Known::exact(Bytes::from_gib(8), "test");
        ill.free.swap = Known::exact(Bytes::from_gib(5), "test");
        ill.limits.cpu_quota = Known::exact(1.5, "cpu.max");
        ill.limits.allowed_cpus = Known::exact((0..4).collect(), "affinity");
        ill.limits.memory = vec![MemoryLimit {
            source: "memory.max".into(),
            limit: Bytes::from_gib(4),
            used: Known::exact(Bytes::ZERO, "test"),
            reclaimable: Known::exact(Bytes::ZERO, "test"),
            swap: Known::unknown("test"),
            mapped_files: true,
        }];
        ill.conditions.power = Known::exact(PowerSource::Battery(41), "test");
        ill.conditions.power_profile = Known::exact("low-power".into(), "test");
        ill.conditions.governor = Known::exact("powersave, prefers power".into(), "test");
        ill.conditions.cpu_temperature_c = Known::exact(99.0, "test");
        ill.conditions.cpu_throttled = Known::exact(true, "test");
        let found = ids(&ill);
        for id in [
            "no-avx2",
            "battery",
            "power-profile",
            "governor",
            "hot",
            "throttled",
            "one-memory-module",
            "huge-pages-reserved",
            "huge-pages-off",
            "little-memory-free",
            "swap-in-use",
            "cpu-quota",
            "cpu-set",
            "memory-limit",
            "wsl2",
        ] {
            assert!(found.contains(&id), "{id} is not in {found:?}");
        }
        let severities: Vec<_> = findings(&ill).iter().map(|finding| finding.severity).collect();
        assert!(severities.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn every_rule_of_gpus_finds_its_fault() {
        let mut ill = machine(WELL);
        ill.conditions = Conditions { gpus: vec![GpuCondition::unknown("test")], ..Conditions::unknown(0, "test") };
        let gpu = &mut ill.facts.gpus[0];
        gpu.host_visible = Known::exact(Bytes::from_mib(256), "test");
        gpu.pcie = Known::exact(PcieLink { generation: 4, lanes: 16 }, "test");
        let now = &mut ill.conditions.gpus[0];
        now.link = Known::exact(PcieLink { generation: 1, lanes: 4 }, "test");
        now.throttled = Known::exact("thermal".into(), "test");
        ill.free.gpu_memory[0] = Known::exact(Bytes::from_gib(3), "test");
        assert_eq!(ids(&ill), ["gpu-lanes", "gpu-throttled", "gpu-memory-taken", "gpu-bar"]);
        ill.limits.visible_gpus.clear();
        assert!(ids(&ill).contains(&"gpu-not-visible"));
        ill.facts.gpus[0].memory_total = Known::unknown("timed out");
        assert!(ids(&ill).contains(&"gpu-memory-unknown"));
    }

    #[test]
    fn a_link_that_only_rests_is_no_fault() {
        let mut idle = machine(WELL);
        idle.facts.gpus[0].pcie = Known::exact(PcieLink { generation: 4, lanes: 16 }, "test");
        idle.conditions.gpus = vec![GpuCondition::unknown("test")];
        idle.conditions.gpus[0].link = Known::exact(PcieLink { generation: 1, lanes: 16 }, "test");
        assert_eq!(ids(&idle), [] as [&str; 0]);
    }
}
