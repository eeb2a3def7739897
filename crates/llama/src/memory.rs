//! Memory of this process, as the kernel counts it.

use crate::protocol::ProcessMemory;
use spec::Bytes;

/// This process now; nothing is known where there is no `/proc/self/status`.
pub(crate) fn now() -> ProcessMemory {
    std::fs::read_to_string("/proc/self/status").map(|status| parse(&status)).unwrap_or_default()
}

/// From the text of `/proc/PID/status`. The kernel counts in KiB and writes kB.
fn parse(status: &str) -> ProcessMemory {
    let field = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.trim().strip_suffix(" kB")?.trim().parse().ok().map(Bytes::from_kib)
    };
    ProcessMemory {
        anonymous: field("RssAnon"),
        file: field("RssFile"),
        shared: field("RssShmem"),
        peak: field("VmHWM"),
        locked: field("VmLck"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_and_its_gaps_stay_gaps() {
        let memory = parse("Name:\tx\nVmHWM:\t    1234 kB\nRssAnon:\t      12 kB\nRssFile:\t many kB\n");
        assert_eq!(memory.peak, Some(Bytes::from_kib(1234)));
        assert_eq!(memory.anonymous, Some(Bytes::from_kib(12)));
        assert_eq!((memory.file, memory.shared, memory.locked), (None, None, None));
    }
}
