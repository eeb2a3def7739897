//! Why a plan is as it is, and what would change it: computed, not guessed.

use super::cores::Held;
use super::joint::SMALL_UBATCH;
use super::objective::Goal;
use super::request::{DevicePreference, Power};
use super::search::Found;
use super::shared::{more_of_the_host, tighter_is_the_host};
use super::site::{Candidate, Reach, Residency, Rung, Site};
use super::verdict::{Binding, Change, Choice, Origin, Pool, Strategy};
use crate::emit::bitnet_has;
use crate::emit::flags::{flags, value_text};
use crate::predict::{Configuration, HostState};
use spec::settings::{FlashAttention, LoadMode, SplitMode};
use spec::{Bytes, Known, Settings};

/// Repacked copies that the host would hold with repacking on; `None` where there are none.
pub(crate) fn repacked_with(site: &Site<'_>, settings: &Settings) -> Option<Bytes> {
    let rung = Rung { n_ctx: settings.n_ctx, cache: settings.cache_type_k, reach: Reach::Anywhere, disk: true };
    let requirement = site.evaluate(&Settings { repack: true, ..settings.clone() }, &rung).requirement?;
    requirement.host.weights_repacked.get().filter(|copies| !copies.is_zero())
}

impl Site<'_> {
    /// Which processors compute.
    pub(crate) fn strategy(&self, candidate: &Candidate) -> Strategy {
        let devices = &candidate.requirement.layer_devices;
        let on_host = self.on_host(candidate);
        match (devices.iter().any(Option::is_some), on_host) {
            (false, _) => Strategy::CpuOnly,
            (true, false) => Strategy::GpuOnly,
            (true, true) => Strategy::Hybrid,
        }
    }

    /// True where layers, or parts of them, are on the host.
    pub(crate) fn on_host(&self, candidate: &Candidate) -> bool {
        candidate.requirement.layer_devices.iter().any(Option::is_none)
            || (candidate.settings.n_cpu_moe > 0 && self.inventory.has_experts())
            || self.moved_by(&candidate.settings).iter().any(|moved| moved.to.is_none())
    }

    /// Where each setting comes from.
    pub(crate) fn choices(&self, found: &Found, whole: &Site<'_>) -> Vec<Choice> {
        let pinned = self.request.pins.names();
        let default = Settings::default();
        let settings = &found.candidate.settings;
        let choice = |setting: &'static str| {
            let value = value_text(settings, setting);
            let (origin, because) = if pinned.contains(&setting) {
                (Origin::Pinned, "pinned by the user".to_owned())
            } else if let ("devices", Some(why)) = (setting, self.devices_reason(whole)) {
                (Origin::Searched, why)
            } else {
                self.because(setting, found).unwrap_or_else(|| {
                    if value == value_text(&default, setting) {
                        (Origin::EngineDefault, "the engine's default, written out".to_owned())
                    } else {
                        (Origin::Rule, "follows from the other settings".to_owned())
                    }
                })
            };
            Choice { setting, value, origin, because }
        };
        let has = |setting: &&'static str| self.request.profile.bitnet.is_none() || bitnet_has(setting, &found.candidate.settings);
        flags().iter().map(|flag| flag.setting).filter(has).map(choice).collect()
    }

    fn because(&self, setting: &str, found: &Found) -> Option<(Origin, String)> {
        let settings = &found.candidate.settings;
        let searched = |why: String| Some((Origin::Searched, why));
        let rule = |why: String| Some((Origin::Rule, why));
        match setting {
            "n_ctx" => searched(self.context_reason(settings)),
            "tensor_overrides" if self.wants_devices() && settings.tensor_overrides.is_empty() && settings.n_gpu_layers > 0 => {
                let why = "whole layers; the output head goes first, as a token reads all of it";
                Some((Origin::EngineDefault, why.to_owned()))
            }
            "n_gpu_layers" | "tensor_split" | "split_mode" | "main_gpu" | "n_cpu_moe" | "tensor_overrides" if self.wants_devices() => {
                let kept = found.gate.as_ref().filter(|gate| gate.places() && self.on_host(&found.candidate));
                match kept {
                    Some(gate) => kept_reason(setting, settings, gate.margin),
                    None => self.placement_reason(setting, found).and_then(searched),
                }
            }
            "n_gpu_layers" if self.target.devices.is_empty() => rule("no GPU that the engine can use".to_owned()),
            "n_gpu_layers" => rule("the CPU was asked for".to_owned()),
            "flash_attn" if settings.flash_attn == FlashAttention::Off => searched("attention is faster without it here".to_owned()),
            "kv_offload" if !settings.kv_offload && self.wants_devices() => {
                searched("the cache on the host leaves the GPU's memory to layers".to_owned())
            }
            "cache_type_k" | "cache_type_v" if settings.cache_type_k.is_quantized() => searched("f16 does not fit".to_owned()),
            "flash_attn" if settings.cache_type_v.is_quantized() => rule("a quantised V cache needs it".to_owned()),
            "n_ubatch" if settings.n_ubatch > 512 && settings.op_offload && self.on_host(&found.candidate) => {
                searched("each micro-batch copies the host's weights to the GPU once".to_owned())
            }
            "n_ubatch" if settings.n_ubatch > 512 => searched("each micro-batch reads the experts that its tokens visit once".to_owned()),
            "n_ubatch" if self.request.profile.bitnet.is_some() && settings.n_ubatch == self.bitnet_ubatch() => {
                rule(match self.target.devices.is_empty() {
                    true => {
                        "the smallest with nearly the best speed of reading: weights are unpacked once for all of its tokens".to_owned()
                    }
                    false => "at most: what is worth it is measured on the device when its layers are loaded".to_owned(),
                })
            }
            "n_ubatch" if settings.n_ubatch == SMALL_UBATCH && settings.n_ubatch < settings.n_batch.min(settings.n_ctx) => {
                searched("its smaller buffers leave the GPU's memory to layers".to_owned())
            }
            "n_ubatch" if settings.n_ubatch < 512 => rule("never above context or batch".to_owned()),
            "threads" => rule(self.threads_reason(settings.threads, self.fastest_cores(), self.given_cpus()[0])),
            "threads_batch" => rule(self.threads_reason(settings.threads_batch, None, self.given_cpus()[1])),
            "numa" => Some(self.numa_reason(&found.candidate)),
            "cpu_mask" => self.mask_reason(settings),
            "cpu_mask_batch" if settings.cpu_mask_batch.is_empty() => {
                Some((Origin::EngineDefault, "prompts are read by all cores, each taking what is next".to_owned()))
            }
            "cpu_mask_batch" => rule("as the threads of decode were given by hand".to_owned()),
            "n_parallel" | "kv_unified" if self.needs.workload.users > 1 => {
                rule(format!("{} requests at once share the context", self.needs.workload.users))
            }
            "embeddings" if self.model.encoder => rule("an encoder writes no text".to_owned()),
            "n_batch" if settings.embeddings && settings.n_batch == settings.n_ubatch => {
                rule("embeddings of a batch are computed at once".to_owned())
            }
            "load_mode" if settings.load_mode == LoadMode::None => {
                searched("mapped, the GPU would hold all of the file from the first of its weights to the last".to_owned())
            }
            "kv_offload" if self.wants_devices() && settings.n_gpu_layers > 0 => {
                Some((Origin::EngineDefault, "the cache lies with its layers; on the host nothing is faster".to_owned()))
            }
            "flash_attn" if settings.flash_attn == FlashAttention::Auto => {
                Some((Origin::EngineDefault, "on where every device has a kernel for it; off nothing is faster".to_owned()))
            }
            "n_parallel" => Some((Origin::EngineDefault, "one request at a time".to_owned())),
            "repack" if !settings.repack => {
                let fits = self.evaluate(&Settings { repack: true, ..settings.clone() }, &found.rung).outcome;
                searched(match fits {
                    Ok(_) if settings.op_offload && self.wants_devices() => {
                        "the GPU reads prompts over the host's weights, which it cannot over rearranged ones".to_owned()
                    }
                    _ => "rearranged copies of the host's weights do not fit".to_owned(),
                })
            }
            "op_offload" if !settings.op_offload => {
                let off = "the GPU was not asked for";
                let short = "copies of host weights do not fit on the GPU";
                let fits = self.evaluate(&Settings { op_offload: true, ..settings.clone() }, &found.rung).outcome.is_ok();
                match (self.wants_devices(), fits) {
                    (true, true) => searched("the CPU reads prompts faster over its own weights than the GPU over copies".to_owned()),
                    (true, false) => searched(short.to_owned()),
                    (false, _) => rule(off.to_owned()),
                }
            }
            "cache_ram_mib" => match self.spare_host(&found.candidate) {
                Bytes::MAX => Some((Origin::EngineDefault, "the engine's default: what the host has left is not known".to_owned())),
                spare => rule(format!("at most half of the {spare} that the host has left")),
            },
            _ => None,
        }
    }

    fn context_reason(&self, settings: &Settings) -> String {
        let use_case = self.request.use_case;
        match self.trained_context() {
            Some(trained) if trained <= settings.n_ctx => format!("{use_case}: the trained context"),
            _ if settings.n_ctx > self.needs.want => {
                format!(
                    "{use_case}: {} tokens wanted; a block more, for the CPU is slow with caches whose size is a power of two",
                    self.needs.want
                )
            }
            _ if settings.n_ctx >= self.needs.want => format!("{use_case}: {} tokens wanted", self.needs.want),
            _ if settings.n_ctx >= self.needs.enough => {
                let gain = if self.wants_devices() { "leave memory for layers" } else { "fit" };
                format!("{use_case}: {} tokens wanted, {} are enough and {gain}", self.needs.want, settings.n_ctx)
            }
            _ => format!("{use_case}: the most of {} tokens that fits", self.needs.enough),
        }
    }

    fn placement_reason(&self, setting: &str, found: &Found) -> Option<String> {
        let settings = &found.candidate.settings;
        let all = self.inventory.offloadable();
        match setting {
            "n_gpu_layers" if settings.n_gpu_layers == 0 => Some("the CPU alone is faster, or the GPU holds nothing".to_owned()),
            "n_gpu_layers" if settings.n_gpu_layers >= all => Some(format!("all {} layers and the output fit", all - 1)),
            "n_gpu_layers" => Some(format!("the most of {all} that fits")),
            "n_cpu_moe" if settings.n_cpu_moe > 0 => Some("experts leave the GPU first: a token reads few of them".to_owned()),
            "split_mode" | "main_gpu" if settings.split_mode == SplitMode::None => Some("the fastest GPU holds it alone".to_owned()),
            "tensor_overrides" if !settings.tensor_overrides.is_empty() => {
                Some("parts of layers where less than a whole one was left".to_owned())
            }
            "tensor_split" if !settings.tensor_split.is_empty() => Some("layers per GPU, as much as fits on the fastest".to_owned()),
            _ => None,
        }
    }

    /// Why so many threads: all cores that may be used, or only the `fastest` of them.
    fn threads_reason(&self, threads: u32, fastest: Option<u32>, held: Option<Held>) -> String {
        let cores = match (fastest, self.cores()) {
            _ if held.is_some_and(|held| [held.fast, held.all].contains(&threads)) => {
                "as many as the CPUs that they are held to by hand".to_owned()
            }
            (Some(fastest), Some(cores)) => {
                format!("the {fastest} fastest of {cores} physical cores that may be used: a token waits for the slowest")
            }
            (_, Some(1)) => "the one physical core that may be used".to_owned(),
            (_, Some(cores)) => match self.machine.facts.cpu.sockets.get() {
                Some(sockets) if sockets > 1 => {
                    format!("{cores} physical cores that may be used, of {sockets} sockets: each adds its memory")
                }
                _ => format!("{cores} physical cores that may be used"),
            },
            (_, None) => "cores of the machine not known".to_owned(),
        };
        match self.request.preferences.power {
            Power::Saver => format!("half, to save power: {cores}"),
            _ => cores,
        }
    }

    /// What stands in the way of a better plan.
    pub(crate) fn binding(&self, found: &Found) -> Binding {
        let candidate = &found.candidate;
        if candidate.residency == Residency::FromDisk {
            return Binding::Memory(Pool::Host);
        }
        let pins = &self.request.pins;
        let strategy = self.strategy(candidate);
        let placed_by_user = pins.n_gpu_layers.is_some() || pins.n_cpu_moe.is_some() || pins.tensor_overrides.is_some();
        let below = candidate.settings.n_ctx < self.needs.enough || candidate.settings.cache_type_k.is_quantized();
        // What devices take of the host's memory may leave less of that than of their own limit.
        let device_pool = || if tighter_is_the_host(&self.pools, &candidate.requirement) { Pool::Host } else { self.device_pool() };
        match strategy {
            Strategy::Hybrid | Strategy::CpuOnly if self.wants_devices() && !placed_by_user => Binding::Memory(device_pool()),
            Strategy::Hybrid if placed_by_user => Binding::Pins(placement_pins(&pins.names())),
            Strategy::CpuOnly if below => Binding::Memory(Pool::Host),
            Strategy::GpuOnly if below || candidate.settings.n_ctx < self.needs.want && pins.n_ctx.is_none() => {
                Binding::Memory(device_pool())
            }
            _ if pins.n_ctx.is_some() => Binding::Pins(vec!["n_ctx"]),
            _ if self.trained_context().is_some_and(|trained| candidate.settings.n_ctx >= trained) => Binding::TrainedContext,
            _ => Binding::UseCase,
        }
    }

    /// Sentences for people.
    pub(crate) fn reasons(&self, found: &Found, whole: &Site<'_>) -> Vec<String> {
        let candidate = &found.candidate;
        let mut reasons = vec![self.describe(&candidate.settings)];
        reasons.extend(self.devices_reason(whole).map(|why| format!("devices {}: {why}", self.devices)));
        reasons.push(format!("context: {}", self.context_reason(&candidate.settings)));
        if let Some(first) = found.tried.first() {
            reasons.push(format!("tried first: {}: {}", first.what, first.rejection));
        }
        reasons.extend(found.gate.as_ref().map(ToString::to_string));
        let prediction = self.prediction(candidate);
        let slowest = prediction.decode_parts.first();
        reasons.extend(self.drafting(candidate).map(|(_, why)| why));
        reasons.extend(slowest.map(|part| format!("decode is limited by {}: {}", prediction.decode_bottleneck, part.what)));
        reasons
    }

    /// What the user should know.
    pub(crate) fn warnings(&self, found: &Found) -> Vec<String> {
        let mut warnings = Vec::new();
        for pool in self.pools.devices.iter().chain([&self.pools.host]).filter(|pool| pool.limit.is_none()) {
            warnings.push(format!("free memory of {} is not known ({}): nothing is checked there", pool.pool, pool.free.source()));
        }
        if self.request.preferences.device == DevicePreference::Gpu && self.target.devices.is_empty() {
            warnings.push("a GPU was asked for, and the engine has none here".to_owned());
        }
        if self.cores().is_none() {
            warnings.push(format!("cores of the machine are not known: {} threads assumed", found.candidate.settings.threads));
        }
        if let Some(device) = self.target.devices.first().filter(|_| !self.wants_devices() && self.no_gpu_behind_own_device()) {
            warnings.push(format!("{} is no GPU that is known of this machine, nor its speed: it gets layers only with -ngl", device.name));
        }
        warnings.extend(self.drafting(&found.candidate).and_then(|(pays, why)| (!pays).then_some(why)));
        warnings.extend(found.candidate.requirement.notes.iter().cloned());
        warnings
    }

    /// Whether tokens drafted by what is given pay, and by how much; `None` where nothing drafts.
    fn drafting(&self, candidate: &Candidate) -> Option<(bool, String)> {
        let draft = self.request.companions.draft.as_ref()?;
        let (settings, layer_devices) = (&candidate.settings, candidate.requirement.layer_devices.as_slice());
        let (moved, state) = (self.moved_by(settings), HostState::of(self.pools.host.with_files, &candidate.requirement));
        let configuration = Configuration { settings, layer_devices, moved: &moved, state: &state };
        let drafted = self.drafted(configuration, draft).speculation(self.depth(settings));
        let plain = self.prediction(candidate).decode;
        let pays = drafted.decode.get().zip(plain.get()).is_none_or(|(with, without)| with > without);
        let word = if pays { "pays" } else { "does not pay: leave the draft out" };
        Some((
            pays,
            format!("drafting {} tokens ahead {word}: decode {} instead of {}", drafted.drafted, central(&drafted.decode), central(&plain)),
        ))
    }

    /// Changes that would lead to another plan, each planned anew.
    pub(crate) fn changes(&self, found: &Found) -> Vec<Change> {
        [self.more_device_memory(found), self.more_host_memory(found), self.longest_context(found)].into_iter().flatten().collect()
    }

    /// The memory with which all layers would be on the GPU.
    fn more_device_memory(&self, found: &Found) -> Option<Change> {
        if !self.wants_devices() || self.strategy(&found.candidate) == Strategy::GpuOnly || self.placed_by_user() {
            return None;
        }
        let rung = Rung { reach: Reach::Devices, disk: false, ..found.rung };
        let (extra, whole) = self.with_more_memory(&rung)?;
        if extra > self.pools.device_limit().times(2) {
            // Nobody adds that much to this machine.
            return None;
        }
        let decode = self.prediction(&whole).decode;
        let where_ = if self.pools.devices.len() == 1 { "on" } else { "in all over" };
        let of_the_host = more_of_the_host(self.machine, &self.pools, extra);
        Some(Change {
            what: of_the_host.unwrap_or_else(|| format!("{extra} more {where_} {}", self.device_pool())),
            then: format!(
                "all layers on the GPU: decode {} instead of {}",
                central(&decode),
                central(&self.prediction(&found.candidate).decode)
            ),
            decode,
        })
    }

    /// The least extra device memory with which a rung's whole placement fits, found by placing on larger devices.
    fn with_more_memory(&self, rung: &Rung) -> Option<(Bytes, Candidate)> {
        let plenty = self.roomy(Bytes::from_gib(4096));
        let whole = plenty.place_with(rung, |frame| frame.changes == 0).ok()?;
        let needs: Bytes = whole.requirement.devices.iter().filter_map(|device| device.total().high().copied()).sum();
        let limit = self.pools.device_limit();
        (needs > limit).then(|| (needs.saturating_sub(limit), whole))
    }

    /// The same site with more memory on each device.
    fn roomy(&self, extra: Bytes) -> Site<'_> {
        let mut site = self.again();
        for device in &mut site.pools.devices {
            device.limit = device.limit.map(|limit| limit + extra);
        }
        site
    }

    /// The host memory with which the weights would stay in memory.
    fn more_host_memory(&self, found: &Found) -> Option<Change> {
        let candidate = &found.candidate;
        if candidate.residency == Residency::Resident {
            return None;
        }
        let missing = candidate.requirement.resident().high()?.saturating_sub(self.pools.host.with_files?);
        let decode = self.resident_speed(candidate);
        Some(Change {
            what: format!("{missing} more host memory"),
            then: format!(
                "the weights stay in memory: decode {} instead of {}",
                central(&decode),
                central(&self.prediction(candidate).decode)
            ),
            decode,
        })
    }

    /// The longest context with the same placement, where the plan has less than the model was trained for.
    fn longest_context(&self, found: &Found) -> Option<Change> {
        if found.candidate.residency == Residency::FromDisk {
            return None;
        }
        let settings = &found.candidate.settings;
        let trained = self.trained_context().filter(|&trained| trained > settings.n_ctx)?;
        let rung = found.rung;
        let fits = |n_ctx: u32| {
            let longer = Settings { n_ctx, ..settings.clone() };
            let evaluated = self.evaluate(&longer, &rung);
            let requirement = evaluated.requirement.filter(|_| evaluated.outcome.is_ok())?;
            Some((longer, requirement))
        };
        // Doubling: four evaluations at most, and a number that is easy to remember.
        let longest = (1..=4).map(|power| settings.n_ctx.saturating_mul(1 << power).min(trained)).map_while(fits).last()?;
        let prediction = self.predict(&longest.0, &longest.1);
        Some(Change {
            what: format!("a context of {} tokens, pinned", longest.0.n_ctx),
            then: format!("fits in the same place; decode at the same depth {}", central(&prediction.decode)),
            decode: prediction.decode,
        })
    }

    pub(crate) fn placed_by_user(&self) -> bool {
        let pins = &self.request.pins;
        pins.n_gpu_layers.is_some() || pins.n_cpu_moe.is_some() || pins.tensor_overrides.is_some()
    }

    /// A site of its own over the same problem.
    pub(crate) fn again(&self) -> Site<'_> {
        let mut site = Site::new(self.machine, self.model, &self.target, self.request, self.inventory, self.require());
        site.pools = self.pools.clone();
        site.devices = self.devices.clone();
        site
    }

    /// The same with another goal.
    pub(crate) fn with_goal(&self, goal: Goal) -> Site<'_> {
        let mut site = self.again();
        site.goal = goal;
        site
    }

    /// Speed of a candidate if its weights stayed in memory.
    pub(crate) fn resident_speed(&self, candidate: &Candidate) -> Known<spec::TokensPerSec> {
        let state = HostState::of(None, &candidate.requirement);
        let devices = &candidate.requirement.layer_devices;
        self.predictor
            .speed(&candidate.settings, devices, &self.moved_by(&candidate.settings), &state, self.depth(&candidate.settings))
            .decode
    }
}

/// Why a placement is the engine's own; `None` for settings that it has left alone.
fn kept_reason(setting: &str, settings: &Settings, margin: f64) -> Option<(Origin, String)> {
    let left_alone = match setting {
        "n_gpu_layers" => false,
        "tensor_split" => settings.tensor_split.is_empty(),
        "tensor_overrides" => settings.tensor_overrides.is_empty(),
        _ => true,
    };
    let why = format!("as the engine's own --fit places it: nothing is better by {:.0} %", margin * 100.0);
    (!left_alone).then_some((Origin::EngineDefault, why))
}

fn placement_pins(names: &[&'static str]) -> Vec<&'static str> {
    names.iter().copied().filter(|name| matches!(*name, "n_gpu_layers" | "n_cpu_moe" | "tensor_overrides")).collect()
}

/// The central value alone: intervals are beside it elsewhere.
fn central(decode: &Known<spec::TokensPerSec>) -> String {
    decode.get().map_or_else(|| "unknown".to_owned(), |rate| format!("~{rate}"))
}
