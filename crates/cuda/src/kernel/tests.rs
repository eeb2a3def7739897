//! Which architecture is compiled for, that NVRTC takes the source, and that it declares what this crate hands over.
#![allow(clippy::print_stderr, reason = "a test says when it is left out")]

use super::*;
use crate::pretended;

#[test]
fn machine_code_where_it_is_known_and_older_ptx_where_not() {
    let known = [75, 80, 86, 90];
    let of = |capability| architecture(&known, capability);
    assert_eq!(of(86).as_deref(), Some("sm_86"));
    assert_eq!(of(89).as_deref(), Some("compute_86"));
    assert_eq!(of(120).as_deref(), Some("compute_90"));
    assert_eq!((of(61), architecture(&[], 61)), (None, None));
}

/// Numbers that stand both here and in the source.
#[test]
fn the_source_says_the_same() {
    for (name, value) in [("ROWS", ONE_ROWS / (Kernel::One.threads() / 32)), ("TILE_ROWS", TILE_ROWS), ("TILE_TOKENS", TILE_TOKENS)] {
        assert!(SOURCE.contains(&format!("constexpr unsigned {name} = {value};")), "{name} = {value}");
    }
    assert!(SOURCE.contains(&format!("constexpr unsigned KEYS = {};", Kernel::AttendF16.threads())));
    assert!(SOURCE.contains("SIDE_ROWS = 16;") && SOURCE.contains("SIDE_TOKENS = 8;") && Kernel::Many.threads() == 16 * 8);
    assert!(Kernel::ALL.iter().all(|kernel| kernel.threads() % 32 == 0));
    for kernel in Kernel::ALL {
        assert!(SOURCE.contains(&format!("extern \"C\" __global__ void {}(", kernel.name())));
    }
}

/// The real compiler: machine code for GPUs of ten years, and in PTX what the source promises.
#[test]
fn nvrtc_takes_the_source() {
    // The next test runs this one with NVRTC.
    if !pretended::is_again() {
        return;
    }
    for capability in [61, 75, 80, 86, 90, 120] {
        let code = compile("a test", capability).unwrap();
        assert!(code.starts_with(b"\x7FELF"), "{capability}");
        eprintln!("compute capability {capability}: {} bytes", code.len());
    }
    // None is called 6.9, for which it is PTX for the one below.
    let ptx = String::from_utf8(compile("a test", 69).unwrap()).unwrap();
    for kernel in Kernel::ALL {
        let name = kernel.name();
        let declared = format!(".visible .entry {name}(\n\t.param .align 8 .b8 {name}_param_0[{}]\n)", kernel.parameters());
        assert!(ptx.contains(&declared), "not {declared}");
    }
    assert_eq!(ptx.matches(".entry").count(), Kernel::ALL.len());
    for needed in ["dp4a.s32.s32", "div.rn.f32", "sqrt.rn.f32", "cvt.rn.f16.f32", "shfl.sync.bfly"] {
        assert!(ptx.contains(needed), "no {needed}");
    }
    // Nothing rounds otherwise than the CPU: no fused product, no approximation, no flush of small numbers.
    for not_wanted in ["fma.", ".approx", ".ftz", "mad.f32", "div.full"] {
        assert!(!ptx.contains(not_wanted), "{not_wanted}");
    }
    let error = compile("GeForce GTX 280", 13).unwrap_err().to_string();
    assert!(error.starts_with("the kernels cannot be compiled for GeForce GTX 280: NVRTC ") && error.ends_with(" 1.3"), "{error}");
}

#[test]
fn nvrtc_again_from_its_folder() {
    let Some(folder) = pretended::nvrtc() else { return };
    eprintln!("{}", pretended::again(&folder, "nvrtc_takes_the_source", &[]));
}
