//! Templates that would take all memory or all time. Each must be refused, quickly, within a fixed amount of memory.

use std::time::{Duration, Instant};

use recua_template::Error;

use crate::{LLAMA_3_1, QWEN_3, render};

/// The most memory that the process may hold while it runs all the hostile templates.
const PEAK_KIB: u64 = 160 << 10;

fn doubling(step: &str) -> String {
    format!("{{% set x = 'xxxxxxxx' %}}{}{{{{ x | length }}}}", step.repeat(40))
}

fn hostile() -> Vec<(&'static str, String)> {
    vec![
        ("concat", doubling("{% set x = x ~ x %}")),
        ("add", doubling("{% set x = x + x %}")),
        ("set block", doubling("{% set x %}{{ x }}{{ x }}{% endset %}")),
        ("join", doubling("{% set x = [x, x] | join %}")),
        ("join method", doubling("{% set x = x.join([x, x, x]) %}")),
        ("replace", doubling("{% set x = x | replace('x', 'xx') %}")),
        ("replace method", doubling("{% set x = x.replace('', 'xx') %}")),
        ("format", doubling("{% set x = '%s%s' | format(x, x) %}")),
        ("percent", doubling("{% set x = '%s%s' % (x, x) %}")),
        ("indent", doubling("{% set x = (x ~ '\\n') | indent(1000, true, true) %}")),
        ("indent width", "{{ 'x\ny' | indent(100000000000) }}".into()),
        ("escape", doubling("{% set x = ('<' ~ x) | e | e | e %}{% set x = x + x %}")),
        ("filter block", doubling("{% set x %}{% filter upper %}{{ x }}{{ x }}{% endfilter %}{% endset %}")),
        ("macro", format!("{{% macro d(s) %}}{{{{ s }}}}{{{{ s }}}}{{% endmacro %}}{}", doubling("{% set x = d(x) %}"))),
        ("call block", format!("{{% macro d() %}}{{{{ caller() }}}}{{{{ caller() }}}}{{% endmacro %}}{}", doubling("{% set x %}{% call d() %}{{ x }}{% endcall %}{% endset %}"))),
        ("namespace", format!("{{% set ns = namespace(x='xxxxxxxx') %}}{}", "{% set ns.x = ns.x ~ ns.x %}".repeat(40))),
        ("lists", format!("{{% set x = [1] %}}{}", "{% set x = x + x %}".repeat(40))),
        ("list of chars", format!("{{% set x = 'xx' %}}{}", "{% set x = x | list | join('xx') %}".repeat(40))),
        ("shared lists", format!("{{% set x = [1] %}}{}{{{{ x }}}}", "{% set x = [x, x] %}".repeat(40))),
        ("shared lists, equal", format!("{{% set x = [1] %}}{{% set y = [1] %}}{}{{{{ x == y }}}}", "{% set x = [x, x] %}{% set y = [y, y] %}".repeat(40))),
        ("shared lists, json", format!("{{% set x = [1] %}}{}{{{{ x | tojson }}}}", "{% set x = [x, x] %}".repeat(40))),
        ("deep list", "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}".into()),
        ("deep map", "{% set ns = namespace(x={}) %}{% for i in range(100000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}".into()),
        ("cycle", "{% set ns = namespace() %}{% set ns.me = [ns] %}{{ ns.me }}".into()),
        ("json indent", "{{ [[[[1]]]] | tojson(indent=1000000000000) }}".into()),
        ("json indent, many", "{% set x = range(10000) | list %}{{ x | tojson(indent=100000) }}".into()),
        ("string times", "{{ 'x' * 100000000000 }}".into()),
        ("string times float", "{{ 'x' * 1e11 }}".into()),
        ("list times", "{{ [0] * 1073741824 }}".into()),
        ("range", "{{ range(1000000000) | length }}".into()),
        ("range, all", "{{ range(-9223372036854775807, 9223372036854775807) | length }}".into()),
        ("range, down", "{{ range(9223372036854775807, -9223372036854775807, -1) | list }}".into()),
        ("nested loops", "{% for a in range(1000) %}".repeat(6) + "x" + &"{% endfor %}".repeat(6)),
        ("quiet loops", "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}".into()),
        ("raw output", format!("{{% for a in range(100000) %}}{}{{% endfor %}}", "x".repeat(60_000))),
        ("captured raw", format!("{{% set y %}}{{% for a in range(100000) %}}{}{{% endfor %}}{{% endset %}}", "x".repeat(60_000))),
        ("literals", format!("{{% for a in range(100000) %}}{{% set x = '{}' %}}{{% endfor %}}", "x".repeat(60_000))),
        ("slices", format!("{{% set x = '{}' %}}{{% for a in range(100000) %}}{{% set y = x[1:] %}}{{% endfor %}}", "x".repeat(60_000))),
        ("searches", format!("{{% set x = '{}' %}}{{% for a in range(100000) %}}{{% if 'xy' in x %}}{{% endif %}}{{% endfor %}}", "x".repeat(60_000))),
        ("comparisons", format!("{{% set x = '{}' %}}{{% set y = x ~ '' %}}{{% for a in range(100000) %}}{{% if x == y %}}{{% endif %}}{{% endfor %}}", "x".repeat(60_000))),
        ("strip", format!("{{% set x = '{}' %}}{{{{ x.strip('y' ~ x) | length }}}}", "x".repeat(60_000))),
        ("recursion", "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}".into()),
        ("mutual recursion", "{% macro f() %}{{ g() }}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}".into()),
        ("recursive loop", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".into()),
        ("power", "{{ 10 ** 1000000000 }}".into()),
        ("parentheses", format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000))),
        ("brackets", format!("{{{{ {}{} }}}}", "[".repeat(100_000), "]".repeat(100_000))),
        ("minus", format!("{{{{ {}1 }}}}", "- ".repeat(100_000))),
        ("not", format!("{{{{ {}1 }}}}", "not ".repeat(60_000))),
        ("else", format!("{{{{ {}1 }}}}", "1 if 0 else ".repeat(20_000))),
        ("minus within a tag", format!("{{{{ {}1 }}}}", "- ".repeat(1900))),
        ("not within a tag", format!("{{{{ {}1 }}}}", "not ".repeat(1900))),
        ("else within a tag", format!("{{{{ {}1 }}}}", "1 if 0 else ".repeat(480))),
        ("targets within a tag", format!("{{% set {}a{} = 1 %}}{{{{ x.y }}}}", "(".repeat(900), ")".repeat(900))),
        ("minus in parentheses", format!("{{{{ {}1{} }}}}", "- - - - - - - - (".repeat(140), ")".repeat(140))),
        ("long sum", format!("{{{{ 1{} }}}}", "+1".repeat(100_000))),
        ("long sum within a tag", format!("{{{{ 1{} }}}}", "+1".repeat(900))),
        ("attributes", format!("{{{{ messages{} }}}}", ".a".repeat(100_000))),
        ("filters", format!("{{{{ 1{} }}}}", "|e".repeat(100_000))),
        ("elif", format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(20_000))),
        ("elif within bounds", format!("{{% if 0 %}}{}x{{% endif %}}", "{% elif 0 %}".repeat(999))),
        ("nested if", "{% if 1 %}".repeat(10_000)),
        ("set targets", format!("{{% set {}a{} = 1 %}}", "(".repeat(100_000), ")".repeat(100_000))),
        ("sort", "{{ (range(100000) | list + ['x']) | sort }}".into()),
        ("sorts", "{% set x = range(10000) | reverse %}{% for i in range(10000) %}{% set y = x | sort %}{% endfor %}".into()),
        ("unique", "{{ range(100000) | unique | list }}".into()),
        ("map of map", format!("{{{{ [messages] | map({}'upper') | list }}}}", "'map',".repeat(1500))),
        ("case", format!("{{% set x = '{}' %}}{}", "ß".repeat(30_000), "{% set x = (x ~ x) | upper %}".repeat(40))),
        ("splits", format!("{{% set x = '{}' %}}{{% set ns = namespace(l=[]) %}}{{% for i in range(1000) %}}{{% set ns.l = ns.l + [x.split('x')] %}}{{% endfor %}}", "x".repeat(60_000))),
        ("dates", format!("{{{{ strftime_now('{}') }}}}", "%B".repeat(30_000)) + "{{ strftime_now('%Q') }}"),
        ("unpaired braces", "{{".repeat(50_000)),
        ("lines", "\n".repeat(70_000) + "{{ x.y }}"),
        ("braces", format!("{{{{ {}{} }}}}", "{1:".repeat(80_000), "}".repeat(80_000))),
        ("calls", format!("{{{{ {}{} }}}}", "f(".repeat(100_000), ")".repeat(100_000))),
        ("subscripts", format!("{{{{ {}{} }}}}", "a[".repeat(100_000), "]".repeat(100_000))),
        ("called again and again", format!("{{{{ f{} }}}}", "()".repeat(100_000))),
        ("tests", format!("{{{{ 1{} }}}}", " is x".repeat(50_000))),
        ("or", format!("{{{{ 1{} }}}}", " or 1".repeat(50_000))),
        ("compared", format!("{{{{ 1{} }}}}", " < 1".repeat(60_000)) + "{{ x.y }}"),
        ("sums in parentheses", format!("{{{{ {}1{} }}}}", "(".repeat(200), "+1+1+1)".repeat(200))),
        ("elif in elif", "{% if 0 %}{% elif 0 %}".repeat(5_000)),
        ("nested for", "{% for x in [1] %}".repeat(10_000)),
        ("nested macro", "{% macro f() %}".repeat(10_000)),
        ("nested set", "{% set x %}".repeat(20_000)),
        ("a line of a megabyte", "x".repeat(1 << 20)),
        ("a million tokens", format!("{{{{ [{}] }}}}", "1,".repeat(500_000))),
        ("as many tokens as fit", format!("{{{{ [{}] }}}}{{{{ x.y }}}}", "1,".repeat(131_000))),
        ("as many tags as fit", "{{a}}".repeat(52_000) + "{{ x.y }}"),
        ("as many entries as fit", format!("{{{{ {{{}}} }}}}{{{{ x.y }}}}", "1:1,".repeat(65_000))),
        ("as many arguments as fit", format!("{{{{ f({}) }}}}", "1,".repeat(131_000))),
        ("as many named ones as fit", format!("{{% macro f() %}}{{{{ kwargs }}}}{{% endmacro %}}{{{{ f({}) }}}}{{{{ x.y }}}}", "a=1,".repeat(65_000))),
        ("as many parameters as fit", format!("{{% macro f({}) %}}{{% endmacro %}}{{{{ f() }}}}{{{{ x.y }}}}", "a,".repeat(130_000))),
        ("strings side by side", format!("{{{{ {} }}}}{{{{ x.y }}}}", "'a'".repeat(87_000))),
        ("raw without end", "{% raw %}".to_owned() + &"{%-".repeat(80_000)),
        ("almost raw", "{%".to_owned() + &" ".repeat(200_000) + "ra"),
        ("comments", "{#".repeat(130_000)),
        ("closing brackets", format!("{{{{ {}", ")".repeat(200_000))),
        ("dots", format!("{{{{ a{} }}}}", ".0".repeat(100_000))),
        ("digits", format!("{{{{ {} }}}}", "9".repeat(200_000))),
        ("float", format!("{{{{ {}.0 }}}}{{{{ x.y }}}}", "9".repeat(200_000))),
        ("underscores", format!("{{{{ 1{} }}}}", "_1".repeat(100_000))),
        ("list times nothing", "{{ ([] * 9223372036854775807) | length }}{{ x.y }}".into()),
        ("center", "{{ 'x' | center(100000000000) }}".into()),
        ("percent width", "{{ '%100000000000d' % 1 }}".into()),
        ("percent precision", "{{ '%.100000000000f' % 1 }}".into()),
        ("percent, many", format!("{{{{ '{}' % 1 }}}}", "%1000d".repeat(30_000))),
        ("braces format", format!("{{% set x = 'xxxxxxxx' %}}{}", "{% set x = '{0}{0}{0}'.format(x) %}".repeat(40))),
        ("separators", "{% set x = 'x' * 60000 %}{{ range(10000) | list | tojson(separators=(x, x)) }}".into()),
        ("batch", "{{ [1] | batch(100000000000, 0) | list }}".into()),
        ("sum of lists", "{% set x = range(1000) | list %}{{ ([x] * 1000) | sum(start=[]) | length }}".into()),
        ("group", "{{ ([{'a': 1}] * 100000) | groupby('a') }}".into()),
        ("varargs", "{% macro f() %}{{ f(*(varargs + varargs)) }}{% endmacro %}{{ f(1, 2, 3) }}".into()),
        ("caller", "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}".to_owned() + &"{% call f() %}".repeat(100) + "x" + &"{% endcall %}".repeat(100)),
        ("recursive loop, for ever", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".into()),
        ("recursive loop, wide", "{% for x in range(50) recursive %}{{ loop(range(50)) }}{% endfor %}".into()),
        ("a namespace in itself", "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}".into()),
        ("a chain of namespaces", "{% set ns = namespace() %}{% for i in range(100000) %}{% set ns.next = namespace(next=ns.next) %}{% endfor %}{{ ns }}".into()),
        ("joiner", "{% set j = joiner('x' * 1000000) %}{% for i in range(1000) %}{{ j() }}{% endfor %}".into()),
        ("unclosed string", format!("{{{{ '{}", "\\x".repeat(50_000))),
    ]
}

