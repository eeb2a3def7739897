//! The job object that a process is in: Windows's limits on memory and processor time. Those on memory count what is promised
//! (committed): pages of a mapped file lie beside them.
//!
//! `JOBOBJECT_EXTENDED_LIMIT_INFORMATION`, `JOBOBJECT_CPU_RATE_CONTROL_INFORMATION` of `winnt.h`.

use crate::detect::fields;
use crate::host::{Host, Question, Refusal, WindowsQuestion};
use spec::machine::MemoryLimit;
use spec::{Bytes, Known};

const LIMIT_PROCESS_MEMORY: u64 = 0x100;
const LIMIT_JOB_MEMORY: u64 = 0x200;
const RATE_ENABLE: u64 = 1;
const RATE_HARD_CAP: u64 = 4;
const RATE_MIN_MAX: u64 = 16;
/// The unit of a rate: all processors for a whole interval.
const WHOLE: f64 = 10_000.0;

/// What the job says, as lines; nothing where there is none.
pub(super) struct Job(Result<String, Refusal>);

impl Job {
    pub(super) fn read(host: &dyn Host) -> Self {
        Self(host.text(&Question::Windows(WindowsQuestion::Job)))
    }

    fn number(&self, field: &str) -> Option<u64> {
        self.0.as_ref().ok().and_then(|text| fields::number(text, field))
    }

    /// CPUs worth of time.
    pub(super) fn quota(&self, logical_cpus: Option<u32>) -> Known<f64> {
        let flags = self.number("cpu-flags").unwrap_or(0);
        let capped = flags & RATE_ENABLE != 0 && flags & (RATE_HARD_CAP | RATE_MIN_MAX) != 0;
        let rate = self.number("cpu-rate").filter(|rate| capped && (1..10_000).contains(rate));
        match (rate, logical_cpus) {
            (Some(rate), Some(cpus)) => Known::exact(rate as f64 / WHOLE * f64::from(cpus), "job object: CPU rate"),
            (Some(_), None) => Known::unknown("the job object grants a share of processors of which the number is not known"),
            (None, _) => Known::unknown("no job object limits it"),
        }
    }

    /// The limits on memory, innermost first.
    pub(super) fn memory(&self) -> Vec<MemoryLimit> {
        let flags = self.number("flags").unwrap_or(0);
        let limit = |flag: u64, field: &str, name: &str, used: Known<Bytes>| {
            let limit = self.number(field).filter(|bytes| flags & flag != 0 && *bytes > 0).map(Bytes::new)?;
            let none = "Windows counts no cache against it";
            let swap = Known::unknown("the limit holds for memory and swap together");
            let (source, reclaimable) = (format!("job object: {name}"), Known::exact(Bytes::ZERO, none));
            Some(MemoryLimit { source, limit, used, reclaimable, swap, mapped_files: false })
        };
        let used = Known::from_option(self.number("used").map(Bytes::new), "JobObjectMemoryUsageInformation", "Windows does not say");
        let own = Known::unknown("this process is small");
        let limits = [
            limit(LIMIT_PROCESS_MEMORY, "process-memory", "process memory limit", own),
            limit(LIMIT_JOB_MEMORY, "job-memory", "job memory limit", used),
        ];
        limits.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Recording};

    fn job(text: &str) -> Job {
        let mut host = Recording::new("");
        host.set(&Question::Windows(WindowsQuestion::Job), Ok(Answer::text(text)));
        Job::read(&host)
    }

    #[test]
    fn limits_hold_where_their_flag_is_set() {
        let both = job("flags: 768\njob-memory: 4294967296\nprocess-memory: 2147483648\nused: 1073741824\ncpu-flags: 5\ncpu-rate: 2500");
        let limits: Vec<_> = both.memory().iter().map(|limit| (limit.limit, limit.headroom())).collect();
        assert_eq!(limits, [(Bytes::from_gib(2), Bytes::from_gib(2)), (Bytes::from_gib(4), Bytes::from_gib(3))]);
        assert_eq!(both.quota(Some(8)).get(), Some(2.0));
        assert!(both.quota(None).is_unknown());
        let none = job("flags: 8192\njob-memory: 4294967296\ncpu-flags: 3\ncpu-rate: 5");
        assert!(none.memory().is_empty() && none.quota(Some(8)).is_unknown());
        assert!(job("").memory().is_empty());
    }
}
