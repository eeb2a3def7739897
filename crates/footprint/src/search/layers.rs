//! What placements have in common, layer by layer: sums over tensors, and what shapes graphs.
//!
//! A search moves layers between devices, so that each layer has few homes for its tensors, in many placements.

use crate::compute::{LayerShape, Shape, Shapes};
use crate::placement::{Home, Placement};
use crate::tally::Tally;
use crate::weights::Loader;
use spec::Model;
use std::cell::RefCell;

/// The layers of one model under placements on one target.
pub(super) struct Layers {
    shapes: Shapes,
    /// By layer.
    known: RefCell<Vec<Vec<Layer>>>,
}

/// A layer whose tensors have homes.
struct Layer {
    /// Of the layer and of its cache.
    devices: [u32; 2],
    homes: Vec<Home>,
    shape: LayerShape,
    tally: Tally,
}

impl Layers {
    /// None is known.
    pub(super) fn new(model: &Model) -> Self {
        let shapes = Shapes::new(model);
        Self { known: RefCell::new(model.layers.iter().map(|_| Vec::new()).collect()), shapes }
    }

    /// The sums over all tensors of a placement, and what of it shapes graphs.
    pub(super) fn of(&self, loader: &Loader<'_>, placement: &Placement) -> (Tally, Shape) {
        let shapes = &self.shapes;
        // Rows that devices share are no matter of homes.
        if placement.rows.is_some() {
            let layers = (0..loader.model.layers.len()).map(|layer| shapes.layer(placement, layer)).collect();
            return (Tally::over(loader, placement, 0..loader.model.tensors.len()), shapes.of(placement, layers));
        }
        let outside = shapes.groups.last().into_iter().flatten().copied();
        let mut tally = Tally::over(loader, placement, outside);
        let layer = |(index, known): (usize, &mut Vec<Layer>)| {
            let (devices, tensors) = (shapes.devices(placement, index), &shapes.groups[index]);
            let homes = || tensors.iter().map(|&tensor| placement.homes[tensor]);
            let is = |layer: &Layer| layer.devices == devices && homes().eq(layer.homes.iter().copied());
            let place = known.iter().position(is).unwrap_or_else(|| {
                let (shape, tally) = (shapes.layer(placement, index), Tally::over(loader, placement, tensors.iter().copied()));
                known.push(Layer { devices, homes: homes().collect(), shape, tally });
                known.len() - 1
            });
            tally.join(&known[place].tally);
            known[place].shape
        };
        let layers = self.known.borrow_mut().iter_mut().enumerate().map(layer).collect();
        (tally, shapes.of(placement, layers))
    }
}
