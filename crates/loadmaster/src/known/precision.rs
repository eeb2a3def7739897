//! Which file type to take of a model that is only known by name: the best one that meets the use case in full.
//!
//! Each use case has a ladder, best first, that ends at its floor:
//!
//! | use cases | ladder |
//! |---|---|
//! | general, chat, rag, long-context, batch, speed | Q4_K_M, Q4_K_S, Q3_K_L, Q3_K_M, Q3_K_S, Q2_K |
//! | agent, code-completion | Q6_K, Q5_K_M, Q5_K_S, Q4_K_M, Q4_K_S |
//! | quality | Q8_0, Q6_K, Q5_K_M, Q4_K_M |
//!
//! Taken is the first type whose plan gives nothing up. Where each gives something up: weights that stay in memory come before such
//! as are read from the disk, and then the better type. A model that was published in few bits has that one type only
//! ([`KnownModel::native`]). Where even the last type has no plan, that one's refusal is the answer, and where the engine refuses the settings
//! of any type, the first one's.

use super::{KnownModel, ShapeError};
use crate::advise::{Advice, Survey};
use crate::error::{Error, exit};
use crate::open::Origin;
use formats::FileType;
use planner::UseCase;
use spec::Bytes;

const EVERYDAY: &[FileType] = &[FileType::Q4_K_M, FileType::Q4_K_S, FileType::Q3_K_L, FileType::Q3_K_M, FileType::Q3_K_S, FileType::Q2_K];
const PRECISE: &[FileType] = &[FileType::Q6_K, FileType::Q5_K_M, FileType::Q5_K_S, FileType::Q4_K_M, FileType::Q4_K_S];
const BEST: &[FileType] = &[FileType::Q8_0, FileType::Q6_K, FileType::Q5_K_M, FileType::Q4_K_M];

/// Use cases whose ladder is not the everyday one.
const LADDERS: &[(&str, &[FileType])] = &[("agent", PRECISE), ("code-completion", PRECISE), ("quality", BEST)];

/// The types to try for a use case, best first.
pub fn ladder(known: &KnownModel, use_case: UseCase) -> Vec<FileType> {
    match known.native() {
        Some(native) => vec![native],
        None => LADDERS.iter().find(|(name, _)| *name == use_case.as_str()).map_or(EVERYDAY, |(_, types)| types).to_vec(),
    }
}

/// The type that a model is looked at in where nobody says for what: the first of everyday use.
pub fn usual(known: &KnownModel) -> FileType {
    known.native().unwrap_or(FileType::Q4_K_M)
}

/// How a file type came to be planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The type.
    pub file_type: FileType,
    /// True where it was named; the ladder was not asked.
    pub named: bool,
    /// What better types of the ladder gave up, or why they have no plan; best first.
    pub passed_over: Vec<(FileType, String)>,
}

/// Plans a known model in the best type that meets the request in full; see the module. A survey of another model, or one whose type
/// was named, is planned as it is.
///
/// # Errors
/// As [`Survey::advise`], of the last type tried.
pub fn advise(survey: Survey, request: &planner::Request, named: bool) -> (Result<Advice, Error>, Option<Choice>) {
    let (Origin::Assumed(known), false) = (survey.origin, named) else {
        let file_type = survey.model.file_type.as_deref().and_then(|name| name.parse().ok());
        let choice = file_type.filter(|_| matches!(survey.origin, Origin::Assumed(_)));
        return (survey.advise(request), choice.map(|file_type| Choice { file_type, named: true, passed_over: Vec::new() }));
    };
    let types: Vec<Rung> = ladder(known, request.use_case).into_iter().map(|file_type| Rung::of(&survey, known, file_type)).collect();
    let mut tried: Vec<Option<Result<Advice, Error>>> = types.iter().map(|_| None).collect();
    // What may give nothing up comes first; what cannot, only where nothing else is better.
    let mut order: Vec<usize> = (0..types.len()).collect();
    order.sort_by_key(|&at| types[at].least);
    let mut best: Option<(u8, usize)> = None;
    for at in order {
        if best.is_some_and(|best| best < (types[at].least, at)) {
            continue;
        }
        let advice = survey.clone().in_type(known, types[at].file_type).map_err(Error::Shape).and_then(|survey| survey.advise(request));
        best = Some((rank(&advice), at)).into_iter().chain(best).min();
        tried[at] = Some(advice);
    }
    // Without any plan, the refusal of the smallest says what is missing in the end; settings and contexts are refused in any.
    let of_settings = |at: usize| {
        let error = tried.get(at).and_then(|tried| tried.as_ref()?.as_ref().err());
        match error {
            Some(Error::Refused(refusal)) => refusal.is_of_any_weights(),
            Some(error @ Error::Invalid(_)) => error.exit_code() == exit::USAGE,
            _ => false,
        }
    };
    let taken = match best {
        Some((REFUSED, first)) if of_settings(first) => Some(first),
        Some((REFUSED, _)) => types.len().checked_sub(1),
        best => best.map(|(_, at)| at),
    };
    let Some((taken, advice)) = taken.and_then(|taken| Some((taken, tried.get_mut(taken)?.take()?))) else {
        return (survey.advise(request), None);
    };
    let passed_over = types.iter().zip(&tried).take(taken).map(|(rung, advice)| {
        let why = advice.as_ref().map_or_else(|| rung.too_large.clone().unwrap_or_default(), given_up);
        (rung.file_type, why)
    });
    (advice, Some(Choice { file_type: types[taken].file_type, named: false, passed_over: passed_over.collect() }))
}

