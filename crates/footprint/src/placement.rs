//! Which device each layer goes to, and which buffer each tensor.
//!
//! Upstream: layers `src/llama-model.cpp:1558-1616`, tensors `src/llama-model-loader.cpp:1116-1390`, lists of buffer
//! types `src/llama-model.cpp:1080-1187`, devices `src/llama.cpp:155-310`.

mod layers;
mod overrides;
mod pattern;
mod rows;

pub use pattern::Pattern;
pub(crate) use rows::PAGE;
pub use rows::Rows;

use crate::error::FootprintError;
use crate::repack::Kernels;
use crate::roles::{Part, Role, Roles, Use};
use crate::{EngineProfile, Target};
use overrides::{Overrides, Place};
use spec::model::Tensor;
use spec::settings::{LoadMode, SplitMode};
use spec::{Bytes, Model, Settings};

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

/// Architectures that multiply with the token embedding in place instead of a copy of their own: `src/models/bitnet.cpp:164`.
const TIED_IN_PLACE: &[&str] = &["bitnet", "bitnet-25", "bitnet-b1.58"];

/// Architectures that create the output matrix before the token embedding that it is tied to, and so find nothing to share
/// (`src/models/gemma3n.cpp:38-44`, `src/models/gemma4.cpp:50-56`, `src/llama-model-loader.cpp:1370-1376`).
const TIED_APART: &[&str] = &["gemma3n", "gemma4"];

/// A table that Gemma 4 may read lazily and the size above which it does, unless some device cannot work beside mapped
/// files (`src/llama-model-loader.cpp:1088-1113`, `src/llama-model.cpp:1525-1535`, `src/models/gemma4.cpp:59`).
const LAZY: (&str, Bytes) = ("per_layer_token_embd.weight", Bytes::from_gib(4));

/// Where every layer and tensor of `model` goes.
///
/// # Errors
/// Settings that the engine refuses: an unknown buffer or a broken pattern in an override, a split over devices whose
/// free memory is not known, a main GPU that does not exist, splits that the backend does not offer.
pub fn place(model: &Model, settings: &Settings, target: &Target, profile: &EngineProfile) -> Result<Placement, FootprintError> {
    place_by(&Roles::of(model), model, settings, target, profile)
}

/// The same with the roles of the model's tensors.
pub(crate) fn place_by(
    roles: &Roles,
    model: &Model,
    settings: &Settings,
    target: &Target,
    profile: &EngineProfile,
) -> Result<Placement, FootprintError> {
    let devices = layers::devices_in_use(settings, target, profile)?;
    let rows = if settings.split_mode == SplitMode::Row && !devices.is_empty() { Some(Rows::new(settings, target)?) } else { None };
    let layer_devices = layers::layer_devices(model.n_layer_all(), settings, target, &devices, profile.rules.output_last)?;
    let overrides = Overrides::new(settings, target, &devices, model)?;
    let mappable = devices.iter().all(|&device| target.devices[device].backend.mmap);
    let mapped = match settings.load_mode {
        LoadMode::Auto => mappable,
        LoadMode::Mmap | LoadMode::MmapMlock => true,
        LoadMode::None | LoadMode::Mlock | LoadMode::DirectIo => false,
    };
    let buffers = Buffers {
        target,
        lazy: mappable && model.architecture == "gemma4",
        layer_devices: &layer_devices,
        overrides: &overrides,
        kernels: (profile.repack && settings.repack).then(|| Kernels::of(&target.cpu_arch, &target.cpu_features, profile.amx)),
        pinned: devices.iter().copied().find(|&device| target.devices[device].backend.host_buffer),
        mapped,
        overrides_repack: profile.rules.overrides_repack,
    };

    let mut homes = Vec::with_capacity(model.tensors.len());
    let mut copies = Vec::new();
    let mut token_embedding = None;
    for (index, (tensor, role)) in model.tensors.iter().zip(roles.iter()).enumerate() {
        let home = match role.part {
            _ if role.used == Use::Skipped => Home::Unused,
            Part::EveryLayer => shared_homes(model, &buffers, tensor, role, index, &mut copies, profile.rules.ik.is_some()),
            _ => buffers.home(tensor, role),
        };
        if role.part == Part::Input && tensor.name == "token_embd.weight" {
            token_embedding = Some(index);
        }
        homes.push(home);
    }
    let own_copy = model.tied_embeddings
        && (!model.encoder || model.architecture == "gemma-embedding")
        && !TIED_IN_PLACE.contains(&model.architecture.as_str());
    let as_output = Role { part: Part::Output, used: Use::MulMat, in_layer: false, experts_of: None };
    let tied_output = token_embedding.filter(|_| own_copy).map(|index| buffers.home(&model.tensors[index], &as_output));
    let tied_apart = profile.rules.ik.is_some() || TIED_APART.contains(&model.architecture.as_str());
    let has_overrides = !overrides.is_empty();
    Ok(Placement { devices, homes, copies, tied_output, tied_apart, token_embedding, mapped, has_overrides, layer_devices, rows })
}

