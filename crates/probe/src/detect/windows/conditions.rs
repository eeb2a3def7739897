//! What slows a machine under Windows down at this moment.

use crate::detect::fields;
use crate::host::{Host, Question, WindowsQuestion};
use spec::Known;
use spec::machine::{Conditions, PowerSource};

/// `BatteryFlag` of a system without a battery (`SYSTEM_POWER_STATUS`, `winbase.h`).
const NO_BATTERY: u64 = 128;

pub(super) fn read(host: &dyn Host, gpus: usize) -> Conditions {
    let answer = host.text(&Question::Windows(WindowsQuestion::Power));
    let status = answer.as_deref().unwrap_or_default();
    let power = match &answer {
        Ok(_) => power(status),
        Err(refusal) => Known::unknown(format!("GetSystemPowerStatus: {refusal}")),
    };
    let scheme = host.text(&Question::Windows(WindowsQuestion::PowerScheme));
    let power_profile = match scheme {
        _ if fields::number(status, "saver") == Some(1) => Known::exact("power-saver".into(), "GetSystemPowerStatus: battery saver"),
        Ok(scheme) => Known::exact(profile(&scheme), "PowerGetActiveScheme"),
        Err(refusal) => Known::unknown(format!("PowerGetActiveScheme: {refusal}")),
    };
    Conditions { power, power_profile, ..Conditions::unknown(gpus, "Windows tells it to drivers only") }
}

fn power(status: &str) -> Known<PowerSource> {
    const SOURCE: &str = "GetSystemPowerStatus";
    let battery = fields::number(status, "battery");
    match (fields::number(status, "line"), fields::number(status, "left")) {
        (Some(1), _) => Known::exact(PowerSource::Mains, SOURCE),
        (Some(0), Some(left @ 0..=100)) => Known::exact(PowerSource::Battery(left as u32), SOURCE),
        _ if battery == Some(NO_BATTERY) => Known::exact(PowerSource::Mains, "GetSystemPowerStatus: no battery"),
        _ => Known::unknown("GetSystemPowerStatus does not know"),
    }
}

fn profile(scheme: &str) -> String {
    match scheme {
        "high performance" | "ultimate performance" => "performance".into(),
        "power saver" => "power-saver".into(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mains_battery_and_neither() {
        assert_eq!(power("line: 1\nbattery: 8\nleft: 80").get(), Some(PowerSource::Mains));
        assert_eq!(power("line: 0\nbattery: 1\nleft: 55").get(), Some(PowerSource::Battery(55)));
        assert_eq!(power("line: 255\nbattery: 128\nleft: 255").get(), Some(PowerSource::Mains));
        assert!(power("line: 255\nbattery: 255").is_unknown() && power("line: 0\nbattery: 1\nleft: 255").is_unknown());
    }
}
