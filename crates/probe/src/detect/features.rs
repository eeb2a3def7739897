//! Instruction-set extensions that decide how fast a quantised matrix product is, under the kernel's names.

use crate::host::{Host, Question, Registers};
use spec::Known;
use std::collections::BTreeSet;

/// The flags of x86 that are kept, as `/proc/cpuinfo` spells them.
const X86: [&str; 42] = [
    "sse2",
    "sse3",
    "ssse3",
    "sse4_1",
    "sse4_2",
    "popcnt",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "bmi1",
    "bmi2",
    "gfni",
    "vaes",
    "vpclmulqdq",
    "avx_vnni",
    "avx_vnni_int8",
    "avx_vnni_int16",
    "avx_ifma",
    "avx_ne_convert",
    "avx512f",
    "avx512cd",
    "avx512dq",
    "avx512bw",
    "avx512vl",
    "avx512ifma",
    "avx512vbmi",
    "avx512_vbmi2",
    "avx512_vnni",
    "avx512_bitalg",
    "avx512_vpopcntdq",
    "avx512_bf16",
    "avx512_fp16",
    "avx512_vp2intersect",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "amx_fp16",
    "amx_complex",
    "sse4a",
    "xop",
    "fma4",
];

/// The features of ARM that are kept: the kernel's name and ours.
const ARM: [(&str, &str); 14] = [
    ("asimd", "neon"),
    ("neon", "neon"),
    ("asimddp", "dotprod"),
    ("asimdhp", "fp16"),
    ("fphp", "fp16"),
    ("i8mm", "i8mm"),
    ("bf16", "bf16"),
    ("sve", "sve"),
    ("sve2", "sve2"),
    ("svei8mm", "svei8mm"),
    ("svebf16", "svebf16"),
    ("sme", "sme"),
    ("sme2", "sme2"),
    ("asimdfhm", "fp16fml"),
];

/// The extensions in the line `flags` of an x86 CPU.
pub(crate) fn from_x86_flags(flags: &str) -> BTreeSet<String> {
    flags
        .split_whitespace()
        .map(|flag| if flag == "pni" { "sse3" } else { flag })
        .filter(|flag| X86.contains(flag))
        .map(str::to_owned)
        .collect()
}

/// True where CPUID reports AVX10 (leaf 7, subleaf 1, EDX bit 19: Intel AVX10 architecture specification, 355989), which
/// kernels list late or never, and the system saves the registers of AVX-512.
pub(crate) fn avx10(host: &dyn Host) -> bool {
    host.cpuid(0, 0).is_ok_and(|registers| registers.eax >= 7)
        && host.cpuid(7, 1).is_ok_and(|registers| registers.edx >> 19 & 1 == 1)
        && saved_state(host) & state_needed("avx10") == state_needed("avx10")
}

/// Bits of a scalable vector register, as the kernel gives them to a new program
/// (Linux Documentation/arch/arm64/sve.rst, section 9).
pub(crate) fn vector_bits(host: &dyn Host, features: &BTreeSet<String>) -> Known<u32> {
    const FILE: &str = "/proc/sys/abi/sve_default_vector_length";
    if !features.contains("sve") {
        return Known::unknown("the processor has no scalable vectors");
    }
    let bits = host.number(FILE).filter(|bytes| (16..=256).contains(bytes)).map(|bytes| bytes as u32 * 8);
    Known::from_option(bits, FILE, format!("{FILE} names no length"))
}

/// The extensions in the line `Features` of an ARM CPU.
pub(crate) fn from_arm_features(features: &str) -> BTreeSet<String> {
    let ours = |theirs: &str| ARM.iter().find(|(kernel, _)| *kernel == theirs).map(|(_, ours)| (*ours).to_owned());
    features.split_whitespace().filter_map(ours).collect()
}

