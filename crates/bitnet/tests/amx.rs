//! Prompts by the kernel `amx-int8`, of this processor or emulated: the logits of the plain kernel to the bit, and no memory beyond what is
//! said.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../../kernels/tests/emulated/mod.rs"]
mod emulated;
mod models;

use bitnet::{LoadOptions, Options, Session, Weights};
use kernels::Kernel;
use models::{Built, Written, cases};
use std::sync::Arc;

const OPTIONS: Options = Options { n_ctx: 160, n_ubatch: 70, cache: bitnet::CacheType::F16, threads: 1 };

fn session(built: &Built, kernel: Kernel, options: Options) -> Session {
    let load = LoadOptions { kernel, ..LoadOptions::default() };
    let weights = Weights::load(&built.model, std::slice::from_ref(&built.data), &load).unwrap();
    Session::new(Arc::new(weights), options).unwrap()
}

#[test]
fn prompts_by_tiles_are_those_of_the_plain_kernel() {
    let Some((kernel, emulated)) = emulated::amx_int8() else { return };
    for case in cases() {
        let built = case.build(Written::default());
        // Two micro-batches of 70 tokens, and one of 3, which is not for tiles.
        let tokens: Vec<u32> = case.tokens.iter().copied().cycle().take(143).collect();
        for threads in [1, 3] {
            let options = Options { threads, ..OPTIONS };
            let products = emulated::counts().products;
            let mut tiled = session(&built, kernel, options);
            let mut plain = session(&built, Kernel::reference(), options);
            assert_eq!(tiled.extend(&tokens).unwrap(), plain.extend(&tokens).unwrap(), "seed {}", case.seed);
            assert_eq!(tiled.extend(&[1]).unwrap(), plain.extend(&[1]).unwrap(), "seed {}", case.seed);
            assert!(!emulated || emulated::counts().products > products);
        }
    }
}

#[test]
fn tiles_allocate_nothing() {
    let Some((kernel, _)) = emulated::amx_int8() else { return };
    for case in cases() {
        let mut session = session(&case.build(Written::default()), kernel, OPTIONS);
        let tokens: Vec<u32> = case.tokens.iter().copied().cycle().take(143).collect();
        let counted = allocation_counter::measure(|| {
            session.extend(&tokens).unwrap();
        });
        assert_eq!((counted.count_total, counted.bytes_max), (0, 0), "seed {}", case.seed);
    }
}
