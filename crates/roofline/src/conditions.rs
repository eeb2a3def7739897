//! How a model is run: what changes the inefficiencies but not the bounds.

/// A setting that is on, off or not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
    /// Nobody said.
    #[default]
    Unknown,
}

impl Switch {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Unknown => "unknown",
        }
    }
}

/// The software around a run; `None` where it is not known. Words are those that the parameters were fitted with; others are
/// taken as unknown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// `cuda`, `rocm`, `rocm-untuned` (its libraries have no kernels for the device), `vulkan`, `sycl`, `metal`, `cpu`.
    pub backend: Option<String>,
    /// `linux`, `windows`, `macos`.
    pub os: Option<String>,
    /// When the engine was built: `early` (before b3500), `middle` (before b6000), `late`.
    pub era: Option<String>,
    /// Who measured with what: `llama-bench`, `localscore`, `server`, `ollama`; or [`crate::OWN_KERNELS`].
    pub engine: Option<String>,
    /// Flash attention.
    pub flash_attention: Switch,
}
