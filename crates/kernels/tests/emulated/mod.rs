//! The kernel `amx-int8` on processors without AMX: its instructions, which such a processor refuses, are caught and carried out by
//! [`unit`], so that the very code of the kernel is tested. Where the processor has AMX it computes itself.
#![allow(clippy::print_stderr, dead_code, unused_imports, reason = "a test says when it is left out, or what computes; each uses its part")]

mod fence;
mod instruction;
mod trap;
mod unit;

use kernels::{AmxError, Kernel};
use std::sync::Once;

pub use fence::Fence;
pub use trap::{Misuse, amx_int8_emulated, counts, misuse, with_wrong_products};

/// The kernel, and whether it is emulated; `None` where AVX-512 is missing, which is said.
pub fn amx_int8() -> Option<(Kernel, bool)> {
    static SAID: Once = Once::new();
    let say = |text: String| SAID.call_once(|| eprintln!("{text}"));
    match Kernel::amx_int8() {
        Ok(kernel) => {
            say("amx-int8: this processor's own instructions".to_owned());
            Some((kernel, false))
        }
        // To leave the tests out then would be to pass a kernel that is wrong.
        Err(AmxError::Products) => panic!("products of this processor's tiles are wrong"),
        Err(missing) => match amx_int8_emulated() {
            Ok(kernel) => {
                say(format!("amx-int8: emulated, for {missing}"));
                Some((kernel, true))
            }
            Err(AmxError::Products) => panic!("products of emulated tiles are wrong"),
            Err(error) => {
                say(format!("SKIPPED: amx-int8 can not be emulated either: {error}"));
                None
            }
        },
    }
}
