//! One recorded dry run on one line: how many tensors have each type, and a fingerprint of which.

use std::collections::BTreeMap;
use std::fmt::Write;

/// `q4_K=120 q6_K=33 imatrix 0123456789abcdef`, out of names and types.
pub fn summary(types: impl IntoIterator<Item = (String, String)>, imatrix: bool) -> String {
    let types: BTreeMap<String, String> = types.into_iter().collect();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    // FNV-1a, 64 bits.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (name, ty) in &types {
        *counts.entry(ty).or_default() += 1;
        for byte in format!("{name} {ty}\n").bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    let mut text = String::new();
    for (ty, count) in counts {
        let _ = write!(text, "{ty}={count} ");
    }
    let _ = write!(text, "{}{hash:016x}", if imatrix { "imatrix " } else { "" });
    text
}
