//! Rules that move single tensors: `-ot PATTERN=BUFFER` in order, then `--n-cpu-moe`.
//!
//! Upstream: `src/llama-model-loader.cpp:1232-1262`, `common/common.h:1224-1245`. A pattern is searched in the tensor's name,
//! the first that matches wins.

use crate::error::FootprintError;
use crate::roles::is_expert_of_first;
use crate::target::Target;
use regex::Regex;
use spec::Settings;

/// Where a rule puts a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The host; which of its buffers is chosen as for any host tensor.
    Host,
    /// A device, whether it has a kernel for the tensor or not.
    Device(usize),
}

/// All rules of one configuration.
pub(super) struct Overrides {
    rules: Vec<(Regex, Place)>,
    n_cpu_moe: u32,
}

impl Overrides {
    pub(super) fn new(settings: &Settings, target: &Target, devices: &[usize]) -> Result<Self, FootprintError> {
        let rules = settings
            .tensor_overrides
            .iter()
            .map(|rule| {
                let pattern = Regex::new(&rule.pattern)
                    .map_err(|error| FootprintError::Pattern { pattern: rule.pattern.clone(), reason: last_line(&error.to_string()) })?;
                Ok((pattern, place(&rule.buffer, target, devices)?))
            })
            .collect::<Result<_, FootprintError>>()?;
        Ok(Self { rules, n_cpu_moe: settings.n_cpu_moe })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.n_cpu_moe == 0
    }

    pub(super) fn place(&self, name: &str) -> Option<Place> {
        let rule = self.rules.iter().find(|(pattern, _)| pattern.is_match(name)).map(|(_, place)| *place);
        rule.or_else(|| (self.n_cpu_moe > 0 && is_expert_of_first(name, self.n_cpu_moe)).then_some(Place::Host))
    }
}

fn place(buffer: &str, target: &Target, devices: &[usize]) -> Result<Place, FootprintError> {
    if buffer == "CPU" {
        return Ok(Place::Host);
    }
    let known = || std::iter::once("CPU").chain(devices.iter().map(|&device| target.devices[device].name.as_str()));
    devices
        .iter()
        .copied()
        .find(|&device| target.devices[device].name == buffer)
        .map(Place::Device)
        .ok_or_else(|| FootprintError::UnknownBuffer { buffer: buffer.to_owned(), known: known().collect::<Vec<_>>().join(", ") })
}

/// The reason of a multi-line regex error, without its drawing.
fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ").to_owned()
}
