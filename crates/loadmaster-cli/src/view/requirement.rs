//! What a plan needs, per device and component.

use super::{Quantity, Size};
use crate::render::{Align, CAUTION, Cell, HEADING, Table, Text};
use loadmaster::footprint::{DeviceRequirement, HostRequirement, Requirement, ResolvedContext};
use schemars::JsonSchema;
use serde::Serialize;
use spec::{Bytes, Known};

/// Memory of one configuration.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RequirementView {
    /// The context as the engine resolves it.
    pub context: ContextView,
    /// Per GPU, in the engine's order.
    pub devices: Vec<DeviceView>,
    /// Host memory.
    pub host: HostView,
    /// Layers on each device in order of the layers; the output is the last of them.
    pub layers: Vec<LayersView>,
    /// Remarks.
    pub notes: Vec<String>,
}

/// The context after the engine's own rounding.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ContextView {
    /// Tokens over all sequences.
    pub n_ctx: u32,
    /// Tokens of one sequence.
    pub n_ctx_seq: u32,
    /// Logical batch.
    pub n_batch: u32,
    /// Micro-batch.
    pub n_ubatch: u32,
    /// Rows of logits per micro-batch.
    pub n_outputs: u32,
    /// Whether flash attention is in use.
    pub flash_attn: bool,
}

/// What one GPU must hold.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DeviceView {
    /// The engine's name of it.
    pub name: String,
    /// Weights.
    pub weights_bytes: Quantity<Size>,
    /// Attention caches.
    pub kv_cache_bytes: Quantity<Size>,
    /// Recurrent state.
    pub state_bytes: Quantity<Size>,
    /// Compute buffer.
    pub compute_bytes: Quantity<Size>,
    /// The driver's own use.
    pub runtime_bytes: Quantity<Size>,
    /// What the backend takes for itself once it computes (pools, copies, workspaces).
    pub scratch_bytes: Quantity<Size>,
    /// What is loaded beside the model (a draft, a projector, adapters), at peak.
    pub beside_bytes: Quantity<Size>,
    /// All of it, at peak: the sum of these.
    pub total_bytes: Quantity<Size>,
}

/// What the host must hold.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HostView {
    /// Weights used in place from the mapped file.
    pub weights_mapped_bytes: Quantity<Size>,
    /// Weights read into memory.
    pub weights_anonymous_bytes: Quantity<Size>,
    /// Repacked copies of weights.
    pub weights_repacked_bytes: Quantity<Size>,
    /// Attention caches.
    pub kv_cache_bytes: Quantity<Size>,
    /// Recurrent state.
    pub state_bytes: Quantity<Size>,
    /// Compute buffer.
    pub compute_bytes: Quantity<Size>,
    /// Logits handed to the application.
    pub output_bytes: Quantity<Size>,
    /// The program itself.
    pub runtime_bytes: Quantity<Size>,
    /// What cannot be dropped, only swapped.
    pub anonymous_bytes: Quantity<Size>,
    /// All that should stay in memory for full speed.
    pub resident_bytes: Quantity<Size>,
    /// Most that the server's caches may grow to later, on top.
    pub growth_limit_bytes: Quantity<Size>,
}

/// Consecutive layers on one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LayersView {
    /// First layer, from 0.
    pub first: usize,
    /// Last layer.
    pub last: usize,
    /// Name of the device, or `host`; `CUDA0+CUDA1` where each holds slices.
    pub device: String,
}

impl From<&ResolvedContext> for ContextView {
    fn from(context: &ResolvedContext) -> Self {
        let &ResolvedContext { n_ctx, n_ctx_seq, n_batch, n_ubatch, n_outputs, flash_attn, .. } = context;
        Self { n_ctx, n_ctx_seq, n_batch, n_ubatch, n_outputs, flash_attn }
    }
}

impl ContextView {
    /// All of it on one line.
    pub fn sentence(&self) -> String {
        let Self { n_ctx, n_ctx_seq, n_batch, n_ubatch, flash_attn, .. } = self;
        let flash_attn = if *flash_attn { "on" } else { "off" };
        format!("context {n_ctx} ({n_ctx_seq} per sequence), batch {n_batch}, micro-batch {n_ubatch}, flash attention {flash_attn}")
    }
}

impl From<&Requirement> for RequirementView {
    fn from(requirement: &Requirement) -> Self {
        Self {
            context: (&requirement.context).into(),
            devices: requirement.devices.iter().map(device).collect(),
            host: host(&requirement.host),
            layers: layers(requirement),
            notes: requirement.notes.clone(),
        }
    }
}

fn device(device: &DeviceRequirement) -> DeviceView {
    let beside = device.beside.iter().fold(Known::exact(Bytes::ZERO, "nothing beside the model"), |sum, part| sum.plus(&part.peak));
    DeviceView {
        name: device.name.clone(),
        weights_bytes: Quantity::of(&device.weights),
        kv_cache_bytes: Quantity::of(&device.kv_cache),
        state_bytes: Quantity::of(&device.state),
        compute_bytes: Quantity::of(&device.compute),
        runtime_bytes: Quantity::of(&device.runtime),
        scratch_bytes: Quantity::of(&device.scratch),
        beside_bytes: Quantity::of(&beside),
        total_bytes: Quantity::of(&device.total()),
    }
}

