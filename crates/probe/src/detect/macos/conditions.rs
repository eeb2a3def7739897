//! What slows a Mac down at this moment.

use crate::detect::fields;
use crate::host::{Host, MacQuestion, Question};
use spec::Known;
use spec::machine::{Conditions, PowerSource};

/// Power, low power mode and thermal pressure. Temperatures and clocks stand behind interfaces that Apple keeps to itself.
pub(super) fn read(host: &dyn Host, gpus: usize) -> Conditions {
    const PRIVATE: &str = "macOS tells it to private interfaces only";
    Conditions { power: power(host), power_profile: profile(host), cpu_throttled: throttled(host), ..Conditions::unknown(gpus, PRIVATE) }
}

fn power(host: &dyn Host) -> Known<PowerSource> {
    const SOURCE: &str = "IOKit power sources";
    let text = match host.text(&Question::Mac(MacQuestion::Power)) {
        Ok(text) => text,
        Err(refusal) => return Known::unknown(format!("{SOURCE}: {refusal}")),
    };
    match (text.lines().next().unwrap_or_default(), fields::number(&text, "left")) {
        ("AC Power", _) => Known::exact(PowerSource::Mains, SOURCE),
        ("Battery Power" | "UPS Power", Some(left @ 0..=100)) => Known::exact(PowerSource::Battery(left as u32), SOURCE),
        (source, _) => Known::unknown(format!("{SOURCE}: {source:?} without a charge")),
    }
}

fn profile(host: &dyn Host) -> Known<String> {
    match host.text(&Question::Mac(MacQuestion::LowPower)).as_deref() {
        Ok("1") => Known::exact("power-saver".into(), "NSProcessInfo lowPowerModeEnabled"),
        Ok("0") => Known::exact("balanced".into(), "NSProcessInfo lowPowerModeEnabled"),
        Ok(other) => Known::unknown(format!("NSProcessInfo lowPowerModeEnabled: {other:?}")),
        Err(refusal) => Known::unknown(format!("NSProcessInfo lowPowerModeEnabled: {refusal}")),
    }
}

/// From the state `serious` on, the system lowers clocks (Apple's documentation of `NSProcessInfoThermalState`).
fn throttled(host: &dyn Host) -> Known<bool> {
    const SOURCE: &str = "NSProcessInfo thermalState";
    match host.text(&Question::Mac(MacQuestion::Thermal)).as_deref() {
        Ok("nominal" | "fair") => Known::exact(false, SOURCE),
        Ok("serious" | "critical") => Known::exact(true, SOURCE),
        Ok(other) => Known::unknown(format!("{SOURCE}: {other:?}")),
        Err(refusal) => Known::unknown(format!("{SOURCE}: {refusal}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Recording};

    fn host(question: MacQuestion, answer: &str) -> Recording {
        let mut host = Recording::new("");
        host.set(&Question::Mac(question), Ok(Answer::text(answer)));
        host
    }

    #[test]
    fn power_heat_and_profile() {
        let power_of = |answer| power(&host(MacQuestion::Power, answer)).get();
        assert_eq!(power_of("AC Power\nleft: 80"), Some(PowerSource::Mains));
        assert_eq!(power_of("AC Power"), Some(PowerSource::Mains));
        assert_eq!(power_of("Battery Power\nleft: 41"), Some(PowerSource::Battery(41)));
        assert_eq!((power_of("Battery Power"), power_of("Battery Power\nleft: 101"), power_of("")), (None, None, None));
        assert_eq!(throttled(&host(MacQuestion::Thermal, "serious")).get(), Some(true));
        assert!(throttled(&Recording::new("")).is_unknown());
        assert_eq!(profile(&host(MacQuestion::LowPower, "1")).value().map(String::as_str), Some("power-saver"));
    }
}
