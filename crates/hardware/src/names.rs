//! Marketing names as sets of words: what two spellings of one product have in common.
//!
//! A word ends where letters and digits meet, so `rtx4090`, `RTX 4090` and `RTX-4090` are the same words, and `a10` (`a`, `10`) has
//! nothing in common with `A1000` (`a`, `1000`) but a letter.

use spec::Bytes;

/// Legal marks and makers: never part of what tells two products apart, unless nothing else is left.
const MAKERS: [&str; 11] = ["nvidia", "amd", "intel", "apple", "huawei", "zhaoxin", "qualcomm", "google", "corporation", "inc", "ati"];

/// Families and filler that people leave out.
const FILLER: [&str; 12] =
    ["geforce", "radeon", "graphics", "gpu", "generation", "tesla", "instinct", "arc", "series", "edition", "design", "with"];

/// An accelerator's name taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Name {
    /// What has to agree, sorted.
    pub(crate) words: Vec<String>,
    /// `80GB` in the name.
    pub(crate) memory: Option<Bytes>,
    /// `pcie`, `sxm`, `nvl`, `oam`, with the number behind it.
    pub(crate) form: Option<(&'static str, Option<String>)>,
    /// `gddr6x`, `hbm3`.
    pub(crate) memory_type: Option<String>,
    /// `40-core`: cores of the GPU.
    pub(crate) cores: Option<u32>,
}

/// Runs of letters and runs of digits, in lower case; everything else parts them.
fn split(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut last = None;
    for letter in text.chars().flat_map(char::to_lowercase) {
        let class = if letter.is_ascii_digit() {
            Some(true)
        } else if letter.is_alphanumeric() {
            Some(false)
        } else {
            None
        };
        match (class, words.last_mut()) {
            (None, _) => {}
            (class, Some(word)) if class == last => word.push(letter),
            _ => words.push(letter.to_string()),
        }
        last = class;
    }
    words
}

/// Lower case, without the marks `(R)`, `(TM)`, `®` and `™`.
fn unmarked(text: &str) -> String {
    ["(r)", "(tm)", "®", "™"].iter().fold(text.to_lowercase(), |text, mark| text.replace(mark, " "))
}

/// Drops the words of a list, unless none would be left.
fn without(words: Vec<String>, drop: &[&str]) -> Vec<String> {
    let left: Vec<String> = words.iter().filter(|word| !drop.contains(&word.as_str())).cloned().collect();
    if left.is_empty() { words } else { left }
}

fn number(word: Option<&String>) -> Option<u32> {
    word?.parse().ok()
}

/// Takes an accelerator's name apart.
pub(crate) fn accelerator(text: &str) -> Name {
    let mut name = Name::default();
    let words = split(&unmarked(text));
    let mut left: Vec<String> = Vec::new();
    let mut i = 0;
    while let Some(word) = words.get(i) {
        let (next, after) = (words.get(i + 1).map(String::as_str), words.get(i + 2).map(String::as_str));
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        match (word.as_str(), next) {
            (_, Some("gb" | "gib")) if digits => {
                name.memory = format!("{word}GiB").parse().ok();
                i += 1;
            }
            // `40-core GPU`, `40c`; `40GPU` stands behind the processor's cores, `12P+4E+40GPU`.
            (_, Some("core" | "cores" | "c" | "gpu")) if digits && name.cores.is_none() && i > 0 => {
                name.cores = number(Some(word));
                i += 1;
            }
            (_, Some("p" | "e")) if digits && i > 0 => i += 1,
            ("pcie" | "nvl" | "oam", _) => name.form = Some((form(word), None)),
            ("sxm", number) => {
                let size = matches!(after, Some("gb" | "gib"));
                let number = number.filter(|next| !size && next.bytes().all(|byte| byte.is_ascii_digit()));
                i += usize::from(number.is_some());
                name.form = Some(("sxm", number.map(str::to_owned)));
            }
            ("gddr" | "ddr" | "hbm" | "lpddr", Some(version)) => {
                let letter = after.filter(|after| matches!(*after, "x" | "e"));
                i += 1 + usize::from(letter.is_some());
                name.memory_type = Some(format!("{word}{version}{}", letter.unwrap_or("")));
            }
            ("mobile" | "notebook", _) => left.push("laptop".to_owned()),
            _ => left.push(word.clone()),
        }
        i += 1;
    }
    name.words = without(without(left, &MAKERS), &FILLER);
    name.words.sort();
    name
}

