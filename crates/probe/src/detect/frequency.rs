//! Frequencies of the processor: the one it keeps, and the highest that it reaches.
//!
//! `base_frequency` is intel_pstate's, `nominal_freq` that of ACPI CPPC (Linux
//! Documentation/admin-guide/pm/{intel_pstate,cpufreq}.rst, Documentation/ABI/testing/sysfs-devices-system-cpu).

use super::cpuinfo::CpuInfo;
use super::topology::{CPU, Topology};
use super::x86;
use crate::host::Host;
use spec::Known;

/// A frequency below is a placeholder: some firmware writes 0 or 1.
const LEAST: u64 = 100_000_000;

/// The frequency that all cores keep; the highest of the kinds of core.
pub(crate) fn base_hz(host: &dyn Host, topology: &Topology, info: &CpuInfo) -> Known<u64> {
    const WHY: &str = "the system names no base frequency";
    let plausible = |hz: &u64| *hz >= LEAST;
    let read = |cpu: u32, file: &str, unit: u64| host.number(&format!("{CPU}/cpu{cpu}/{file}"))?.checked_mul(unit).filter(plausible);
    // Kinds of core differ in it; cores of one kind do not. Hybrid processors number one kind after the other.
    let ends = [topology.cores.first(), topology.cores.last()].into_iter().flatten().filter_map(|core| core.first().copied());
    let highest = |file: &str, unit| ends.clone().filter_map(|cpu| read(cpu, file, unit)).max();
    if let Some(hz) = highest("cpufreq/base_frequency", 1_000) {
        return Known::exact(hz, "sysfs cpufreq/base_frequency");
    }
    if let Some(hz) = highest("acpi_cppc/nominal_freq", 1_000_000) {
        return Known::exact(hz, "sysfs acpi_cppc/nominal_freq");
    }
    if let Some(hz) = info.model.as_deref().and_then(from_name).filter(plausible) {
        return Known::exact(hz, "the processor's name");
    }
    Known::from_option(x86::frequencies(host).0.filter(plausible), "CPUID leaf 0x16", WHY)
}

/// The frequency in Intel's names: `Intel(R) Xeon(R) CPU @ 2.20GHz`.
fn from_name(name: &str) -> Option<u64> {
    let (_, after) = name.rsplit_once('@')?;
    let after = after.trim();
    let (number, unit) = match after.strip_suffix("GHz") {
        Some(number) => (number, 1e9),
        None => (after.strip_suffix("MHz")?, 1e6),
    };
    let hz = number.trim().parse::<f64>().ok()? * unit;
    (hz.is_finite() && hz > 0.0 && hz < 1e12).then_some(hz.round() as u64)
}

/// The highest frequency of any core. Each core is asked: favoured ones reach more.
pub(crate) fn max_hz(host: &dyn Host, topology: &Topology) -> Known<u64> {
    let khz = |cpu: u32| host.number(&format!("{CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq"));
    let mut cores = topology.cores.iter().filter_map(|core| core.first().copied());
    // Where the first core names none, none does.
    let first = cores.next().and_then(khz);
    let highest = first.map(|first| cores.filter_map(khz).fold(first, u64::max));
    match highest.and_then(|khz| khz.checked_mul(1000)) {
        Some(hz) => Known::exact(hz, "sysfs cpufreq/cpuinfo_max_freq"),
        None => Known::from_option(x86::frequencies(host).1, "CPUID leaf 0x16", "the kernel names no frequency"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};
    use std::collections::BTreeSet;

    fn topology() -> Topology {
        let cores: Vec<BTreeSet<u32>> = vec![[0, 1].into(), [2].into()];
        Topology { cpus: [0, 1, 2].into(), cores, cores_source: Some("test"), ..Topology::default() }
    }

    fn host(files: &[(&str, &str)]) -> Recording {
        let mut host = Recording::new("");
        for (path, text) in files {
            host.set(&Question::Read(format!("{CPU}/{path}")), Ok(Answer::text(*text)));
        }
        host
    }

    #[test]
    fn the_fastest_kind_counts_and_zero_is_no_frequency() {
        let base = |files| base_hz(&host(files), &topology(), &CpuInfo::default()).get();
        assert_eq!(base(&[("cpu0/cpufreq/base_frequency", "3200000"), ("cpu2/cpufreq/base_frequency", "2400000")]), Some(3_200_000_000));
        assert_eq!(base(&[("cpu0/acpi_cppc/nominal_freq", "0")]), None);
        assert_eq!(base(&[("cpu2/acpi_cppc/nominal_freq", "2250")]), Some(2_250_000_000));
        let highest = max_hz(&host(&[("cpu0/cpufreq/cpuinfo_max_freq", "1"), ("cpu2/cpufreq/cpuinfo_max_freq", "5")]), &topology());
        assert_eq!(highest.get(), Some(5000));
    }

    #[test]
    fn names_with_a_frequency() {
        assert_eq!(from_name("Intel(R) Xeon(R) CPU @ 2.20GHz"), Some(2_200_000_000));
        assert_eq!(from_name("Intel(R) Pentium(R) M processor @ 1600MHz"), Some(1_600_000_000));
        assert_eq!((from_name("AMD EPYC 9554"), from_name("x @ -1GHz"), from_name("@ 1e99GHz")), (None, None, None));
    }
}
