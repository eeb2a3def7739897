//! Which devices a plan is for: all of the target, fewer of them down to none, or all with the fastest one first.
//!
//! A device that takes part costs its driver's context and a compute buffer whatever lies on it, so that one may be too small even for
//! these; and what the engine gives to a slow one may take longer there than on the host. Of devices that are alike only their number
//! matters.

use super::request::DevicePreference;
use super::shared;
use super::site::{Reach, Site};
use spec::settings::{Devices, SplitMode};

/// Devices of which every set is looked at; of more only the fastest so many.
const EVERY_SET_OF: usize = 4;

impl Site<'_> {
    /// The same problem on other devices of the target, as far as the user leaves that open: those that leave out few first, none last.
    pub(crate) fn lineups(&self) -> Vec<Site<'_>> {
        let mut lineups = Vec::new();
        if self.wants_devices() && self.may_choose_devices() {
            lineups.extend(self.fewer_devices());
            lineups.extend(self.fastest_first());
        }
        if self.may_do_without_devices() {
            lineups.push(Vec::new());
        }
        lineups.iter().map(|places| self.on(places)).collect()
    }

    /// The site for what settings say of devices; `None` where that is this one.
    pub(crate) fn of(&self, devices: &Devices) -> Option<Site<'_>> {
        let Devices::Only(names) = devices else { return None };
        let place = |name: &String| self.target.devices.iter().position(|device| device.name == *name);
        (*devices != self.devices).then(|| self.on(&names.iter().filter_map(place).collect::<Vec<_>>()))
    }

    /// True where pins do not count devices by their number.
    fn may_choose_devices(&self) -> bool {
        let pins = &self.request.pins;
        let only_to_host = pins.tensor_overrides.iter().flatten().all(|rule| rule.buffer == "CPU");
        pins.devices.is_none() && pins.tensor_split.is_none() && pins.main_gpu.is_none() && only_to_host
    }

    /// True where nothing is asked of devices; those that share the host's memory are left out elsewhere.
    fn may_do_without_devices(&self) -> bool {
        let shared = self.target.devices.iter().all(|device| device.shares_host);
        !shared && self.request.pins.devices.is_none() && !shared::asks_for_devices(&self.request.pins)
    }

    /// Sets of devices, the largest first. One alone is a route of its own where the split mode is open.
    fn fewer_devices(&self) -> Vec<Vec<usize>> {
        let all = self.target.devices.len();
        let least = if self.request.pins.split_mode.is_some() { 1 } else { 2 };
        let usable = |places: &Vec<usize>| places.iter().any(|&place| self.pools.devices[place].limit.is_some());
        let mut sets: Vec<Vec<usize>> = match all {
            0..=EVERY_SET_OF => (1_u32..1 << all).map(|bits| (0..all).filter(|place| bits >> place & 1 == 1).collect()).collect(),
            _ => (1..all).map(|count| self.by_speed[..count].to_vec()).collect(),
        };
        sets.retain(|set| {
            (least..all).contains(&set.len()) && usable(set) && (all > EVERY_SET_OF || self.takes_the_first_of_each_kind(set))
        });
        sets.iter_mut().for_each(|set| set.sort_unstable());
        sets.sort_by_key(|set| std::cmp::Reverse(set.len()));
        sets
    }

    /// False for a set for which another one stands.
    fn takes_the_first_of_each_kind(&self, set: &[usize]) -> bool {
        set.iter().all(|&place| (0..place).all(|before| set.contains(&before) || !self.alike(before, place)))
    }

    /// True where it does not matter which of two devices has what.
    pub(crate) fn alike(&self, a: usize, b: usize) -> bool {
        let (one, other) = (&self.target.devices[a], &self.target.devices[b]);
        let same = one.backend == other.backend && one.total == other.total && one.free == other.free;
        same && one.shares_host == other.shares_host && self.predictor.alike(a, b)
    }

    /// All devices with the fastest before the others: the first computes over copies of the host's weights.
    fn fastest_first(&self) -> Option<Vec<usize>> {
        let first = *self.by_speed.first()?;
        let layers = self.request.pins.split_mode.is_none_or(|mode| mode == SplitMode::Layer);
        let rest = (0..self.target.devices.len()).filter(|&place| place != first);
        (layers && first != 0 && !self.alike(0, first)).then(|| std::iter::once(first).chain(rest).collect())
    }

    /// Why a plan is for other devices than the engine would take.
    pub(crate) fn devices_reason(&self, whole: &Site<'_>) -> Option<String> {
        let Devices::Only(names) = &self.devices else { return None };
        if self.devices == whole.devices {
            return None;
        }
        let left_out = |(place, _): &(usize, _)| !names.contains(&whole.target.devices[*place].name);
        let left_out: Vec<(usize, &footprint::Device)> = whole.target.devices.iter().enumerate().filter(left_out).collect();
        let told = |(place, device): &(usize, &footprint::Device)| {
            let runtime = device.backend.runtime.high().copied().unwrap_or_default();
            match whole.pools.devices[*place].limit {
                None => format!("{}: its free memory is not known", device.name),
                Some(limit) if limit < runtime + spec::Bytes::from_mib(64) => {
                    format!("{}: {limit} may be used, and its driver takes up to {runtime}", device.name)
                }
                Some(_) => device.name.clone(),
            }
        };
        let words = left_out.iter().map(told).collect::<Vec<_>>().join(", ");
        match (left_out.is_empty(), names.is_empty()) {
            (true, _) => Some(format!("{} first: it computes over copies of the host's weights", names.first()?)),
            (_, true) if self.request.preferences.device == DevicePreference::Cpu => Some("the CPU was asked for".to_owned()),
            (_, true) => Some(format!("left out, as nothing fits with: {words}")),
            _ => Some(format!("left out, as a request takes longer or does not fit with: {words}")),
        }
    }

    /// True where a tier has placements for this site.
    pub(crate) fn reaches(&self, reach: Reach) -> bool {
        reach == Reach::Anywhere || self.wants_devices()
    }
}
