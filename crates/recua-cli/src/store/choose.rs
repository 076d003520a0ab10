//! Which of a repository's files are a model, and which model is meant. Only names are looked at.

use std::collections::BTreeMap;

use super::name::{Wanted, is_gguf};

/// What is taken if no quantization is given: most people's choice between size and quality.
const DEFAULT_QUANT: &str = "Q4_K_M";

/// A model among a repository's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    /// Its files, the first part first.
    pub(crate) files: Vec<String>,
    /// How many parts it should have.
    n_parts: usize,
    /// As the file's name has it, in upper case: `Q4_K_M`, `UD-Q4_K_XL`.
    pub(crate) quant: Option<String>,
}

impl Model {
    /// Whether no part is missing.
    pub(crate) fn is_complete(&self) -> bool {
        self.files.len() == self.n_parts
    }

    /// What to type behind the repository to get it.
    pub(crate) fn file(&self) -> &str {
        &self.files[0]
    }
}

/// The models that could be meant, if it is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// None of them.
    NotFound,
    /// Each of these.
    Ambiguous(Vec<Model>),
}

/// The models among these files, in the order of their names. The parts of a split model are one. Projectors of images
/// and importance matrices are GGUF files too, but no models.
pub(crate) fn models<'a>(files: impl IntoIterator<Item = &'a str>) -> Vec<Model> {
    all(files).into_iter().filter(|model| is_model(model.file(), model.quant.as_deref())).collect()
}

/// The model that is meant. `is_all` says that there are no other models in the repository than those of `files`:
/// only then can one be meant because it is the only one.
///
/// # Errors
/// If none or more than one could be meant.
pub(crate) fn choose(files: &[String], wanted: &Wanted, is_all: bool) -> Result<Model, Miss> {
    let files = || files.iter().map(String::as_str);
    let found = match wanted {
        Wanted::File(file) => {
            return all(files()).into_iter().find(|m| m.files.contains(file)).ok_or(Miss::NotFound);
        }
        Wanted::Quant(quant) => with_quant(models(files()), quant),
        Wanted::Default => {
            let models = models(files());
            let usual = with_quant(models.clone(), DEFAULT_QUANT);
            if usual.is_empty() && is_all { models } else { usual }
        }
    };
    match <[Model; 1]>::try_from(found) {
        Ok([model]) => Ok(model),
        Err(found) if found.is_empty() => Err(Miss::NotFound),
        Err(found) => Err(Miss::Ambiguous(found)),
    }
}

/// The models whose quantization is this one, or else those with these words in their names.
fn with_quant(models: Vec<Model>, quant: &str) -> Vec<Model> {
    let is_exact = |model: &Model| model.quant.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(quant));
    let quant = quant.to_ascii_uppercase();
    let exact: Vec<Model> = models.iter().filter(|model| is_exact(model)).cloned().collect();
    if !exact.is_empty() {
        return exact;
    }
    models.into_iter().filter(|model| has_words(&stem(model.file()).to_ascii_uppercase(), &quant)).collect()
}

/// Whether `words` are in `text`, with neither a letter, nor a digit, nor `_` on either side.
fn has_words(text: &str, words: &str) -> bool {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(words)
        .any(|(at, _)| !text[..at].ends_with(is_inside) && !text[at + words.len()..].starts_with(is_inside))
}

/// All GGUF files, the parts of split ones together. A part without the others is there as well.
fn all<'a>(files: impl IntoIterator<Item = &'a str>) -> Vec<Model> {
    // In one group are the names that differ in the number of the part.
    let mut groups = BTreeMap::<(&str, usize), BTreeMap<usize, &str>>::new();
    for file in files.into_iter().filter(|file| is_gguf(file)) {
        match split(file) {
            Some((prefix, no, count)) => groups.entry((prefix, count)).or_default().insert(no, file),
            None => groups.entry((file, 0)).or_default().insert(0, file),
        };
    }
    let model = |((_, count), parts): ((&str, usize), BTreeMap<usize, &str>)| {
        let files: Vec<String> = parts.into_values().map(str::to_owned).collect();
        Model { quant: quant(&files[0]), files, n_parts: count.max(1) }
    };
    groups.into_iter().map(model).collect()
}

