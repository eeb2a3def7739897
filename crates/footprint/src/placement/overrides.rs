//! Rules that move single tensors: `-ot PATTERN=BUFFER` in order, then `--n-cpu-moe`.
//!
//! Upstream: `src/llama-model-loader.cpp:1232-1262`, `common/common.h:1224-1245`. A pattern is searched in the tensor's name,
//! the first that matches wins.

use super::pattern::Pattern;
use crate::error::FootprintError;
use crate::roles::Role;
use crate::target::Target;
use spec::{Model, Settings};

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
    rules: Vec<(Pattern, Place)>,
    n_cpu_moe: u32,
}

impl Overrides {
    /// A buffer of a device that exists but is not in use is an error only where a tensor of the model would go there.
    pub(super) fn new(settings: &Settings, target: &Target, devices: &[usize], model: &Model) -> Result<Self, FootprintError> {
        let rules = settings
            .tensor_overrides
            .iter()
            .map(|rule| {
                let wrong = |reason| FootprintError::Pattern { pattern: rule.pattern.clone(), reason };
                let pattern = Pattern::new(&rule.pattern).map_err(wrong)?;
                // Checked here once, so that a search can be taken to end wherever it is asked for later.
                if !pattern.is_linear() {
                    model.tensors.iter().try_for_each(|tensor| pattern.is_match(&tensor.name).map(|_| ())).map_err(wrong)?;
                }
                let found = |name: &str| pattern.is_match(name).unwrap_or(false);
                let exists = || target.devices.iter().any(|device| device.name == rule.buffer);
                let place = match place(&rule.buffer, target, devices) {
                    Err(_) if exists() && !model.tensors.iter().any(|tensor| found(&tensor.name)) => Place::Host,
                    place => place?,
                };
                Ok((pattern, place))
            })
            .collect::<Result<_, FootprintError>>()?;
        Ok(Self { rules, n_cpu_moe: settings.n_cpu_moe })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.n_cpu_moe == 0
    }

    /// True where the experts of a layer go to the host, unless a rule says otherwise.
    pub(super) fn moves_experts(&self, layer: u32) -> bool {
        layer < self.n_cpu_moe
    }

    pub(super) fn place(&self, name: &str, role: &Role) -> Option<Place> {
        let rule = self.rules.iter().find(|(pattern, _)| pattern.is_match(name).unwrap_or(false)).map(|(_, place)| *place);
        rule.or_else(|| role.experts_of.filter(|&layer| self.moves_experts(layer)).map(|_| Place::Host))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{model, target};
    use crate::roles::Roles;
    use spec::settings::TensorOverride;

    fn tensor(name: &str) -> spec::model::Tensor {
        let (ty, bytes) = (spec::QuantType::F32, spec::Bytes::new(4));
        spec::model::Tensor { name: name.into(), ty, shape: [1; 4], bytes, file: 0, offset: spec::Bytes::ZERO }
    }

    fn placed(overrides: &Overrides, name: &str) -> Option<Place> {
        let model = Model { tensors: vec![tensor(name)], ..model([]) };
        overrides.place(name, Roles::of(&model).iter().next().unwrap())
    }

    fn rules(rules: &[(&str, &str)], n_cpu_moe: u32) -> Result<Overrides, FootprintError> {
        let rule = |&(pattern, buffer): &(&str, &str)| TensorOverride { pattern: pattern.into(), buffer: buffer.into() };
        let settings = Settings { tensor_overrides: rules.iter().map(rule).collect(), n_cpu_moe, ..Settings::default() };
        Overrides::new(&settings, &target(&[24, 24]), &[0, 1], &model([]))
    }

    #[test]
    fn the_first_rule_that_matches_wins() {
        let overrides = rules(&[(r"blk\.[0-3]\.", "CUDA1"), ("exps", "CPU"), ("blk", "CUDA0")], 9).unwrap();
        let place = |name| placed(&overrides, name);
        assert_eq!(place("blk.2.ffn_up_exps.weight"), Some(Place::Device(1)));
        assert_eq!(place("blk.5.ffn_up_exps.weight"), Some(Place::Host));
        assert_eq!(place("blk.5.attn_q.weight"), Some(Place::Device(0)));
        assert_eq!(place("output.weight"), None);
        assert_eq!(placed(&rules(&[], 6).unwrap(), "blk.5.ffn_up_exps.weight"), Some(Place::Host));
        assert_eq!(placed(&rules(&[], 5).unwrap(), "blk.5.ffn_up_exps.weight"), None);
    }

    #[test]
    fn look_ahead_is_searched_and_one_without_end_is_refused() {
        let overrides = rules(&[(r"blk\.\d+\.ffn_(?!norm)", "CPU")], 0).unwrap();
        assert_eq!(placed(&overrides, "blk.2.ffn_up_exps.weight"), Some(Place::Host));
        assert_eq!(placed(&overrides, "blk.2.ffn_norm.weight"), None);
        let mut model = model([]);
        model.tensors.push(tensor(&"a".repeat(120)));
        let rule = TensorOverride { pattern: r"(?!x)(a|a|a)*(a|a|a)*(a|a|a)*(a|a|a)*b\1$".into(), buffer: "CPU".into() };
        let settings = Settings { tensor_overrides: vec![rule], ..Settings::default() };
        let error = Overrides::new(&settings, &target(&[]), &[], &model).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("was given up"), "{error}");
    }

    #[test]
    fn a_device_that_is_not_in_use_takes_no_tensor() {
        let mut model = model([]);
        let of = |model: &Model| {
            let rule = TensorOverride { pattern: "ffn".into(), buffer: "CUDA0".into() };
            let settings = Settings { tensor_overrides: vec![rule], ..Settings::default() };
            Overrides::new(&settings, &target(&[24, 24]), &[1], model).err().map(|error| error.to_string())
        };
        assert_eq!(of(&model), None);
        model.tensors.push(tensor("blk.0.ffn_up.weight"));
        assert!(of(&model).is_some());
    }

    #[test]
    fn broken_rules_say_what_is_wrong() {
        let reason = |pattern, buffer| rules(&[(pattern, buffer)], 0).err().map(|error| error.to_string()).unwrap_or_default();
        insta::assert_snapshot!([reason("exps(", "CPU"), reason("exps", "CUDA2"), reason("(?<a", "CPU")].join("\n"), @r#"
        override pattern "exps(": unclosed group
        override to a buffer that does not exist: "CUDA2"; there are CPU, CUDA0, CUDA1
        override pattern "(?<a": unclosed capture group name
        "#);
    }
}