fn form(word: &str) -> &'static str {
    match word {
        "pcie" => "pcie",
        "nvl" => "nvl",
        _ => "oam",
    }
}

/// The words of a processor's name, sorted: what brand strings add (`16-Core Processor`, `CPU @ 2.60GHz`, `with Radeon Graphics`, `12th
/// Gen`) is left out.
pub(crate) fn processor(text: &str) -> Vec<String> {
    const COUNTS: [&str; 8] = ["dual", "triple", "quad", "six", "eight", "twelve", "sixteen", "mobile"];
    let lower = unmarked(text);
    let mut cut = lower.as_str();
    for end in ["@", " w/ ", " with ", "(", " rev "] {
        cut = cut.split(end).next().unwrap_or(cut);
    }
    let all = split(cut);
    let mut words = Vec::new();
    let mut i = 0;
    while let Some(word) = all.get(i) {
        let next = all.get(i + 1).map(String::as_str);
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        match (word.as_str(), next) {
            (_, Some("core" | "cores")) if i > 0 && (digits || COUNTS.contains(&word.as_str())) => i += 1,
            (_, Some("th" | "rd" | "nd" | "st")) if digits && all.get(i + 2).is_some_and(|word| word == "gen") => i += 2,
            ("cpu" | "processor" | "soc" | "0", _) => {}
            _ => words.push(word.clone()),
        }
        i += 1;
    }
    let mut words = without(words, &MAKERS);
    words.sort();
    words
}

/// The words of a text in their order, joined; for the distance between two names.
pub(crate) fn plain(text: &str) -> String {
    without(without(split(&unmarked(text)), &MAKERS), &FILLER).join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_product_are_the_same_words() {
        for text in ["rtx4090", "RTX 4090", "NVIDIA GeForce RTX-4090", "GeForce RTX(TM) 4090 Graphics"] {
            assert_eq!(accelerator(text).words, ["4090", "rtx"], "{text}");
        }
        assert_ne!(accelerator("a10").words, accelerator("A1000").words);
        assert_ne!(accelerator("RTX 4090 Laptop GPU").words, accelerator("RTX 4090").words);
        assert_eq!(accelerator("RTX 4090 Mobile"), accelerator("rtx-4090-laptop"));
    }

    #[test]
    fn memory_form_and_cores_are_told_apart_from_the_name() {
        let name = accelerator("NVIDIA A100-SXM4-80GB");
        assert_eq!((name.words, name.memory), (vec!["100".to_owned(), "a".into()], Some(Bytes::from_gib(80))));
        assert_eq!(name.form, Some(("sxm", Some("4".into()))));
        assert_eq!(accelerator("NVIDIA H100 80GB HBM3").memory_type.as_deref(), Some("hbm3"));
        let mac = accelerator("m3-max-40c-64gb");
        assert_eq!((mac.cores, mac.memory), (Some(40), Some(Bytes::from_gib(64))));
        assert_eq!(accelerator("Apple M4 Max 12P+4E+40GPU"), accelerator("Apple M4 Max 40-core GPU"));
        assert_eq!(accelerator("A10G").memory, None);
        assert_eq!(accelerator("AMD Radeon(TM) Graphics").words, ["graphics", "radeon"]);
    }

    #[test]
    fn brand_strings_are_names_with_additions() {
        let same = [
            ("AMD Ryzen 9 7950X 16-Core Processor", "ryzen-9-7950x"),
            ("11th Gen Intel(R) Core(TM) i7-11700F @ 2.50GHz", "Core i7-11700F"),
            ("Intel(R) Xeon(R) CPU E5-2690 0 @ 2.90GHz", "Xeon E5-2690"),
            ("AMD Ryzen 7 PRO 8840U w/ Radeon 780M Graphics", "Ryzen 7 PRO 8840U"),
            ("AMD FX(tm)-8320 Eight-Core Processor", "FX-8320"),
            ("Intel(R) Core(TM) i7 CPU         870  @ 2.93GHz", "Core i7-870"),
        ];
        for (brand, name) in same {
            assert_eq!(processor(brand), processor(name), "{brand}");
        }
    }
}
