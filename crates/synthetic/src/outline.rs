//! Models of any architecture as text: keys and tensors, spelt out.
//!
//! [`Shape`](crate::Shape) derives keys and tensors of some architectures from a few figures. An outline states them, so
//! that one more architecture costs one more text file:
//!
//! ```text
//! architecture gemma2
//! source google/gemma-2-2b
//! key block_count 26
//! key rope.freq_base 10000.0
//! key attention.sliding_window_pattern [true, false]
//! tensor token_embd.weight 2304 256000
//! layers 0..26
//! tensor attn_q.weight 2304 2048
//! layers 1..26 step 2
//! tensor attn_v.weight 2304 1024
//! ```
//!
//! A key without a dot-separated architecture is given the architecture's prefix; one that begins with `general.`,
//! `tokenizer.` or `xielu.` is taken as it is. Values: whole numbers are U32, negative ones I32, numbers with a point F32, `true` and
//! `false` BOOL, quoted text STRING, and lists of these ARRAY. Tensors after `layers` are in each of these layers, under
//! `blk.N.`; layers may be given several times. `#` begins a comment.
//!
//! Which tensors an architecture has: `load_arch_tensors` of `src/models/*.cpp` (llama.cpp v0.6.0-dev, crate llama-cpp-sys-2
//! 0.1.161).

use crate::writer::Value;
use std::collections::BTreeMap;

/// The keys and tensors of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// What people call the model.
    pub name: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Where the figures were published.
    pub source: String,
    /// Metadata by full key, in the order of the text.
    pub keys: Vec<(String, Value)>,
    /// Tensors outside any layer, with their extents, fastest first.
    pub outside: Vec<(String, Vec<u64>)>,
    /// Tensors by layer.
    pub layers: BTreeMap<u64, Vec<(String, Vec<u64>)>>,
}

/// What is wrong with an outline, by line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("outline {name}, line {line}: {problem}")]
pub struct OutlineError {
    /// Name of the outline.
    pub name: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: String,
}

