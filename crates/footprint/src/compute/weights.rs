//! The tensors of a model by the part they play in the graph.

use spec::Model;

macro_rules! parts {
    ($($(#[$doc:meta])* $part:ident = $name:literal,)*) => {
        /// What a tensor is for: the stem of its name, without layer and suffix.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Part { $($(#[$doc])* $part,)* }

        impl Part {
            const COUNT: usize = [$(Self::$part,)*].len();

            fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$part),)* _ => None }
            }
            /// The stem as files spell it.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$part => $name,)* }
            }
        }
    };
}

parts! {
    TokenEmbd = "token_embd",
    TokenEmbdNorm = "token_embd_norm",
    TokenTypes = "token_types",
    PositionEmbd = "position_embd",
    Output = "output",
    OutputNorm = "output_norm",
    EncOutputNorm = "enc.output_norm",
    Classifier = "cls",
    ClassifierNorm = "cls.norm",
    ClassifierOutput = "cls.output",
    Dense2 = "dense_2",
    Dense3 = "dense_3",
    RopeFreqs = "rope_freqs",
    RopeFactorsLong = "rope_factors_long",
    RopeFactorsShort = "rope_factors_short",
    AttnNorm = "attn_norm",
    AttnNorm2 = "attn_norm_2",
    AttnPostNorm = "post_attention_norm",
    AttnSubNorm = "attn_sub_norm",
    AttnQkv = "attn_qkv",
    AttnQ = "attn_q",
    AttnK = "attn_k",
    AttnV = "attn_v",
    AttnQNorm = "attn_q_norm",
    AttnKNorm = "attn_k_norm",
    AttnOutput = "attn_output",
    AttnOutputNorm = "attn_output_norm",
    AttnSinks = "attn_sinks",
    AttnGate = "attn_gate",
    AttnQA = "attn_q_a",
    AttnQANorm = "attn_q_a_norm",
    AttnQB = "attn_q_b",
    AttnKvAMqa = "attn_kv_a_mqa",
    AttnKvANorm = "attn_kv_a_norm",
    AttnKB = "attn_k_b",
    AttnVB = "attn_v_b",
    AttnKvB = "attn_kv_b",
    AttnKv = "attn_kv",
    AttnOutputA = "attn_output_a",
    AttnOutputB = "attn_output_b",
    AttnCompressorKv = "attn_compressor_kv",
    AttnCompressorGate = "attn_compressor_gate",
    AttnCompressorApe = "attn_compressor_ape",
    AttnCompressorNorm = "attn_compressor_norm",
    IndexerCompressorKv = "indexer_compressor_kv",
    IndexerCompressorGate = "indexer_compressor_gate",
    IndexerCompressorApe = "indexer_compressor_ape",
    IndexerCompressorNorm = "indexer_compressor_norm",
    HcAttnFn = "hc_attn_fn",
    HcAttnScale = "hc_attn_scale",
    HcAttnBase = "hc_attn_base",
    HcFfnFn = "hc_ffn_fn",
    HcFfnScale = "hc_ffn_scale",
    HcFfnBase = "hc_ffn_base",
    OutputHcFn = "output_hc_fn",
    OutputHcScale = "output_hc_scale",
    OutputHcBase = "output_hc_base",
    IndexerQB = "indexer.attn_q_b",
    IndexerK = "indexer.attn_k",
    IndexerKNorm = "indexer.k_norm",
    IndexerProj = "indexer.proj",
    FfnNorm = "ffn_norm",
    FfnNormExps = "ffn_norm_exps",
    FfnPreNorm2 = "pre_ffw_norm_2",
    FfnPostNorm1 = "post_ffw_norm_1",
    FfnPostNorm2 = "post_ffw_norm_2",
    FfnPostNorm = "post_ffw_norm",
    FfnSubNorm = "ffn_sub_norm",
    FfnGate = "ffn_gate",
    FfnUp = "ffn_up",
    FfnDown = "ffn_down",
    LayerOutputNorm = "layer_output_norm",
    LayerOutputScale = "layer_output_scale",
    FfnLatentDown = "ffn_latent_down",
    FfnLatentUp = "ffn_latent_up",
    FfnGateInp = "ffn_gate_inp",
    FfnGateExps = "ffn_gate_exps",
    FfnUpExps = "ffn_up_exps",
    FfnDownExps = "ffn_down_exps",
    FfnGateUpExps = "ffn_gate_up_exps",
    FfnGateChexps = "ffn_gate_chexps",
    FfnUpChexps = "ffn_up_chexps",
    FfnDownChexps = "ffn_down_chexps",
    ExpProbs = "exp_probs_b",
    FfnGateTid2Eid = "ffn_gate_tid2eid",
    FfnGateInpShexp = "ffn_gate_inp_shexp",
    FfnGateShexp = "ffn_gate_shexp",
    FfnUpShexp = "ffn_up_shexp",
    FfnDownShexp = "ffn_down_shexp",
    PerLayerTokenEmbd = "per_layer_token_embd",
    PerLayerModelProj = "per_layer_model_proj",
    PerLayerProjNorm = "per_layer_proj_norm",
    PerLayerGate = "inp_gate",
    PerLayerProj = "proj",
    PerLayerPostNorm = "post_norm",
    AltupProj = "altup_proj",
    AltupUnembdProj = "altup_unembd_proj",
    AltupCorrectCoef = "altup_correct_coef",
    AltupCorrectScale = "altup_correct_scale",
    AltupPredictCoef = "altup_predict_coef",
    AltupRouter = "altup_router",
    AltupRouterNorm = "altup_router_norm",
    LaurelL = "laurel_l",
    LaurelR = "laurel_r",
    LaurelPostNorm = "laurel_post_norm",
    SsmIn = "ssm_in",
    SsmConv1d = "ssm_conv1d",
    SsmX = "ssm_x",
    SsmDt = "ssm_dt",
    SsmA = "ssm_a",
    SsmD = "ssm_d",
    SsmOut = "ssm_out",
    SsmNorm = "ssm_norm",
    SsmDtNorm = "ssm_dt_norm",
    SsmBNorm = "ssm_b_norm",
    SsmCNorm = "ssm_c_norm",
    SsmBa = "ssm_ba",
    SsmBeta = "ssm_beta",
    SsmAlpha = "ssm_alpha",
    SsmConv1dQ = "ssm_conv1d_q",
    SsmConv1dK = "ssm_conv1d_k",
    SsmConv1dV = "ssm_conv1d_v",
    SsmFA = "ssm_f_a",
    SsmFB = "ssm_f_b",
    SsmGA = "ssm_g_a",
    SsmGB = "ssm_g_b",
    ShortConvConv = "shortconv.conv",
    ShortConvIn = "shortconv.in_proj",
    ShortConvOut = "shortconv.out_proj",
    TimeMixW0 = "time_mix_w0",
    TimeMixW1 = "time_mix_w1",
    TimeMixW2 = "time_mix_w2",
    TimeMixA0 = "time_mix_a0",
    TimeMixA1 = "time_mix_a1",
    TimeMixA2 = "time_mix_a2",
    TimeMixV0 = "time_mix_v0",
    TimeMixV1 = "time_mix_v1",
    TimeMixV2 = "time_mix_v2",
    TimeMixG1 = "time_mix_g1",
    TimeMixG2 = "time_mix_g2",
    TimeMixKK = "time_mix_k_k",
    TimeMixKA = "time_mix_k_a",
    TimeMixRK = "time_mix_r_k",
    TimeMixLerpX = "time_mix_lerp_x",
    TimeMixLerpFused = "time_mix_lerp_fused",
    TimeMixFirst = "time_mix_first",
    TimeMixDecay = "time_mix_decay",
    TimeMixDecayW1 = "time_mix_decay_w1",
    TimeMixDecayW2 = "time_mix_decay_w2",
    TimeMixKey = "time_mix_key",
    TimeMixValue = "time_mix_value",
    TimeMixReceptance = "time_mix_receptance",
    TimeMixGate = "time_mix_gate",
    TimeMixLn = "time_mix_ln",
    TimeMixOutput = "time_mix_output",
    ChannelMixLerpK = "channel_mix_lerp_k",
    ChannelMixLerpR = "channel_mix_lerp_r",
    ChannelMixKey = "channel_mix_key",
    ChannelMixValue = "channel_mix_value",
    ChannelMixReceptance = "channel_mix_receptance",
}

