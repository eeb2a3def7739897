//! What computes, as its maker describes it.

/// Hardware whose memory and way of launching work is alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// NVIDIA cards with GDDR memory.
    NvidiaGddr,
    /// NVIDIA cards with HBM.
    NvidiaHbm,
    /// NVIDIA modules that share the host's memory.
    NvidiaUnified,
    /// AMD cards with GDDR memory.
    AmdGddr,
    /// AMD accelerators with HBM.
    AmdHbm,
    /// AMD processors' own GPUs.
    AmdUnified,
    /// Apple's GPUs.
    Apple,
    /// Intel cards.
    Intel,
    /// Intel processors' own GPUs.
    IntelUnified,
    /// Processors.
    Cpu,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 10] = [
        Self::NvidiaGddr,
        Self::NvidiaHbm,
        Self::NvidiaUnified,
        Self::AmdGddr,
        Self::AmdHbm,
        Self::AmdUnified,
        Self::Apple,
        Self::Intel,
        Self::IntelUnified,
        Self::Cpu,
    ];

    /// The word for it: `nvidia-gddr`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NvidiaGddr => "nvidia-gddr",
            Self::NvidiaHbm => "nvidia-hbm",
            Self::NvidiaUnified => "nvidia-unified",
            Self::AmdGddr => "amd-gddr",
            Self::AmdHbm => "amd-hbm",
            Self::AmdUnified => "amd-unified",
            Self::Apple => "apple",
            Self::Intel => "intel",
            Self::IntelUnified => "intel-unified",
            Self::Cpu => "cpu",
        }
    }

    /// Who makes it: devices of one maker share kernels.
    pub const fn maker(self) -> &'static str {
        match self {
            Self::NvidiaGddr | Self::NvidiaHbm | Self::NvidiaUnified => "nvidia",
            Self::AmdGddr | Self::AmdHbm | Self::AmdUnified => "amd",
            Self::Apple => "apple",
            Self::Intel | Self::IntelUnified => "intel",
            Self::Cpu => "cpu",
        }
    }

    /// Operations of matrix units per vector operation that most devices of the class have, as the architectures of the last years state
    /// them: Ampere to Blackwell, A100 and H100, RDNA 3, CDNA 3, Xe-HPG and Xe2.
    const fn usual_matrix(self) -> f64 {
        match self {
            Self::NvidiaGddr | Self::NvidiaUnified => 8.0,
            Self::NvidiaHbm | Self::AmdHbm => 32.0,
            Self::AmdGddr | Self::AmdUnified => 4.0,
            Self::Intel | Self::IntelUnified => 16.0,
            Self::Apple | Self::Cpu => 1.0,
        }
    }

    /// Tokens of the widest tile in which kernels multiply experts' weights: 128 in `mmq.cuh` of llama.cpp on NVIDIA's matrix units and 64 on
    /// AMD's vector units (`get_mmq_x_max_host`), 64 of the middle tile of Vulkan's `mul_mm.comp`, 32 in Metal's `kernel_mul_mm_id`; processors
    /// take rows one by one.
    pub(crate) const fn widest_tile(self) -> f64 {
        match self {
            Self::NvidiaGddr | Self::NvidiaHbm | Self::NvidiaUnified => 128.0,
            Self::AmdGddr | Self::AmdHbm | Self::AmdUnified | Self::Intel | Self::IntelUnified => 64.0,
            Self::Apple => 32.0,
            Self::Cpu => 1.0,
        }
    }

    /// Part of the vector rate that attention of a single token comes near. Such a token fills few of a GPU's units. A core is filled, but
    /// widens every number of keys and values from half precision, and loads and stores all sums for each earlier token
    /// (`ggml_compute_forward_flash_attn_ext_f16_one_chunk` of llama.cpp's `ops.cpp`): 37 to 65 ns per head of 128 and earlier token on a
    /// core of Zen 4, whose units alone would need 2.5 (llama-bench 0.7.0, `-p 0 -n 16 -d 1024,4096 -fa 1`).
    pub(crate) const fn rate_of_one_token(self) -> f64 {
        match self {
            Self::Cpu => 1.0 / 64.0,
            _ => 1.0 / 16.0,
        }
    }

    /// Vector operations per byte of bandwidth that devices of the class have, where the units of a device are not known: a
    /// guess at the usual one, which no table has been asked about.
    pub(crate) const fn operations_per_byte(self) -> f64 {
        match self {
            Self::NvidiaGddr => 40.0,
            Self::NvidiaHbm => 14.0,
            Self::NvidiaUnified => 80.0,
            Self::AmdGddr => 30.0,
            Self::AmdHbm => 25.0,
            Self::AmdUnified => 60.0,
            Self::Apple => 33.0,
            Self::Intel => 40.0,
            Self::IntelUnified => 35.0,
            Self::Cpu => 8.0,
        }
    }
}

/// One device.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its class.
    pub class: Class,
    /// Its architecture without market variants: `ada`, `rdna3`, `apple9`, `avx512`; `None` where it is not known.
    pub generation: Option<String>,
    /// Peak bandwidth of its memory in bytes per second.
    pub bandwidth: f64,
    /// Vector operations per second: units × clock × lanes × 2; `None` where units or clock are not known.
    pub vector: Option<f64>,
    /// Operations of its matrix units per vector operation, by its maker; 1 where it has none or nobody knows, which of a device without
    /// `generation` is taken as that of most of its class.
    pub matrix: f64,
    /// Watts that its maker gives it, of a device that has them for itself; `None` where that is not known or others share them.
    pub watts: Option<f64>,
    /// The name under which measurements of this very device are known; `None` for a device of which there are none.
    pub identity: Option<String>,
}

impl Device {
    /// Operations of matrix units per vector operation, known or usual for the class.
    pub(crate) fn matrix_rate(&self) -> f64 {
        if self.generation.is_none() && self.matrix <= 1.0 { self.class.usual_matrix() } else { self.matrix.max(1.0) }
    }

    /// Vector operations per second, known or usual for the class.
    pub fn vector_rate(&self) -> f64 {
        self.vector.unwrap_or(self.bandwidth * self.class.operations_per_byte())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrix_units_that_nobody_knows_are_not_none() {
        let device =
            Device { class: Class::NvidiaGddr, generation: None, bandwidth: 1e12, vector: None, matrix: 1.0, watts: None, identity: None };
        assert_eq!(device.matrix_rate(), 8.0);
        let known = |matrix| Device { generation: Some("turing-gtx".to_owned()), matrix, ..device.clone() }.matrix_rate();
        assert_eq!([known(1.0), known(4.0)], [1.0, 4.0]);
    }
}
