//! The pools of memory that a plan may use, and how much of each.

use super::request::Margin;
use super::verdict::{Budget, Pool};
use footprint::{Requirement, Target};
use spec::{Bytes, Known, Machine};

/// A pool with what may be used of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Allowance {
    pub(crate) pool: Pool,
    pub(crate) total: Known<Bytes>,
    pub(crate) free: Known<Bytes>,
    pub(crate) margin: Bytes,
    /// Free less margin; `None` where free memory is not known.
    pub(crate) limit: Option<Bytes>,
    /// The same for what is taken and mapped files together. On the host more than `limit` where a limit leaves files out.
    pub(crate) with_files: Option<Bytes>,
    /// A device whose memory is the host's.
    pub(crate) shares_host: bool,
}

/// All pools of a target.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pools {
    pub(crate) devices: Vec<Allowance>,
    pub(crate) host: Allowance,
}

impl Pools {
    pub(crate) fn of(machine: &Machine, target: &Target, margin: Option<Margin>) -> Self {
        let devices = target.devices.iter().enumerate().map(|(index, device)| {
            let pool = Pool::Device { index, name: device.name.clone() };
            let margin = |total| chosen(margin, total).unwrap_or(device_margin(total));
            Allowance { shares_host: device.shares_host, ..allowance(pool, device.total.clone(), device.free.clone(), margin) }
        });
        let host = allowance(Pool::Host, machine.effective_memory_total(), machine.effective_memory_available(), |total| {
            chosen(margin, total).unwrap_or(host_margin(total))
        });
        let host = Allowance { with_files: with_files(machine, host.margin), ..host };
        Self { devices: devices.collect(), host }
    }

    /// The pools as a plan leaves them. What devices that share the host's memory hold counts in both: neither limit may be passed.
    pub(crate) fn budgets(&self, requirement: &Requirement) -> Vec<Budget> {
        let zero = Known::exact(Bytes::ZERO, "devices hold no mapped weights");
        let devices =
            self.devices.iter().zip(&requirement.devices).map(|(allowance, device)| allowance.budget(device.total(), zero.clone()));
        let shared = requirement.host.mapped_shared.get().unwrap_or(Bytes::ZERO);
        let mapped = requirement.host.weights_mapped.clone().map(|mapped| mapped.saturating_sub(shared));
        let host = Budget { of_devices: requirement.held_by_devices(), ..self.host.budget(requirement.held(), mapped) };
        devices.chain([host]).collect()
    }

    /// The same with these devices alone, in this order.
    pub(crate) fn only(&self, places: &[usize]) -> Self {
        let device = |(index, &place): (usize, &usize)| {
            let allowance = self.devices.get(place)?.clone();
            let pool = match allowance.pool {
                Pool::Device { name, .. } => Pool::Device { index, name },
                pool => pool,
            };
            Some(Allowance { pool, ..allowance })
        };
        Self { devices: places.iter().enumerate().filter_map(device).collect(), host: self.host.clone() }
    }

    /// Sum of what may be used on all devices.
    pub(crate) fn device_limit(&self) -> Bytes {
        self.devices.iter().filter_map(|device| device.limit).sum()
    }

    /// Of which in memory of their own.
    pub(crate) fn own_device_limit(&self) -> Bytes {
        self.devices.iter().filter(|device| !device.shares_host).filter_map(|device| device.limit).sum()
    }
}

impl Allowance {
    fn budget(&self, needed: Known<Bytes>, mapped: Known<Bytes>) -> Budget {
        Budget {
            pool: self.pool.clone(),
            total: self.total.clone(),
            free: self.free.clone(),
            margin: self.margin,
            limit: self.limit,
            needed,
            mapped,
            shares_host: self.shares_host,
            of_devices: Known::exact(Bytes::ZERO, "no device shares the host's memory"),
        }
    }
}

/// What each pool would be left with by a requirement: the devices of the target in order, then the host. For programs that count without
/// planning; a plan has its own in [`super::Plan::budgets`].
pub fn budgets(machine: &Machine, target: &Target, requirement: &Requirement, margin: Option<Margin>) -> Vec<Budget> {
    Pools::of(machine, target, margin).budgets(requirement)
}

/// What the host leaves a program and the weights that it maps, for plans and for predictions of any settings: a plan is predicted as it was chosen.
pub(crate) fn room_on_host(machine: &Machine, margin: Option<Margin>) -> Option<Bytes> {
    let (total, free) = (machine.effective_memory_total(), machine.effective_memory_available());
    let of = |total| chosen(margin, total).unwrap_or(host_margin(total));
    with_files(machine, allowance(Pool::Host, total, free, of).margin)
}

fn with_files(machine: &Machine, margin: Bytes) -> Option<Bytes> {
    machine.effective_memory_with_files().low().map(|free| free.saturating_sub(margin))
}

/// A share is of the total; not more than nine tenths, not less than nothing.
fn chosen(margin: Option<Margin>, total: Bytes) -> Option<Bytes> {
    margin.map(|margin| match margin {
        Margin::Fraction(share) => total.scale(share.clamp(0.0, 0.9)),
        Margin::Size(size) => size,
    })
}

fn device_margin(total: Bytes) -> Bytes {
    total.scale(0.03).max(Bytes::from_mib(384))
}

fn host_margin(total: Bytes) -> Bytes {
    let floor = Bytes::from_mib(512).min(total.scale(0.125));
    total.scale(0.05).clamp(floor, Bytes::from_gib(4))
}

fn allowance(pool: Pool, total: Known<Bytes>, free: Known<Bytes>, margin: impl Fn(Bytes) -> Bytes) -> Allowance {
    // The lower end of what may be free; where the total is not known, the margin is taken from what is free.
    let usable = free.low().copied();
    let margin = margin(total.get().or(usable).unwrap_or(Bytes::ZERO));
    let limit = usable.map(|free| free.saturating_sub(margin));
    Allowance { limit, with_files: limit, pool, total, free, margin, shares_host: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_scale_with_the_pool_and_stay_sane() {
        assert_eq!(device_margin(Bytes::from_gib(8)), Bytes::from_mib(384));
        assert_eq!(device_margin(Bytes::from_gib(80)), Bytes::from_gib(80).scale(0.03));
        assert_eq!(host_margin(Bytes::from_gib(2)), Bytes::from_mib(256));
        assert_eq!(host_margin(Bytes::from_gib(4)), Bytes::from_mib(512));
        assert_eq!(host_margin(Bytes::from_gib(64)), Bytes::from_gib(64).scale(0.05));
        assert_eq!(host_margin(Bytes::from_gib(512)), Bytes::from_gib(4));
        assert_eq!(chosen(Some(Margin::Fraction(7.0)), Bytes::from_gib(10)), Some(Bytes::from_gib(10).scale(0.9)));
    }
}