/// Of a plan: it gives nothing up, something but no weights in memory, or these; or there is none.
fn rank(advice: &Result<Advice, Error>) -> u8 {
    match advice {
        Ok(advice) if !advice.is_downgraded() => 0,
        Ok(advice) if advice.plan.plan().verdict.downgrades().iter().all(|step| step.setting != "residency") => 1,
        Ok(_) => FROM_DISK,
        Err(_) => REFUSED,
    }
}

const FROM_DISK: u8 = 2;
const REFUSED: u8 = 3;

/// A type of the ladder, with the best rank that a plan of it can have.
struct Rung {
    file_type: FileType,
    least: u8,
    /// Why its weights cannot all stay in memory, where that is known without a plan.
    too_large: Option<String>,
}

impl Rung {
    fn of(survey: &Survey, known: &KnownModel, file_type: FileType) -> Self {
        let size = known.model(file_type).ok().map(|model| model.tensor_bytes());
        let too_large = size.zip(memory(survey)).filter(|(size, memory)| size > memory);
        let why = too_large.map(|(size, memory)| format!("weights of {size} do not stay in {memory} of free memory"));
        Self { file_type, least: if why.is_some() { FROM_DISK } else { 0 }, too_large: why }
    }
}

/// All memory that weights can stay in: the host's, and that of devices of their own. `None` where some of it is not known.
fn memory(survey: &Survey) -> Option<Bytes> {
    let host = *survey.machine.effective_memory_with_files().high()?;
    let own = survey.target.devices.iter().filter(|device| !device.shares_host);
    own.map(|device| device.free.high().copied()).sum::<Option<Bytes>>().map(|devices| host + devices)
}

fn given_up(advice: &Result<Advice, Error>) -> String {
    match advice {
        Ok(advice) => advice.plan.plan().verdict.downgrades().iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        Err(error) => error.to_string(),
    }
}

impl Survey {
    /// The same survey of a known model in another type.
    ///
    /// # Errors
    /// The type has no place for one of its tensors.
    pub fn in_type(self, known: &'static KnownModel, file_type: FileType) -> Result<Self, ShapeError> {
        let model = known.model(file_type)?;
        Ok(Self {
            path: known.file_name(file_type).into(),
            analysis: formats::analyze(&model),
            model,
            origin: Origin::Assumed(known),
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::{EngineChoice, Request, newest_server, survey};
    use crate::machine::MachineSource;

    fn chosen(model: &str, machine: &str, use_case: UseCase) -> String {
        let facts = Request {
            machine: MachineSource::Description(machine.into()),
            engine: EngineChoice::Assumed(Box::new(newest_server())),
            ..Request::new(model)
        };
        let request = planner::Request { use_case, ..planner::Request::default() };
        let (advice, choice) = advise(survey(&facts).unwrap(), &request, false);
        let choice = choice.unwrap();
        let verdict = advice.map_or_else(|_| "refused".to_owned(), |advice| advice.plan.plan().verdict.to_string());
        format!("{} {verdict}, {} passed over", choice.file_type, choice.passed_over.len())
    }

    #[test]
    fn the_best_type_that_gives_nothing_up_is_taken() {
        let large = "ram=64GiB,cores=8,gpu=24GiB";
        insta::assert_snapshot!(chosen("qwen3-8b", large, UseCase::General), @"Q4_K_M fits, 0 passed over");
        insta::assert_snapshot!(chosen("qwen3-8b", large, UseCase::Quality), @"Q8_0 fits, 0 passed over");
        insta::assert_snapshot!(chosen("gpt-oss-20b", large, UseCase::Quality), @"MXFP4_MOE fits, 0 passed over");
        let small = "ram=8GiB,cores=4";
        insta::assert_snapshot!(chosen("qwen3-8b", small, UseCase::Quality), @"Q4_K_M fits, 3 passed over");
        insta::assert_snapshot!(chosen("qwen3-14b", small, UseCase::General), @"Q2_K fits after downgrade, 5 passed over");
        insta::assert_snapshot!(chosen("llama-3.1-405b", small, UseCase::General), @"Q2_K refused, 5 passed over");
    }

    #[test]
    fn every_ladder_goes_down() {
        let known = super::super::find("llama-3.1-8b").unwrap();
        for use_case in UseCase::ALL {
            let sizes: Vec<u64> = ladder(known, *use_case)
                .into_iter()
                .map(|file_type| known.model(file_type).unwrap().tensors.iter().map(|tensor| tensor.bytes.get()).sum())
                .collect();
            assert!(sizes.is_sorted_by(|a, b| a > b), "{use_case}: {sizes:?}");
        }
    }
}
