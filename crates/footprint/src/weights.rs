//! Bytes of the model's weights in each buffer.
//!
//! Upstream: a buffer is the sum of its tensors, each padded to the buffer's alignment (`ggml/src/ggml-backend.cpp:57-89`,
//! `:162-170`); splitting a buffer at the backend's largest size changes no sum. Host buffers align to 32
//! (`ggml/src/ggml-impl.h`, `TENSOR_ALIGNMENT`).

use crate::EngineProfile;
use crate::placement::{Home, Placement};
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
    weights_by(&Roles::of(model), model, target, profile, placement)
}

/// The same with the roles of the model's tensors.
pub(crate) fn weights_by(roles: &Roles, model: &Model, target: &Target, profile: &EngineProfile, placement: &Placement) -> Weights {
    let kernels = Kernels::of(&target.cpu_arch, &target.cpu_features, profile.amx);
    let mut weights = Weights { devices: vec![Bytes::ZERO; target.devices.len()], ..Weights::default() };
    let own = model.tensors.iter().zip(&placement.homes).zip(roles.iter()).map(|((tensor, &home), role)| (tensor, home, role.used));
    let copy = |(index, home), used| model.tensors.get(index).map(|tensor| (tensor, home, used));
    let copies = placement.copies.iter().filter_map(|&shared| copy(shared, Use::Other));
    let tied = placement.tied_copy().and_then(|tied| copy(tied, Use::MulMat));
    for (tensor, home, used) in own.chain(copies).chain(tied) {
        match placement.rows.as_ref().filter(|_| home.device().is_some() && used == Use::MulMat) {
            Some(rows) => weights.add_rows(&rows.bytes(tensor)),
            None => weights.add((tensor, used), home, target, kernels),
        }
    }
    weights
}

/// Bytes of tables in anonymous host memory of which a token reads one row.
pub fn looked_up(model: &Model, placement: &Placement) -> Bytes {
    looked_up_by(&Roles::of(model), model, placement)
}

/// The same with the roles of the model's tensors.
pub(crate) fn looked_up_by(roles: &Roles, model: &Model, placement: &Placement) -> Bytes {
    let placed = model.tensors.iter().zip(&placement.homes).zip(roles.iter());
    let tables = placed.filter(|((_, home), role)| **home == Home::Host && !placement.mapped && role.used == Use::GetRows);
    // A tied output matrix in the same buffer is the same memory, and is read in full.
    let tied = placement.token_embedding.filter(|_| model.tied_embeddings && placement.tied_copy().is_none());
    let read = tied.and_then(|index| model.tensors.get(index)).map_or("", |tensor| tensor.name.as_str());
    tables.map(|((tensor, _), _)| tensor).filter(|tensor| tensor.name != read).map(|tensor| tensor.bytes).sum()
}

impl Weights {
    fn add_rows(&mut self, bytes: &[Bytes]) {
        for (device, &bytes) in self.devices.iter_mut().zip(bytes) {
            *device += bytes;
        }
        self.row_slices += 1;
    }
    fn add(&mut self, (tensor, used): (&Tensor, Use), home: Home, target: &Target, kernels: Kernels) {
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
