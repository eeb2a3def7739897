//! Pages larger than a base page (Linux Documentation/admin-guide/mm/{transhuge,hugetlbpage}.rst).

use super::memory::MemInfo;
use crate::host::{Host, Refusal};
use spec::Known;
use spec::machine::HugePages;

const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Huge pages, with what `/proc/meminfo` says of those set aside.
pub(crate) fn read(host: &dyn Host, meminfo: &Result<MemInfo, Refusal>) -> HugePages {
    let info = meminfo.as_ref().copied().unwrap_or_default();
    HugePages {
        transparent: match host.read(TRANSPARENT) {
            Ok(text) => Known::from_option(chosen(&text), TRANSPARENT, format!("{TRANSPARENT} marks no choice")),
            Err(refusal) => Known::unknown(format!("{TRANSPARENT}: {refusal}")),
        },
        size: Known::from_option(info.huge_page, "/proc/meminfo Hugepagesize", "the kernel names no huge page"),
        reserved: Known::from_option(info.huge_pages, "/proc/meminfo HugePages_Total", "the kernel names no huge pages"),
    }
}

/// The word in brackets: `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let (_, after) = text.split_once('[')?;
    let (word, _) = after.split_once(']')?;
    (!word.is_empty()).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_stands_in_brackets() {
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("always madvise never"), None);
        assert_eq!(chosen("[]"), None);
    }
}
