//! What is loaded beside a model, as files and flags: command lines and configurations say it, engines are told it.

use crate::open::{OpenError, open, open_attachment};
use footprint::{Companions, Draft};
use planner::Plan;
use planner::emit::ALL;
use planner::plan::Drafting;
use spec::{AttachmentKind, QuantType};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What is to be loaded beside a model. What is not said has llama-server's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// The projector of a multimodal model (`--mmproj`).
    pub mmproj: Option<PathBuf>,
    /// Whether the projector may lie on a GPU (false: `--no-mmproj-offload`).
    pub mmproj_offload: Option<bool>,
    /// The device of the projector (`--mmproj-device`); `none`: the host.
    pub mmproj_device: Option<String>,
    /// Adapters (`--lora`).
    pub lora: Vec<PathBuf>,
    /// Control vectors (`--control-vector`).
    pub control_vector: Vec<PathBuf>,
    /// A model that drafts tokens (`--model-draft`).
    pub model_draft: Option<PathBuf>,
    /// Drafts by the model's own prediction layers (`--spec-type draft-mtp`).
    pub own_draft: bool,
    /// Tokens drafted at once at most (`--spec-draft-n-max`).
    pub draft_max: Option<u32>,
    /// Layers of the draft model on GPUs (`--n-gpu-layers-draft`); [`ALL`]: every one.
    pub n_gpu_layers_draft: Option<u32>,
    /// Context of the draft model (`--ctx-size-draft`).
    pub ctx_size_draft: Option<u32>,
    /// Micro-batch of the draft (`--spec-draft-n-ubatch`).
    pub ubatch_draft: Option<u32>,
    /// Type of the draft's K cache (`--cache-type-k-draft`).
    pub cache_type_k_draft: Option<QuantType>,
    /// Type of the draft's V cache (`--cache-type-v-draft`).
    pub cache_type_v_draft: Option<QuantType>,
}

/// What is said instead of a device to keep to the host.
const NONE: &str = "none";

/// The only way of drafting without another model whose memory is known.
pub const OWN_DRAFT: &str = "draft-mtp";

/// The layers of a draft as llama-server takes them: a number, `all`, or `auto`, which is all for a draft.
///
/// # Errors
/// What the text is not, for people.
pub fn draft_layers(text: &str) -> Result<u32, String> {
    match text {
        "all" | "auto" => Ok(ALL),
        _ => match text.parse::<i32>() {
            Ok(count) => Ok(u32::try_from(count).unwrap_or(ALL)),
            Err(_) => Err(format!("{text:?} is not a whole number up to {}, auto or all", i32::MAX)),
        },
    }
}

impl Beside {
    /// True where nothing is to be loaded beside the model.
    pub fn is_empty(&self) -> bool {
        self.mmproj.is_none() && self.lora.is_empty() && self.control_vector.is_empty() && !self.drafts()
    }

    fn drafts(&self) -> bool {
        self.model_draft.is_some() || self.own_draft
    }

    /// What of a draft is left to the plan: how many tokens at a time, and where it lies, as far as nothing is said of these.
    pub fn drafting(&self) -> Drafting {
        match (self.drafts() && self.draft_max.is_none(), self.n_gpu_layers_draft) {
            (false, _) => Drafting::AsGiven,
            (true, Some(_)) => Drafting::Number,
            (true, None) => Drafting::Chosen,
        }
    }

    /// The same with what a plan has chosen of a draft.
    #[must_use]
    pub fn as_planned(self, plan: &Plan) -> Self {
        match (&plan.ahead, &plan.request.companions.draft) {
            (None, _) => self,
            (Some(_), Some(draft)) => {
                Self { draft_max: Some(draft.n_max), n_gpu_layers_draft: self.n_gpu_layers_draft.or(draft.n_gpu_layers), ..self }
            }
            (Some(_), None) => Self {
                model_draft: None,
                own_draft: false,
                draft_max: None,
                n_gpu_layers_draft: None,
                ctx_size_draft: None,
                ubatch_draft: None,
                cache_type_k_draft: None,
                cache_type_v_draft: None,
                ..self
            },
        }
    }

