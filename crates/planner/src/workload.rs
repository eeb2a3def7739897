//! WORKLOAD: what requests look like and what they must not fall below. A use case is a row of such numbers; a person may say any of
//! them otherwise.
//!
//! The rows are data (`data/use_cases.csv`), each with its reason. Contexts are tokens of one sequence.

use serde::Deserialize;
use spec::{QuantType, words};
use std::sync::LazyLock;

words! {
    /// What a model is for: the shape of its requests, the context that they need, and what is given up first.
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    UseCase {
        /// Everyday work: a question and its answer.
        #[default]
        General = "general",
        /// A conversation whose history the server keeps.
        Chat = "chat",
        /// Documents, repositories, long conversations.
        LongContext = "long-context",
        /// Questions with the documents that answer them.
        Rag = "rag",
        /// A program that calls tools and reads what they say.
        Agent = "agent",
        /// Suggestions while someone types.
        CodeCompletion = "code-completion",
        /// Many requests at once; when all are done counts.
        Batch = "batch",
        /// Short exchanges as fast as possible.
        Speed = "speed",
        /// The best text; the cache is never quantised.
        Quality = "quality",
    }
}

/// The shape of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Tokens of the prompt, those of the shared prefix included.
    pub prompt: u32,
    /// Tokens of the answer.
    pub output: u32,
    /// Tokens at the start of the prompt that the cache already holds; never more than the prompt.
    pub shared_prefix: u32,
    /// Requests at the same time, at least 1.
    pub users: u32,
}

impl Workload {
    /// Tokens of the prompt that are computed.
    pub fn computed(&self) -> u32 {
        self.prompt.saturating_sub(self.shared_prefix)
    }
    /// Tokens of one request in the context when it ends.
    pub fn tokens(&self) -> u32 {
        self.prompt.saturating_add(self.output)
    }
}

/// What a use case asks for and what it can do without.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// Its requests.
    pub workload: Workload,
    /// Context that is wanted. Between this and `enough` a plan chooses freely, by speed.
    pub want: u32,
    /// Context below which something is given up.
    pub enough: u32,
    /// Context below which there is no plan.
    pub floor: u32,
    /// The coarsest type that K and V cache may have; f16 forbids quantised ones.
    pub cache_floor: QuantType,
    /// Seconds from request to first token, at most.
    pub first_token: Option<f64>,
    /// Tokens per second of one answer, at least.
    pub min_decode: Option<f64>,
    /// A quantised cache and a short context come before layers on the CPU.
    pub gpu_first: bool,
}

/// What a person says of requests and floors instead of the use case.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Asked {
    /// Tokens of the prompt; nothing of it is then taken to be in the cache.
    pub prompt_tokens: Option<u32>,
    /// Tokens of the answer.
    pub output_tokens: Option<u32>,
    /// Requests at the same time.
    pub users: Option<u32>,
    /// Context of one sequence below which there is no plan.
    pub min_context: Option<u32>,
    /// Seconds from request to first token, at most.
    pub ttft: Option<f64>,
    /// Tokens per second of one answer, at least.
    pub min_tps: Option<f64>,
    /// The coarsest type that K and V cache may have.
    pub quality_floor: Option<QuantType>,
}

impl UseCase {
    /// What the use case asks for.
    pub fn demand(self) -> Demand {
        let row = ROWS.iter().find(|row| row.use_case == self);
        row.map_or_else(|| Row::default().demand(), Row::demand)
    }

    /// Why its numbers are what they are.
    pub fn reason(self) -> &'static str {
        ROWS.iter().find(|row| row.use_case == self).map_or("", |row| &row.reason)
    }
}

impl Asked {
    /// Tokens of one request that was described, in part or in full; 0 where nothing of it was.
    pub(crate) fn described(&self, workload: &Workload) -> u32 {
        let described = self.prompt_tokens.is_some() || self.output_tokens.is_some();
        if described { workload.tokens() } else { 0 }
    }