impl Outline {
    /// Reads an outline.
    ///
    /// # Errors
    /// Names the first line that is none of the above.
    pub fn parse(name: &str, text: &str) -> Result<Self, OutlineError> {
        let mut outline = Self {
            name: name.to_owned(),
            architecture: String::new(),
            source: String::new(),
            keys: Vec::new(),
            outside: Vec::new(),
            layers: BTreeMap::new(),
        };
        let mut current: Option<Vec<u64>> = None;
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let read = outline.line(line, &mut current);
            read.map_err(|problem| OutlineError { name: name.to_owned(), line: index + 1, problem })?;
        }
        Ok(outline)
    }

    fn line(&mut self, line: &str, current: &mut Option<Vec<u64>>) -> Result<(), String> {
        let (word, rest) = line.split_once(char::is_whitespace).ok_or_else(|| format!("a word alone: {line}"))?;
        let rest = rest.trim();
        match word {
            "architecture" => self.architecture = rest.to_owned(),
            "source" => self.source = rest.to_owned(),
            "key" => {
                let (key, value) = rest.split_once(char::is_whitespace).ok_or_else(|| format!("a key without value: {rest}"))?;
                let full = ["general.", "tokenizer.", "xielu."].iter().any(|prefix| key.starts_with(prefix));
                let key = if full { key.to_owned() } else { format!("{}.{key}", self.architecture) };
                let value = value.trim();
                self.keys.push((key, self::value(value).ok_or_else(|| format!("no value: {value}"))?));
            }
            "layers" => *current = Some(range(rest).ok_or_else(|| format!("no layers: {rest}"))?),
            "tensor" => {
                let mut words = rest.split_ascii_whitespace();
                let name = words.next().unwrap_or_default().to_owned();
                let shape: Option<Vec<u64>> = words.map(|extent| extent.parse().ok().filter(|&extent| extent > 0)).collect();
                let shape = shape.filter(|shape| (1..=4).contains(&shape.len())).ok_or_else(|| format!("no extents: {rest}"))?;
                match current {
                    None => self.outside.push((name, shape)),
                    Some(layers) => {
                        for &layer in layers.iter() {
                            self.layers.entry(layer).or_default().push((name.clone(), shape.clone()));
                        }
                    }
                }
            }
            _ => return Err(format!("no such statement: {word}")),
        }
        Ok(())
    }

    /// The same model with `n` layers: its first ones and those behind them that only predict further tokens
    /// (`nextn_predict_layers`). Lists with one entry per layer are cut alike.
    pub fn shortened(mut self, n: u64) -> Self {
        let all = self.n_layer();
        let dropped = all.saturating_sub(n);
        let trunk = n.saturating_sub(self.number("nextn_predict_layers").unwrap_or(0));
        let kept = |layer: u64| if layer < trunk { Some(layer) } else { (layer >= trunk + dropped).then(|| layer - dropped) };
        self.layers =
            std::mem::take(&mut self.layers).into_iter().filter_map(|(layer, tensors)| kept(layer).map(|layer| (layer, tensors))).collect();
        let block_count = format!("{}.block_count", self.architecture);
        for (key, value) in &mut self.keys {
            match value {
                Value::U32(count) if *key == block_count => *count = u32::try_from(n.min(all)).unwrap_or(u32::MAX),
                Value::Array { items, .. } if items.len() as u64 == all => {
                    let mut layer = 0;
                    items.retain(|_| {
                        layer += 1;
                        kept(layer - 1).is_some()
                    });
                }
                _ => {}
            }
        }
        self
    }

    /// The number under this key without the architecture's prefix; the first of a list.
    pub fn number(&self, key: &str) -> Option<u64> {
        let key = format!("{}.{key}", self.architecture);
        let (_, value) = self.keys.iter().find(|(known, _)| *known == key)?;
        match value {
            Value::U32(number) => Some(u64::from(*number)),
            Value::Array { items, .. } => items.iter().find_map(|item| match item {
                Value::U32(number) if *number > 0 => Some(u64::from(*number)),
                _ => None,
            }),
            _ => None,
        }
    }

    /// Layers as the key `block_count` states them.
    pub fn n_layer(&self) -> u64 {
        self.number("block_count").unwrap_or(0)
    }

    /// Tensors in the order in which converters write them: those outside layers, then layer by layer.
    pub(crate) fn tensors(&self) -> Vec<crate::tensors::Plain> {
        let plain = |prefix: String, (name, shape): &(String, Vec<u64>)| crate::tensors::Plain {
            name: format!("{prefix}{name}"),
            shape: shape.clone(),
        };
        let outside = self.outside.iter().map(|tensor| plain(String::new(), tensor));
        let layers =
            self.layers.iter().flat_map(|(layer, tensors)| tensors.iter().map(move |tensor| plain(format!("blk.{layer}."), tensor)));
        outside.chain(layers).collect()
    }
}

fn value(text: &str) -> Option<Value> {
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        let items: Option<Vec<Value>> = inner.split(',').flat_map(repeated).map(value).collect();
        return items.map(|items| Value::Array { items, empty: 4 });
    }
    if let Some(inner) = text.strip_prefix('"') {
        return inner.strip_suffix('"').map(Value::from);
    }
    match text {
        "true" => return Some(true.into()),
        "false" => return Some(false.into()),
        _ => {}
    }
    if let Ok(number) = text.parse::<u32>() {
        return Some(number.into());
    }
    if let Ok(number) = text.parse::<i32>() {
        return Some(Value::I32(number));
    }
    text.parse::<f32>().ok().filter(|number| number.is_finite()).map(Value::F32)
}

/// `0 x 5` in a list is five zeros.
fn repeated(item: &str) -> Vec<&str> {
    let item = item.trim();
    match item.split_once(" x ") {
        Some((value, count)) => vec![value.trim(); count.trim().parse::<usize>().unwrap_or(0).min(1024)],
        None => vec![item],
    }
}

/// `0..26`, `1..26 step 2`, or single numbers `3 7 11`.
fn range(text: &str) -> Option<Vec<u64>> {
    let Some((from, rest)) = text.split_once("..") else {
        return text.split_ascii_whitespace().map(|layer| layer.parse().ok().filter(|&layer| layer < 512)).collect();
    };
    let (to, step) = rest.split_once(" step ").unwrap_or((rest, "1"));
    let [from, to, step] = [from, to, step].map(|number| number.trim().parse::<u64>().ok());
    let (from, to, step) = (from?, to?, usize::try_from(step?).ok().filter(|&step| step > 0)?);
    (to <= 512).then(|| (from..to).step_by(step).collect())
}

macro_rules! outlines {
    ($($name:literal,)*) => {
        /// Names and texts of the outlines that come with this crate.
        const OUTLINES: &[(&str, &str)] = &[$(($name, include_str!(concat!("outlines/", $name, ".txt"))),)*];
    };
}

