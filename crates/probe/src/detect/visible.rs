//! Variables by which people choose GPUs: `CUDA_VISIBLE_DEVICES` and AMD's of the same form.
//!
//! Rules: CUDA C++ Programming Guide 12, "CUDA Environment Variables"; NVIDIA MIG User Guide, "Device Enumeration"; ROCm
//! documentation, "GPU isolation techniques". Entries are read until the first that names no device; an entry is a number, `GPU-`
//! with the beginning of a UUID, or `MIG-` with that of a part's; a repeated device makes all invisible.

/// A device as CUDA counts it: whole, or split into parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Device {
    pub(crate) uuid: Option<String>,
    pub(crate) split: bool,
    /// UUIDs of the parts that this process may see.
    pub(crate) parts: Vec<Option<String>>,
}

/// A device, or one part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Whole(usize),
    Part(usize, usize),
}

/// Indices of the visible GPUs of a maker without parts. `None` for the variable means that it is not set, and all are visible.
pub(crate) fn visible(variable: Option<&str>, uuids: &[Option<String>]) -> Vec<usize> {
    let devices: Vec<Device> = uuids.iter().map(|uuid| Device { uuid: uuid.clone(), ..Device::default() }).collect();
    cuda(variable, &devices)
        .into_iter()
        .map(|place| match place {
            Place::Whole(index) | Place::Part(index, _) => index,
        })
        .collect()
}

/// What CUDA sees. It uses one part of a split GPU at most, the first of those that are named, and then no whole GPU.
pub(crate) fn cuda(variable: Option<&str>, devices: &[Device]) -> Vec<Place> {
    let mut places = match variable {
        None => (0..devices.len()).filter_map(|index| whole_or_first(index, devices)).collect(),
        Some(text) => named(text, devices),
    };
    if let Some(part) = places.iter().copied().find(|place| matches!(place, Place::Part(..))) {
        places = vec![part];
    }
    places
}

fn named(text: &str, devices: &[Device]) -> Vec<Place> {
    let mut places = Vec::new();
    for entry in text.split(',').map(str::trim) {
        let Some(place) = place(entry, devices) else { break };
        if places.contains(&place) {
            return Vec::new();
        }
        places.push(place);
    }
    places
}

/// A device, or where it is split its first part; `None` where it is split and none of its parts is here.
fn whole_or_first(index: usize, devices: &[Device]) -> Option<Place> {
    let device = devices.get(index)?;
    match (device.split, device.parts.is_empty()) {
        (false, _) => Some(Place::Whole(index)),
        (true, false) => Some(Place::Part(index, 0)),
        (true, true) => None,
    }
}

fn place(entry: &str, devices: &[Device]) -> Option<Place> {
    if let Ok(index) = entry.parse::<usize>() {
        return whole_or_first(index, devices);
    }
    let kind = ["GPU-", "MIG-"].into_iter().find(|kind| entry.starts_with(kind) && entry.len() > kind.len())?;
    let is = |uuid: &Option<String>| uuid.as_deref().is_some_and(|uuid| uuid.to_ascii_lowercase().starts_with(&entry.to_ascii_lowercase()));
    // A beginning that fits two devices names none.
    let only = |mut places: Box<dyn Iterator<Item = Place> + '_>| places.next().filter(|_| places.next().is_none());
    if kind == "GPU-" {
        let fitting = (0..devices.len()).filter(|index| is(&devices[*index].uuid)).filter_map(|index| whole_or_first(index, devices));
        return only(Box::new(fitting));
    }
    let parts = devices.iter().enumerate().flat_map(|(index, device)| (0..device.parts.len()).map(move |part| (index, part)));
    only(Box::new(parts.filter(|(index, part)| is(&devices[*index].parts[*part])).map(|(index, part)| Place::Part(index, part))))
}

/// True if the variable counts devices, so that the order of counting matters.
pub(crate) fn counts(variable: Option<&str>) -> bool {
    variable.is_some_and(|text| text.split(',').any(|entry| entry.trim().parse::<usize>().is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_cuda() {
        let uuids: Vec<Option<String>> = ["GPU-8932f937-d72c", "GPU-8a00", "GPU-ffff"].map(|uuid| Some(uuid.to_owned())).into();
        let see = |text| visible(Some(text), &uuids);
        assert_eq!(visible(None, &uuids), [0, 1, 2]);
        assert_eq!(see("2,0"), [2, 0]);
        assert_eq!(see(""), [0usize; 0]);
        assert_eq!(see("-1"), [0usize; 0]);
        assert_eq!(see("1,-1,2"), [1]);
        assert_eq!(see("0,7,1"), [0]);
        assert_eq!(see("0,0"), [0usize; 0]);
        assert_eq!(see("GPU-89,GPU-ffff"), [0, 2]);
        assert_eq!(see("GPU-8"), [0usize; 0]);
        assert_eq!(see("GPU-"), [0usize; 0]);
        assert_eq!(see("MIG-1234"), [0usize; 0]);
        assert!(counts(Some("GPU-1,0")) && !counts(Some("GPU-1")) && !counts(None));
    }

    #[test]
    fn one_part_and_no_whole_beside_it() {
        let whole = Device { uuid: Some("GPU-aa".into()), ..Device::default() };
        let split = |parts: &[&str]| Device {
            uuid: Some("GPU-bb".into()),
            split: true,
            parts: parts.iter().map(|uuid| Some((*uuid).into())).collect(),
        };
        let devices = [whole.clone(), split(&["MIG-11", "MIG-22"])];
        let see = |text| cuda(Some(text), &devices);
        assert_eq!(cuda(None, &devices), [Place::Part(1, 0)]);
        assert_eq!(see("MIG-22"), [Place::Part(1, 1)]);
        assert_eq!(see("MIG-22,MIG-11"), [Place::Part(1, 1)]);
        assert_eq!(see("0"), [Place::Whole(0)]);
        assert_eq!(see("1"), [Place::Part(1, 0)]);
        assert_eq!(see("0,MIG-11"), [Place::Part(1, 0)]);
        assert_eq!(cuda(None, &[whole, split(&[])]), [Place::Whole(0)]);
        assert_eq!(cuda(Some("0"), &[split(&[])]), []);
    }
}
