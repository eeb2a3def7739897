//! NVLink between NVIDIA GPUs.
//!
//! NVML API reference 12, "NvLink Methods". Rates of a link in one direction (NVIDIA data sheets, half of the sums that they
//! name): 20 GB/s (P100), 25 (V100, A100, H100: 50 in both directions), 14.06 (GeForce and RTX of the Ampere generation), 50
//! (B200). Read 2025-11.

use super::gpus::Link;
use super::nvidia::Handle;
use crate::host::{Host, NvmlField};
use spec::{BytesPerSec, Known};
use std::collections::BTreeMap;

/// Stands for every GPU at the same switch.
pub(super) const SWITCH: &str = "switch";

/// A link of a device.
#[derive(Clone, Debug, PartialEq)]
struct One {
    version: u32,
    kind: String,
    address: String,
}

/// The links of a device by where they lead. Links to switches lead to every GPU that has such.
pub(super) fn read(host: &dyn Host, handle: Handle) -> Vec<Link> {
    let Ok(text) = handle.ask(host, NvmlField::NvLinks) else { return Vec::new() };
    let mut ends: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for one in text.lines().filter_map(parse) {
        let to = if one.kind == "switch" { SWITCH.to_owned() } else { one.address.to_ascii_lowercase() };
        let end = ends.entry(to).or_insert((one.version, 0));
        end.1 = end.1.saturating_add(1);
    }
    ends.into_iter().map(|(to, (version, count))| Link { to, kind: "NVLink", count, bandwidth: bandwidth(version, count) }).collect()
}

/// `0 6 gpu 0000:65:00.0`
fn parse(line: &str) -> Option<One> {
    let mut words = line.split_whitespace();
    let (_, version, kind, address) = (words.next()?.parse::<u32>().ok()?, words.next()?, words.next()?, words.next()?);
    Some(One { version: version.parse().ok()?, kind: kind.to_owned(), address: address.to_owned() })
}

/// `nvmlNvlinkVersion_t`: 1.0, 2.0, 2.2, 3.0, 3.1, 4.0, 5.0 are 1 to 7.
fn bandwidth(version: u32, links: u32) -> Known<BytesPerSec> {
    let each = match version {
        1 => 20.0,
        2..=4 | 6 => 25.0,
        5 => 14.0625,
        7 => 50.0,
        _ => return Known::unknown(format!("no rate in the table for NVLink version {version}")),
    };
    let rate = BytesPerSec::from_gb(each * f64::from(links));
    Known::from_option(rate, "NVLink version x links that are up", "no link is up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_rates() {
        let one = parse("3 6 gpu 0000:65:00.0").unwrap();
        assert_eq!((one.version, one.kind.as_str(), one.address.as_str()), (6, "gpu", "0000:65:00.0"));
        assert_eq!(parse("x"), None);
        // H100 SXM: 18 links, 450 GB/s in one direction.
        assert_eq!(bandwidth(6, 18).get().unwrap().get(), 450e9);
        assert!(bandwidth(9, 1).is_unknown());
    }
}
