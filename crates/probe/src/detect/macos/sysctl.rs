//! Values of macOS's kernel: from bytes to the text of an answer, and from answers to numbers.

use crate::host::{Host, Question};

/// Values that are texts; the kernel says of none what it is.
#[cfg(any(test, target_os = "macos"))]
const TEXTS: [&str; 5] = ["machdep.cpu.brand_string", "hw.model", "kern.osproductversion", "kern.osversion", "kern.osrelease"];

/// The text of a value, in the form of [`Question::Sysctl`]; `None` where the bytes have no such form.
///
/// Apple's documentation "Determining system capabilities" and `sys/sysctl.h`: numbers have four or eight bytes, little-endian;
/// `vm.swapusage` is `struct xsw_usage`, three numbers of eight bytes (total, available, used) and two fields that are not used here.
#[cfg(any(test, target_os = "macos"))]
pub(crate) fn decode(name: &str, bytes: &[u8]) -> Option<String> {
    if TEXTS.contains(&name) || name.ends_with(".name") {
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        return Some(String::from_utf8_lossy(text).into_owned());
    }
    let words = || bytes.chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes);
    if name == "vm.swapusage" {
        let [total, free, used] = words().take(3).collect::<Vec<_>>().try_into().ok()?;
        return Some(format!("total: {total}\nused: {used}\nfree: {free}"));
    }
    match bytes.len() {
        0 => None,
        4 => Some(i32::from_le_bytes(bytes.try_into().ok()?).to_string()),
        length if length.is_multiple_of(8) => Some(words().map(|word| word.to_string()).collect::<Vec<_>>().join(" ")),
        _ => None,
    }
}

/// A value that is a text and not empty.
pub(crate) fn text(host: &dyn Host, name: &str) -> Option<String> {
    host.text(&Question::Sysctl(name.to_owned())).ok().filter(|text| !text.is_empty())
}

/// A value that is one number.
pub(crate) fn number(host: &dyn Host, name: &str) -> Option<u64> {
    text(host, name)?.trim().parse().ok()
}

/// A value that is one number and no zero, which stands for what is not there.
pub(crate) fn count(host: &dyn Host, name: &str) -> Option<u32> {
    number(host, name).filter(|number| *number > 0).and_then(|number| u32::try_from(number).ok())
}

/// True where the value is there and not zero.
pub(crate) fn is_set(host: &dyn Host, name: &str) -> bool {
    number(host, name).is_some_and(|number| number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_of_the_kernel() {
        assert_eq!(decode("hw.memsize", &(36u64 << 30).to_le_bytes()).as_deref(), Some("38654705664"));
        assert_eq!(decode("hw.packages", &1i32.to_le_bytes()).as_deref(), Some("1"));
        assert_eq!(decode("hw.perflevel0.name", b"Performance\0").as_deref(), Some("Performance"));
        assert_eq!(decode("kern.osversion", b"24D\0").as_deref(), Some("24D"));
        let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        assert_eq!(decode("hw.cacheconfig", &words(&[8, 2, 2, 8])).as_deref(), Some("8 2 2 8"));
        assert_eq!(decode("vm.swapusage", &words(&[30, 10, 20, 4096])).as_deref(), Some("total: 30\nused: 20\nfree: 10"));
        assert_eq!((decode("vm.swapusage", &[0; 16]), decode("hw.x", &[0; 3]), decode("hw.x", &[])), (None, None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(name in "(hw.model|vm.swapusage|hw.memsize)", bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&name, &bytes);
        }
    }
}
