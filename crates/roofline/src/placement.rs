//! Runs on more than one processor: layers over several equal devices, and layers or experts on the host.

use crate::conditions::Conditions;
use crate::device::Device;
use crate::phase::{Phase, decode, prefill};
use crate::terms::{Bound, Effect, Sum, Term};
use crate::work::{Shape, Work};

/// Where a model lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Equal devices among which layers are divided; 1 for a single one.
    pub devices: f64,
    /// What the host holds.
    pub host: Option<Host>,
}

impl Default for Placement {
    fn default() -> Self {
        Self { devices: 1.0, host: None }
    }
}

/// The host's part.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Its processor.
    pub device: Device,
    /// Share of the layers whose weights it holds, from 0 to 1.
    pub share: f64,
    /// True where it holds those layers' experts alone.
    pub experts_only: bool,
}

/// Bytes per second over PCIe from memory that is not pinned: 4.0 × 16 at about half of its peak.
const LINK: f64 = 16e9;

fn term(phase: Phase, bound: Bound, part: &str, seconds: f64) -> Vec<Term> {
    let effects = vec![Effect { name: format!("{}/{part}/all", phase.as_str()), coefficient: 1.0 }];
    vec![Term { bound, seconds, effects }]
}

impl Sum {
    fn scaled(mut self, factor: f64) -> Self {
        self.groups.iter_mut().flatten().for_each(|term| term.seconds *= factor);
        self
    }
}

impl Shape {
    /// Shares of its weights and layers: what stays, and what goes to the host.
    fn divided(&self, host: &Host) -> (Self, Self) {
        let share = host.share.clamp(0.0, 1.0);
        let output = self.output_elements / (self.active_elements + self.output_elements).max(1.0);
        let blocks = self.active_bytes * (1.0 - output);
        let gone = if host.experts_only { share * self.routed() } else { share };
        let part = |elements: f64, bytes: f64, idle: f64, layers: f64, own_output: f64| Self {
            active_elements: elements,
            output_elements: self.output_elements * own_output,
            active_bytes: bytes,
            all_bytes: bytes + idle,
            layers,
            full_layers: if host.experts_only { self.full_layers * own_output } else { self.full_layers * layers / self.layers.max(1.0) },
            window_layers: if host.experts_only {
                self.window_layers * own_output
            } else {
                self.window_layers * layers / self.layers.max(1.0)
            },
            ..self.clone()
        };
        let idle = (self.all_bytes - self.active_bytes).max(0.0);
        let kept_layers = if host.experts_only { self.layers } else { self.layers * (1.0 - share) };
        let kept = part(self.active_elements * (1.0 - gone), self.active_bytes - blocks * gone, idle * (1.0 - share), kept_layers, 1.0);
        (kept, part(self.active_elements * gone, blocks * gone, idle * share, self.layers * share, 0.0))
    }

    /// Share of the weights that a token reads which is its experts'.
    pub(crate) fn routed(&self) -> f64 {
        let Some((all, used)) = self.experts.filter(|&(all, used)| all > used && used > 0.0) else { return 0.0 };
        let one = (self.all_bytes - self.active_bytes).max(0.0) / (all - used);
        (one * used / self.active_bytes.max(1.0)).min(1.0)
    }
}