/// One bit of CPUID and the extension that it stands for.
struct Bit(u32, u32, fn(Registers) -> u32, u32, &'static str);

const EAX: fn(Registers) -> u32 = |registers| registers.eax;
const EBX: fn(Registers) -> u32 = |registers| registers.ebx;
const ECX: fn(Registers) -> u32 = |registers| registers.ecx;
const EDX: fn(Registers) -> u32 = |registers| registers.edx;

/// Intel SDM volume 2A, CPUID, and Intel Architecture Instruction Set Extensions reference (319433), table 1-3; AMD APM
/// volume 3, appendix E.
const BITS: [Bit; 42] = [
    Bit(1, 0, EDX, 26, "sse2"),
    Bit(1, 0, ECX, 0, "sse3"),
    Bit(1, 0, ECX, 9, "ssse3"),
    Bit(1, 0, ECX, 12, "fma"),
    Bit(1, 0, ECX, 19, "sse4_1"),
    Bit(1, 0, ECX, 20, "sse4_2"),
    Bit(1, 0, ECX, 23, "popcnt"),
    Bit(1, 0, ECX, 28, "avx"),
    Bit(1, 0, ECX, 29, "f16c"),
    Bit(7, 0, EBX, 3, "bmi1"),
    Bit(7, 0, EBX, 5, "avx2"),
    Bit(7, 0, EBX, 8, "bmi2"),
    Bit(7, 0, EBX, 16, "avx512f"),
    Bit(7, 0, EBX, 17, "avx512dq"),
    Bit(7, 0, EBX, 21, "avx512ifma"),
    Bit(7, 0, EBX, 28, "avx512cd"),
    Bit(7, 0, EBX, 30, "avx512bw"),
    Bit(7, 0, EBX, 31, "avx512vl"),
    Bit(7, 0, ECX, 1, "avx512vbmi"),
    Bit(7, 0, ECX, 6, "avx512_vbmi2"),
    Bit(7, 0, ECX, 8, "gfni"),
    Bit(7, 0, ECX, 9, "vaes"),
    Bit(7, 0, ECX, 10, "vpclmulqdq"),
    Bit(7, 0, ECX, 11, "avx512_vnni"),
    Bit(7, 0, ECX, 12, "avx512_bitalg"),
    Bit(7, 0, ECX, 14, "avx512_vpopcntdq"),
    Bit(7, 0, EDX, 8, "avx512_vp2intersect"),
    Bit(7, 0, EDX, 22, "amx_bf16"),
    Bit(7, 0, EDX, 23, "avx512_fp16"),
    Bit(7, 0, EDX, 24, "amx_tile"),
    Bit(7, 0, EDX, 25, "amx_int8"),
    Bit(7, 1, EAX, 4, "avx_vnni"),
    Bit(7, 1, EAX, 5, "avx512_bf16"),
    Bit(7, 1, EAX, 21, "amx_fp16"),
    Bit(7, 1, EAX, 23, "avx_ifma"),
    Bit(7, 1, EDX, 4, "avx_vnni_int8"),
    Bit(7, 1, EDX, 5, "avx_ne_convert"),
    Bit(7, 1, EDX, 8, "amx_complex"),
    Bit(7, 1, EDX, 10, "avx_vnni_int16"),
    Bit(0x8000_0001, 0, ECX, 6, "sse4a"),
    Bit(0x8000_0001, 0, ECX, 11, "xop"),
    Bit(0x8000_0001, 0, ECX, 16, "fma4"),
];

/// Register state that the system must save before an extension may be used: bits of XCR0.
fn state_needed(extension: &str) -> u64 {
    const AVX: u64 = 0b110;
    const AVX512: u64 = AVX | 0b1110_0000;
    const AMX: u64 = 0b11 << 17;
    match extension {
        name if name.starts_with("amx") => AMX,
        name if name.starts_with("avx512") || name == "avx10" => AVX512,
        name if name.starts_with("avx") => AVX,
        "fma" | "fma4" | "f16c" | "xop" | "vaes" | "vpclmulqdq" => AVX,
        _ => 0,
    }
}

/// XCR0; nothing where it cannot be read.
fn saved_state(host: &dyn Host) -> u64 {
    host.text(&Question::Xcr0).ok().and_then(|text| u64::from_str_radix(&text, 16).ok()).unwrap_or(0)
}

/// The extensions that CPUID reports and the system supports. Empty where there is no CPUID.
pub(crate) fn from_cpuid(host: &dyn Host) -> BTreeSet<String> {
    let state = saved_state(host);
    let highest = |leaf: u32| host.cpuid(leaf & 0x8000_0000, 0).is_ok_and(|registers| registers.eax >= leaf);
    let leaf = |leaf, subleaf| if highest(leaf) { host.cpuid(leaf, subleaf).unwrap_or_default() } else { Registers::default() };
    let registers = [((1, 0), leaf(1, 0)), ((7, 0), leaf(7, 0)), ((7, 1), leaf(7, 1)), ((0x8000_0001, 0), leaf(0x8000_0001, 0))];
    let is_set = |bit: &Bit| {
        let found = registers.iter().find(|(place, _)| *place == (bit.0, bit.1)).map(|(_, registers)| bit.2(*registers));
        found.is_some_and(|register| register >> bit.3 & 1 == 1)
    };
    let usable = |bit: &&Bit| is_set(bit) && state & state_needed(bit.4) == state_needed(bit.4);
    BITS.iter().filter(usable).map(|bit| bit.4.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    use crate::Live;
    use crate::{Answer, Recording};

    #[test]
    fn names_of_the_kernel() {
        assert_eq!(
            from_x86_flags("fpu pni avx2 bogus avx512vbmi amx_tile"),
            ["amx_tile", "avx2", "avx512vbmi", "sse3"].map(String::from).into()
        );
        assert_eq!(from_arm_features("fp asimd evtstrm asimddp i8mm sve"), ["dotprod", "i8mm", "neon", "sve"].map(String::from).into());
    }

    #[test]
    fn every_bit_is_a_kept_flag_and_every_flag_has_a_bit() {
        let bits: BTreeSet<_> = BITS.iter().map(|bit| bit.4).collect();
        assert_eq!(bits, X86.into());
    }

    #[test]
    fn an_extension_needs_the_state_that_the_system_saves() {
        let mut machine = Recording::new("");
        machine.set(&Question::Cpuid { leaf: 0, subleaf: 0 }, Ok(Answer::text("00000007 0 0 0")));
        machine.set(&Question::Cpuid { leaf: 1, subleaf: 0 }, Ok(Answer::text("0 0 10000001 0")));
        machine.set(&Question::Cpuid { leaf: 7, subleaf: 0 }, Ok(Answer::text("1 00010020 0 01000000")));
        machine.set(&Question::Xcr0, Ok(Answer::text("7")));
        assert_eq!(from_cpuid(&machine), ["avx", "avx2", "sse3"].map(String::from).into());
        machine.set(&Question::Xcr0, Ok(Answer::text("600e7")));
        assert!(from_cpuid(&machine).contains("amx_tile") && from_cpuid(&machine).contains("avx512f"));
    }

    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn cpuid_and_the_kernel_agree_on_this_machine() {
        let live = Live::new();
        let host: &dyn Host = &live;
        let flags = super::super::cpuinfo::parse(&host.read("/proc/cpuinfo").unwrap()).flags.unwrap();
        let kernel = from_x86_flags(&flags);
        let ours = from_cpuid(host);
        // A kernel may hide what it cannot or may not support, or be too old to have a name for it.
        assert!(kernel.is_subset(&ours), "only the kernel: {:?}", kernel.difference(&ours).collect::<Vec<_>>());
    }
}
