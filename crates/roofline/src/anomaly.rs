//! Measurements that are too slow to be the hardware's fault, and what to look at first.

use crate::conditions::{Conditions, Switch};
use crate::device::Class;

/// A measured speed below this share of the median prediction is flagged. Below it lie the runs of misconfigured hosts: of LocalScore's,
/// whose spread around their own device's median is published as 45 % at the ninetieth percentile.
const SHARE: f64 = 0.6;

/// Why a run may be far slower than predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Windows adds to the cost of every launch, most for small models.
    WindowsLaunch,
    /// The driver moves what does not fit into the host's memory.
    Spill,
    /// A narrow PCIe link, or no resizable BAR.
    Link,
    /// One memory channel instead of two.
    MemoryChannel,
    /// Other programs compute on the same cores.
    OtherPrograms,
    /// Another backend than the fastest of the device, or none.
    Backend,
    /// Flash attention that falls back to slow kernels.
    FlashAttention,
    /// A limit of power.
    Power,
    /// Heat.
    Heat,
}

impl Cause {
    /// What to look at, in a few words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WindowsLaunch => "launch cost of Windows",
            Self::Spill => "memory spilled to the host",
            Self::Link => "narrow PCIe link or no resizable BAR",
            Self::MemoryChannel => "single-channel memory",
            Self::OtherPrograms => "other programs on the same cores",
            Self::Backend => "slow backend",
            Self::FlashAttention => "flash attention without a fast kernel",
            Self::Power => "power limit",
            Self::Heat => "heat",
        }
    }
}

/// Probable causes, most probable first, of a run at `measured` tokens per second where `p50` was predicted; empty for one that is not
/// slower than 0.6 of it. `filled` is the share of the device's memory that the run needs, where it is known.
///
/// ```
/// use roofline::{Class, Conditions, anomaly, Cause};
/// let windows = Conditions { os: Some("windows".into()), ..Conditions::default() };
/// assert!(anomaly(90.0, 100.0, Class::NvidiaGddr, &windows, None).is_empty());
/// assert_eq!(anomaly(41.0, 100.0, Class::NvidiaGddr, &windows, Some(0.2))[0], Cause::WindowsLaunch);
/// assert_eq!(anomaly(41.0, 100.0, Class::NvidiaGddr, &windows, Some(0.98))[0], Cause::Spill);
/// ```
pub fn anomaly(measured: f64, p50: f64, class: Class, conditions: &Conditions, filled: Option<f64>) -> Vec<Cause> {
    let slow = measured.is_finite() && p50.is_finite() && measured > 0.0 && measured < SHARE * p50;
    if !slow {
        return Vec::new();
    }
    let own_memory = matches!(class, Class::NvidiaGddr | Class::NvidiaHbm | Class::AmdGddr | Class::AmdHbm | Class::Intel);
    let full = filled.is_some_and(|share| share > 0.85);
    let may = |cause: Cause| match cause {
        Cause::WindowsLaunch => class != Class::Cpu && conditions.os.as_deref().is_none_or(|os| os == "windows"),
        Cause::Spill => own_memory && filled.is_none_or(|share| share > 0.6),
        Cause::Link => own_memory,
        Cause::MemoryChannel => matches!(class, Class::Cpu | Class::AmdUnified | Class::IntelUnified),
        Cause::OtherPrograms => class == Class::Cpu,
        Cause::Backend => class != Class::Cpu && class != Class::Apple,
        Cause::FlashAttention => conditions.flash_attention != Switch::Off && class != Class::Cpu,
        Cause::Power | Cause::Heat => true,
    };
    let first = [Cause::Spill].into_iter().filter(|_| full);
    let order = [
        Cause::WindowsLaunch,
        Cause::Spill,
        Cause::Link,
        Cause::OtherPrograms,
        Cause::MemoryChannel,
        Cause::Backend,
        Cause::FlashAttention,
        Cause::Power,
        Cause::Heat,
    ];
    first.chain(order.into_iter().filter(|&cause| !(full && cause == Cause::Spill))).filter(|&cause| may(cause)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_fit_the_device() {
        let of = |class| anomaly(1.0, 2.0, class, &Conditions::default(), None);
        assert_eq!(of(Class::Cpu), [Cause::OtherPrograms, Cause::MemoryChannel, Cause::Power, Cause::Heat]);
        assert!(!of(Class::Apple).contains(&Cause::Link));
        assert_eq!(of(Class::NvidiaGddr)[..2], [Cause::WindowsLaunch, Cause::Spill]);
    }

    #[test]
    fn what_is_no_measurement_is_not_flagged() {
        for measured in [0.0, f64::NAN, -1.0, 7.0] {
            assert!(anomaly(measured, 10.0, Class::Cpu, &Conditions::default(), None).is_empty());
        }
    }
}