/// All of them, one after the other. With `RECUA_HOSTILE_PEAK` set the peak memory is checked too; that needs a process of its own,
/// which [`memory_is_bounded`] starts.
#[test]
fn templates_are_refused_quickly() {
    for (name, source) in hostile() {
        let start = Instant::now();
        let result = render(&source);
        let elapsed = start.elapsed();
        assert!(elapsed < Duration::from_secs(5), "{name}: {elapsed:?}");
        match result {
            Ok(text) => panic!("{name}: gave {} bytes", text.len()),
            Err(Error::Failed { .. } | Error::Limit(_)) => {}
            Err(error) => panic!("{name}: {error}"),
        }
    }
    if std::env::var_os("RECUA_HOSTILE_PEAK").is_some() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        eprintln!("peak {} MiB", peak >> 10);
        assert!(peak < PEAK_KIB, "{} MiB", peak >> 10);
    }
}

#[test]
fn memory_is_bounded() {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: the peak is read from /proc");
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hostile::templates_are_refused_quickly", "--nocapture"])
        .env("RECUA_HOSTILE_PEAK", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("peak "), "{text}");
}

/// The deepest templates that are allowed need little stack, whether they are parsed, run or dropped.
#[test]
fn a_small_stack_is_enough() {
    let nested = |open: &str, inner: &str, close: &str, n: usize| open.repeat(n) + inner + &close.repeat(n);
    let mut templates: Vec<String> =
        [("(", ")"), ("[", "]"), ("f(", ")"), ("a[", "]"), ("{1:", "}"), ("not ", ""), ("- ", "")]
            .into_iter()
            .map(|(open, close)| format!("{{{{ {} }}}}", nested(open, "1", close, 120)))
            .collect();
    templates.extend(
        ["+1", "~1", " or 0", "|e", ".a", " is none"].map(|tail| format!("{{{{ a{} }}}}", tail.repeat(240))),
    );
    templates.push(nested("{% if 1 %}", "x", "{% endif %}", 245));
    templates.push(nested("{% for a in [1] %}", "x", "{% endfor %}", 245));
    templates.push(nested("{% set a %}", "x", "{% endset %}", 245));
    templates.push(nested("{% macro f() %}", "x", "{% endmacro %}", 245));
    templates.push("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}".into());
    templates.push("{% macro f(n) %}{% if 1 %}{% for a in [1] %}{% set x %}{{ [{1: f(n)}] }}{% endset %}{{ x }}{% endfor %}{% endif %}{% endmacro %}{{ f(0) }}".into());
    templates.push("{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{{ caller() }}{% endmacro %}{% call f() %}x{% endcall %}".into());
    templates.push("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".into());
    templates.push(format!("{{{{ [messages] | map({}'upper') | list }}}}", "'map',".repeat(1500)));
    templates.push("{% set ns = namespace(x=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}{{ ns.x | tojson }}{{ ns.x == ns.x }}".into());
    templates.push("{% set ns = namespace() %}{% for i in range(9000) %}{% set ns.next = namespace(next=ns.next) %}{% endfor %}".into());
    let run = move || {
        for template in &templates {
            let _ = render(template);
        }
    };
    // The default of the standard library. With optimisation, a fifth of it is used.
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

/// A cycle through a namespace is freed when the rendering ends, and so is a chain of many.
#[test]
fn namespaces_are_freed() {
    for _ in 0..300 {
        let template = "{% set ns = namespace() %}{% set ns.me = [ns] %}{% set ns.text = 'x' * 1000000 %}{{ ns.text | length }}";
        assert_eq!(render(template).as_deref(), Ok("1000000"));
    }
}

/// Real templates with pieces cut out, doubled and swapped: any outcome is fine, but no panic.
#[test]
fn mangled_templates_do_not_panic() {
    let mut state = 1u64;
    let mut random = |below: usize| {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    };
    // All that expressions are made of, so that whole words are exchanged and most results still parse.
    let corpus = [LLAMA_3_1, QWEN_3, include_str!("language.rs"), include_str!("jinja.rs")].join(" ");
    let words: Vec<&str> = corpus.split_inclusive([' ', '(', ')', '[', ']', '|', '.', '~', ',']).collect();
    let tags: Vec<&str> = [LLAMA_3_1, QWEN_3]
        .iter()
        .flat_map(|template| template.split_inclusive("%}").flat_map(|part| part.split_inclusive("}}")))
        .collect();
    for round in 0..3000 {
        let template = if round % 2 == 0 { LLAMA_3_1 } else { QWEN_3 };
        let mut words_here: Vec<&str> =
            template.split_inclusive([' ', '(', ')', '[', ']', '|', '.']).collect();
        for _ in 0..=random(3) {
            let at = random(words_here.len());
            match random(4) {
                0 => words_here[at] = words[random(words.len())],
                1 => words_here.swap(at, 0),
                2 => words_here.insert(at, tags[random(tags.len())]),
                _ => drop(words_here.remove(at)),
            }
        }
        let source = words_here.concat();
        let _ = render(&source);
    }
}

/// Every operator, filter, test, method and function with every kind of operand.
#[test]
fn odd_operands_do_not_panic() {
    let operands = [
        "missing",
        "none",
        "true",
        "0",
        "-1",
        "9223372036854775807",
        "(-9223372036854775807 - 1)",
        "1.5",
        "1e308",
        "''",
        "'é<'",
        "[]",
        "[1, 'a', none]",
        "{}",
        "{'a': [1]}",
        "range",
        "namespace(a=1)",
        "messages",
    ];
    let mut expressions = Vec::new();
    for a in operands {
        for b in operands {
            for op in ["+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "and"] {
                expressions.push(format!("{a} {op} {b}"));
            }
            for filter in [
                "trim",
                "upper",
                "title",
                "string",
                "e",
                "length",
                "int",
                "float",
                "bool",
                "abs",
                "default",
                "replace",
                "indent",
                "tojson",
                "items",
                "dictsort",
                "list",
                "first",
                "last",
                "join",
                "reverse",
                "sort",
                "unique",
                "min",
                "max",
                "map",
                "select",
                "reject",
                "selectattr",
                "rejectattr",
            ] {
                expressions.push(format!("{a} | {filter}"));
                expressions.push(format!("{a} | {filter}({b})"));
                expressions.push(format!("{a} | {filter}({b}, {b}, {b})"));
                expressions.push(format!("{a} | {filter}(filter={b}, attribute={b}, indent={b})"));
            }
            for test in
                ["eq", "lt", "in", "odd", "divisibleby", "sameas", "upper", "startingwith", "iterable"]
            {
                expressions.push(format!("{a} is {test}({b})"));
            }
            for method in [
                "strip",
                "split",
                "rsplit",
                "splitlines",
                "startswith",
                "replace",
                "join",
                "find",
                "rfind",
                "index",
                "count",
                "isdigit",
                "removeprefix",
                "get",
                "items",
                "keys",
                "values",
                "cycle",
                "title",
            ] {
                expressions.push(format!("({a}).{method}()"));
                expressions.push(format!("({a}).{method}({b})"));
                expressions.push(format!("({a}).{method}({b}, {b}, {b})"));
            }
            for function in ["range", "namespace", "dict", "strftime_now"] {
                expressions.push(format!("{function}({a}, {b})"));
                expressions.push(format!("{function}({a}, {b}, {b})"));
                expressions.push(format!("{function}(a={a}, b={b})"));
            }
            expressions.push(format!("({a})[{b}]"));
            expressions.push(format!("({a})[{b}:]"));
            expressions.push(format!("({a})[:{b}:{b}]"));
            expressions.push(format!("({a})[{b}::-1]"));
            expressions.push(format!("-{a}"));
        }
    }
    for expression in expressions {
        let _ = render(&format!("{{{{ {expression} }}}}"));
    }
}