outlines! {
    "afm-4.5b",
    "apertus-8b",
    "arctic",
    "arwkv7-7b",
    "aya-23-8b",
    "baichuan2-13b",
    "baichuan2-7b",
    "bge-reranker-v2-m3",
    "bge-small-en-v1.5",
    "bloom-1b7",
    "chameleon-7b",
    "codeshell-7b",
    "cogvlm-17b",
    "cohere2moe-like",
    "command-r-08-2024",
    "command-r-35b",
    "command-r-plus-104b",
    "command-r7b",
    "dbrx",
    "deepseek-moe-16b",
    "deepseek-ocr",
    "deepseek-v2-lite-whole",
    "deepseek-v3.2",
    "deepseek-v4-flash",
    "dots.llm1",
    "dream-7b",
    "embeddinggemma-300m",
    "ernie-4.5-0.3b",
    "ernie4.5-21b",
    "eurobert-210m",
    "exaone-3.5-7.8b",
    "exaone-4-1.2b",
    "exaone-4-32b",
    "falcon-40b",
    "falcon-7b",
    "falcon-h1-1.5b",
    "falcon-mamba-7b",
    "gemma-2b",
    "gemma2-27b",
    "gemma2-2b",
    "gemma2-9b",
    "gemma3n-e2b",
    "gemma4-26b-a4b",
    "gemma4-31b",
    "gemma4-e2b",
    "glm-4-32b-0414",
    "glm-4-9b",
    "glm-4-9b-0414",
    "glm-4.1v-9b",
    "glm-4.5",
    "glm-4.5-air",
    "glm-5",
    "glm-5.2",
    "gpt2",
    "granite-3.1-2b",
    "granite-3.1-8b",
    "granite-swa-like",
    "granite-unrotated-like",
    "granite3.1-3b-moe",
    "granite4-h-micro",
    "granite4-h-tiny",
    "grok-2",
    "grovemoe-like",
    "hunyuan-1.8b",
    "hunyuan-a13b",
    "hunyuan-ocr",
    "hy3",
    "internlm2-7b",
    "jais-2-8b",
    "jais-family-590m",
    "jamba-v0.1",
    "jina-embeddings-v2-base-en",
    "jina-embeddings-v3",
    "k-exaone-236b",
    "kimi-k2",
    "kimi-linear-48b",
    "laguna-xs.2",
    "lfm2-1.2b",
    "lfm2-8b-a1b",
    "lfm2-window-like",
    "ling-lite",
    "ling-mini-2",
    "llada-8b",
    "llada-moe-7b-a1b",
    "llama4-maverick",
    "llama4-scout",
    "maincoder-1b",
    "mamba-codestral-7b",
    "maple-like",
    "mellum-like",
    "mimo-v2-flash",
    "minicpm-2b",
    "minicpm3-4b",
    "minimax-m2",
    "minimax-text-01",
    "ministral-3-3b",
    "ministral-3-8b",
    "minitron-4b",
    "mistral-small-4",
    "modernbert-base",
    "mpt-7b-storywriter",
    "muse-glimmer-like",
    "nemotron-3-nano-30b",
    "nemotron-h-8b",
    "nemotron-super-49b",
    "neobert",
    "nomic-embed-text-v1.5",
    "nomic-embed-text-v2-moe",
    "olmo-1.7-7b",
    "olmo-2-13b",
    "olmo-2-32b",
    "olmo-2-7b",
    "olmo-3-7b",
    "olmoe-7b",
    "openelm-270m",
    "openpangu-embedded-7b",
    "orion-14b",
    "paddleocr-vl",
    "phi-2",
    "phi-3.5-moe",
    "plamo-13b",
    "plamo-2-1b",
    "plamo-3-2b",
    "pythia-1.4b",
    "qrwkv6-32b",
    "qwen-7b",
    "qwen1.5-moe",
    "qwen2.5-vl-3b",
    "qwen3-next-80b",
    "qwen3-vl-30b",
    "qwen3-vl-8b",
    "qwen3.5-0.8b",
    "qwen3.5-27b",
    "qwen3.5-2b",
    "qwen3.5-35b-a3b",
    "qwen3.5-4b",
    "qwen3.5-9b",
    "redpajama-3b",
    "refact-1.6b",
    "rnd1-base",
    "rwkv6-1.6b",
    "rwkv7-1.5b",
    "seed-oss-36b",
    "smallthinker-21b",
    "smallthinker-4b",
    "smollm3-3b",
    "spark2.5-like",
    "stablelm-2-1.6b",
    "stablelm-2-12b",
    "starcoder2-3b",
    "starcoderbase-1b",
    "step-3.5-flash",
    "trinity-mini",
    "xverse-7b",
}

