//! `/proc/meminfo` and the `meminfo` of NUMA nodes.

use spec::Bytes;

/// What `/proc/meminfo` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemInfo {
    pub(crate) total: Option<Bytes>,
    pub(crate) available: Option<Bytes>,
    /// `MemFree + Buffers + Cached`: stands for the available memory on kernels before 3.14. Too high, as it counts
    /// shared memory and dirty pages.
    pub(crate) free_and_cached: Option<Bytes>,
    pub(crate) swap_total: Option<Bytes>,
    pub(crate) swap_free: Option<Bytes>,
    /// Size of the huge pages that are set aside by number.
    pub(crate) huge_page: Option<Bytes>,
    pub(crate) huge_pages: Option<u64>,
    /// What may be promised to programs, where the system promises no more than it has.
    pub(crate) commit_limit: Option<Bytes>,
    /// What is promised.
    pub(crate) committed: Option<Bytes>,
}

/// The fields of a text in the form of `/proc/meminfo`.
pub(crate) fn parse(text: &str) -> MemInfo {
    let field = |name: &str| text.lines().find_map(|line| kib(line.trim_start().strip_prefix(name)?));
    let free_and_cached = || Some(field("MemFree:")? + field("Buffers:").unwrap_or(Bytes::ZERO) + field("Cached:")?);
    MemInfo {
        total: field("MemTotal:").filter(|total| !total.is_zero()),
        available: field("MemAvailable:"),
        free_and_cached: free_and_cached(),
        swap_total: field("SwapTotal:"),
        swap_free: field("SwapFree:"),
        huge_page: field("Hugepagesize:").filter(|size| !size.is_zero()),
        commit_limit: field("CommitLimit:"),
        committed: field("Committed_AS:"),
        huge_pages: text.lines().find_map(|line| line.strip_prefix("HugePages_Total:")?.trim().parse().ok()),
    }
}

/// `MemTotal` of a node: `Node 0 MemTotal:  65842312 kB`.
pub(crate) fn node_total(text: &str) -> Option<Bytes> {
    text.lines().find_map(|line| kib(line.split_once("MemTotal:")?.1))
}

/// A number of KiB; the kernel prints KiB and calls it "kB".
fn kib(text: &str) -> Option<Bytes> {
    let kib: u64 = text.trim().strip_suffix("kB").unwrap_or(text).trim().parse().ok()?;
    Bytes::new(kib).checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_fields_that_count() {
        let info = parse(
            "MemTotal:       16314472 kB\nMemFree:         100 kB\nMemAvailable:   15000000 kB\nBuffers: 1 kB\nCached:  20 kB\nSwapCached: 9 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
        );
        assert_eq!(info.total, Some(Bytes::from_kib(16_314_472)));
        assert_eq!(info.available, Some(Bytes::from_kib(15_000_000)));
        assert_eq!(info.free_and_cached, Some(Bytes::from_kib(121)));
        assert_eq!(info.swap_total, Some(Bytes::ZERO));
        assert_eq!(parse(""), MemInfo::default());
        assert_eq!(parse("MemTotal: 99999999999999999999 kB\nMemFree: -3 kB").total, None);
        assert_eq!(node_total("\nNode 0 MemTotal:       24684084 kB\nNode 0 MemFree: 1 kB"), Some(Bytes::from_kib(24_684_084)));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(MemTotal:|Node 0 MemTotal:|Cached:)?[ -~\n]{0,60}") {
            let _ = (parse(&text), node_total(&text));
        }
    }
}
