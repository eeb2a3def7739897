//! The shape of a model that a table names: looked up, or typical of its size.

use crate::row::Measurement;
use roofline::{Quant, Shape};
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

/// Bits per weight of layers, of the output matrix, and the class, of a quantisation by its name.
fn bits(name: &str) -> Option<(f64, f64, Quant)> {
    let name = name.to_uppercase().replace("UD-", "").replace("GGUF ", "").replace('-', "_").replace(" _ ", "_").replace("_MEDIUM", "_M");
    let has = |text: &str| name.contains(text);
    let row = [
        ("IQ1_S", 1.75, 5.5, Quant::Iq),
        ("IQ1_M", 1.95, 5.5, Quant::Iq),
        ("IQ2_XXS", 2.2, 5.5, Quant::Iq),
        ("IQ2_XS", 2.4, 5.5, Quant::Iq),
        ("IQ2_S", 2.55, 5.5, Quant::Iq),
        ("IQ2_M", 2.75, 5.5, Quant::Iq),
        ("IQ3_XXS", 3.15, 5.5, Quant::Iq),
        ("IQ3_XS", 3.35, 6.5625, Quant::Iq),
        ("IQ3_S", 3.5, 6.5625, Quant::Iq),
        ("IQ3_M", 3.65, 6.5625, Quant::Iq),
        ("IQ4_XS", 4.3, 6.5625, Quant::Iq),
        ("IQ4_NL", 4.5, 6.5625, Quant::Q4),
        ("Q2_K", 2.98, 6.5625, Quant::Q3K),
        ("Q3_K_S", 3.44, 6.5625, Quant::Q3K),
        ("Q3_K_L", 4.22, 6.5625, Quant::Q3K),
        ("Q3_K", 3.9, 6.5625, Quant::Q3K),
        ("Q4_K_S", 4.58, 6.5625, Quant::Q4K),
        ("Q4_K_XL", 4.9, 6.5625, Quant::Q4K),
        ("Q4_K", 4.81, 6.5625, Quant::Q4K),
        ("Q5_K_S", 5.5, 6.5625, Quant::Q4K),
        ("Q5_K", 5.67, 6.5625, Quant::Q4K),
        ("Q6_K", 6.5625, 6.5625, Quant::Q6),
        ("Q8_K_XL", 9.6, 16.0, Quant::Q8),
        ("Q8", 8.5, 8.5, Quant::Q8),
        ("Q4_0", 4.5, 6.5625, Quant::Q4),
        ("Q4_1", 5.0, 6.5625, Quant::Q4),
        ("Q5_0", 5.5, 6.5625, Quant::Q4),
        ("Q5_1", 6.0, 6.5625, Quant::Q4),
        ("MXFP4", 4.3, 8.5, Quant::Mx),
        ("F16", 16.0, 16.0, Quant::Float),
    ];
    row.into_iter().find(|(key, ..)| has(key)).map(|(_, bits, output, quant)| (bits, output, quant))
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
    let quant_name = row.text("quant").filter(|text| bits(text).is_some()).or(row.text("model")).unwrap_or("");
    let (bits, output_bits, mut quant) = bits(quant_name).ok_or("quantisation not known")?;
    if name.contains("gpt-oss") && quant == Quant::Float {
        quant = Quant::Mx;
    }
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
            let params = size(&name, false).or(given).or(file.map(|file| file * 8.0 / bits / 1e9)).ok_or("size not known")?;
            let active = size(&name, true).or(row.positive("active_params_b")).unwrap_or(params);
            (typical(params, active.min(params)), params < 5.0, Known::Typical)
        }
    };
    build(&numbers, tied, (bits, output_bits, quant), file, cache_type(row)).map(|shape| (shape, known))
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

fn build(
    numbers: &[f64],
    tied: bool,
    (bits, output_bits, quant): (f64, f64, Quant),
    file: Option<f64>,
    cache: f64,
) -> Result<Shape, &'static str> {
    let &[params, active, layers, width, vocab, _, query_width, kv_width, full, windowed, window, experts, used] = numbers else {
        return Err("table of models is broken");
    };
    let table = width * vocab;
    let tables = if tied { table } else { 2.0 * table };
    let blocks = (params * 1e9 - tables).max(params * 1e8);
    let active_blocks = (active * 1e9 - tables).clamp(active * 1e8, blocks);
    let output_bytes = table * output_bits / 8.0;
    // Of a file, what is not tables lies in the layers.
    let embedding = if tied { 0.0 } else { table * bits.max(4.0) / 8.0 };
    let expected = blocks * bits / 8.0;
    let block_bytes = file.map_or(expected, |file| (file - output_bytes - embedding).max(file * 0.2));
    Ok(Shape {
        active_bytes: block_bytes * active_blocks / blocks + output_bytes,
        all_bytes: block_bytes + output_bytes,
        active_elements: active_blocks,
        output_elements: table,
        quant,
        layers,
        width,
        cache_bytes: 2.0 * kv_width * cache,
        full_layers: full,
        window_layers: windowed,
        window,
        query_width,
        experts: (experts > used && used > 0.0).then_some((experts, used)),
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
        assert!((read - 4.305).abs() < 0.05, "{read}");
    }
}
