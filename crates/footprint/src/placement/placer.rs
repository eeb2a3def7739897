//! The buffer that each tensor of a model ends in, under given settings.

use super::overrides::{Overrides, Place};
use super::{Home, Placement, Rows, layers};
use crate::error::FootprintError;
use crate::repack::Kernels;
use crate::roles::{Part, Role, Roles, Use};
use crate::{EngineProfile, Target};
use spec::model::Tensor;
use spec::settings::{LoadMode, SplitMode};
use spec::{Bytes, Model, Settings};

/// Architectures that multiply with the token embedding in place instead of a copy of their own: `src/models/bitnet.cpp:164`.
const TIED_IN_PLACE: &[&str] = &["bitnet", "bitnet-25", "bitnet-b1.58"];

/// Architectures that create the output matrix before the token embedding that it is tied to, and so find nothing to share
/// (`src/models/gemma3n.cpp:38-44`, `src/models/gemma4.cpp:50-56`, `src/llama-model-loader.cpp:1370-1376`).
const TIED_APART: &[&str] = &["gemma3n", "gemma4"];

/// A table that Gemma 4 may read lazily and the size above which it does, unless some device cannot work beside mapped
/// files (`src/llama-model-loader.cpp:1088-1113`, `src/llama-model.cpp:1525-1535`, `src/models/gemma4.cpp:59`).
const LAZY: (&str, Bytes) = ("per_layer_token_embd.weight", Bytes::from_gib(4));

/// Where layers go, and what decides the homes of tensors.
pub(crate) struct Placer<'a> {
    roles: &'a Roles,
    model: &'a Model,
    target: &'a Target,
    profile: &'a EngineProfile,
    devices: Vec<usize>,
    layer_devices: Vec<Option<usize>>,
    overrides: Overrides,
    rows: Option<Rows>,
    /// Kernels that want rearranged weights; `None` with repacking off.
    kernels: Option<Kernels>,
    /// The first device with a pinned host buffer.
    pinned: Option<usize>,
    mapped: bool,
    /// Large tables of rows are mapped and read lazily.
    lazy: bool,
}

impl<'a> Placer<'a> {
    /// The rules for these settings.
    pub(crate) fn new(
        roles: &'a Roles,
        model: &'a Model,
        settings: &Settings,
        target: &'a Target,
        profile: &'a EngineProfile,
    ) -> Result<Self, FootprintError> {
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
        Ok(Self {
            lazy: mappable && model.architecture == "gemma4",
            kernels: (profile.repack && settings.repack).then(|| Kernels::of(&target.cpu_arch, &target.cpu_features, profile.amx)),
            pinned: devices.iter().copied().find(|&device| target.devices[device].backend.host_buffer),
            roles,
            model,
            target,
            profile,
            devices,
            layer_devices,
            overrides,
            rows,
            mapped,
        })
    }

    /// True where experts of this layer go to the host, unless a rule says otherwise. With its device this decides the homes of its
    /// tensors, as far as settings differ in where layers go.
    pub(crate) fn moves_experts(&self, layer: usize) -> bool {
        u32::try_from(layer).is_ok_and(|layer| self.overrides.moves_experts(layer))
    }

    /// True where matrices have rows on several devices.
    pub(crate) fn shares_rows(&self) -> bool {
        self.rows.is_some()
    }

    /// The device of each layer and, last, of the output.
    pub(crate) fn layer_devices(&self) -> &[Option<usize>] {
        &self.layer_devices
    }

    /// The home of a tensor that has one; of those that all layers share, that of the first.
    pub(crate) fn home_of(&self, index: usize) -> Home {
        match self.model.tensors.get(index).zip(self.roles.get(index)) {
            Some((tensor, role)) if role.used != Use::Skipped => self.home(tensor, role),
            _ => Home::Unused,
        }
    }

    /// The placement with these homes, but for tensors that are still to be placed.
    pub(crate) fn place(self, mut homes: Vec<Home>, open: impl IntoIterator<Item = usize>) -> Placement {
        let Self { model, profile, .. } = self;
        let mut copies = Vec::new();
        let mut token_embedding = None;
        for index in open {
            let Some((tensor, role)) = model.tensors.get(index).zip(self.roles.get(index)) else { continue };
            homes[index] = match role.part {
                Part::EveryLayer if role.used != Use::Skipped => {
                    shared_homes(model, &self, tensor, role, index, &mut copies, profile.rules.ik.is_some())
                }
                _ => self.home_of(index),
            };
            if role.part == Part::Input && tensor.name == "token_embd.weight" {
                token_embedding = Some(index);
            }
        }
        let own_copy = model.tied_embeddings
            && (!model.encoder || model.architecture == "gemma-embedding")
            && !TIED_IN_PLACE.contains(&model.architecture.as_str());
        let as_output = Role { part: Part::Output, used: Use::MulMat, in_layer: false, experts_of: None };
        let tied_output = token_embedding.filter(|_| own_copy).map(|index| self.home(&model.tensors[index], &as_output));
        let tied_apart = profile.rules.ik.is_some() || TIED_APART.contains(&model.architecture.as_str());
        let has_overrides = !self.overrides.is_empty();
        let Self { devices, layer_devices, rows, mapped, .. } = self;
        Placement { devices, homes, copies, tied_output, tied_apart, token_embedding, mapped, has_overrides, layer_devices, rows }
    }

    fn home(&self, tensor: &Tensor, role: &Role) -> Home {
        let &Role { part, used, .. } = role;
        if self.lazy && tensor.name == LAZY.0 && tensor.bytes > LAZY.1 {
            return Home::HostLazy;
        }
        match self.overrides.place(&tensor.name, role) {
            Some(Place::Device(device)) => return Home::Device(device),
            Some(Place::Host) if !self.profile.rules.overrides_repack => return Home::Host,
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

/// Homes of a tensor that every layer creates anew: the first, and into `copies` one per further buffer, or in ik_llama.cpp
/// one per further layer (`each`).
fn shared_homes(
    model: &Model,
    placer: &Placer<'_>,
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
        let home = placer.home(tensor, &Role { part: Part::Layer(layer), ..*role });
        if !windowed && (each || !homes.contains(&home)) {
            homes.push(home);
        }
    }
    let mut homes = homes.into_iter();
    let first = homes.next().unwrap_or(Home::Host);
    copies.extend(homes.map(|home| (index, home)));
    first
}
