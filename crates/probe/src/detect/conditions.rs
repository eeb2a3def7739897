//! What slows the machine down at this moment: battery, power profile, governor, heat.
//!
//! Linux Documentation/ABI/testing/sysfs-class-power, sysfs-platform_profile, sysfs-class-thermal,
//! Documentation/admin-guide/pm/cpufreq.rst. Jetson's power mode: `nvpmodel`, which keeps its state in a file.

use super::topology::CPU;
use crate::host::Host;
use spec::Known;
use spec::machine::{Conditions, GpuCondition, PowerSource};

const SUPPLIES: &str = "/sys/class/power_supply";
const THERMAL: &str = "/sys/class/thermal";
const PROFILE: &str = "/sys/firmware/acpi/platform_profile";
const NVPMODEL: &str = "/var/lib/nvpmodel/status";

/// Sensors of a processor by the names that drivers give their zones.
const PROCESSOR_ZONES: [&str; 8] =
    ["x86_pkg_temp", "cpu-thermal", "cpu_thermal", "cpu", "soc-thermal", "soc_thermal", "tj-thermal", "bigcore"];

/// A cap this far below the highest frequency slows the machine down; steps of the clock are smaller.
const CAPPED: f64 = 0.95;

/// The conditions of the host, with those of its GPUs.
pub(crate) fn read(host: &dyn Host, first_cpu: Option<u32>, gpus: Vec<GpuCondition>) -> Conditions {
    Conditions {
        power: power(host),
        power_profile: profile(host),
        governor: governor(host, first_cpu),
        cpu_temperature_c: temperature(host),
        cpu_throttled: throttled(host, first_cpu),
        gpus,
    }
}

fn power(host: &dyn Host) -> Known<PowerSource> {
    let names = match host.list(SUPPLIES) {
        Ok(names) => names,
        Err(refusal) => return Known::unknown(format!("{SUPPLIES}: {refusal}")),
    };
    let field = |name: &str, file: &str| host.read(&format!("{SUPPLIES}/{name}/{file}")).ok();
    let is = |name: &str, file: &str, value: &str| field(name, file).is_some_and(|text| text == value);
    // Mice and headsets have batteries too.
    let battery = names.iter().find(|name| is(name, "type", "Battery") && !is(name, "scope", "Device"));
    let Some(battery) = battery else { return Known::exact(PowerSource::Mains, format!("{SUPPLIES}: no battery")) };
    let plugged = names.iter().filter(|name| !is(name, "type", "Battery")).any(|name| is(name, "online", "1"));
    if plugged || !is(battery, "status", "Discharging") {
        return Known::exact(PowerSource::Mains, format!("{SUPPLIES}/{battery}/status"));
    }
    match field(battery, "capacity").and_then(|text| text.parse().ok()) {
        Some(left @ 0..=100) => Known::exact(PowerSource::Battery(left), format!("{SUPPLIES}/{battery}/capacity")),
        _ => Known::unknown(format!("{SUPPLIES}/{battery} is discharging and does not say how much is left")),
    }
}

fn profile(host: &dyn Host) -> Known<String> {
    if let Ok(profile) = host.read(PROFILE) {
        return Known::exact(profile, PROFILE);
    }
    match host.read(NVPMODEL) {
        Ok(mode) => Known::exact(format!("nvpmodel {mode}"), NVPMODEL),
        Err(_) => Known::unknown("the system has no power profiles"),
    }
}

/// The governor, and where the processor itself chooses the frequency, what it is told to prefer.
fn governor(host: &dyn Host, cpu: Option<u32>) -> Known<String> {
    let Some(cpu) = cpu else { return Known::unknown("no CPU is known") };
    let folder = format!("{CPU}/cpu{cpu}/cpufreq");
    let source = format!("{folder}/scaling_governor");
    match host.read(&source) {
        Ok(governor) => match host.read(&format!("{folder}/energy_performance_preference")) {
            Ok(preference) if preference != "default" => Known::exact(format!("{governor}, prefers {preference}"), source),
            _ => Known::exact(governor, source),
        },
        Err(refusal) => Known::unknown(format!("{source}: {refusal}")),
    }
}

/// The hottest sensor of the processor.
fn temperature(host: &dyn Host) -> Known<f64> {
    let zones = host.list(THERMAL).unwrap_or_default();
    let zones = zones.into_iter().filter(|name| name.starts_with("thermal_zone"));
    let degrees = |zone: String| {
        let kind = host.read(&format!("{THERMAL}/{zone}/type")).ok()?.to_ascii_lowercase();
        PROCESSOR_ZONES.iter().any(|name| kind.starts_with(name)).then_some(())?;
        let milli: i64 = host.read(&format!("{THERMAL}/{zone}/temp")).ok()?.trim().parse().ok()?;
        // Sensors that are off read 0 or far below.
        (1_000..200_000).contains(&milli).then_some((milli as f64 / 1000.0, zone))
    };
    let hottest = zones.filter_map(degrees).max_by(|a, b| a.0.total_cmp(&b.0));
    match hottest {
        Some((degrees, zone)) => Known::exact(degrees, format!("{THERMAL}/{zone}/temp")),
        None => Known::unknown("no sensor of the processor"),
    }
}