    /// `demand` with these instead. A context never falls below what one request takes that was described.
    pub fn over(&self, demand: Demand) -> Demand {
        let mut demand = demand;
        let workload = &mut demand.workload;
        if let Some(prompt) = self.prompt_tokens {
            (workload.prompt, workload.shared_prefix) = (prompt, 0);
        }
        workload.output = self.output_tokens.unwrap_or(workload.output);
        workload.users = self.users.unwrap_or(workload.users).max(1);
        let least = self.min_context.unwrap_or(0).max(self.described(workload));
        demand.floor = demand.floor.max(least);
        demand.enough = demand.enough.max(least);
        demand.want = demand.want.max(least);
        demand.cache_floor = self.quality_floor.unwrap_or(demand.cache_floor);
        demand.first_token = self.ttft.or(demand.first_token);
        demand.min_decode = self.min_tps.or(demand.min_decode);
        demand
    }
}

/// A row of the table.
#[derive(Clone, Debug, Deserialize)]
struct Row {
    use_case: UseCase,
    prompt: u32,
    output: u32,
    shared_prefix: u32,
    want: u32,
    enough: u32,
    floor: u32,
    users: u32,
    cache_floor: String,
    ttft_s: Option<f64>,
    min_tps: Option<f64>,
    gpu_first: String,
    reason: String,
}

impl Default for Row {
    /// The engine's own context and nothing demanded of it.
    fn default() -> Self {
        Self {
            use_case: UseCase::General,
            prompt: 512,
            output: 256,
            shared_prefix: 0,
            want: 4096,
            enough: 4096,
            floor: 2048,
            users: 1,
            cache_floor: "f16".to_owned(),
            ttft_s: None,
            min_tps: None,
            gpu_first: "no".to_owned(),
            reason: String::new(),
        }
    }
}

impl Row {
    fn demand(&self) -> Demand {
        let &Self { prompt, output, shared_prefix, users, want, enough, floor, .. } = self;
        Demand {
            workload: Workload { prompt, output, shared_prefix, users },
            want,
            enough,
            floor,
            cache_floor: self.cache_floor.parse().unwrap_or(QuantType::F16),
            first_token: self.ttft_s,
            min_decode: self.min_tps,
            gpu_first: self.gpu_first == "yes",
        }
    }
}

/// The table of this build; a row that cannot be read is left out, and a test sees to it that there is none.
static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| rows().filter_map(Result::ok).collect());

fn rows() -> impl Iterator<Item = Result<Row, csv::Error>> {
    csv::Reader::from_reader(include_bytes!("../data/use_cases.csv").as_slice()).into_deserialize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_use_case_has_one_row_that_makes_sense() {
        let rows: Vec<Row> = rows().map(Result::unwrap).collect();
        for &use_case in UseCase::ALL {
            assert_eq!(rows.iter().filter(|row| row.use_case == use_case).count(), 1, "{use_case}");
            let demand = use_case.demand();
            let Workload { prompt, shared_prefix, users, .. } = demand.workload;
            assert!(shared_prefix < prompt && users > 0, "{use_case}");
            assert!(demand.workload.tokens() <= demand.enough, "{use_case}: a typical request fits into what is enough");
            assert!(demand.floor <= demand.enough && demand.enough <= demand.want, "{use_case}");
            assert!(!use_case.reason().is_empty());
        }
        assert!(rows.iter().all(|row| ["yes", "no"].contains(&row.gpu_first.as_str())));
        let floors: Vec<QuantType> = rows.iter().map(|row| row.cache_floor.parse().unwrap()).collect();
        assert!(floors.iter().all(|floor| [QuantType::F16, QuantType::Q8_0].contains(floor)), "four bits are never chosen unasked");
    }

    #[test]
    fn what_is_said_counts_more() {
        let said = Asked { prompt_tokens: Some(30_000), output_tokens: Some(1000), ..Asked::default() };
        let demand = said.over(UseCase::Chat.demand());
        assert_eq!(demand.workload, Workload { prompt: 30_000, output: 1000, shared_prefix: 0, users: 1 });
        assert_eq!((demand.floor, demand.enough, demand.want), (31_000, 31_000, 31_000));
        let said = Asked { min_context: Some(10_000), users: Some(3), ttft: Some(2.0), ..Asked::default() };
        let demand = said.over(UseCase::Chat.demand());
        assert_eq!((demand.floor, demand.enough, demand.want), (10_000, 10_000, 16_384));
        assert_eq!((demand.workload.users, demand.first_token), (3, Some(2.0)));
        assert_eq!(Asked::default().over(UseCase::Rag.demand()), UseCase::Rag.demand());
    }
}
