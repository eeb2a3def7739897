//! `CUDA_VISIBLE_DEVICES`: which GPUs a CUDA program sees, and in which order.
//!
//! Rules: CUDA C++ Programming Guide 12, "CUDA Environment Variables". Entries are read until the first that names no
//! device; an entry is a number, `GPU-` with the beginning of a UUID, or `MIG-...`; a repeated device makes all invisible.

/// Indices of the visible GPUs. `None` for the variable means that it is not set, and all are visible.
pub(crate) fn visible(variable: Option<&str>, uuids: &[Option<String>]) -> Vec<usize> {
    let Some(text) = variable else { return (0..uuids.len()).collect() };
    let mut gpus = Vec::new();
    for entry in text.split(',').map(str::trim) {
        let Some(gpu) = device(entry, uuids) else { break };
        if gpus.contains(&gpu) {
            return Vec::new();
        }
        gpus.push(gpu);
    }
    gpus
}

fn device(entry: &str, uuids: &[Option<String>]) -> Option<usize> {
    if let Ok(index) = entry.parse::<usize>() {
        return (index < uuids.len()).then_some(index);
    }
    if entry.len() <= "GPU-".len() || !entry.starts_with("GPU-") {
        return None;
    }
    let named =
        |uuid: &Option<String>| uuid.as_deref().is_some_and(|uuid| uuid.to_ascii_lowercase().starts_with(&entry.to_ascii_lowercase()));
    let mut matching = uuids.iter().enumerate().filter(|(_, uuid)| named(uuid)).map(|(index, _)| index);
    // A beginning that fits two devices names none.
    matching.next().filter(|_| matching.next().is_none())
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
}
