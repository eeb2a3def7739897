//! Names of `general.file_type`, as `llama-quantize` spells them.

use mixture::FileType;

/// The name of a file type (`llama_ftype` of `include/llama.h`, llama.cpp v0.6.0-dev); `None` where it is not known.
pub(super) fn name(id: u64) -> Option<&'static str> {
    // Made by the converter alone.
    const NVFP4: u64 = 39;
    match id {
        NVFP4 => Some("NVFP4"),
        id => FileType::from_id(u32::try_from(id).ok()?).map(FileType::name).or_else(|| ik_fork_name(id)),
    }
}

/// File types that only ik_llama.cpp writes (`llama_ftype` of its `include/llama.h`, 8337e4cd), named as its tensor types.
fn ik_fork_name(id: u64) -> Option<&'static str> {
    IK_FORK.iter().find(|(known, _)| *known == id).map(|(_, name)| *name)
}

const IK_FORK: &[(u64, &str)] = &[
    (135, "Q6_0"),
    (136, "IQ1_BN"),
    (137, "IQ2_BN"),
    (138, "IQ2_K"),
    (139, "IQ3_K"),
    (140, "IQ4_K"),
    (141, "IQ5_K"),
    (142, "IQ6_K"),
    (145, "IQ4_KS"),
    (146, "IQ3_KL"),
    (147, "IQ2_KS"),
    (148, "IQ4_KSS"),
    (149, "Q8_KV"),
    (150, "IQ5_KS"),
    (151, "IQ2_KT"),
    (152, "IQ3_KT"),
    (153, "IQ4_KT"),
    (154, "IQ3_KS"),
    (155, "IQ2_KL"),
    (156, "IQ1_KT"),
    (202, "Q4_0_R8"),
    (207, "Q8_0_R8"),
    (208, "Q5_0_R4"),
    (210, "Q2_K_R4"),
    (211, "Q3_K_R4"),
    (214, "Q4_K_R4"),
    (216, "Q5_K_R4"),
    (218, "Q6_K_R4"),
    (219, "IQ2_XXS_R4"),
    (220, "IQ2_XS_R4"),
    (223, "IQ3_XXS_R4"),
    (224, "IQ1_S_R4"),
    (225, "IQ4_NL_R4"),
    (226, "IQ3_S_R4"),
    (229, "IQ2_M_R4"),
    (230, "IQ4_XS_R8"),
    (231, "IQ1_M_R4"),
    (232, "BF16_R16"),
    (335, "Q6_0_R4"),
    (337, "IQ2_BN_R4"),
    (338, "IQ2_K_R4"),
    (339, "IQ3_K_R4"),
    (340, "IQ4_K_R4"),
    (341, "IQ5_K_R4"),
    (345, "IQ4_KS_R4"),
    (350, "IQ5_KS_R4"),
    (351, "MXFP4_R8"),
    (398, "Q8_KV_R8"),
    (399, "Q8_K_R8"),
];

/// The same in a file of the BitNet fork of llama.cpp, which gave these ids meanings of its own.
pub(super) fn bitnet_fork_name(id: u64) -> Option<&'static str> {
    match id {
        38 => Some("TL1"),
        39 => Some("TL2"),
        40 => Some("I2_S"),
        id => name(id),
    }
}