/// Which tensor of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suffix {
    /// The matrix or vector itself.
    Weight,
    /// Added to the result.
    Bias,
    /// Multiplied with the result.
    Scale,
}

const SUFFIXES: usize = 3;
type Row = [Option<u32>; Part::COUNT * SUFFIXES];
const EMPTY: Row = [None; Part::COUNT * SUFFIXES];

/// Indices into [`Model::tensors`] by layer and part.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    global: Row,
    layers: Vec<Row>,
}

impl Weights {
    /// Sorts the tensors of a model. Names that no graph here uses are left out.
    pub(super) fn of(model: &Model) -> Self {
        let mut weights = Self { global: EMPTY, layers: vec![EMPTY; model.layers.len()] };
        for (index, tensor) in (0u32..).zip(&model.tensors) {
            let (row, name) = match tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
                Some((layer, name)) => {
                    let layer = layer.parse().ok().and_then(|layer: usize| weights.layers.get_mut(layer));
                    let Some(row) = layer else { continue };
                    (row, name)
                }
                None => (&mut weights.global, tensor.name.as_str()),
            };
            let (stem, suffix) = match name.rsplit_once('.') {
                None => (name, Suffix::Weight),
                Some((stem, "weight")) => (stem, Suffix::Weight),
                Some((stem, "bias")) => (stem, Suffix::Bias),
                Some((stem, "scale")) => (stem, Suffix::Scale),
                Some(_) => continue,
            };
            if let Some(part) = Part::from_name(stem) {
                row[part as usize * SUFFIXES + suffix as usize] = Some(index);
            }
        }
        weights
    }
    /// The tensor of this part in a layer, or outside all layers.
    pub(super) fn find(&self, layer: Option<usize>, part: Part, suffix: Suffix) -> Option<usize> {
        let row = match layer {
            Some(layer) => self.layers.get(layer)?,
            None => &self.global,
        };
        row[part as usize * SUFFIXES + suffix as usize].map(|index| index as usize)
    }
}
