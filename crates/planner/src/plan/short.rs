//! Contexts that hold less than a person asks for: a pinned one, or the trained one where none is pinned.

use super::needs::Needs;
use super::refusal::{NearestChange, NoPlan, Rejected, Rejection};
use super::request::Request;
use super::site::Site;
use spec::Settings;

impl Site<'_> {
    /// What is asked of the context in vain: a floor under it, and where no context is pinned the requests that were described.
    pub(crate) fn too_short(&self) -> Vec<Rejected> {
        let (holds, pinned) = match (self.request.pins.n_ctx.filter(|&n_ctx| n_ctx > 0), self.model.n_ctx_train.filter(|&n| n > 0)) {
            (Some(n_ctx), _) => (Needs::next_block(n_ctx / Needs::slots(self.request, self.model)), true),
            (None, Some(trained)) => (Needs::whole_blocks(trained), false),
            (None, None) => return Vec::new(),
        };
        let floor = self.request.asked.min_context.filter(|&floor| floor > holds).map(|floor| format!("a context of {floor} tokens"));
        // What a pinned context does not hold is a warning.
        let requests = Some(self.request.described()).filter(|&tokens| tokens > holds && !pinned);
        let requests = requests.map(|tokens| format!("requests of {tokens} tokens"));
        let rejected =
            |what| Rejected { what, settings: self.pinned(Settings::default()), rejection: Rejection::ContextTooShort { holds, pinned } };
        floor.into_iter().chain(requests).map(rejected).collect()
    }

    /// The refusal of a context, and the nearest ways out that have a plan; `None` where it holds what is asked for.
    pub(crate) fn refused_context(&self) -> Option<NoPlan> {
        let tried = self.too_short();
        if tried.is_empty() {
            return None;
        }
        if self.request.pins.n_ctx.is_some_and(|n_ctx| n_ctx > 0) {
            let nearest = self.without_pins(&["n_ctx"]);
            let pins = if nearest.is_some() { vec!["n_ctx"] } else { Vec::new() };
            let nearest = nearest.into_iter().flatten().chain(self.lower_floor()).collect();
            return Some(NoPlan { tried, nearest, pins });
        }
        let nearest = [self.lower_floor(), self.shorter_prompt(), self.beyond_trained()].into_iter().flatten().collect();
        Some(NoPlan { tried, nearest, pins: Vec::new() })
    }

    /// The highest floor with a plan, by halving what the context holds.
    fn lower_floor(&self) -> Option<NearestChange> {
        let asked = self.request.asked.min_context?;
        let at_most = self.most_held(|request, most| request.asked.min_context = Some(most))?;
        (at_most < asked).then_some(NearestChange::LowerFloor { at_most, asked })
    }

    /// The longest prompt with a plan, by halving what the context holds.
    fn shorter_prompt(&self) -> Option<NearestChange> {
        let workload = self.request.demand().workload;
        let shorter = |request: &mut Request, most: u32| request.asked.prompt_tokens = Some(most.saturating_sub(workload.output).max(1));
        let at_most = self.most_held(shorter)?.checked_sub(workload.output)?;
        (at_most < workload.prompt && at_most > 0).then_some(NearestChange::ShorterPrompt { at_most, asked: workload.prompt })
    }

    /// The largest of the context that there may be, and halves of it, with which the request has a plan.
    fn most_held(&self, set: impl Fn(&mut Request, u32)) -> Option<u32> {
        let holds = self.too_short().iter().find_map(|rejected| match rejected.rejection {
            Rejection::ContextTooShort { holds, .. } => Some(holds),
            _ => None,
        })?;
        let least = self.request.use_case.demand().floor;
        Needs::halvings(holds, least).into_iter().find(|&most| {
            let mut request = self.request.clone();
            set(&mut request, most);
            self.found_with(&request).is_some()
        })
    }

    /// The pinned context that holds what is asked for, past the trained one.
    fn beyond_trained(&self) -> Option<NearestChange> {
        let asked = self.request.asked.min_context.unwrap_or(0).max(self.request.described());
        let n_ctx = Needs::next_block(asked).checked_mul(Needs::slots(self.request, self.model))?;
        let mut request = self.request.clone();
        request.pins.n_ctx = Some(n_ctx);
        self.found_with(&request).map(|_| NearestChange::BeyondTrained { n_ctx })
    }
}
