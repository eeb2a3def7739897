//! Memory modules from the firmware's table, where this user may read it (usually root alone).
//!
//! SMBIOS reference specification (DMTF DSP0134 3.7), section 7.18, Memory Device (type 17). Linux shows each structure as
//! `/sys/firmware/dmi/entries/17-N/raw` (Documentation/ABI/testing/sysfs-firmware-dmi-entries).

use crate::host::Host;
use spec::machine::MemoryModule;
use spec::{Bytes, Known};

const ENTRIES: &str = "/sys/firmware/dmi/entries";

/// More slots than any board has.
const MAX_MODULES: usize = 256;

/// The modules that are fitted; empty where the table cannot be read.
pub(crate) fn modules(host: &dyn Host) -> Vec<MemoryModule> {
    let names = host.list(ENTRIES).unwrap_or_default();
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.strip_prefix("17-")?.parse().ok()).collect();
    numbers.sort_unstable();
    let raw = |number: &u32| host.bytes(&format!("{ENTRIES}/17-{number}/raw")).ok();
    // Where the first is refused, all are.
    let Some(first) = numbers.first().and_then(raw) else { return Vec::new() };
    let rest = numbers.iter().skip(1).take(MAX_MODULES - 1).filter_map(raw);
    std::iter::once(first).chain(rest).filter_map(|bytes| module(&bytes)).collect()
}

/// One structure; `None` for an empty slot and for what is no memory device.
fn module(raw: &[u8]) -> Option<MemoryModule> {
    const SOURCE: &str = "SMBIOS type 17";
    let byte = |at: usize| raw.get(at).copied().filter(|_| at < usize::from(raw.get(1).copied().unwrap_or(0)));
    let word = |at: usize| Some(u16::from_le_bytes([byte(at)?, byte(at + 1)?]));
    let dword = |at: usize| Some(u32::from(word(at)?) | u32::from(word(at + 2)?) << 16);
    if raw.first() != Some(&17) {
        return None;
    }
    let size = match word(0x0c)? {
        0 => return None,
        0xffff => None,
        // The true size is in a field of its own, in MiB.
        0x7fff => dword(0x1c).map(|mib| Bytes::from_mib(u64::from(mib & 0x7fff_ffff))),
        kib if kib & 0x8000 != 0 => Some(Bytes::from_kib(u64::from(kib & 0x7fff))),
        mib => Some(Bytes::from_mib(u64::from(mib))),
    };
    // What it runs at, not what it could; 0xffff points to a field for faster ones.
    let speed = match word(0x20) {
        Some(0xffff) => dword(0x58).map(|speed| speed & 0x7fff_ffff),
        speed => speed.map(u32::from),
    };
    let width = word(0x0a).filter(|width| (1..=1024).contains(width));
    let kind = byte(0x12).and_then(kind);
    Some(MemoryModule {
        slot: string(raw, byte(0x10)?).unwrap_or_default(),
        size: Known::from_option(size, SOURCE, "the firmware does not name the size"),
        kind: Known::from_option(kind.map(str::to_owned), SOURCE, "the firmware does not name the kind"),
        transfers_per_s: Known::from_option(
            speed.filter(|speed| *speed > 0).map(|mega| u64::from(mega) * 1_000_000),
            SOURCE,
            "the firmware does not name the speed",
        ),
        width_bits: Known::from_option(width.map(u32::from), SOURCE, "the firmware does not name the width"),
    })
}

/// Section 7.18.2.
fn kind(code: u8) -> Option<&'static str> {
    Some(match code {
        0x12 => "DDR",
        0x13 => "DDR2",
        0x18 => "DDR3",
        0x1a => "DDR4",
        0x1b => "LPDDR",
        0x1c => "LPDDR2",
        0x1d => "LPDDR3",
        0x1e => "LPDDR4",
        0x20 => "HBM",
        0x21 => "HBM2",
        0x22 => "DDR5",
        0x23 => "LPDDR5",
        0x24 => "HBM3",
        _ => return None,
    })
}

/// A string of the structure by its number from 1: they follow the structure, each with a NUL at its end.
fn string(raw: &[u8], number: u8) -> Option<String> {
    let strings = raw.get(usize::from(*raw.get(1)?)..)?;
    let text = strings.split(|byte| *byte == 0).nth(usize::from(number.checked_sub(1)?))?;
    let text = String::from_utf8_lossy(text).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The structure without what names one module: serial number, asset tag, part number and whatever else is not a place.
pub(crate) fn scrubbed(raw: &[u8]) -> Vec<u8> {
    let Some(&length) = raw.get(1) else { return Vec::new() };
    let fixed = raw.get(..usize::from(length)).unwrap_or(raw);
    let place = |at: usize| fixed.get(at).copied().unwrap_or(0);
    // Device locator and bank locator.
    let kept = [place(0x10), place(0x11)];
    let mut out = fixed.to_vec();
    let strings = raw.get(usize::from(length)..).unwrap_or_default();
    for (number, text) in (1..=u8::MAX).zip(strings.split(|byte| *byte == 0)) {
        if text.is_empty() {
            break;
        }
        match kept.contains(&number) {
            true => out.extend(text),
            false => out.push(b'-'),
        }
        out.push(0);
    }
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A module of 32 GiB DDR5 at 5600 MT/s, as firmware writes it.
    pub(crate) fn raw() -> Vec<u8> {
        let mut raw = vec![0; 0x5c];
        raw[0] = 17;
        raw[1] = 0x5c;
        raw[0x0a..0x0c].copy_from_slice(&64_u16.to_le_bytes());
        raw[0x0c..0x0e].copy_from_slice(&0x7fff_u16.to_le_bytes());
        raw[0x10] = 1;
        raw[0x11] = 2;
        raw[0x12] = 0x22;
        raw[0x18] = 3;
        raw[0x1c..0x20].copy_from_slice(&32_768_u32.to_le_bytes());
        raw[0x20..0x22].copy_from_slice(&5600_u16.to_le_bytes());
        raw.extend(b"DIMM A1\0BANK 0\0SERIAL77\0\0");
        raw
    }

    #[test]
    fn a_module_and_an_empty_slot() {
        let module = module(&raw()).unwrap();
        assert_eq!(
            (module.slot.as_str(), module.size.get(), module.transfers_per_s.get()),
            ("DIMM A1", Some(Bytes::from_gib(32)), Some(5_600_000_000))
        );
        assert_eq!((module.kind.value().map(String::as_str), module.width_bits.get()), (Some("DDR5"), Some(64)));
        let mut empty = raw();
        empty[0x0c..0x0e].copy_from_slice(&[0, 0]);
        assert_eq!(super::module(&empty), None);
        assert_eq!(super::module(&[17, 4, 0, 0]), None);
    }

    #[test]
    fn a_serial_number_does_not_stay() {
        let scrubbed = scrubbed(&raw());
        assert!(!String::from_utf8_lossy(&scrubbed).contains("SERIAL77"));
        assert_eq!(module(&scrubbed), module(&raw()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(mut bytes in proptest::collection::vec(any::<u8>(), 0..140), seventeen: bool) {
            if seventeen && let Some(first) = bytes.first_mut() {
                *first = 17;
            }
            let _ = (module(&bytes), scrubbed(&bytes));
        }
    }
}
