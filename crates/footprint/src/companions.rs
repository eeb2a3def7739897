//! What is loaded beside a model: projector, adapters, control vectors, a model that drafts.

mod attached;
mod draft;

pub use draft::{Draft, Speculation};

use crate::error::FootprintError;
use crate::parts::{Component, Part};
use crate::placement::Placement;
use crate::require::Case;
use crate::requirement::Requirement;
use spec::{Attachment, Bytes, Known, Model};

/// Everything beside a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Companions {
    /// The projector of a multimodal model (`--mmproj`).
    pub projector: Option<Attachment>,
    /// The projector stays on the host (`--no-mmproj-offload`).
    pub projector_on_host: bool,
    /// The device of the projector (`--mmproj-device`); `None`: the first that the model uses.
    pub projector_device: Option<String>,
    /// Adapters (`--lora`).
    pub adapters: Vec<Attachment>,
    /// Control vectors (`--control-vector`): several are summed and take the memory of one.
    pub control_vectors: Vec<Attachment>,
    /// What drafts tokens, if anything does.
    pub draft: Option<Draft>,
}

impl Companions {
    /// How many tokens are drafted at most, and whether state must be kept for each.
    pub(crate) fn speculation(&self, model: &Model) -> Speculation {
        self.draft.as_ref().map_or(Speculation::NONE, |draft| draft.speculation(model))
    }
    /// True where there is nothing beside the model.
    pub fn is_empty(&self) -> bool {
        self.projector.is_none() && self.adapters.is_empty() && self.control_vectors.is_empty() && self.draft.is_none()
    }
}

/// One model as it is placed: what companions are placed beside.
pub(crate) struct Host<'a> {
    pub(crate) case: Case<'a>,
    pub(crate) placement: &'a Placement,
}

/// Parts by place: the host first, then every device.
pub(crate) struct Beside {
    pub(crate) host: Vec<Part>,
    pub(crate) devices: Vec<Vec<Part>>,
}

impl Beside {
    fn add(&mut self, device: Option<usize>, component: Component, load: Known<Bytes>, peak: Known<Bytes>) {
        let place = match device {
            Some(device) => self.devices.get_mut(device),
            None => Some(&mut self.host),
        };
        let Some(parts) = place else { return };
        match parts.iter_mut().find(|part| part.component == component) {
            Some(part) => *part = Part { component, load: part.load.plus(&load), peak: part.peak.plus(&peak) },
            None => parts.push(Part { component, load, peak }),
        }
    }
    fn fixed(&mut self, device: Option<usize>, component: Component, bytes: Known<Bytes>) {
        if bytes.high() != Some(&Bytes::ZERO) {
            self.add(device, component, bytes.clone(), bytes);
        }
    }
}

/// What the companions need.
pub(crate) fn beside(host: &Host<'_>, companions: &Companions) -> Result<Beside, FootprintError> {
    let mut beside = Beside { host: Vec::new(), devices: vec![Vec::new(); host.case.target.devices.len()] };
    if let Some(projector) = &companions.projector {
        attached::projector(host, projector, companions, &mut beside)?;
    }
    for adapter in &companions.adapters {
        attached::adapter(host, adapter, &mut beside)?;
    }
    attached::control_vectors(host, &companions.control_vectors, &mut beside)?;
    if let Some(draft) = &companions.draft {
        draft::draft(host, draft, &mut beside)?;
    }
    Ok(beside)
}

impl Requirement {
    pub(crate) fn set_beside(&mut self, beside: Beside) {
        self.host.beside = beside.host;
        for (device, parts) in self.devices.iter_mut().zip(beside.devices) {
            device.beside = parts;
        }
    }
}
