//! The engine child by itself: what `loadmaster engine-child` runs, for the tests of this crate and for looking at the
//! protocol by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    llama::child::main()
}
