//! Limits under Linux on what a process may ask for, whatever is free: its own (`ulimit -v`, `ulimit -d`), and that of a system that
//! promises no more than it has.
//!
//! Linux Documentation/filesystems/proc.rst (`limits`), Documentation/mm/overcommit-accounting.rst: with `overcommit_memory` 2 anonymous
//! memory is promised up to `CommitLimit`; `RLIMIT_DATA` counts private writable memory, `RLIMIT_AS` all that is mapped.

use super::memory::MemInfo;
use crate::host::Host;
use spec::machine::MemoryLimit;
use spec::{Bytes, Known};

const LIMITS: &str = "/proc/self/limits";
const OVERCOMMIT: &str = "/proc/sys/vm/overcommit_memory";

/// The limits that hold, the process's own first. Those of `total` memory and more say nothing.
pub(crate) fn limits(host: &dyn Host, meminfo: Option<&MemInfo>, total: Option<Bytes>) -> Vec<MemoryLimit> {
    let text = host.read(LIMITS).unwrap_or_default();
    let own = |name: &str, mapped_files| {
        let limit = soft_limit(&text, name).filter(|limit| total.is_none_or(|total| *limit < total))?;
        Some(limit_of(format!("{LIMITS} {name}"), limit, Known::unknown("this process is small"), mapped_files))
    };
    let strict = || {
        let meminfo = meminfo?;
        let (limit, used) = (meminfo.commit_limit?, meminfo.committed?);
        let used = Known::exact(used, "/proc/meminfo Committed_AS");
        (host.number(OVERCOMMIT)? == 2).then(|| limit_of(format!("{OVERCOMMIT} 2: CommitLimit"), limit, used, false))
    };
    [own("Max address space", true), own("Max data size", false), strict()].into_iter().flatten().collect()
}

fn limit_of(source: String, limit: Bytes, used: Known<Bytes>, mapped_files: bool) -> MemoryLimit {
    let reclaimable = Known::exact(Bytes::ZERO, "what is promised is not taken back");
    let swap = Known::unknown("the limit holds for memory and swap together");
    MemoryLimit { source, limit, used, reclaimable, swap, mapped_files }
}

/// `Max address space         8589934592           unlimited            bytes`: the first number is in force.
fn soft_limit(text: &str, name: &str) -> Option<Bytes> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok().map(Bytes::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};

    #[test]
    fn a_limit_on_data_leaves_mapped_files_alone_and_one_on_addresses_does_not() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \nMax data size             2147483648           unlimited            bytes     \nMax address space         8589934592           17179869184          bytes     \n";
        let mut host = Recording::new("");
        host.set(&Question::Read(LIMITS.into()), Ok(Answer::text(text)));
        let gib = |limits: &[MemoryLimit]| limits.iter().map(|limit| (limit.limit.as_gib() as u32, limit.mapped_files)).collect::<Vec<_>>();
        assert_eq!(gib(&limits(&host, None, Some(Bytes::from_gib(64)))), [(8, true), (2, false)]);
        assert_eq!(gib(&limits(&host, None, Some(Bytes::from_gib(4)))), [(2, false)]);
        host.set(&Question::Read(LIMITS.into()), Ok(Answer::text(text.replace("2147483648", "unlimited").replace("8589934592", "x"))));
        assert!(limits(&host, None, None).is_empty());
    }

    #[test]
    fn a_system_that_promises_no_more_than_it_has() {
        let info = MemInfo { commit_limit: Some(Bytes::from_gib(10)), committed: Some(Bytes::from_gib(4)), ..MemInfo::default() };
        let mut host = Recording::new("");
        for (text, headroom) in [("2", Some(Bytes::from_gib(6))), ("0", None), ("1", None), ("", None)] {
            host.set(&Question::Read(OVERCOMMIT.into()), Ok(Answer::text(text)));
            let found = limits(&host, Some(&info), Some(Bytes::from_gib(8)));
            assert_eq!(found.first().map(MemoryLimit::headroom), headroom, "{text}");
            assert!(found.iter().all(|limit| !limit.mapped_files));
        }
    }
}