    /// What contradicts itself, or is said of what is not loaded; for people.
    ///
    /// # Errors
    /// The first of such.
    pub fn check(&self) -> Result<(), String> {
        if self.model_draft.is_some() && self.own_draft {
            return Err(format!("two drafts: --model-draft and --spec-type {OWN_DRAFT}; one of them"));
        }
        if self.mmproj.is_none() && (self.mmproj_offload.is_some() || self.mmproj_device.is_some()) {
            return Err("where the projector lies is said, and none is loaded: --mmproj names one".to_owned());
        }
        if self.drafts() {
            return match (&self.model_draft, self.n_gpu_layers_draft, self.ctx_size_draft) {
                (None, Some(_), _) => {
                    Err("--n-gpu-layers-draft is for a draft model: prediction layers lie where the model's lie".to_owned())
                }
                (None, _, Some(_)) => Err("--ctx-size-draft is for a draft model: prediction layers have the model's context".to_owned()),
                _ => Ok(()),
            };
        }
        let of_draft = [
            ("--spec-draft-n-max", self.draft_max.is_some()),
            ("--n-gpu-layers-draft", self.n_gpu_layers_draft.is_some()),
            ("--ctx-size-draft", self.ctx_size_draft.is_some()),
            ("--spec-draft-n-ubatch", self.ubatch_draft.is_some()),
            ("--cache-type-k-draft", self.cache_type_k_draft.is_some()),
            ("--cache-type-v-draft", self.cache_type_v_draft.is_some()),
        ];
        match of_draft.into_iter().find(|(_, said)| *said) {
            Some((flag, _)) => Err(format!("{flag} is for a draft, and nothing drafts: --model-draft names a model")),
            None => Ok(()),
        }
    }

    /// This, and what it does not say from `base`.
    #[must_use]
    pub fn or(self, base: Self) -> Self {
        let list = |own: Vec<PathBuf>, base| if own.is_empty() { base } else { own };
        // One draft takes the place of another.
        let (model_draft, own_draft) = if self.drafts() { (self.model_draft, self.own_draft) } else { (base.model_draft, base.own_draft) };
        Self {
            mmproj: self.mmproj.or(base.mmproj),
            mmproj_offload: self.mmproj_offload.or(base.mmproj_offload),
            mmproj_device: self.mmproj_device.or(base.mmproj_device),
            lora: list(self.lora, base.lora),
            control_vector: list(self.control_vector, base.control_vector),
            model_draft,
            own_draft,
            draft_max: self.draft_max.or(base.draft_max),
            n_gpu_layers_draft: self.n_gpu_layers_draft.or(base.n_gpu_layers_draft),
            ctx_size_draft: self.ctx_size_draft.or(base.ctx_size_draft),
            ubatch_draft: self.ubatch_draft.or(base.ubatch_draft),
            cache_type_k_draft: self.cache_type_k_draft.or(base.cache_type_k_draft),
            cache_type_v_draft: self.cache_type_v_draft.or(base.cache_type_v_draft),
        }
    }