/// Homes of a tensor that every layer creates anew: the first, and into `copies` one per further buffer, or in ik_llama.cpp
/// one per further layer (`each`).
fn shared_homes(
    model: &Model,
    buffers: &Buffers<'_>,
    tensor: &Tensor,
    role: &Role,
    index: usize,
    copies: &mut Vec<(usize, Home)>,
    each: bool,
) -> Home {
    let mut homes: Vec<Home> = Vec::new();
    for layer in 0..model.n_layer_all().max(1) {
        // Gemma 4 scales only the positions of its full-attention layers (src/models/gemma4.cpp:94-98).
        let windowed = model.architecture == "gemma4"
            && matches!(model.layers.get(layer as usize).map(|l| &l.mixer), Some(spec::model::Mixer::Attention(a)) if a.window.is_some());
        let home = buffers.home(tensor, &Role { part: Part::Layer(layer), ..*role });
        if !windowed && (each || !homes.contains(&home)) {
            homes.push(home);
        }
    }
    let mut homes = homes.into_iter();
    let first = homes.next().unwrap_or(Home::Host);
    copies.extend(homes.map(|home| (index, home)));
    first
}

/// What decides the buffer of a tensor.
struct Buffers<'a> {
    target: &'a Target,
    layer_devices: &'a [Option<usize>],
    overrides: &'a Overrides,
    /// Kernels that want rearranged weights; `None` with repacking off.
    kernels: Option<Kernels>,
    /// The first device with a pinned host buffer.
    pinned: Option<usize>,
    mapped: bool,
    /// Large tables of rows are mapped and read lazily.
    lazy: bool,
    /// What a rule moves to the host may be repacked there.
    overrides_repack: bool,
}

impl Buffers<'_> {
    fn home(&self, tensor: &Tensor, role: &Role) -> Home {
        let &Role { part, used, .. } = role;
        if self.lazy && tensor.name == LAZY.0 && tensor.bytes > LAZY.1 {
            return Home::HostLazy;
        }
        match self.overrides.place(&tensor.name, role) {
            Some(Place::Device(device)) => return Home::Device(device),
            Some(Place::Host) if !self.overrides_repack => return Home::Host,
            Some(Place::Host) => return self.on_host(tensor, used),
            None => {}
        }
        let device = match part {
            Part::Input => None,
            Part::Layer(layer) => self.layer_devices.get(layer as usize).copied().flatten(),
            Part::EveryLayer => self.layer_devices.first().copied().flatten(),
            Part::Output => self.layer_devices.last().copied().flatten(),
        };
        match device {
            Some(device) if self.target.devices[device].backend.reads(tensor, used) => Home::Device(device),
            _ => self.on_host(tensor, used),
        }
    }

    /// The first buffer type of the host's list that takes the tensor: pinned, AMX, repacked, plain.
    fn on_host(&self, tensor: &Tensor, used: Use) -> Home {
        if let Some(device) = self.pinned.filter(|&device| self.target.devices[device].backend.reads(tensor, used)) {
            // With a mapped file the pinned buffer gives way to the plain one (src/llama-model-loader.cpp:1269-1277).
            return if self.mapped { Home::Host } else { Home::HostPinned(device) };
        }
        match self.kernels {
            Some(kernels) if kernels.amx_bytes(tensor, used).is_some() => Home::HostAmx,
            Some(kernels) if kernels.repacks(tensor, used) => Home::HostRepacked,
            _ => Home::Host,
        }
    }
}
