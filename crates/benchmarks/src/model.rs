//! The shape of a model that a table names: looked up, or typical of its size.

use crate::bytes::{Outline, Parts, Quantisation, parts, quantisation};
use crate::row::Measurement;
use roofline::Shape;
use std::sync::OnceLock;

/// How well a shape is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// In the table of models.
    Table,
    /// Typical of the size that the name or the row gives.
    Typical,
}

/// A row of `models.csv`.
struct Model {
    names: Vec<String>,
    numbers: Vec<Option<f64>>,
    tied: bool,
}

const TABLE: &str = include_str!("../data/models.csv");

fn models() -> &'static [Model] {
    static MODELS: OnceLock<Vec<Model>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let model = |row: &csv::StringRecord| Model {
            names: row.get(0).map(|names| names.split(';').map(str::to_owned).collect()).unwrap_or_default(),
            numbers: row.iter().skip(1).map(|cell| cell.parse().ok()).collect(),
            tied: row.get(6) == Some("yes"),
        };
        csv::Reader::from_reader(TABLE.as_bytes()).records().flatten().map(|row| model(&row)).collect()
    })
}

/// Lower case, every run of other signs one hyphen, and one at both ends.
fn plain(name: &str) -> String {
    let mut text = String::from("-");
    for letter in name.chars().flat_map(char::to_lowercase) {
        match letter.is_ascii_alphanumeric() {
            true => text.push(letter),
            false if !text.ends_with('-') => text.push('-'),
            false => {}
        }
    }
    if text.ends_with('-') { text } else { text + "-" }
}

/// The number before a `b` that ends a word: `8b`, `1-5b`, `a3b`, in 10^9; the first that `starts` allows.
fn size(name: &str, active: bool) -> Option<f64> {
    let words: Vec<&str> = name.split('-').filter(|word| !word.is_empty()).collect();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    for (place, word) in words.iter().enumerate() {
        let (unit, number) = match (word.strip_suffix('b'), word.strip_suffix('m')) {
            (Some(number), _) => (1.0, number),
            (_, Some(number)) => (1e-3, number),
            _ => continue,
        };
        let number = if active { number.strip_prefix('a').unwrap_or("") } else { number };
        if !digits(number) {
            continue;
        }
        let before = place.checked_sub(1).and_then(|before| words.get(before)).filter(|before| before.len() == 1 && digits(before));
        // `1-5b` is 1.5, `3-8b` of `llama-3-8b` is 8: halves and small models are written with a point.
        let pointed = before.filter(|before| number.len() == 1 && (number == "5" || **before <= "1") && unit > 0.5);
        let text = pointed.map_or(number.to_owned(), |before| format!("{before}.{number}"));
        return text.parse::<f64>().ok().map(|value| value * unit).filter(|&value| value > 0.0);
    }
    None
}

/// The model of a row.
///
/// Sizes come from the file's size where the row gives it, otherwise from the quantisation's bits per weight. The embedding
/// table is not read; the output matrix is, which is the table again where they are tied.
///
/// # Errors
/// What is missing, in a few words.
pub fn shape(row: &Measurement) -> Result<(Shape, Known), &'static str> {
    let name = plain(row.text("model").unwrap_or(""));
    let quant_name = row.text("quant").filter(|text| quantisation(text).is_some()).or(row.text("model")).unwrap_or("");
    let chosen = quantisation(quant_name).ok_or("quantisation not known")?;
    let given = row.positive("params_b");
    let found = models().iter().flat_map(|model| model.names.iter().map(move |name| (name, model)));
    let found = found.filter(|(key, _)| name.contains(&format!("-{key}-"))).max_by_key(|(key, _)| key.len()).map(|(_, model)| model);
    // Engines call every model of an architecture by its size class: `llama 7B` is Mistral where it has 7.25 billion weights.
    let generic = name.starts_with("-llama-") && name.trim_matches('-').split('-').count() <= 2;
    let near = |model: &&Model| {
        let wanted = given.filter(|_| generic);
        wanted.is_none_or(|wanted| model.numbers.first().copied().flatten().is_some_and(|size| (size / wanted - 1.0).abs() < 0.02))
    };
    let found = found.filter(near).or_else(|| {
        let wanted = given.filter(|_| generic)?;
        let off = |model: &Model| model.numbers.first().copied().flatten().map_or(f64::MAX, |size| (size / wanted - 1.0).abs());
        models().iter().min_by(|a, b| off(a).total_cmp(&off(b))).filter(|model| off(model) < 0.02)
    });
    let file = row.positive("file_size_gib").map(|gib| gib * f64::from(1 << 30));
    let (numbers, tied, known) = match found {
        Some(model) => {
            let numbers: Vec<f64> = model.numbers.iter().map(|number| number.unwrap_or(0.0)).collect();
            (numbers, model.tied, Known::Table)
        }
        None => {
            let params =
                size(&name, false).or(given).or(file.map(|file| file / chosen.bytes_per_weight() / 1e9)).ok_or("size not known")?;
            let active = size(&name, true).or(row.positive("active_params_b")).unwrap_or(params);
            (typical(params, active.min(params)), params < 5.0, Known::Typical)
        }
    };
    // Its experts were published in MXFP4 and stay so in files that are called after the type of the rest.
    let chosen = if name.contains("gpt-oss") { chosen.with_experts_kept() } else { chosen };
    build(&numbers, tied, chosen, file, cache_type(row)).map(|shape| (shape, known))
}

