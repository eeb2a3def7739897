//! The value nearest to a refused pin with which a plan exists: what a plan without the pin has, moved towards the pinned value as far
//! as one still does.

use super::refusal::NearestChange;
use super::request::Request;
use super::search::Found;
use super::site::{Residency, Site};
use crate::emit::flags::value_text;
use spec::Settings;
use spec::settings::Pins;

/// Values that are tried for one pin: each is a search.
const MOST_TRIED: usize = 10;

/// A pinned number that can be moved.
struct Number {
    name: &'static str,
    /// Values are multiples of it.
    step: u32,
    get: fn(&Settings) -> u32,
    set: fn(&mut Pins, u32),
}

macro_rules! numbers {
    ($($field:ident: $step:expr),* $(,)?) => {
        &[$(Number {
            name: stringify!($field),
            step: $step,
            get: |settings| settings.$field,
            set: |pins, value| pins.$field = Some(value),
        }),*]
    };
}

/// Numbers whose size decides how much memory is needed; contexts and batches move in steps that are easy to read.
const NUMBERS: &[Number] = numbers! { n_ctx: 1024, n_gpu_layers: 1, n_cpu_moe: 1, n_parallel: 1, n_ubatch: 64, n_batch: 64 };

impl Site<'_> {
    /// What a plan without these pins has instead of each; for a single number, the value nearest to the pinned one that has a plan.
    pub(crate) fn without_pins(&self, names: &[&'static str]) -> Option<Vec<NearestChange>> {
        let mut request = self.request.clone();
        names.iter().for_each(|name| remove(&mut request.pins, name));
        let found = self.found_with(&request)?;
        let (pinned, instead) = (self.pinned(Settings::default()), &found.candidate.settings);
        let change = |&setting| {
            // Of several, the values of one plan: moved each alone they may have none together.
            let number = NUMBERS.iter().find(|number| number.name == setting && names.len() == 1);
            let moved = number.map(|number| self.nearest(&request, number, &pinned, &found));
            let instead = moved.map_or_else(|| value_text(instead, setting), |value| value.to_string());
            NearestChange::Unpin { setting, pinned: value_text(&pinned, setting), instead }
        };
        Some(names.iter().map(change).collect())
    }

    /// The value nearest to a pinned one with which a plan exists beside the pins of `request`, by halving the distance from the value
    /// of the plan that was `found` without it.
    fn nearest(&self, request: &Request, number: &Number, pinned: &Settings, found: &Found) -> u32 {
        let fits = |value: u32| {
            let mut request = request.clone();
            (number.set)(&mut request.pins, value);
            let residency = |plan: &Found| plan.candidate.residency;
            self.found_with(&request).is_some_and(|plan| [residency(found), Residency::Resident].contains(&residency(&plan)))
        };
        let mut near = (number.get)(&found.candidate.settings);
        let far = (number.get)(pinned);
        // No more than the model has: every layer, the trained context.
        let most = match number.name {
            "n_ctx" => self.trained_context(),
            "n_gpu_layers" | "n_cpu_moe" => Some(self.inventory.offloadable()),
            _ => None,
        };
        let end = most.map_or(far, |most| far.min(most.max(near)));
        if end != far && fits(end) {
            return end;
        }
        let mut far = end;
        for _ in 0..MOST_TRIED {
            let middle = near.midpoint(far) / number.step * number.step;
            if middle <= near.min(far) || middle >= near.max(far) {
                break;
            }
            *(if fits(middle) { &mut near } else { &mut far }) = middle;
        }
        near
    }

    /// The plan of another request on the same machine; `None` where the engine would refuse what is pinned in it.
    pub(crate) fn found_with(&self, request: &Request) -> Option<Found> {
        let site = Site::new(self.machine, self.model, &self.target, request, self.inventory, self.require());
        if !site.too_short().is_empty() {
            return None;
        }
        let found = site.find().ok()?;
        let settings = &found.candidate.settings;
        let chosen = site.of(&settings.devices);
        chosen.as_ref().unwrap_or(&site).broken_pins(settings).is_empty().then_some(found)
    }
}

/// Removes one pin by its name.
pub(crate) fn remove(pins: &mut Pins, name: &str) {
    macro_rules! remove {
        ($($field:ident)*) => {
            match name {
                $(stringify!($field) => pins.$field = None,)*
                _ => {}
            }
        };
    }
    remove!(threads threads_batch pooling n_ctx n_gpu_layers n_cpu_moe tensor_overrides tensor_split split_mode main_gpu n_parallel kv_unified cache_type_k cache_type_v
        n_ubatch n_batch flash_attn repack load_mode kv_offload op_offload swa_full);
}
