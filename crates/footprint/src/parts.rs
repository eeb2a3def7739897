//! The components of a requirement by name, right after load and at peak.

use crate::requirement::{DeviceRequirement, HostRequirement, Requirement};
use spec::{Bytes, Known};

spec::words! {
    /// What a part of memory is for.
    Component {
        /// Weights of the model: used in place from the mapped file, read into memory, or on a device.
        Weights = "weights",
        /// Second copies of weights, rearranged for the CPU's kernels.
        Repacked = "repacked",
        /// Attention caches.
        KvCache = "kv_cache",
        /// State of recurrent layers.
        State = "recurrent_state",
        /// Compute buffer of the scheduler.
        Compute = "compute",
        /// Logits handed to the application.
        Output = "output",
        /// The program itself: vocabulary, graph metadata, driver libraries.
        Program = "program",
        /// The driver's context, and scratch outside every buffer.
        Driver = "driver",
        /// Weights of a projector (`--mmproj`).
        Projector = "projector",
        /// Compute buffer of a projector.
        ProjectorCompute = "projector_compute",
        /// Adapters (`--lora`).
        Adapters = "adapters",
        /// What adapters add to the compute buffer.
        AdapterCompute = "adapter_compute",
        /// Control vectors (`--control-vector`).
        ControlVectors = "control_vectors",
        /// Weights of a draft used in place from the mapped file.
        DraftMapped = "draft_weights_mapped",
        /// Weights of a draft: another model, or the model's own prediction layers.
        DraftWeights = "draft_weights",
        /// Caches and state of a draft.
        DraftCache = "draft_cache",
        /// Compute buffer of a draft.
        DraftCompute = "draft_compute",
        /// Logits of a draft, and what sampling keeps beside them.
        DraftOutput = "draft_output",
        /// Vocabulary and graph of a draft.
        DraftProgram = "draft_program",
        /// The server's cache of prompts: nothing at load, its limit after long use.
        PromptCache = "prompt_cache",
        /// The server's checkpoints of windows and state: nothing at load, their limit after long use.
        Checkpoints = "context_checkpoints",
    }
}

impl Component {
    /// The name as people say it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Repacked => "weights, repacked",
            Self::KvCache => "KV cache",
            Self::State => "recurrent state",
            Self::Compute => "compute",
            Self::Output => "logits",
            Self::Program => "program",
            Self::Driver => "driver",
            Self::Projector => "projector",
            Self::ProjectorCompute => "projector compute",
            Self::Adapters => "adapters",
            Self::AdapterCompute => "adapter compute",
            Self::ControlVectors => "control vectors",
            Self::DraftMapped => "draft weights, mapped",
            Self::DraftWeights => "draft weights",
            Self::DraftCache => "draft KV cache",
            Self::DraftCompute => "draft compute",
            Self::DraftOutput => "draft logits",
            Self::DraftProgram => "draft program",
            Self::PromptCache => "prompt cache",
            Self::Checkpoints => "checkpoints",
        }
    }
    /// True for compute buffers: on the host their pages count only once a batch has used them.
    pub(crate) const fn is_compute(self) -> bool {
        matches!(self, Self::Compute | Self::ProjectorCompute | Self::AdapterCompute | Self::DraftCompute)
    }
    /// True for what is empty at load and grows with use up to a limit.
    pub const fn grows(self) -> bool {
        matches!(self, Self::PromptCache | Self::Checkpoints)
    }
}

/// One component of one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it is for.
    pub component: Component,
    /// Allocated right after load.
    pub load: Known<Bytes>,
    /// The most that it becomes.
    pub peak: Known<Bytes>,
}

impl Part {
    fn fixed(component: Component, bytes: &Known<Bytes>) -> Self {
        Self { component, load: bytes.clone(), peak: bytes.clone() }
    }
    fn grown(component: Component, limit: &Known<Bytes>) -> Self {
        Self { component, load: Known::exact(Bytes::ZERO, "empty until it is used"), peak: limit.clone() }
    }
}

/// Sums of parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    /// Right after load.
    pub load: Known<Bytes>,
    /// At peak, before the server's caches have grown.
    pub working: Known<Bytes>,
    /// At peak, with the server's caches at their limits.
    pub peak: Known<Bytes>,
}

/// The sums of a place's parts.
pub fn totals(parts: &[Part]) -> Totals {
    let sum = |of: &dyn Fn(&Part) -> Option<Known<Bytes>>| {
        parts.iter().filter_map(of).fold(Known::exact(Bytes::ZERO, "sum of the parts"), |sum, part| sum.plus(&part))
    };
    Totals {
        load: sum(&|part| Some(part.load.clone())),
        working: sum(&|part| (!part.component.grows()).then(|| part.peak.clone())),
        peak: sum(&|part| Some(part.peak.clone())),
    }
}

impl DeviceRequirement {
    /// Every component, in a fixed order; what is loaded beside the model last.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = vec![
            Part::fixed(Component::Weights, &self.weights),
            Part::fixed(Component::KvCache, &self.kv_cache),
            Part::fixed(Component::State, &self.state),
            Part::fixed(Component::Compute, &self.compute),
            Part { component: Component::Driver, load: self.runtime.clone(), peak: self.runtime.plus(&self.scratch) },
        ];
        parts.extend(self.beside.iter().cloned());
        parts
    }
}

impl HostRequirement {
    /// Every component, in a fixed order. A component is what is allocated: of the compute buffer the system counts pages
    /// only once a batch has used them ([`HostRequirement::anonymous_at_load`]).
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = vec![
            Part::fixed(Component::Weights, &self.weights_mapped.plus(&self.weights_anonymous)),
            Part::fixed(Component::Repacked, &self.weights_repacked),
            Part::fixed(Component::KvCache, &self.kv_cache),
            Part::fixed(Component::State, &self.state),
            Part::fixed(Component::Compute, &self.compute),
            Part { component: Component::Output, load: self.output.clone(), peak: self.output.plus(&self.output_growth) },
            Part::fixed(Component::Program, &self.runtime),
            Part::grown(Component::PromptCache, &self.prompt_cache),
            Part::grown(Component::Checkpoints, &self.checkpoints),
        ];
        parts.extend(self.beside.iter().cloned());
        parts
    }
}

impl Requirement {
    /// The parts of a device (index into [`Requirement::devices`]) or of the host.
    pub fn parts(&self, device: Option<usize>) -> Vec<Part> {
        match device {
            Some(device) => self.devices.get(device).map(DeviceRequirement::parts).unwrap_or_default(),
            None => self.host.parts(),
        }
    }
}
