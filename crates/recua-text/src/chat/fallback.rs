//! Templates for files without one, chosen by the special tokens of the vocabulary and, failing that, by name.

use recua_gguf::Metadata;

use super::error::ChatError;
use crate::tokenizer::Tokenizer;

const LLAMA_3: &str = "\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}";

const CHATML: &str = "\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

const GEMMA: &str = "\
{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{%- set ns.system = message.content | trim + '\\n\\n' -%}
{%- else -%}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' + ns.system + message.content | trim + '<end_of_turn>\\n' -}}
{%- set ns.system = '' -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}";

const PHI_3: &str = "\
{%- for message in messages -%}
{{- '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}";

const ZEPHYR: &str = "\
{%- for message in messages -%}
{{- '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}";

const DEEPSEEK: &str = "\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{{- '<｜User｜>' + message.content -}}
{%- elif message.role == 'assistant' -%}{{- '<｜Assistant｜>' + message.content + eos_token -}}
{%- else -%}{{- message.content -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<｜Assistant｜>' -}}{%- endif -%}";

const MISTRAL: &str = "\
{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{%- set ns.system = message.content + '\\n\\n' -%}
{%- elif message.role == 'user' -%}{{- '[INST] ' + ns.system + message.content + ' [/INST]' -}}{%- set ns.system = '' -%}
{%- else -%}{{- ' ' + message.content | trim + eos_token -}}{%- endif -%}
{%- endfor -%}";

const LLAMA_2: &str = "\
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{%- set ns.system = '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' -%}
{%- elif message.role == 'user' -%}{{- bos_token + '[INST] ' + ns.system + message.content | trim + ' [/INST]' -}}{%- set ns.system = '' -%}
{%- else -%}{{- ' ' + message.content | trim + ' ' + eos_token -}}{%- endif -%}
{%- endfor -%}";

/// Templates by special tokens that only one format uses, the most telling first.
const BY_TOKENS: &[(&[&str], &str)] = &[
    (&["<|start_header_id|>", "<|eot_id|>"], LLAMA_3),
    (&["<|im_start|>", "<|im_end|>"], CHATML),
    (&["<start_of_turn>", "<end_of_turn>"], GEMMA),
    (&["<｜User｜>", "<｜Assistant｜>"], DEEPSEEK),
    (&["<|user|>", "<|assistant|>", "<|end|>"], PHI_3),
    (&["<|user|>", "<|assistant|>"], ZEPHYR),
    (&["[INST]", "[/INST]"], MISTRAL),
];

/// Templates by the name or the architecture of a file, for vocabularies without such tokens.
const BY_NAME: &[(&str, &str)] = &[
    ("zephyr", ZEPHYR),
    ("tinyllama", ZEPHYR),
    ("mixtral", MISTRAL),
    ("mistral", MISTRAL),
    ("llama-2", LLAMA_2),
    ("llama 2", LLAMA_2),
    ("llama2", LLAMA_2),
    ("llama v2", LLAMA_2),
    ("codellama", LLAMA_2),
];

/// The template that some files have only the name of.
pub(super) fn named(name: &str) -> Option<&'static str> {
    (name == "chatml").then_some(CHATML)
}

/// The template of a file's family, if it is known.
pub(super) fn source(meta: &Metadata, tokenizer: &Tokenizer) -> Result<Option<&'static str>, ChatError> {
    let has_all = |tokens: &[&str]| tokens.iter().all(|token| tokenizer.special_token(token).is_some());
    if let Some((_, source)) = BY_TOKENS.iter().find(|(tokens, _)| has_all(tokens)) {
        return Ok(Some(source));
    }
    for key in ["general.name", "general.basename", "general.architecture"] {
        let name = meta.str(key)?.unwrap_or_default().to_lowercase();
        if let Some((_, source)) = BY_NAME.iter().find(|(part, _)| name.contains(part)) {
            return Ok(Some(source));
        }
    }
    Ok(None)
}
