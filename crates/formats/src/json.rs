//! Where in a text a JSON parser stopped.

/// The offset in `text` of an error that names line and column.
pub(crate) fn offset(text: &[u8], error: &serde_json::Error) -> u64 {
    let lines_before = error.line().saturating_sub(1);
    let start: usize = text.split_inclusive(|&byte| byte == b'\n').take(lines_before).map(<[u8]>::len).sum();
    start.saturating_add(error.column().saturating_sub(1)).min(text.len()) as u64
}

/// What is wrong, without the place, which the caller states as an offset.
pub(crate) fn problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem).to_owned()
}