    /// The same with every path replaced.
    #[must_use]
    pub fn with_paths(self, replace: impl Fn(&Path) -> PathBuf) -> Self {
        let one = |path: Option<PathBuf>| path.map(|path| replace(&path));
        let all = |paths: Vec<PathBuf>| paths.iter().map(|path| replace(path)).collect();
        Self {
            mmproj: one(self.mmproj),
            lora: all(self.lora),
            control_vector: all(self.control_vector),
            model_draft: one(self.model_draft),
            ..self
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// A file that is missing, unreadable, or not what it is named as.
    pub fn open(&self) -> Result<Companions, OpenError> {
        let all = |paths: &[PathBuf], kind| paths.iter().map(|path| open_attachment(path, kind)).collect::<Result<Vec<_>, _>>();
        let default = Draft::new(self.model_draft.as_ref().map(|path| open(path)).transpose()?);
        let draft = Draft {
            n_gpu_layers: self.n_gpu_layers_draft.filter(|&count| count != ALL),
            n_ctx: self.ctx_size_draft,
            cache_type_k: self.cache_type_k_draft.unwrap_or(default.cache_type_k),
            cache_type_v: self.cache_type_v_draft.unwrap_or(default.cache_type_v),
            n_max: self.draft_max.unwrap_or(default.n_max),
            n_ubatch: self.ubatch_draft,
            ..default
        };
        Ok(Companions {
            projector: self.mmproj.as_ref().map(|path| open_attachment(path, AttachmentKind::Projector)).transpose()?,
            projector_on_host: self.mmproj_offload == Some(false) || self.mmproj_device.as_deref() == Some(NONE),
            projector_device: self.mmproj_device.clone().filter(|name| name != NONE),
            adapters: all(&self.lora, AttachmentKind::Lora)?,
            control_vectors: all(&self.control_vector, AttachmentKind::ControlVector)?,
            draft: self.drafts().then_some(draft),
        })
    }

    /// The same as arguments of an engine, each in the first of its spellings that `accepts` knows.
    ///
    /// # Errors
    /// The name here of the first that the engine has no flag for.
    pub fn arguments(&self, accepts: &dyn Fn(&str) -> bool) -> Result<Vec<OsString>, &'static str> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |spellings: &[&'static str], value: Option<&OsStr>| {
            let known = spellings.iter().copied().find(|spelling| accepts(spelling));
            arguments.push(known.ok_or(spellings.first().copied().unwrap_or_default())?.into());
            arguments.extend(value.map(OsString::from));
            Ok::<(), &'static str>(())
        };
        let files = [
            (&["--mmproj"][..], self.mmproj.as_slice()),
            (&["--lora"], &self.lora),
            (&["--control-vector"], &self.control_vector),
            (&["--model-draft", "--spec-draft-model"], self.model_draft.as_slice()),
        ];
        for (spellings, paths) in files {
            paths.iter().try_for_each(|path| add(spellings, Some(path.as_os_str())))?;
        }
        if self.mmproj_offload == Some(false) {
            add(&["--no-mmproj-offload"], None)?;
        }
        if let Some(device) = &self.mmproj_device {
            add(&["--mmproj-device"], Some(device.as_ref()))?;
        }
        if self.own_draft {
            add(&["--spec-type"], Some(OWN_DRAFT.as_ref()))?;
        }
        if !self.drafts() {
            return Ok(arguments);
        }
        let counts = [
            // Engines have had several defaults.
            (&["--spec-draft-n-max", "--draft-max"][..], Some(self.draft_max.unwrap_or(Draft::new(None).n_max))),
            (&["--n-gpu-layers-draft", "--gpu-layers-draft", "--spec-draft-ngl"], self.n_gpu_layers_draft.filter(|&count| count != ALL)),
            (&["--ctx-size-draft"], self.ctx_size_draft),
            (&["--spec-draft-n-ubatch"], self.ubatch_draft),
        ];
        for (spellings, count) in counts {
            count.map_or(Ok(()), |count| add(spellings, Some(count.to_string().as_ref())))?;
        }
        let types = [
            (&["--cache-type-k-draft", "--spec-draft-type-k"], self.cache_type_k_draft),
            (&["--cache-type-v-draft", "--spec-draft-type-v"], self.cache_type_v_draft),
        ];
        for (spellings, ty) in types {
            ty.map_or(Ok(()), |ty| add(spellings, Some(ty.name().as_ref())))?;
        }
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_to_the_engine_in_its_own_spellings() {
        let beside = Beside {
            mmproj: Some("p.gguf".into()),
            lora: vec!["a.gguf".into(), "b.gguf".into()],
            model_draft: Some("d.gguf".into()),
            ctx_size_draft: Some(512),
            cache_type_k_draft: Some(QuantType::Q8_0),
            ..Beside::default()
        };
        let of = |known: &[&str]| {
            let words = beside.arguments(&|flag| known.contains(&flag));
            words.map(|words| words.join(OsStr::new(" ")).into_string().unwrap_or_default())
        };
        let newer = ["--mmproj", "--lora", "--spec-draft-model", "--spec-draft-n-max", "--spec-draft-type-k"];
        assert_eq!(of(&newer), Err("--ctx-size-draft"));
        let older = ["--mmproj", "--lora", "--model-draft", "--draft-max", "--ctx-size-draft", "--cache-type-k-draft"];
        let expected =
            "--mmproj p.gguf --lora a.gguf --lora b.gguf --model-draft d.gguf --draft-max 3 --ctx-size-draft 512 --cache-type-k-draft q8_0";
        assert_eq!(of(&older).as_deref(), Ok(expected));
    }

    #[test]
    fn layers_of_a_draft_are_read_as_the_engine_reads_them() {
        assert_eq!(["0", "12", "-1", "auto", "all"].map(draft_layers), [Ok(0), Ok(12), Ok(ALL), Ok(ALL), Ok(ALL)]);
        assert_eq!(draft_layers("most"), Err("\"most\" is not a whole number up to 2147483647, auto or all".to_owned()));
        let beside = Beside { model_draft: Some("d".into()), n_gpu_layers_draft: Some(ALL), ..Beside::default() };
        assert_eq!(beside.arguments(&|_| true).map(|words| words.len()), Ok(4), "all is the engine's default");
    }

    #[test]
    fn what_is_said_first_counts_and_one_draft_replaces_another() {
        let config = Beside { own_draft: true, draft_max: Some(5), lora: vec!["a".into()], ..Beside::default() };
        let typed = Beside { model_draft: Some("d".into()), ..Beside::default() };
        let both = typed.clone().or(config.clone());
        assert_eq!((both.own_draft, both.draft_max, both.lora.len()), (false, Some(5), 1));
        assert_eq!(Beside::default().or(config.clone()), config);
        assert!(both.check().is_ok() && Beside { model_draft: typed.model_draft, ..config }.check().is_err());
    }

    #[test]
    fn nothing_is_said_of_what_is_not_loaded() {
        let cases = [
            Beside { mmproj_offload: Some(false), ..Beside::default() },
            Beside { mmproj_device: Some("CUDA1".to_owned()), ..Beside::default() },
            Beside { draft_max: Some(1), ..Beside::default() },
            Beside { ctx_size_draft: Some(1), ..Beside::default() },
            Beside { cache_type_v_draft: Some(QuantType::F16), ..Beside::default() },
            Beside { own_draft: true, n_gpu_layers_draft: Some(1), ..Beside::default() },
        ];
        cases.iter().for_each(|beside| assert!(beside.check().is_err(), "{beside:?}"));
        assert!(Beside::default().check().is_ok());
    }
}
