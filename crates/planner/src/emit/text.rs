//! Values of settings as the engine's flags spell them: reading and writing.

use spec::QuantType;
use spec::settings::{CpuMask, FlashAttention, TensorOverride};
use std::str::FromStr;

/// A spelling that carries its value: `--no-repack` is `repack` off, `--no-mmap` is a load mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// The spelling, dashes included.
    pub flag: &'static str,
    /// The value it stands for, as [`super::flags::Flag::read`] takes it.
    pub value: &'static str,
}

pub(super) const ON: &str = "on";

/// What `all` stands for: more layers than any model has. A plan cuts it to the model's own number.
pub const ALL: u32 = u32::MAX;

pub(super) fn count(text: &str, pin: &mut Option<u32>) -> Result<(), String> {
    *pin = Some(parse_count(text)?);
    Ok(())
}

/// -1 and `auto` leave the setting to the plan.
pub(super) fn count_or_auto(text: &str, pin: &mut Option<u32>) -> Result<(), String> {
    if matches!(text, "-1" | "auto") {
        *pin = None;
        return Ok(());
    }
    count(text, pin)
}

pub(super) fn count_or_all(text: &str, pin: &mut Option<u32>) -> Result<(), String> {
    if text == "all" || text.parse() == Ok(ALL) {
        *pin = Some(ALL);
        return Ok(());
    }
    count(text, pin)
}

/// -1 is no limit.
pub(super) fn count_or_unlimited(text: &str, pin: &mut Option<u32>) -> Result<(), String> {
    count_or_all(if text == "-1" { "all" } else { text }, pin)
}

pub(super) fn unlimited_text(count: u32) -> String {
    if count == ALL { "-1".to_owned() } else { count.to_string() }
}

/// As `common/arg.cpp:2795`: -1 is automatic, any number below it and `all` mean all.
pub(super) fn gpu_layers(text: &str, pin: &mut Option<u32>) -> Result<(), String> {
    match text {
        "all" => *pin = Some(ALL),
        _ if text.parse::<i64>().is_ok_and(|n| n < -1 || n == i64::from(ALL)) => *pin = Some(ALL),
        _ => count_or_auto(text, pin)?,
    }
    Ok(())
}

fn parse_count(text: &str) -> Result<u32, String> {
    text.trim().parse::<u32>().ok().filter(|&n| i32::try_from(n).is_ok()).ok_or_else(|| {
        let largest = i32::MAX;
        format!("{text:?} is not a whole number from 0 to {largest}")
    })
}

pub(super) fn switch(text: &str, pin: &mut Option<bool>) -> Result<(), String> {
    *pin = Some(match text {
        ON | "true" | "enabled" | "1" => true,
        "off" | "false" | "disabled" | "0" => false,
        _ => return Err(format!("{text:?} is not one of on, off")),
    });
    Ok(())
}

pub(super) fn switch_word(on: bool) -> &'static str {
    if on { ON } else { "off" }
}

pub(super) fn word<T: FromStr<Err = String>>(text: &str, pin: &mut Option<T>) -> Result<(), String> {
    *pin = Some(text.parse()?);
    Ok(())
}

/// Further CPUs beside those that are pinned: masks and ranges complement each other (`common/common.cpp:315-390`).
pub(super) fn mask(text: &str, pin: &mut Option<CpuMask>) -> Result<(), String> {
    let more: CpuMask = text.parse()?;
    let before = pin.take().unwrap_or_default();
    *pin = Some(before.cpus().union(more.cpus()).copied().collect());
    Ok(())
}

/// The engine's own synonyms for on and off are taken too (`common/arg.cpp:1337`).
pub(super) fn flash_attention(text: &str, pin: &mut Option<FlashAttention>) -> Result<(), String> {
    let mut on = None;
    match switch(text, &mut on) {
        Ok(()) => *pin = on.map(|on| if on { FlashAttention::On } else { FlashAttention::Off }),
        Err(_) if text == "-1" => *pin = Some(FlashAttention::Auto),
        Err(_) => word(text, pin)?,
    }
    Ok(())
}

pub(super) fn cache_type(text: &str, allowed: &[&str], pin: &mut Option<QuantType>) -> Result<(), String> {
    let ty = text.parse::<QuantType>().ok().filter(|ty| allowed.contains(&ty.name()));
    *pin = Some(ty.ok_or_else(|| format!("{text:?} is not one of {}", allowed.join(", ")))?);
    Ok(())
}

/// Split at commas and slashes, as `common/arg.cpp:2840`.
pub(super) fn shares(text: &str, pin: &mut Option<Vec<f64>>) -> Result<(), String> {
    let parse = |part: &str| {
        let share: Option<f64> = part.trim().parse().ok();
        // The engine keeps them in single precision.
        share
            .filter(|share| (*share as f32).is_finite() && *share >= 0.0)
            .ok_or_else(|| format!("{part:?} is not a share: a number from 0"))
    };
    let shares: Vec<f64> = text.split([',', '/']).map(parse).collect::<Result<_, _>>()?;
    if shares.iter().all(|share| *share as f32 == 0.0) {
        return Err(format!("{text:?} gives no device a share"));
    }
    *pin = Some(shares);
    Ok(())
}

pub(super) fn shares_text(shares: &[f64]) -> String {
    shares.iter().map(f64::to_string).collect::<Vec<_>>().join(",")
}

/// `HOST:PORT`, separated by commas (`common/arg.cpp:1169-1188`).
pub(super) fn endpoints(text: &str, pin: &mut Option<Vec<String>>) -> Result<(), String> {
    if text == "none" {
        *pin = Some(Vec::new());
        return Ok(());
    }
    let parse = |endpoint: &str| {
        let parts = endpoint.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(char::is_whitespace));
        match parts.and_then(|(_, port)| port.parse::<u16>().ok()) {
            Some(1..) => Ok(endpoint.to_owned()),
            _ => Err(format!("{endpoint:?} is not HOST:PORT")),
        }
    };
    *pin = Some(text.split(',').map(parse).collect::<Result<_, _>>()?);
    Ok(())
}

pub(super) fn overrides(text: &str, pin: &mut Option<Vec<TensorOverride>>) -> Result<(), String> {
    let parse = |rule: &str| match rule.split_once('=') {
        Some((pattern, buffer)) if !pattern.is_empty() && !buffer.is_empty() => {
            Ok(TensorOverride { pattern: pattern.to_owned(), buffer: buffer.to_owned() })
        }
        _ => Err(format!("{rule:?} is not PATTERN=BUFFER")),
    };
    let rules: Vec<TensorOverride> = text.split(',').map(parse).collect::<Result<_, _>>()?;
    pin.get_or_insert_default().extend(rules);
    Ok(())
}

pub(super) fn overrides_text(rules: &[TensorOverride]) -> String {
    rules.iter().map(|rule| format!("{}={}", rule.pattern, rule.buffer)).collect::<Vec<_>>().join(",")
}
