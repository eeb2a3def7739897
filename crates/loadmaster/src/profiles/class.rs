//! Sizes of model that profiles are made for: exact shapes of well-known models in the file type that most people take.

use formats::FileType;
use spec::Model;
use std::sync::OnceLock;

/// A size of model, and the model that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeClass {
    /// Key: `8b`, `30b-a3b`.
    pub id: &'static str,
    /// What it is called: `8 B`.
    pub title: &'static str,
    /// The shape that stands for it, of [`synthetic::preset`].
    pub preset: &'static str,
    /// Its file type.
    pub file_type: FileType,
}

/// Every class: dense ones by size, then those with experts.
pub const CLASSES: [SizeClass; 8] = [
    class("1b", "1 B", "llama-3.2-1b", FileType::Q4_K_M),
    class("4b", "4 B", "qwen3-4b", FileType::Q4_K_M),
    class("8b", "8 B", "qwen3-8b", FileType::Q4_K_M),
    class("14b", "14 B", "qwen3-14b", FileType::Q4_K_M),
    class("32b", "32 B", "qwen3-32b", FileType::Q4_K_M),
    class("70b", "70 B", "llama-3.1-70b", FileType::Q4_K_M),
    class("30b-a3b", "30 B, 3 B active", "qwen3-30b-a3b", FileType::Q4_K_M),
    class("120b-a5b", "120 B, 5 B active", "gpt-oss-120b", FileType::MXFP4_MOE),
];

const fn class(id: &'static str, title: &'static str, preset: &'static str, file_type: FileType) -> SizeClass {
    SizeClass { id, title, preset, file_type }
}

/// The class of this id.
pub fn size_class(id: &str) -> Option<&'static SizeClass> {
    CLASSES.iter().find(|class| class.id.eq_ignore_ascii_case(id.trim()))
}

impl SizeClass {
    /// The model: every tensor in its size and type, no weights. `None` where the shape is not published any more, which a test
    /// rules out.
    pub fn model(&self) -> Option<&'static Model> {
        static MODELS: [OnceLock<Option<Model>>; CLASSES.len()] = [const { OnceLock::new() }; CLASSES.len()];
        let index = CLASSES.iter().position(|class| class == self)?;
        MODELS.get(index)?.get_or_init(|| self.build()).as_ref()
    }

    fn build(&self) -> Option<Model> {
        crate::known::shape(self.preset, self.file_type).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_a_model_of_its_size() {
        let millions = |class: &SizeClass| class.model().unwrap().tensors.iter().map(|tensor| tensor.elements()).sum::<u64>() / 1_000_000;
        let sizes: Vec<String> = CLASSES.iter().map(|class| format!("{} {} M", class.id, millions(class))).collect();
        insta::assert_snapshot!(sizes.join("\n"), @r"
        1b 1235 M
        4b 4022 M
        8b 8190 M
        14b 14768 M
        32b 32762 M
        70b 70553 M
        30b-a3b 30532 M
        120b-a5b 116829 M
        ");
    }
}
