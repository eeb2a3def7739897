//! Caches that are alike, counted: every system tells of single ones or of groups, a machine lists one entry per level, kind and
//! size.

use spec::Bytes;
use spec::machine::Cache;
use std::collections::BTreeMap;

/// Caches by level, kind and size: how many, and the most CPUs that share one.
#[derive(Default)]
pub(crate) struct Counted(BTreeMap<(u8, String, Bytes), (u32, u32)>);

impl Counted {
    /// So many more of these, each shared by so many CPUs.
    pub(crate) fn add(&mut self, level: u8, kind: &str, size: Bytes, instances: u32, shared_by: usize) {
        let (sum, most) = self.0.entry((level, kind.to_owned(), size)).or_default();
        *sum = sum.saturating_add(instances);
        *most = (*most).max(u32::try_from(shared_by).unwrap_or(u32::MAX));
    }

    /// Closest first.
    pub(crate) fn into_caches(self) -> Vec<Cache> {
        let entry = |((level, kind, size), (instances, shared_by))| Cache { level, kind, size, instances, shared_by };
        self.0.into_iter().map(entry).collect()
    }
}