/// The time of a phase with a model placed so: per token in decode, of all tokens in prefill. With one device and nothing on the host,
/// that of [`decode`] or [`prefill`].
///
/// Decode passes device after device; prefill of several micro-batches keeps them busy together, so that B batches over n devices take
/// (B + n − 1) ÷ n of one device's time per batch. What the host holds it multiplies itself in decode; in prefill its weights are copied
/// to the device for every micro-batch (`--op-offload`, on by default in llama.cpp v0.6.0-dev).
pub fn placed(phase: Phase, device: &Device, work: &Work, conditions: &Conditions, placement: &Placement) -> Sum {
    let devices = placement.devices.max(1.0);
    let batches = (work.tokens / work.ubatch.min(work.tokens).max(1.0)).ceil().max(1.0);
    let mut on_device = work.clone();
    let mut beside = Vec::new();
    if let Some(host) = placement.host.as_ref().filter(|host| host.share > 0.0) {
        let (kept, gone) = work.shape.divided(host);
        match phase {
            Phase::Decode => {
                let conditions = Conditions { backend: Some("cpu".to_owned()), ..conditions.clone() };
                let hosted = decode(&host.device, &Work { shape: gone, ..work.clone() }, &conditions);
                beside.extend(hosted.groups.into_iter().filter(|terms| terms.iter().all(|term| term.bound != Bound::Fixed)));
                beside.push(term(phase, Bound::Launch, "offload", 1e-3));
                on_device.shape = kept;
            }
            Phase::Prefill => {
                let bytes = gone.batch_bytes(work.ubatch.min(work.tokens)).max(gone.active_bytes);
                beside.push(term(phase, Bound::Weights, "link", batches * bytes / LINK));
            }
        }
    }
    let mut sum = match phase {
        Phase::Decode => decode(device, &on_device, conditions),
        Phase::Prefill => prefill(device, &on_device, conditions).scaled((batches + devices - 1.0) / (devices * batches)),
    };
    if devices > 1.0 {
        let passes = if phase == Phase::Decode { 1.0 } else { batches };
        beside.push(term(phase, Bound::Launch, "split", passes * (devices - 1.0) * 100e-6));
    }
    sum.groups.extend(beside);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Class;
    use crate::parameters::Parameters;
    use crate::work::Quant;

    fn device(class: Class, bandwidth: f64) -> Device {
        Device { class, generation: None, bandwidth, vector: None, matrix: 1.0, watts: None, identity: None }
    }

    fn work(tokens: f64) -> Work {
        let shape = Shape {
            active_bytes: 5e9,
            all_bytes: 25e9,
            active_elements: 8e9,
            output_elements: 5e8,
            quant: Quant::Q4K,
            layers: 32.0,
            width: 4096.0,
            cache_bytes: 4096.0,
            full_layers: 32.0,
            window_layers: 0.0,
            window: 0.0,
            query_width: 4096.0,
            experts: Some((128.0, 8.0)),
        };
        Work { shape, depth: 0.0, tokens, ubatch: 512.0 }
    }

    fn time(phase: Phase, tokens: f64, devices: f64, share: f64, experts_only: bool) -> f64 {
        let host = Host { device: device(Class::Cpu, 6e10), share, experts_only };
        let placement = Placement { devices, host: Some(host) };
        placed(phase, &device(Class::NvidiaGddr, 1e12), &work(tokens), &Conditions::default(), &placement).time(Parameters::fitted())
    }

    #[test]
    fn one_device_alone_is_the_plain_formula() {
        let (gpu, work) = (device(Class::NvidiaGddr, 1e12), work(512.0));
        let plain = decode(&gpu, &work, &Conditions::default()).time(Parameters::fitted());
        let same = placed(Phase::Decode, &gpu, &work, &Conditions::default(), &Placement::default()).time(Parameters::fitted());
        assert!((plain / same - 1.0).abs() < 1e-12);
    }

    #[test]
    fn several_devices_help_long_prompts_and_not_decode() {
        assert!(time(Phase::Prefill, 8192.0, 4.0, 0.0, false) < 0.5 * time(Phase::Prefill, 8192.0, 1.0, 0.0, false));
        assert!(time(Phase::Decode, 128.0, 4.0, 0.0, false) > time(Phase::Decode, 128.0, 1.0, 0.0, false));
    }

    #[test]
    fn what_the_host_holds_parts_the_weights() {
        for experts_only in [false, true] {
            let host = Host { device: device(Class::Cpu, 6e10), share: 0.3, experts_only };
            let shape = work(1.0).shape;
            let (kept, gone) = shape.divided(&host);
            assert!(((kept.active_bytes + gone.active_bytes) / shape.active_bytes - 1.0).abs() < 1e-9);
            assert!(((kept.all_bytes + gone.all_bytes) / shape.all_bytes - 1.0).abs() < 1e-9);
            assert!(((kept.active_elements + gone.active_elements) / shape.active_elements - 1.0).abs() < 1e-9);
        }
    }

    proptest::proptest! {
        #[test]
        fn more_on_a_slower_host_is_never_faster(share in 0.01..0.9f64, more in 0.0..0.1f64, tokens in 1.0..4096.0f64) {
            for (phase, experts_only) in [(Phase::Decode, false), (Phase::Decode, true), (Phase::Prefill, false), (Phase::Prefill, true)] {
                proptest::prop_assert!(
                    time(phase, tokens, 1.0, share + more, experts_only) >= time(phase, tokens, 1.0, share, experts_only) * 0.999999
                );
            }
        }
    }
}
