//! Which device each layer goes to, and which buffer each tensor.
//!
//! Upstream: layers `src/llama-model.cpp:1558-1616`, tensors `src/llama-model-loader.cpp:1116-1390`, lists of buffer
//! types `src/llama-model.cpp:1080-1187`, devices `src/llama.cpp:155-310`.

mod layers;
mod overrides;
mod pattern;
mod placer;
mod rows;

pub use pattern::Pattern;
pub(crate) use placer::Placer;
pub(crate) use rows::PAGE;
pub use rows::Rows;

use crate::error::FootprintError;
use crate::roles::Roles;
use crate::{EngineProfile, Target};
use spec::{Model, Settings};

/// The buffer type that a tensor of the file ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Home {
    /// Memory of this device (index into [`crate::Target::devices`]).
    Device(usize),
    /// The plain host buffer: mapped from the file or read into anonymous memory, as [`Placement::mapped`] says.
    Host,
    /// The plain host buffer, mapped from the file whatever the load mode: tables above 4 GiB that are read row by row.
    HostLazy,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Devices that the engine uses (indices into [`crate::Target::devices`]), in its order; with split mode `none` only
    /// the main GPU. They take part in scheduling even where they hold no layer.
    pub devices: Vec<usize>,
    /// Device of each layer (all of them, next-token-prediction layers included) and, last, of the output; `None` is the
    /// host.
    pub layer_devices: Vec<Option<usize>>,
    /// The home of each tensor, parallel to [`spec::Model::tensors`]. Of a tensor that all layers share, the home of the
    /// first layer's copy.
    pub homes: Vec<Home>,
    /// Further copies, as indices into [`spec::Model::tensors`] with their home: of tensors that all layers share
    /// (`rope_freqs.weight`), one per further buffer. The copy that a layer reads is the one in the layer's own buffer.
    pub copies: Vec<(usize, Home)>,
    /// Where a tied token embedding lies that serves as output matrix: a second copy, unless it is in the same buffer as
    /// the first ([`Placement::tied_copy`]). `None` where the model has its own output matrix, or multiplies with the
    /// token embedding in place (BitNet).
    pub tied_output: Option<Home>,
    /// A tied output matrix is a second copy even in the same buffer (Gemma 3n and 4).
    pub tied_apart: bool,
    /// Index of the token embedding in [`spec::Model::tensors`].
    pub token_embedding: Option<usize>,
    /// Weights in [`Home::Host`] are used in place from the mapped file.
    pub mapped: bool,
    /// Tensors were moved by `-ot` or `--n-cpu-moe` rules (which also rules out pipeline parallelism).
    pub has_overrides: bool,
    /// How rows of matrices are shared, with split mode `row`; the home of such a matrix is its layer's device.
    pub rows: Option<Rows>,
}

impl Placement {
    /// Device of the output head; `None` is the host.
    pub fn output_device(&self) -> Option<usize> {
        self.layer_devices.last().copied().flatten()
    }
    /// Device of one layer; `None` is the host.
    pub fn layer_device(&self, layer: u32) -> Option<usize> {
        self.layer_devices.get(layer as usize).copied().flatten()
    }
    /// The second copy of a tied token embedding, where one is made: tensor and home. Two uses of one mapped region are no
    /// copy.
    pub fn tied_copy(&self) -> Option<(usize, Home)> {
        let (index, home) = (self.token_embedding?, self.tied_output?);
        let apart = self.tied_apart && !(self.mapped && home == Home::Host);
        (apart || self.homes.get(index) != Some(&home)).then_some((index, home))
    }
}

/// Where every layer and tensor of `model` goes.
///
/// # Errors
/// Settings that the engine refuses: an unknown buffer or a broken pattern in an override, a split over devices whose
/// free memory is not known, a main GPU that does not exist, splits that the backend does not offer.
pub fn place(model: &Model, settings: &Settings, target: &Target, profile: &EngineProfile) -> Result<Placement, FootprintError> {
    let (roles, every) = (Roles::of(model), 0..model.tensors.len());
    Ok(Placer::new(&roles, model, settings, target, profile)?.place(vec![Home::Unused; every.len()], every))
}
