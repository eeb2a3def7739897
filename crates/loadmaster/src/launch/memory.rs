//! Memory of a process as the kernel counts it.

use spec::Bytes;

/// Resident memory of an engine's process. Unknown parts are `None`: outside Linux, or after its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Anonymous pages (`RssAnon`).
    pub anonymous: Option<Bytes>,
    /// File pages (`RssFile`): mapped weights and the program itself.
    pub mapped: Option<Bytes>,
    /// Highest sum of all resident pages so far (`VmHWM`).
    pub peak: Option<Bytes>,
    /// Highest anonymous part among the moments at which it was looked at.
    pub anonymous_peak: Option<Bytes>,
}

impl ProcessMemory {
    /// Looks at a process; what cannot be read keeps its last value.
    pub(crate) fn look(&mut self, pid: u32) {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return };
        self.update(&parse(&text));
    }

    /// Takes over what is known in `now`.
    pub(crate) fn update(&mut self, now: &Self) {
        self.anonymous = now.anonymous.or(self.anonymous);
        self.mapped = now.mapped.or(self.mapped);
        self.peak = now.peak.or(self.peak);
        self.anonymous_peak = self.anonymous_peak.max(now.anonymous).max(now.anonymous_peak);
    }

    /// What a process has on top of what it had.
    pub(crate) fn beyond(&self, before: &Self) -> Self {
        let more = |now: Option<Bytes>, then: Option<Bytes>| Some(now?.saturating_sub(then?));
        Self {
            anonymous: more(self.anonymous, before.anonymous),
            mapped: more(self.mapped, before.mapped),
            // Most of what planning took for a moment is given back: the highest sum counts where it is above that.
            peak: more(self.peak, before.anonymous.zip(before.mapped).map(|(anonymous, mapped)| anonymous + mapped)),
            anonymous_peak: more(self.anonymous_peak, before.anonymous),
        }
    }

    /// All that is resident.
    pub(crate) fn resident(&self) -> Bytes {
        self.anonymous.unwrap_or_default() + self.mapped.unwrap_or_default()
    }
}

/// From the text of `/proc/PID/status`. The kernel prints KiB and calls it "kB". A zombie has no memory lines.
fn parse(status: &str) -> ProcessMemory {
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix(" kB")?.trim().parse().ok().map(Bytes::from_kib)
    };
    let anonymous = field("RssAnon");
    ProcessMemory { anonymous, mapped: field("RssFile"), peak: field("VmHWM"), anonymous_peak: anonymous }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_keeps_the_highest_and_the_last() {
        let mut memory = ProcessMemory::default();
        memory.update(&parse("Name:\tx\nVmHWM:\t    9000 kB\nRssAnon:\t    2048 kB\nRssFile:\t    1024 kB\n"));
        memory.update(&parse("VmHWM:\t    9000 kB\nRssAnon:\t    1024 kB\nRssFile:\t    4096 kB\n"));
        memory.update(&parse("Name:\tx\nState:\tZ (zombie)\n"));
        assert_eq!((memory.anonymous, memory.anonymous_peak), (Some(Bytes::from_mib(1)), Some(Bytes::from_mib(2))));
        assert_eq!((memory.mapped, memory.resident()), (Some(Bytes::from_mib(4)), Bytes::from_mib(5)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory() {
        let mut memory = ProcessMemory::default();
        memory.look(std::process::id());
        assert!(memory.anonymous > Some(Bytes::ZERO) && memory.peak >= memory.anonymous);
    }
}