fn host(host: &HostRequirement) -> HostView {
    HostView {
        weights_mapped_bytes: Quantity::of(&host.weights_mapped),
        weights_anonymous_bytes: Quantity::of(&host.weights_anonymous),
        weights_repacked_bytes: Quantity::of(&host.weights_repacked),
        kv_cache_bytes: Quantity::of(&host.kv_cache),
        state_bytes: Quantity::of(&host.state),
        compute_bytes: Quantity::of(&host.compute),
        output_bytes: Quantity::of(&host.output),
        runtime_bytes: Quantity::of(&host.runtime),
        anonymous_bytes: Quantity::of(&host.anonymous()),
        resident_bytes: Quantity::of(&host.resident()),
        growth_limit_bytes: Quantity::of(&host.growth_limit()),
    }
}

/// Runs of layers on the same device.
pub fn layers(requirement: &Requirement) -> Vec<LayersView> {
    let mut runs: Vec<LayersView> = Vec::new();
    let all = || requirement.devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join("+");
    for (i, place) in requirement.layer_devices.iter().enumerate() {
        let name = match place {
            Some(_) if requirement.sliced => all(),
            Some(index) => requirement.devices.get(*index).map_or_else(|| format!("device {index}"), |device| device.name.clone()),
            None => "host".to_owned(),
        };
        match runs.last_mut() {
            Some(run) if run.device == name => run.last = i,
            _ => runs.push(LayersView { first: i, last: i, device: name }),
        }
    }
    runs
}

impl RequirementView {
    /// One column per device, one row per component.
    pub fn text(&self, text: &mut Text) {
        text.line(self.context.sentence());
        for device in &self.devices {
            text.section(LayersView::title(&self.layers, &device.name));
            component_table(
                text,
                &[
                    ("weights", &device.weights_bytes),
                    ("KV cache", &device.kv_cache_bytes),
                    ("recurrent state", &device.state_bytes),
                    ("compute", &device.compute_bytes),
                    ("driver", &device.runtime_bytes),
                ],
                &[("total", &device.total_bytes)],
            );
        }
        let host = &self.host;
        text.section(LayersView::title(&self.layers, "host"));
        component_table(
            text,
            &[
                ("weights, mapped", &host.weights_mapped_bytes),
                ("weights, read", &host.weights_anonymous_bytes),
                ("weights, repacked", &host.weights_repacked_bytes),
                ("KV cache", &host.kv_cache_bytes),
                ("recurrent state", &host.state_bytes),
                ("compute", &host.compute_bytes),
                ("logits", &host.output_bytes),
                ("program", &host.runtime_bytes),
            ],
            &[("cannot be dropped", &host.anonymous_bytes), ("total", &host.resident_bytes)],
        );
        if !is_zero(&host.growth_limit_bytes) {
            text.note(CAUTION, "!", format_args!("a server's caches may later grow by {}", host.growth_limit_bytes));
        }
        if !self.notes.is_empty() {
            text.section("Notes");
            text.notes(&self.notes);
        }
    }
}

impl LayersView {
    /// A device's name with its layers.
    pub fn title(layers: &[Self], device: &str) -> String {
        let runs: Vec<_> = layers
            .iter()
            .filter(|run| run.device.split('+').any(|name| name == device))
            .map(|run| if run.first == run.last { run.first.to_string() } else { format!("{}-{}", run.first, run.last) })
            .collect();
        let what = if layers.iter().any(|run| run.device.contains('+')) { "slices of layers" } else { "layers" };
        if runs.is_empty() { device.to_owned() } else { format!("{device}, {what} {}", runs.join(", ")) }
    }
}

fn is_zero(quantity: &Quantity<Size>) -> bool {
    matches!(quantity, Quantity::Exact { value: Size(0), .. })
}

/// Components that are not zero, then their sums.
fn component_table(text: &mut Text, components: &[(&str, &Quantity<Size>)], sums: &[(&str, &Quantity<Size>)]) {
    let mut table = Table::new([Align::Left, Align::Right, Align::Left]);
    for (name, quantity) in components.iter().filter(|(_, quantity)| !is_zero(quantity)) {
        table.row([Cell::plain(*name), Cell::plain(central(quantity)), Cell::styled(crate::render::DIM, detail(quantity, text.verbose()))]);
    }
    for (name, quantity) in sums {
        table.row([
            Cell::styled(HEADING, *name),
            Cell::styled(HEADING, central(quantity)),
            Cell::styled(crate::render::DIM, detail(quantity, text.verbose())),
        ]);
    }
    text.table(&table);
}

/// The central value, marked where it is an estimate.
pub fn central(quantity: &Quantity<Size>) -> String {
    match quantity {
        Quantity::Exact { value, .. } => value.to_string(),
        Quantity::Estimated { value, .. } => format!("~{value}"),
        Quantity::Unknown { .. } => "unknown".to_owned(),
    }
}

/// Interval or reason, and the source where it is wanted.
fn detail(quantity: &Quantity<Size>, verbose: bool) -> String {
    match quantity {
        Quantity::Exact { source, .. } if verbose => format!("[{source}]"),
        Quantity::Exact { .. } => String::new(),
        Quantity::Estimated { low, high, source, .. } if verbose => format!("{low} to {high}  [{source}]"),
        Quantity::Estimated { low, high, .. } => format!("{low} to {high}"),
        Quantity::Unknown { reason } => reason.clone(),
    }
}