/// True where the frequency is capped below what the processor reaches: by heat, by a power profile or by hand.
fn throttled(host: &dyn Host, cpu: Option<u32>) -> Known<bool> {
    let Some(cpu) = cpu else { return Known::unknown("no CPU is known") };
    let folder = format!("{CPU}/cpu{cpu}/cpufreq");
    let khz = |file: &str| host.number(&format!("{folder}/{file}")).filter(|khz| *khz > 0);
    match (khz("scaling_max_freq"), khz("cpuinfo_max_freq")) {
        (Some(cap), Some(highest)) => Known::exact((cap as f64) < highest as f64 * CAPPED, format!("{folder}/scaling_max_freq")),
        _ => Known::unknown("the kernel names no cap of the frequency"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};

    fn host(files: &[(&str, &str)]) -> Recording {
        let mut host = Recording::new("");
        let mut folders: std::collections::BTreeMap<String, std::collections::BTreeSet<String>> = Default::default();
        for (path, text) in files {
            host.set(&Question::Read((*path).to_owned()), Ok(Answer::text(*text)));
            let mut parts = path.rsplitn(3, '/');
            if let (Some(_), Some(name), Some(folder)) = (parts.next(), parts.next(), parts.next()) {
                folders.entry(folder.to_owned()).or_default().insert(name.to_owned());
            }
        }
        for (folder, names) in folders {
            host.set(&Question::List(folder), Ok(Answer::Names(names.into_iter().collect())));
        }
        host
    }

    const LAPTOP: [(&str, &str); 8] = [
        ("/sys/class/power_supply/AC/type", "Mains"),
        ("/sys/class/power_supply/AC/online", "0"),
        ("/sys/class/power_supply/BAT0/type", "Battery"),
        ("/sys/class/power_supply/BAT0/status", "Discharging"),
        ("/sys/class/power_supply/BAT0/capacity", "41"),
        ("/sys/class/power_supply/hid-mouse/type", "Battery"),
        ("/sys/class/power_supply/hid-mouse/scope", "Device"),
        ("/sys/class/power_supply/hid-mouse/status", "Discharging"),
    ];

    #[test]
    fn a_laptop_on_its_battery_and_a_desktop_with_a_mouse() {
        assert_eq!(power(&host(&LAPTOP)).get(), Some(PowerSource::Battery(41)));
        let mut plugged = LAPTOP;
        plugged[1].1 = "1";
        assert_eq!(power(&host(&plugged)).get(), Some(PowerSource::Mains));
        assert_eq!(power(&host(&LAPTOP[5..])).get(), Some(PowerSource::Mains));
        assert!(power(&host(&[])).is_unknown());
        assert!(power(&host(&[LAPTOP[2], LAPTOP[3]])).is_unknown());
    }

    #[test]
    fn caps_and_preferences() {
        let file = |name: &str| format!("{CPU}/cpu0/cpufreq/{name}");
        let set = |files: &[(&str, &str)]| {
            let mut host = Recording::new("");
            for (name, text) in files {
                host.set(&Question::Read(file(name)), Ok(Answer::text(*text)));
            }
            host
        };
        let capped = set(&[("scaling_max_freq", "2000000"), ("cpuinfo_max_freq", "4500000"), ("scaling_governor", "powersave")]);
        assert_eq!(throttled(&capped, Some(0)).get(), Some(true));
        assert_eq!(governor(&capped, Some(0)).value().map(String::as_str), Some("powersave"));
        let free = set(&[
            ("scaling_max_freq", "4500000"),
            ("cpuinfo_max_freq", "4500000"),
            ("scaling_governor", "powersave"),
            ("energy_performance_preference", "balance_performance"),
        ]);
        assert_eq!(throttled(&free, Some(0)).get(), Some(false));
        assert_eq!(governor(&free, Some(0)).value().map(String::as_str), Some("powersave, prefers balance_performance"));
        assert!(throttled(&set(&[]), Some(0)).is_unknown() && governor(&free, None).is_unknown());
    }

    #[test]
    fn the_hottest_sensor_of_the_processor() {
        let zone = |number: u32, file: &str| format!("{THERMAL}/thermal_zone{number}/{file}");
        let files = [
            (zone(0, "type"), "acpitz"),
            (zone(0, "temp"), "99000"),
            (zone(1, "type"), "x86_pkg_temp"),
            (zone(1, "temp"), "61000"),
            (zone(2, "type"), "cpu-thermal"),
            (zone(2, "temp"), "-40000"),
        ];
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        assert_eq!(temperature(&host(&files)).get(), Some(61.0));
        assert!(temperature(&host(&[])).is_unknown());
    }
}
