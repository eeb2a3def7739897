//! Which buffer each tensor and each layer goes to.

/// The buffer type that a tensor of the file ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Home {
    /// Memory of this device (index into [`crate::Target::devices`]).
    Device(usize),
    /// The plain host buffer: mapped from the file or read into anonymous memory, as [`Placement::mapped`] says.
    Host,
    /// The pinned host buffer of this device's backend; only without mapping.
    HostPinned(usize),
    /// ggml's `CPU_REPACK`: an anonymous copy rearranged for the CPU's kernels.
    HostRepacked,
    /// ggml's `AMX`: an anonymous copy rearranged for the AMX tiles.
    HostAmx,
    /// Not loaded: the engine skips this tensor.
    Unused,
}

impl Home {
    /// The device, if it is one.
    pub fn device(self) -> Option<usize> {
        match self {
            Self::Device(device) => Some(device),
            _ => None,
        }
    }
}

/// Where everything of a model goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Devices that the engine uses (indices into [`crate::Target::devices`]), in its order; with split mode `none` only
    /// the main GPU. They take part in scheduling even where they hold no layer.
    pub devices: Vec<usize>,
    /// Device of each layer (all of them, next-token-prediction layers included) and, last, of the output; `None` is the
    /// host.
    pub layer_devices: Vec<Option<usize>>,
    /// The home of each tensor, parallel to [`spec::Model::tensors`].
    pub homes: Vec<Home>,
    /// Where the second copy of a tied token embedding lies that serves as output; `None` where there is none, because the
    /// model has its own output or the first copy serves.
    pub tied_output: Option<Home>,
    /// Weights in [`Home::Host`] are used in place from the mapped file.
    pub mapped: bool,
}

impl Placement {
    /// Device of the output head; `None` is the host.
    pub fn output_device(&self) -> Option<usize> {
        self.layer_devices.last().copied().flatten()
    }
}
