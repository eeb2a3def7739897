//! Families with routed experts.

use super::super::blocks::experts::Routing;
use super::super::decoder::Decoder;
use super::super::weights::Part;
use super::{LLAMA, flag, routing};
use spec::Model;

pub(super) fn decoder(model: &Model) -> Option<Decoder> {
    let routing = routing(model);
    Some(match model.architecture.as_str() {
        "qwen3moe" => Decoder { routing, ..LLAMA },
        "gpt-oss" => Decoder {
            feed_forward_norm: Part::AttnPostNorm,
            routing: Routing { softmax_of_chosen: true, normalized: false, ..routing },
            late_outputs: true,
            ..LLAMA
        },
        "deepseek2" => deepseek2(model, routing),
        _ => return None,
    })
}

fn deepseek2(model: &Model, routing: Routing) -> Decoder {
    let groups = model.arch_uint("expert_group_count").filter(|&groups| groups > 1);
    let used = model.arch_uint("expert_group_used_count").unwrap_or(1);
    let normalized = flag(model, "expert_weights_norm") == Some(true);
    Decoder { routing: Routing { normalized, groups: groups.map(|groups| (groups, used)), ..routing }, ..LLAMA }
}
