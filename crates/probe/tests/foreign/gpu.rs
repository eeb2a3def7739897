//! The sysfs of one GPU as LACT captures it: `.../cardN/device/...` and `.../kfd/...`, put where a running system has it.

use super::Tree;
use super::archive::Entry;

/// True for a path that such captures have.
pub fn is_part(path: &str) -> bool {
    path.ends_with("/device/uevent")
}

/// The machine with this GPU. Of its host nothing is known.
pub fn tree(entries: Vec<Entry>) -> Tree {
    let mut tree = Tree { os: "linux".into(), arch: "x86_64".into(), ..Tree::default() };
    tree.notes.push("the capture has one GPU and nothing of its host; taken as Linux on x86_64".into());
    let uevent = entries.iter().find(|entry| is_part(&entry.path)).and_then(Entry::text).unwrap_or_default();
    let field = |name: &str| uevent.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    let device = format!("/sys/bus/pci/devices/{}", field("PCI_SLOT_NAME="));
    let mut put = |path: String, bytes: Vec<u8>| {
        tree.add(&path);
        tree.files.insert(path, bytes);
    };
    put(format!("{device}/modalias"), field("MODALIAS=").into_bytes());
    put(format!("{device}/drm/renderD128/dev"), Vec::new());
    put(format!("{device}/drm/card0/dev"), Vec::new());
    put("/dev/dri/renderD128".into(), Vec::new());
    for entry in entries {
        let super::archive::Kind::File(bytes) = entry.kind else { continue };
        if let Some((_, rest)) = entry.path.split_once("/kfd/") {
            put(format!("/sys/class/kfd/kfd/{rest}"), bytes);
        } else if let Some((_, rest)) = entry.path.split_once("/device/") {
            put(format!("{device}/{rest}"), bytes);
        } else if let Some((_, name)) = entry.path.rsplit_once('/') {
            put(format!("{device}/drm/card0/{name}"), bytes);
        }
    }
    tree
}
