//! Bytes of the model's weights in each buffer.
//!
//! Upstream: a buffer is the sum of its tensors, each padded to the buffer's alignment (`ggml/src/ggml-backend.cpp:57-89`,
//! `:162-170`); splitting a buffer at the backend's largest size changes no sum. Host buffers align to 32
//! (`ggml/src/ggml-impl.h`, `TENSOR_ALIGNMENT`).

use crate::EngineProfile;
use crate::placement::{Home, Placement, Rows};
use crate::repack::Kernels;
use crate::roles::{Roles, Use};
use crate::target::Target;
use spec::model::Tensor;
use spec::{Bytes, Model};

/// Alignment of tensors in host buffers.
pub(crate) const HOST_ALIGNMENT: u64 = 32;

/// Weights by buffer, as the engine allocates them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// Per device, parallel to [`Target::devices`].
    pub devices: Vec<Bytes>,
    /// The plain host buffer, were it allocated: each tensor padded. What the engine's dry run calls `CPU`.
    pub host: Bytes,
    /// The same tensors without padding: what is used of the mapped file.
    pub host_file: Bytes,
    /// Of [`Weights::host_file`], tables that are mapped whatever the load mode.
    pub host_lazy: Bytes,
    /// Pinned host buffers.
    pub pinned: Bytes,
    /// `CPU_REPACK`.
    pub repacked: Bytes,
    /// `AMX`.
    pub amx: Bytes,
    /// Matrices whose rows are shared by the devices, each slice an allocation of its own.
    pub row_slices: u64,
}

/// The weights of `model` as placed.
pub fn weights(model: &Model, target: &Target, profile: &EngineProfile, placement: &Placement) -> Weights {
    let loader =
        Loader { model, roles: &Roles::of(model), target, kernels: Kernels::of(&target.cpu_arch, &target.cpu_features, profile.amx) };
    let mut weights = Weights::none(target);
    for index in 0..model.tensors.len() {
        weights.add_own(&loader, placement, index);
    }
    weights.add_copies(&loader, placement);
    weights
}

/// What the sizes of placed tensors follow from.
#[derive(Clone, Copy)]
pub(crate) struct Loader<'a> {
    pub(crate) model: &'a Model,
    pub(crate) roles: &'a Roles,
    pub(crate) target: &'a Target,
    pub(crate) kernels: Kernels,
}

impl Weights {
    /// Nothing on any device.
    pub(crate) fn none(target: &Target) -> Self {
        Self { devices: vec![Bytes::ZERO; target.devices.len()], ..Self::default() }
    }

    /// Adds a tensor of the file in its own home.
    pub(crate) fn add_own(&mut self, loader: &Loader<'_>, placement: &Placement, index: usize) {
        let (tensor, role) = (loader.model.tensors.get(index), loader.roles.get(index));
        if let (Some(tensor), Some(role), Some(&home)) = (tensor, role, placement.homes.get(index)) {
            self.add((tensor, role.used), home, loader, placement.rows.as_ref());
        }
    }

    /// Adds what the engine makes a second time of tensors.
    pub(crate) fn add_copies(&mut self, loader: &Loader<'_>, placement: &Placement) {
        let copies = placement.copies.iter().map(|&(index, home)| (index, home, Use::Other));
        let tied = placement.tied_copy().map(|(index, home)| (index, home, Use::MulMat));
        for (index, home, used) in copies.chain(tied) {
            if let Some(tensor) = loader.model.tensors.get(index) {
                self.add((tensor, used), home, loader, placement.rows.as_ref());
            }
        }
    }

    /// Adds all of these.
    pub(crate) fn join(&mut self, others: &Self) {
        self.devices.iter_mut().zip(&others.devices).for_each(|(device, &bytes)| *device += bytes);
        let &Self { devices: _, host, host_file, host_lazy, pinned, repacked, amx, row_slices } = others;
        self.host += host;
        self.host_file += host_file;
        self.host_lazy += host_lazy;
        self.pinned += pinned;
        self.repacked += repacked;
        self.amx += amx;
        self.row_slices += row_slices;
    }

    fn add_rows(&mut self, bytes: &[Bytes]) {
        for (device, &bytes) in self.devices.iter_mut().zip(bytes) {
            *device += bytes;
        }
        self.row_slices += 1;
    }
    fn add(&mut self, (tensor, used): (&Tensor, Use), home: Home, loader: &Loader<'_>, rows: Option<&Rows>) {
        if let Some(rows) = rows.filter(|_| home.device().is_some() && used == Use::MulMat) {
            return self.add_rows(&rows.bytes(tensor));
        }
        let &Loader { target, kernels, .. } = loader;
        let padded = tensor.bytes.pad_to(HOST_ALIGNMENT);
        match home {
            Home::Device(device) => {
                self.devices[device] += target.devices[device].backend.padded(tensor.ty, tensor.shape[0], tensor.bytes);
            }
            Home::Host | Home::HostLazy => {
                self.host += padded;
                self.host_file += tensor.bytes;
                if home == Home::HostLazy {
                    self.host_lazy += tensor.bytes;
                }
            }
            Home::HostPinned(device) => self.pinned += tensor.bytes.pad_to(target.devices[device].backend.host_alignment),
            Home::HostRepacked => self.repacked += padded,
            Home::HostAmx => self.amx += kernels.amx_bytes(tensor, used).unwrap_or(tensor.bytes).pad_to(HOST_ALIGNMENT),
            Home::Unused => {}
        }
    }
}