/// A dense or mixture model of the usual proportions: layers and width grow with powers of the size that fit Llama, Qwen and Gemma.
fn typical(params: f64, active: f64) -> Vec<f64> {
    let dense = if active < 0.8 * params { active * 3.0 } else { params };
    let layers = (15.5 * dense.powf(0.38)).round().clamp(6.0, 130.0);
    let width = ((dense * 1e9 / layers / 12.0).sqrt() / 256.0).round().max(1.0) * 256.0;
    let (experts, used) = if active < 0.8 * params { (128.0, 8.0) } else { (0.0, 0.0) };
    let vocab = if params < 0.3 { 50_000.0 } else { 130_000.0 };
    vec![params, active, layers, width, vocab, 0.0, width, (width / 4.0).max(256.0), layers, 0.0, 0.0, experts, used]
}

/// Bytes per element of the cache.
fn cache_type(row: &Measurement) -> f64 {
    match row.text("kv_type").unwrap_or("f16") {
        text if text.contains("q8") => 1.0625,
        text if text.contains("q4") || text.contains("kv4") => 0.5625,
        text if text.contains("f32") => 4.0,
        _ => 2.0,
    }
}

fn build(numbers: &[f64], tied: bool, chosen: Quantisation, file: Option<f64>, cache: f64) -> Result<Shape, &'static str> {
    let &[params, active, layers, width, vocab, _, query_width, kv_width, full, windowed, window, experts, used] = numbers else {
        return Err("table of models is broken");
    };
    let experts = (experts > used && used > 0.0).then_some((experts, used));
    let attention_layers = if full + windowed > 0.0 { full + windowed } else { layers };
    let (params, active) = (params * 1e9, (active * 1e9).min(params * 1e9));
    let outline = Outline { params, active, layers, width, vocab, tied, query_width, kv_width, attention_layers, experts };
    let Parts { table, output, always, experts: routed } = parts(&outline, chosen);
    // A file says how large everything is together.
    let total = table.bytes + output.bytes + always.bytes + routed.bytes;
    let scale = file.map(|file| file / total).filter(|scale| (0.5..2.0).contains(scale)).unwrap_or(1.0);
    let share = experts.map_or(0.0, |(all, used)| used / all);
    // Models that leave out weights by other means than experts.
    let spared = if experts.is_none() { ((params - active) / always.elements.max(1.0)).min(0.9) } else { 0.0 };
    Ok(Shape {
        active_bytes: scale * (always.bytes * (1.0 - spared) + routed.bytes * share + output.bytes),
        all_bytes: scale * (always.bytes + routed.bytes + output.bytes),
        active_elements: always.elements * (1.0 - spared) + routed.elements * share,
        output_elements: output.elements,
        quant: chosen.quant,
        layers,
        width,
        cache_bytes: 2.0 * kv_width * cache,
        full_layers: full,
        window_layers: windowed,
        window,
        query_width,
        experts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::read;

    fn of(model: &str, quant: &str, params: &str) -> Result<(Shape, Known), &'static str> {
        let table = format!("device,model,quant,params_b,test,tokens_per_s\nx,{model},{quant},{params},tg128,1\n");
        shape(&read(&table).unwrap().1[0])
    }

    #[test]
    fn every_row_of_the_table_of_models_is_whole() {
        for model in models() {
            assert_eq!(model.numbers.len(), 13, "{:?}", model.names);
            let built = of(&model.names[0], "Q4_K_M", "").unwrap().0;
            assert!(built.active_bytes > 0.0 && built.active_bytes <= built.all_bytes * 1.0001, "{:?}: {built:?}", model.names);
            assert!(model.names.iter().all(|name| plain(name) == format!("-{name}-")), "{:?}", model.names);
        }
    }

    #[test]
    fn names_as_tables_write_them() {
        let layers = |model, params| of(model, "Q4_K_M", params).map(|(shape, known)| (shape.layers, known));
        assert_eq!(layers("Qwen_Qwen3-30B-A3B-Q4_K_M.gguf", ""), Ok((48.0, Known::Table)));
        assert_eq!(layers("qwen3moe 30B.A3B", "30.53"), Ok((48.0, Known::Table)));
        // Mistral by its size, under the name that the engine gives the architecture.
        assert_eq!(of("llama 7B", "Q4_0", "7.25").unwrap().0.cache_bytes, 4096.0);
        assert_eq!(of("llama 7B", "Q4_0", "6.74").unwrap().0.cache_bytes, 16384.0);
        assert_eq!(layers("Secret-9B", "").unwrap().1, Known::Typical);
        assert_eq!(layers("Secret", ""), Err("size not known"));
        assert_eq!(of("Secret-9B", "nothing", "").unwrap_err(), "quantisation not known");
    }

    #[test]
    fn llama_3_in_q4_k_m_is_as_large_as_its_file() {
        // 4.58 GiB, of which the embedding table in Q4_K is 0.275 GiB.
        let read = of("llama 8B", "Q4_K_M", "8.03").unwrap().0.all_bytes / f64::from(1 << 30);
        assert!((read - 4.305).abs() < 0.03, "{read}");
    }
}
