//! Answers of several values: lines `field: value`.

/// The value of a field.
pub(crate) fn text<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    lines.lines().find_map(|line| line.split_once(':').filter(|(field, _)| *field == name).map(|(_, value)| value.trim()))
}

/// The value of a field that is a number.
pub(crate) fn number(lines: &str, name: &str) -> Option<u64> {
    text(lines, name)?.parse().ok()
}

/// The value of a field that is a number in hexadecimal digits.
pub(crate) fn hexadecimal(lines: &str, name: &str) -> Option<u64> {
    u64::from_str_radix(text(lines, name)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_by_name() {
        let lines = "free: 12\nfile-backed:7\nmask: ff\nname: A: B\nempty:";
        assert_eq!((number(lines, "free"), number(lines, "file-backed")), (Some(12), Some(7)));
        assert_eq!((text(lines, "name"), text(lines, "empty"), text(lines, "no")), (Some("A: B"), Some(""), None));
        assert_eq!((hexadecimal(lines, "mask"), hexadecimal(lines, "name")), (Some(255), None));
        assert_eq!((number(lines, "name"), number(lines, "fre")), (None, None));
    }
}