/// `a-00002-of-00005.gguf` is ("a", 2, 5).
fn split(file: &str) -> Option<(&str, usize, usize)> {
    let stem = file.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, no) = rest.rsplit_once('-')?;
    let number = |digits: &str| {
        (digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit()))
            .then(|| digits.parse::<usize>().ok())?
    };
    let (no, count) = (number(no)?, number(count)?);
    (1..=count).contains(&no).then_some((prefix, no, count))
}

fn is_model(file: &str, quant: Option<&str>) -> bool {
    let name = file.to_ascii_lowercase();
    // "imatrix" is also in names of models that were made with one.
    !name.contains("mmproj") && (quant.is_some() || !name.contains("imatrix"))
}

/// The path without `.gguf` and without the number of the part.
fn stem(file: &str) -> &str {
    split(file).map_or_else(|| &file[..file.len().saturating_sub(5)], |(prefix, ..)| prefix)
}

/// The quantization that a file's name, or else its folder's, ends in or contains, in upper case.
fn quant(file: &str) -> Option<String> {
    stem(file).to_ascii_uppercase().rsplit('/').find_map(quant_in)
}

/// The last quantization in an upper-case name.
fn quant_in(name: &str) -> Option<String> {
    let starts =
        name.char_indices().filter(|(at, _)| !name[..*at].ends_with(|c: char| c.is_ascii_alphanumeric()));
    let (at, len) = starts.filter_map(|(at, _)| Some((at, quant_len(&name[at..])?))).next_back()?;
    // Unsloth's own mixes.
    let at = if name[..at].ends_with("UD-") { at - 3 } else { at };
    Some(name[at..at + len + if name[at..].starts_with("UD-") { 3 } else { 0 }].to_owned())
}

