//! What is summed over tensors, each in its home: over all of a model, or over those of a layer.

use crate::mapped::OnHost;
use crate::placement::{Home, Placement};
use crate::roles::Use;
use crate::weights::{Loader, Weights};
use spec::Bytes;

/// Sums over tensors of the file; further copies that the engine makes of them aside.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) weights: Weights,
    pub(crate) on_host: OnHost,
    /// Tables in the plain host buffer of which a token reads one row.
    looked_up: Bytes,
    /// Tensors that the engine loads.
    pub(crate) loaded: usize,
}

impl Tally {
    /// Over the tensors of these indices.
    pub(crate) fn over(loader: &Loader<'_>, placement: &Placement, tensors: impl IntoIterator<Item = usize>) -> Self {
        let mut tally = Self { weights: Weights::none(loader.target), on_host: OnHost::default(), looked_up: Bytes::ZERO, loaded: 0 };
        for index in tensors {
            let (Some(tensor), Some(&home)) = (loader.model.tensors.get(index), placement.homes.get(index)) else { continue };
            tally.weights.add_own(loader, placement, index);
            tally.on_host.add(tensor, home);
            tally.loaded += usize::from(home != Home::Unused);
            if is_looked_up(loader, placement, index) {
                tally.looked_up += tensor.bytes;
            }
        }
        tally
    }

    /// Adds what was summed over others.
    pub(crate) fn join(&mut self, others: &Self) {
        self.weights.join(&others.weights);
        self.on_host.join(&others.on_host);
        self.looked_up += others.looked_up;
        self.loaded += others.loaded;
    }

    /// Bytes of tables in anonymous host memory of which a token reads one row, of all tensors.
    pub(crate) fn looked_up(&self, loader: &Loader<'_>, placement: &Placement) -> Bytes {
        if placement.mapped {
            return Bytes::ZERO;
        }
        // A tied output matrix in the same buffer is the same memory, and is read in full.
        let tied = placement.token_embedding.filter(|_| loader.model.tied_embeddings && placement.tied_copy().is_none());
        let read = tied.filter(|&index| is_looked_up(loader, placement, index)).and_then(|index| loader.model.tensors.get(index));
        self.looked_up.saturating_sub(read.map_or(Bytes::ZERO, |tensor| tensor.bytes))
    }
}

fn is_looked_up(loader: &Loader<'_>, placement: &Placement, index: usize) -> bool {
    placement.homes.get(index) == Some(&Home::Host) && loader.roles.get(index).is_some_and(|role| role.used == Use::GetRows)
}