/// The outlines that come with this crate, by name.
pub fn outlines() -> impl Iterator<Item = &'static str> {
    OUTLINES.iter().map(|(name, _)| *name)
}

/// The outline of this name.
pub fn outline(name: &str) -> Option<Outline> {
    let (name, text) = OUTLINES.iter().find(|(known, _)| *known == name)?;
    Outline::parse(name, text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileType, Options};

    #[test]
    fn every_outline_is_a_file() {
        for (name, text) in OUTLINES {
            let outline = Outline::parse(name, text).unwrap();
            assert!(outline.source.contains('/'), "{name} has no source");
            assert_eq!(outline.layers.keys().copied().collect::<Vec<_>>(), (0..outline.n_layer()).collect::<Vec<_>>(), "{name}");
            crate::outline_file(&outline, FileType::Q4_K_M, &Options { vocabulary: crate::Vocabulary::None, ..Options::default() })
                .unwrap();
        }
    }

    /// Known to be unconfirmed; of the others the second line names the source.
    #[test]
    fn outlines_whose_figures_no_source_confirms_say_so() {
        let unconfirmed = |text: &str| text.lines().nth(1).is_some_and(|line| line.contains("not checked") || line.contains("chosen here"));
        let names: Vec<_> = OUTLINES.iter().filter(|(_, text)| unconfirmed(text)).map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "cohere2moe-like",
                "granite-swa-like",
                "grovemoe-like",
                "jais-2-8b",
                "k-exaone-236b",
                "laguna-xs.2",
                "llada-moe-7b-a1b",
                "maple-like",
                "mellum-like",
                "mistral-small-4",
                "muse-glimmer-like",
                "plamo-3-2b",
                "spark2.5-like"
            ]
        );
    }

    #[test]
    fn statements_read_as_documented() {
        let text = "architecture x\nsource a/b # why\nkey block_count 4\nkey list [1 x 2, 0, 1]\nkey eps 1e-6\nkey general.name \"y\"\n\
            tensor token_embd.weight 8 16\nlayers 0..4\ntensor q.weight 8 8\nlayers 1..4 step 2\ntensor v.weight 8 4";
        let outline = Outline::parse("t", text).unwrap();
        assert_eq!(outline.keys[1], ("x.list".to_owned(), Value::array([1_u32, 1, 0, 1])));
        assert_eq!(outline.keys[2], ("x.eps".to_owned(), Value::F32(1e-6)));
        assert_eq!(outline.keys[3].0, "general.name");
        let names: Vec<String> = outline.clone().shortened(2).tensors().into_iter().map(|tensor| tensor.name).collect();
        assert_eq!(names, ["token_embd.weight", "blk.0.q.weight", "blk.1.q.weight", "blk.1.v.weight"]);
        assert_eq!(outline.clone().shortened(2).n_layer(), 2);
        assert_eq!(outline.clone().shortened(2).keys[1].1, Value::array([1_u32, 1]));
        let mut predicting = outline;
        predicting.keys.push(("x.nextn_predict_layers".to_owned(), Value::U32(1)));
        let predicting = predicting.shortened(2);
        let names: Vec<String> = predicting.tensors().into_iter().map(|tensor| tensor.name).collect();
        assert_eq!(names, ["token_embd.weight", "blk.0.q.weight", "blk.1.q.weight", "blk.1.v.weight"]);
        assert_eq!((predicting.n_layer(), &predicting.keys[1].1), (2, &Value::array([1_u32, 1])));
    }

    #[test]
    fn a_malformed_line_names_itself() {
        let error = |text: &str| Outline::parse("t", text).unwrap_err().to_string();
        insta::assert_snapshot!(error("architecture x\ntensor q.weight 0"), @"outline t, line 2: no extents: q.weight 0");
        insta::assert_snapshot!(error("layers 0..999"), @"outline t, line 1: no layers: 0..999");
        insta::assert_snapshot!(error("key a nine"), @"outline t, line 1: no value: nine");
        insta::assert_snapshot!(error("matrix q 1"), @"outline t, line 1: no such statement: matrix");
    }
}