/// The length of the quantization at the beginning of `text`: `Q4_K_M`, `IQ3_XXS`, `TQ1_0`, `BF16`, `MXFP4_MOE`.
fn quant_len(text: &str) -> Option<usize> {
    const WHOLE: [&str; 7] = ["BF16", "FP16", "FP32", "F16", "F32", "MXFP4", "NVFP4"];
    const ENDINGS: [&str; 13] = ["0", "1", "K", "S", "M", "L", "XL", "XS", "XXS", "NL", "4", "8", "MOE"];
    let mut end = match WHOLE.iter().find(|whole| text.starts_with(**whole)) {
        Some(whole) => whole.len(),
        None => {
            let digits = ["IQ", "TQ", "Q"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
            let n = digits.bytes().take_while(u8::is_ascii_digit).count();
            if n != 1 {
                return None;
            }
            text.len() - digits.len() + 1
        }
    };
    if text[end..].starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    while let Some(rest) = text[end..].strip_prefix('_') {
        let word = &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len())];
        if !ENDINGS.contains(&word) {
            break;
        }
        end += 1 + word.len();
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantizations_of_names() {
        for (file, expected) in [
            ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", Some("Q4_K_M")),
            ("llama-2-7b.q4_0.gguf", Some("Q4_0")),
            ("ggml-model-IQ4_XS.gguf", Some("IQ4_XS")),
            ("Qwen3-8B-UD-Q4_K_XL.gguf", Some("UD-Q4_K_XL")),
            ("Phi-3-mini-4k-instruct-q4.gguf", Some("Q4")),
            ("Phi-3-mini-4k-instruct-fp16.gguf", Some("FP16")),
            ("tinyllama_q5_k_s.gguf", Some("Q5_K_S")),
            ("model-Q4_0_4_8.gguf", Some("Q4_0_4_8")),
            ("gpt-oss-20b-mxfp4.gguf", Some("MXFP4")),
            ("gpt-oss-MXFP4_MOE.gguf", Some("MXFP4_MOE")),
            ("a-Q4_K_M-imat.gguf", Some("Q4_K_M")),
            ("Q8_0/model-00001-of-00002.gguf", Some("Q8_0")),
            ("BF16/model-BF16-00001-of-00002.gguf", Some("BF16")),
            ("Q4_K_M/other-Q8_0.gguf", Some("Q8_0")),
            ("model.gguf", None),
            ("Q4you.gguf", None),
            ("q42.gguf", None),
            ("é.gguf", None),
        ] {
            assert_eq!(quant(file).as_deref(), expected, "{file}");
        }
    }

    fn pick(files: &[&str], wanted: &Wanted, is_all: bool) -> Result<Vec<String>, usize> {
        let files: Vec<String> = files.iter().map(|f| (*f).to_owned()).collect();
        match choose(&files, wanted, is_all) {
            Ok(model) => Ok(model.files),
            Err(Miss::NotFound) => Err(0),
            Err(Miss::Ambiguous(models)) => Err(models.len()),
        }
    }

    fn by_quant(quant: &str) -> Wanted {
        Wanted::Quant(quant.into())
    }

    #[test]
    fn a_quantization_is_found_in_any_case() {
        let files = ["a-Q4_K_M.gguf", "a-Q4_K_S.gguf", "a-UD-Q4_K_XL.gguf", "a-Q8_0.gguf", "README.md"];
        assert_eq!(pick(&files, &by_quant("q4_k_m"), true), Ok(vec!["a-Q4_K_M.gguf".into()]));
        assert_eq!(pick(&files, &by_quant("Q4_K_XL"), true), Ok(vec!["a-UD-Q4_K_XL.gguf".into()]));
        assert_eq!(pick(&files, &by_quant("Q4_K"), true), Err(0));
        assert_eq!(pick(&files, &by_quant("Q6_K"), true), Err(0));
        assert_eq!(pick(&["a-Q8_0.gguf", "b-Q8_0.gguf"], &by_quant("Q8_0"), true), Err(2));
        assert_eq!(
            pick(&["a-Q8_0.gguf", "b-Q8_0.gguf"], &by_quant("b-Q8_0"), true),
            Ok(vec!["b-Q8_0.gguf".into()])
        );
        // The plain one is meant, although both have the words.
        assert_eq!(
            pick(&["a-UD-Q2_K.gguf", "a-Q2_K.gguf"], &by_quant("Q2_K"), true),
            Ok(vec!["a-Q2_K.gguf".into()])
        );
    }

    #[test]
    fn without_a_quantization() {
        let usual = Ok(vec!["a-q4_k_m.gguf".into()]);
        assert_eq!(pick(&["a-Q8_0.gguf", "a-q4_k_m.gguf"], &Wanted::Default, true), usual);
        assert_eq!(pick(&["a-Q8_0.gguf", "a-Q6_K.gguf"], &Wanted::Default, true), Err(2));
        assert_eq!(pick(&["a-Q8_0.gguf"], &Wanted::Default, true), Ok(vec!["a-Q8_0.gguf".into()]));
        // There may be a Q4_K_M that this list does not know.
        assert_eq!(pick(&["a-Q8_0.gguf"], &Wanted::Default, false), Err(0));
        assert_eq!(pick(&["a-q4_k_m.gguf"], &Wanted::Default, false), usual);
    }

    #[test]
    fn projectors_and_importance_matrices_are_never_chosen() {
        let files = [
            "mmproj-Q4_K_M.gguf",
            "mmproj-a-f16.gguf",
            "imatrix.gguf",
            "a.imatrix.gguf",
            "a-Q4_K_M-imatrix.gguf",
        ];
        assert_eq!(pick(&files, &Wanted::Default, true), Ok(vec!["a-Q4_K_M-imatrix.gguf".into()]));
        assert_eq!(pick(&files, &by_quant("f16"), true), Err(0));
        // Unless somebody names the file.
        let file = Wanted::File("mmproj-a-f16.gguf".into());
        assert_eq!(pick(&files, &file, true), Ok(vec!["mmproj-a-f16.gguf".into()]));
    }

    #[test]
    fn split_models_are_one() {
        let files = [
            "Q8_0/a-00002-of-00003.gguf",
            "Q8_0/a-00001-of-00003.gguf",
            "Q8_0/a-00003-of-00003.gguf",
            "b-Q4_0.gguf",
        ];
        let parts: Vec<String> = (1..=3).map(|i| format!("Q8_0/a-0000{i}-of-00003.gguf")).collect();
        assert_eq!(pick(&files, &by_quant("Q8_0"), true), Ok(parts.clone()));
        assert_eq!(pick(&files, &Wanted::File(files[0].into()), true), Ok(parts));
        assert!(models(files).iter().all(Model::is_complete));
        assert!(!models([files[0], files[1]]).iter().any(Model::is_complete));
        // A name that claims to be the eleventh of ten is one of its own.
        assert!(models(["a-00011-of-00010.gguf", "a-00000-of-00001.gguf"]).iter().all(Model::is_complete));
    }
}
