//! What placements have in common, layer by layer: homes of tensors, sums over them, and what shapes graphs.
//!
//! A search moves layers between devices, and experts to the host: a layer has few placements, each of which is part of many.

use super::frame_key;
use crate::compute::{LayerShape, Shape, Shapes};
use crate::error::FootprintError;
use crate::placement::Home;
use crate::require::{Case, Placed};
use crate::tally::Tally;
use spec::Model;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

/// The layers of one model under placements on one target.
pub(super) struct Layers {
    shapes: Shapes,
    /// By what does not move layers ([`frame_key`]), and by layer.
    known: RefCell<BTreeMap<Vec<u64>, Vec<Vec<Layer>>>>,
}

/// A layer that is placed.
struct Layer {
    /// Of the layer and of its cache.
    devices: [u32; 2],
    /// Its experts are the host's.
    moved: bool,
    homes: Vec<Home>,
    told: OnceCell<(LayerShape, Tally)>,
}

impl Layers {
    /// None is known.
    pub(super) fn new(model: &Model) -> Self {
        Self { shapes: Shapes::new(model), known: RefCell::default() }
    }

    /// As [`Placed::new`], with what of the placement shapes graphs.
    ///
    /// # Errors
    /// As [`Placed::new`].
    pub(super) fn place(&self, case: &Case<'_>) -> Result<(Placed, Shape), FootprintError> {
        let (placer, loader, shapes) = (case.placer()?, case.loader(), &self.shapes);
        // How devices share rows follows from no home.
        if placer.shares_rows() {
            let placed = Placed::new(case)?;
            let layers = (0..case.model.layers.len()).map(|layer| shapes.layer(&placed.placement, layer)).collect();
            let shape = shapes.of(&placed.placement, layers);
            return Ok((placed, shape));
        }
        let mut known = self.known.borrow_mut();
        let known = known.entry(frame_key(case.settings)).or_insert_with(|| case.model.layers.iter().map(|_| Vec::new()).collect());
        let mut homes = vec![Home::Unused; case.model.tensors.len()];
        let place = |(index, known): (usize, &mut Vec<Layer>)| {
            let (devices, moved) = (shapes.devices(placer.layer_devices(), index), placer.moves_experts(index));
            let tensors = &shapes.groups[index];
            let place = known.iter().position(|layer| (layer.devices, layer.moved) == (devices, moved)).unwrap_or_else(|| {
                let homes = tensors.iter().map(|&tensor| placer.home_of(tensor)).collect();
                known.push(Layer { devices, moved, homes, told: OnceCell::new() });
                known.len() - 1
            });
            for (&tensor, &home) in tensors.iter().zip(&known[place].homes) {
                homes[tensor] = home;
            }
            place
        };
        let places: Vec<usize> = known.iter_mut().enumerate().map(place).collect();
        let outside = || shapes.groups.last().into_iter().flatten().copied();
        let placement = placer.place(homes, outside());
        let mut tally = Tally::over(&loader, &placement, outside());
        let layer = |(index, place): (usize, usize)| {
            let told = || (shapes.layer(&placement, index), Tally::over(&loader, &placement, shapes.groups[index].iter().copied()));
            let (shape, layers) = known[index][place].told.get_or_init(told);
            tally.join(layers);
            *shape
        };
        let layers = places.into_iter().enumerate().map(layer).collect();
        let shape = shapes.of(&placement, layers);
        Ok((Placed::of(case, placement, tally), shape))
    }
}
